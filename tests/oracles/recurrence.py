"""Linear attention as a double loop over tokens in float64: nothing but the definition; and problems to try it on."""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import torch
from hypothesis import strategies as st


@dataclass(frozen=True)
class Problem:
    batch: int = 1
    tokens: int = 7
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 4
    value_dim: int = 3
    decay: str = "none"
    """none | head | token | wild (per token, with -inf, 0 and -1e4)"""
    feature_map: str | None = None
    normalize: bool = False
    state: bool = False
    bounds: tuple[int, ...] | None = None
    lengths: tuple[int, ...] | None = None
    layout: str = "plain"
    chunk_size: int | None = None

    @property
    def sequences(self):
        return self.batch if self.bounds is None else len(self.bounds) - 1

    @property
    def features(self):
        d = self.head_dim
        return d if self.feature_map is None else 1 + d + d * (d + 1) // 2


@dataclass(frozen=True)
class Inputs:
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    log_decay: torch.Tensor | None
    initial_state: torch.Tensor | None
    grad_out: torch.Tensor
    grad_state: torch.Tensor
    options: dict

    def leaves(self):
        return [t for t in (self.query, self.key, self.value, self.log_decay, self.initial_state) if t is not None]


def inputs(problem, dtype=torch.float64, wide=torch.float64):
    """Random tensors in the layout that the problem asks for; queries, keys and values are exact in bfloat16."""
    p = problem
    generator = torch.Generator().manual_seed(p.tokens + 100 * p.head_dim)

    def random(*shape):
        return torch.randn(shape, generator=generator).bfloat16().to(dtype)

    def tensor(heads, dim):
        if p.layout == "permuted":
            return random(p.batch, heads, p.tokens, dim).transpose(1, 2)
        if p.layout == "sliced":
            return random(p.batch, 2 * p.tokens, 2 * heads, 2 * dim)[:, ::2, ::2, ::2]
        return random(p.batch, p.tokens, heads, dim)

    small = p.head_dim**-0.5 if p.feature_map else 1.0
    q, k, v = (
        tensor(p.heads, p.head_dim) * small,
        tensor(p.kv_heads, p.head_dim),
        tensor(p.kv_heads, p.value_dim),
    )
    g = None
    if p.decay == "head":
        g = -torch.rand(p.heads, generator=generator)
    elif p.decay != "none":
        g = -torch.rand(p.batch, p.tokens, p.heads, generator=generator)
        if p.decay == "wild":
            kind = torch.randint(6, g.shape, generator=generator)
            g = g.masked_fill(kind == 0, -torch.inf).masked_fill(kind == 1, 0.0).masked_fill(kind == 2, -1e4)
    columns = p.value_dim + p.normalize
    state = torch.randn(p.sequences, p.heads, p.features, columns, generator=generator)
    if p.normalize:
        # A state that a past could have left: positive denominators for every query.
        state = torch.zeros_like(state)
        state[..., 0, :] = torch.rand(p.sequences, p.heads, columns, generator=generator) + 0.5
    leaves = [q, k, v, None if g is None else g.to(wide), state.to(wide) if p.state else None]
    leaves = [None if t is None else t.detach().requires_grad_() for t in leaves]
    options = {
        "feature_map": p.feature_map,
        "normalize": p.normalize,
        "scale": 0.7,
        "cu_seqlens": None if p.bounds is None else torch.tensor(p.bounds),
        "lengths": None if p.lengths is None else torch.tensor(p.lengths),
        "chunk_size": p.chunk_size,
    }
    grad_out = random(p.batch, p.tokens, p.heads, p.value_dim)
    grad_state = torch.randn(state.shape, generator=generator).to(wide)
    return Inputs(*leaves, grad_out, grad_state, options)


def phi(feature_map, x):
    """Features one by one: 1, x, squares over sqrt 2, products below the diagonal row by row."""
    if feature_map is None:
        return x
    features = [torch.ones((), dtype=x.dtype), *x, *(x * x / sqrt(2))]
    features += [x[i] * x[j] for i in range(len(x)) for j in range(i)]
    return torch.stack(features)


def truth(problem, data):
    """``(out, final_state)``: every pair of tokens of every sequence and head, one after the other."""
    p = problem
    q, k, v = (t.double() for t in (data.query, data.key, data.value))
    if p.bounds is not None:
        where = [(0, a, b) for a, b in pairwise(p.bounds)]
    else:
        where = [(b, 0, n) for b, n in enumerate(p.lengths or (p.tokens,) * p.batch)]
    columns = p.value_dim + p.normalize
    outs = {}
    states = []
    for s, (b, first, last) in enumerate(where):
        for h in range(p.heads):
            kv = h // (p.heads // p.kv_heads)

            def factor(i, h=h, b=b):
                if data.log_decay is None:
                    return torch.ones((), dtype=torch.float64)
                g = data.log_decay.double()
                return torch.exp(g[h] if g.dim() == 1 else g[b, i, h])

            def row(j, b=b, kv=kv):
                return torch.cat([v[b, j, kv], v.new_ones(1)]) if p.normalize else v[b, j, kv]

            start = torch.zeros(p.features, columns, dtype=torch.float64)
            if data.initial_state is not None:
                start = data.initial_state[s, h].double()
            for i in range(first, last):
                total = torch.zeros(columns, dtype=torch.float64)
                kept = torch.ones((), dtype=torch.float64)
                for j in range(i, first - 1, -1):
                    u = q[b, i, h] @ k[b, j, kv]
                    weight = u if p.feature_map is None else 1 + u + u * u / 2
                    total = total + weight * kept * row(j)
                    kept = kept * factor(j)
                total = total + kept * (phi(p.feature_map, q[b, i, h]) @ start)
                if p.normalize:
                    total = total[:-1] / (total[-1] + 1e-12)
                outs[b, i, h] = 0.7 * total
            state = start
            for i in range(first, last):
                state = factor(i) * state + torch.outer(phi(p.feature_map, k[b, i, kv]), row(i))
            states.append(state)
    nothing = torch.zeros(p.value_dim, dtype=torch.float64)
    out = [outs.get((b, i, h), nothing) for b in range(p.batch) for i in range(p.tokens) for h in range(p.heads)]
    out = torch.stack(out) if out else torch.zeros(0, dtype=torch.float64)
    return (
        out.reshape(p.batch, p.tokens, p.heads, p.value_dim),
        torch.stack(states).reshape(p.sequences, p.heads, p.features, columns),
    )


def gradients(out, state, data):
    """Gradients of every leaf for the problem's cotangents of the output and of the final state."""
    loss = (out.double() * data.grad_out.double()).sum() + (state.double() * data.grad_state.double()).sum()
    loss = loss + sum(0 * t[torch.isfinite(t)].sum() for t in data.leaves())
    return torch.autograd.grad(loss, data.leaves())


@st.composite
def problems(draw, most_tokens):
    """Random problems of small size with everything mixed."""
    tokens = draw(st.integers(0, most_tokens))
    bounds = lengths = None
    batch = draw(st.sampled_from((1, 2, 3)))
    kind = draw(st.sampled_from(("plain", "packed", "padded")))
    if kind == "packed":
        batch = 1
        inner = draw(st.lists(st.integers(0, tokens), max_size=4))
        bounds = (0, *sorted(inner), tokens)
    elif kind == "padded":
        lengths = tuple(draw(st.integers(0, tokens)) for _ in range(batch))
    kv_heads = draw(st.sampled_from((1, 2)))
    feature_map = draw(st.sampled_from((None, "taylor2")))
    return Problem(
        batch=batch, tokens=tokens, kv_heads=kv_heads, heads=kv_heads * draw(st.sampled_from((1, 3))),
        head_dim=draw(st.sampled_from((1, 3, 8, 17) if feature_map is None else (1, 3, 5))),
        value_dim=draw(st.sampled_from((1, 5, 16, 33))), decay=draw(st.sampled_from(("none", "head", "token", "wild"))),
        feature_map=feature_map, normalize=feature_map is not None and draw(st.booleans()), state=draw(st.booleans()),
        bounds=bounds, lengths=lengths, layout=draw(st.sampled_from(("plain", "permuted", "sliced"))),
        chunk_size=draw(st.sampled_from((None, 1, 5, 8, 16))),
    )  # fmt: skip
