"""Gated linear units: what mixes channels between two sequence mixers."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.activations import Activation, activation_of
from windeye.nn.mixer import check_count


class GatedLinearUnit(nn.Module):
    """``out_proj(value * activation(gate))`` with ``value, gate = in_proj(x)``; no biases.

    With ``activation="silu"`` it is SwiGLU, with "none" TransNormerLLM's SGLU. Rows of ``in_proj``: value, then gate.

    Example:
        >>> import torch
        >>> GatedLinearUnit(8, inner=24, activation="none")(torch.randn(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, inner: int, activation: Activation = "silu") -> None:
        super().__init__()
        check_count("inner", inner)
        self.activation = activation
        self._activate = activation_of(activation)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        value, gate = self.in_proj(x).chunk(2, dim=-1)
        return self.out_proj(value * self._activate(gate))

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"
