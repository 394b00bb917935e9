"""The network that remembers: a forward pass, its gradient by hand, and a pass with the weights of every token."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from windeye.kernels.associative.coefficients import Coefficients

Activation = Literal["gelu", "silu", "relu", "tanh"]
EPSILON = 1e-5
"""In the normalisation of a network with a residual."""

Weights = Sequence[Float[Tensor, "rows inner outer"]]


class Written(NamedTuple):
    """What the gradients of a chunk are made of: layer ``l`` of token ``j`` has ``inputs[l][j] grads[l][j]^T``."""

    inputs: list[Float[Tensor, "rows tokens inner"]]
    grads: list[Float[Tensor, "rows tokens outer"]]


@dataclass(frozen=True)
class Network:
    """``M(x) = f_L(... f_1(x W_1) ... W_L)``, the last layer without activation, over rows that each have weights.

    With ``gain`` the network is ``M(x) = x + normalised(f(x)) (1 + gain)``. Everything is made of differentiable
    products, so that training through the memory is ordinary differentiation.
    """

    activation: Activation
    factor: float
    """The gradient of the loss is ``factor (M(k) - v)``."""
    gain: Float[Tensor, "rows 1 dim"] | None = None
    max_grad_norm: float | None = None

    def write(
        self,
        key: Float[Tensor, "rows tokens dim"],
        value: Float[Tensor, "rows tokens value_dim"],
        weights: Weights,
        decayed: Float[Tensor, "rows tokens 1"] | None,
    ) -> Written:
        """Gradients of every token's loss at the same weights, or at each token's ``decayed`` multiple of them."""
        act, slope = ACTIVATIONS[self.activation]
        inputs, outputs = [key], []
        for weight in weights:
            out = inputs[-1] @ weight
            outputs.append(out if decayed is None else out * decayed)
            inputs.append(act(outputs[-1]))
        grad = self._last_gradient(key, value, outputs[-1])
        grads = [grad]
        for weight, out in zip(reversed(weights[1:]), reversed(outputs[:-1]), strict=True):
            grad = grad @ weight.transpose(-1, -2)
            grad = slope(out) * (grad if decayed is None else grad * decayed)
            grads.append(grad)
        return self._clipped(Written(inputs[:-1], grads[::-1]))

    def read(
        self,
        query: Float[Tensor, "rows tokens dim"],
        written: Written,
        by: Coefficients,
        weights: Weights,
        momentum: Weights,
    ) -> Float[Tensor, "rows tokens value_dim"]:
        """Every query through the weights as they are after its own token; none of those weights is ever built.

        A layer of the network is linear in its weights, so it is two products with what the chunk started with and one
        masked product with the chunk's gradients: causal attention with keys ``inputs`` and values ``-grads``.
        """
        act, _ = ACTIVATIONS[self.activation]
        kept, carried = by.kept[..., None], by.carried[..., None]
        hidden = query
        for layer, (inputs, grads, weight, surge) in enumerate(zip(*written, weights, momentum, strict=True)):
            scores = (hidden @ inputs.transpose(-1, -2)) * by.mask
            out = torch.baddbmm((kept * hidden) @ weight, carried * hidden, surge)
            out = torch.baddbmm(out, scores, grads, alpha=-1)
            hidden = out if layer == len(weights) - 1 else act(out)
        return self._with_residual(query, hidden)

    def recall(self, query: Float[Tensor, "rows tokens dim"], weights: Weights) -> Float[Tensor, "rows tokens value"]:
        """Every query through the same weights; nothing is written."""
        act, _ = ACTIVATIONS[self.activation]
        hidden = query
        for weight in weights[:-1]:
            hidden = act(hidden @ weight)
        return self._with_residual(query, hidden @ weights[-1])

    def _last_gradient(self, key: Tensor, value: Tensor, out: Tensor) -> Tensor:
        if self.gain is None:
            return self.factor * (out - value)
        spread = (out.var(-1, correction=0, keepdim=True) + EPSILON).sqrt()
        normal = (out - out.mean(-1, keepdim=True)) / spread
        grad = self.factor * (key + normal * (1 + self.gain) - value) * (1 + self.gain)
        along = (grad * normal).mean(-1, keepdim=True)
        return (grad - grad.mean(-1, keepdim=True) - normal * along) / spread

    def _with_residual(self, query: Tensor, out: Tensor) -> Tensor:
        if self.gain is None:
            return out
        return query + F.layer_norm(out, out.shape[-1:], eps=EPSILON) * (1 + self.gain)

    def _clipped(self, written: Written) -> Written:
        """Gradients no longer than ``max_grad_norm``, per token over all layers; an outer product has the product of
        its lengths."""
        if self.max_grad_norm is None:
            return written
        squares = (
            inputs.square().sum(-1, keepdim=True) * grads.square().sum(-1, keepdim=True)
            for inputs, grads in zip(*written, strict=True)
        )
        # The square root has no slope at zero, where nothing is to be clipped anyway.
        norm = torch.stack(list(squares)).sum(0).clamp(min=self.max_grad_norm**2).sqrt()
        shrink = self.max_grad_norm / norm
        return Written(written.inputs, [grads * shrink for grads in written.grads])


def updated(
    weights: Weights,
    momentum: Weights,
    written: Written,
    by: Coefficients,
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and momentum after the last token of a chunk."""
    kept, carried, last = by.kept[..., -1, None, None], by.carried[..., -1, None, None], by.mask[..., -1, :, None]
    new_weights, new_momentum = [], []
    for inputs, grads, weight, surge in zip(*written, weights, momentum, strict=True):
        keys = inputs.transpose(-1, -2)
        new_weights.append(torch.baddbmm(torch.addcmul(kept * weight, carried, surge), keys, last * grads, alpha=-1))
        new_momentum.append(
            torch.baddbmm(by.momentum[..., None, None] * surge, keys, by.last[..., None] * grads, alpha=-1)
        )
    return new_weights, new_momentum


def _gelu_slope(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _silu_slope(x: Tensor) -> Tensor:
    share = torch.sigmoid(x)
    return share * (1 + x * (1 - share))


def _relu_slope(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _tanh_slope(x: Tensor) -> Tensor:
    return 1 - torch.tanh(x).square()


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "gelu": (F.gelu, _gelu_slope),
    "silu": (F.silu, _silu_slope),
    "relu": (F.relu, _relu_slope),
    "tanh": (torch.tanh, _tanh_slope),
}
"""Each with its derivative, both differentiable."""
assert tuple(ACTIVATIONS) == get_args(Activation)
