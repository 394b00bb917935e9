"""A layer of dynamic mask attention, query by query, with nothing but the definitions."""

import math

import torch


def turned(vector, position, base):
    """Rotary position as products of complex numbers: coordinate ``c`` is the real part to ``c + half``."""
    if base is None:
        return vector
    half = len(vector) // 2
    rates = torch.tensor([base ** (-c / half) for c in range(half)], dtype=torch.float64)
    z = torch.complex(vector[:half], vector[half:]) * torch.exp(1j * position * rates)
    return torch.cat((z.real, z.imag))


def normed(vector, weight, eps=1e-6):
    return vector if weight is None else weight * vector / (vector.square().mean() + eps).sqrt()


def layer(x, w, *, heads, keep, score_heads, score, window, rotary_base):
    """``x`` [n, dim]; ``w`` holds weights by our names. Differentiable."""
    n, group = len(x), heads // score_heads if score_heads else 1
    head_dim = w["q_proj.weight"].shape[0] // heads
    kv_heads = w["k_proj.weight"].shape[0] // head_dim

    def projected(name, token, head):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        bias = w[f"{name}.bias"][rows] if f"{name}.bias" in w else 0
        return w[f"{name}.weight"][rows] @ token + bias

    values = [[projected("v_proj", token, g) for g in range(kv_heads)] for token in x]
    keys = [
        [turned(normed(projected("k_proj", token, g), w.get("k_norm.weight")), j, rotary_base) for g in range(kv_heads)]
        for j, token in enumerate(x)
    ]
    delta = []
    for j in range(n):
        together = torch.cat(values[j])
        tau = [torch.log1p(torch.exp(row @ together)) for row in w["dt_proj.weight"]]
        products = [a * t for a, t in zip(w["A"], tau, strict=True)]
        delta.append([torch.exp(p) if score == "exp" else p for p in products])
    outs = []
    for i in range(n):
        out = []
        for h in range(heads):
            s, g = h // group, h // (heads // kv_heads)
            query = turned(normed(projected("q_proj", x[i], h), w.get("q_norm.weight")), i, rotary_base)
            # Rounding must not decide between equal tokens.
            best = sorted(range(i + 1), key=lambda j, s=s: (round(float(delta[j][s].detach()), 9), j))[-keep:]
            seen = [j for j in best if window is None or j > i - window]
            if not seen:
                out.append(torch.zeros(head_dim, dtype=torch.float64))
                continue
            logits = torch.stack([query @ keys[j][g] / math.sqrt(head_dim) + delta[j][s] for j in seen])
            out.append(sum(p * values[j][g] for p, j in zip(logits.softmax(0), seen, strict=True)))
        outs.append(w["out_proj.weight"] @ torch.cat(out) + w.get("out_proj.bias", 0))
    return torch.stack(outs)
