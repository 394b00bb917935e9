"""Test-time memory as its definition: a loop over tokens whose gradients automatic differentiation takes."""

import torch
import torch.nn.functional as F

ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu, "tanh": torch.tanh}


def network(x, weights, activation, gain):
    """One token through one head's network."""
    hidden = x
    for layer, weight in enumerate(weights):
        hidden = hidden @ weight
        if layer < len(weights) - 1:
            hidden = ACTIVATIONS[activation](hidden)
    if gain is None:
        return hidden
    return x + (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt() * (1 + gain)


def memory(
    query, key, value, weights, *, step_size, momentum=None, forget=None, chunk_size=64, activation="gelu",
    loss_factor=1.0, reduction="sum", residual_gain=None, predict_decayed=False, max_grad_norm=None, lengths=None,
):  # fmt: skip
    """Outputs, and of every sequence and head the weights, momenta and anchors after its last token."""
    batch, n, heads, _ = query.shape
    out = torch.zeros_like(value)
    after = {}
    for b in range(batch):
        for h in range(heads):
            gain = None if residual_gain is None else residual_gain[h]
            now = [weight[h] for weight in weights]
            surge = [torch.zeros_like(weight) for weight in now]
            anchor = now
            for t in range(n if lengths is None else int(lengths[b])):
                if t % chunk_size == 0:
                    anchor = now
                keep = 1 - (0 if forget is None else forget[b, t, h])
                at = [weight * keep if predict_decayed else weight for weight in anchor]
                # The gradient is itself differentiated by the outer loss.
                at = [weight if weight.requires_grad else weight.clone().requires_grad_() for weight in at]
                loss = loss_factor / 2 * (network(key[b, t, h], at, activation, gain) - value[b, t, h]).square().sum()
                grads = torch.autograd.grad(loss, at, create_graph=True)
                if reduction == "mean":
                    grads = [grad / chunk_size for grad in grads]
                if max_grad_norm is not None:
                    norm = torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()
                    if norm > max_grad_norm:
                        grads = [grad * (max_grad_norm / norm) for grad in grads]
                carried = 0 if momentum is None else momentum[b, t, h]
                surge = [carried * s - step_size[b, t, h] * grad for s, grad in zip(surge, grads, strict=True)]
                now = [keep * weight + s for weight, s in zip(now, surge, strict=True)]
                out[b, t, h] = network(query[b, t, h], now, activation, gain)
            after[b, h] = (now, surge)
    return out, after
