"""Short causal convolutions as token mixers (Based and its benchmark)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.memory import ConvolutionState, State
from windeye.nn.activations import Activation, activation_of
from windeye.nn.mixer import SequenceMixer, check_count, expect


class GatedShortConvolution(SequenceMixer):
    """``out_proj(silu(conv(u)) * g)`` with ``u, g = in_proj(x)`` and a causal convolution of each channel.

    Args:
        dim: channels in and out.
        kernel_size: tokens that the convolution reads, itself counted.
        expand: ``in_proj`` gives ``expand dim`` channels, half for ``u`` and half for ``g``.
        conv_bias: whether the convolution has a bias; checkpoints of Based come with and without.

    Raises:
        ValueError, TypeError: sizes do not fit.

    Source: based spec; equal to the official layer, see tests/nn/test_based_layers.py.

    Example:
        >>> layer = GatedShortConvolution(16)
        >>> out, state = layer(torch.randn(2, 50, 16), return_state=True)
        >>> state.inputs.shape
        torch.Size([2, 2, 32])
    """

    def __init__(self, dim: int, kernel_size: int = 3, *, expand: int = 4, conv_bias: bool = False) -> None:
        super().__init__(dim)
        if check_count("expand", expand) * dim % 2:
            raise ValueError(f"expand * dim must be even, got {expand} * {dim}")
        self.inner = expand * dim // 2
        self.in_proj = nn.Linear(dim, 2 * self.inner)
        self.conv = _depthwise(self.inner, kernel_size, conv_bias)
        self.out_proj = nn.Linear(self.inner, dim)

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], ConvolutionState]:
        branch, gate = self.in_proj(x).chunk(2, dim=-1)
        convolved, after = convolve(self.conv, branch, lengths, expect(state, ConvolutionState))
        return self.out_proj(F.silu(convolved) * gate), after

    def state_bytes(self, n: int) -> int:  # noqa: ARG002 - constant
        return (self.conv.kernel_size[0] - 1) * self.inner * self.itemsize


class ProductConvolution(SequenceMixer):
    """``activation(conv(x)) * activation(proj(x)) + x``, the convolution layer of the MQAR benchmark.

    Args:
        dim: channels in and out.
        kernel_size: tokens that the convolution reads, itself counted.
        activation: on both branches.

    Source: based spec (zoology's variant).

    Example:
        >>> ProductConvolution(16)(torch.randn(2, 50, 16)).shape
        torch.Size([2, 50, 16])
    """

    def __init__(self, dim: int, kernel_size: int = 3, *, activation: Activation = "none") -> None:
        super().__init__(dim)
        self.activation = activation
        self._activate = activation_of(activation)
        self.conv = _depthwise(dim, kernel_size, bias=True)
        self.proj = nn.Linear(dim, dim)

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], ConvolutionState]:
        convolved, after = convolve(self.conv, x, lengths, expect(state, ConvolutionState))
        return self._activate(convolved) * self._activate(self.proj(x)) + x, after

    def state_bytes(self, n: int) -> int:  # noqa: ARG002 - constant
        return (self.conv.kernel_size[0] - 1) * self.dim * self.itemsize


def convolve(
    conv: nn.Conv1d,
    x: Float[Tensor, "batch n channels"],
    lengths: Int[Tensor, " batch"] | None,
    past: ConvolutionState | None,
) -> tuple[Float[Tensor, "batch n channels"], ConvolutionState]:
    """A causal convolution over tokens that continue ``past``, and the state after them."""
    past = ConvolutionState.empty(x, conv.kernel_size[0]) if past is None else past
    joined = torch.cat((past.inputs, x), dim=1)
    # A few shifted products, on tokens as they lie: no slower than a convolution of channels first, and a step of one
    # token takes a quarter of the time.
    out = x.new_zeros(()) if conv.bias is None else conv.bias
    for place, weight in enumerate(conv.weight[:, 0].unbind(-1)):
        out = torch.addcmul(out, joined[:, place : place + x.shape[1]], weight)
    return out, past.append(x, lengths)


def _depthwise(channels: int, kernel_size: int, bias: bool) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, check_count("kernel_size", kernel_size), groups=channels, bias=bias)
