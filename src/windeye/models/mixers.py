"""Sequence mixers as data: what a configuration says of a layer, and how the layer is built from it.

A new mixer registers a frozen dataclass whose defaults build on any width that is a multiple of 4; it then works in
every decoder and passes through the tests that all mixers share.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

from jaxtyping import Float
from torch import Tensor

from windeye.kernels.associative.network import Activation as MemoryActivation
from windeye.kernels.associative.problem import Reduction
from windeye.kernels.recurrence.decay import Convention, alibi_slopes, retnet_rates, tnl_rates
from windeye.nn import (
    CausalAttention,
    DynamicMaskAttention,
    GatedShortConvolution,
    LightningAttention,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    NeuralMemory,
    ProductConvolution,
    SequenceMixer,
    TaylorLinearAttention,
)
from windeye.nn.activations import Activation
from windeye.nn.dynamic_mask import Score, ScoreHeads
from windeye.nn.kinds import Kinds
from windeye.nn.lightning import Gate
from windeye.nn.norms import Norm

Rates = Literal[Convention, "alibi", "retnet", "none"]
TitansVariant = Literal["lmm", "mac", "mag", "mal"]


class MixerSpec(Protocol):
    """A frozen dataclass that builds a layer."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:
        """The mixer of layer number ``layer`` (from 0) of ``layers``."""
        ...


MIXERS: Kinds[MixerSpec] = Kinds("mixer")
"""Every registered kind of mixer."""

mixer = MIXERS.register
"""Registers a kind of mixer under its name in configurations."""


@mixer("lightning")
@dataclass(frozen=True)
class LightningSpec:
    """`windeye.nn.LightningAttention`. ``rates`` names a convention of `windeye.decay.tnl_rates`, or "alibi" (its
    slopes in every layer), "retnet" or "none"."""

    kind: ClassVar[str]
    heads: int = 4
    rates: Rates = "code"
    lrpe: bool = False
    hidden_dim: int | None = None
    activation: Activation = "silu"
    norm: Norm = "simple_rms"
    norm_eps: float = 1e-6
    gate: Gate = "linear"

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:
        return LightningAttention(
            dim, self.heads, self._rates(layer, layers), hidden_dim=self.hidden_dim, lrpe=self.lrpe,
            activation=self.activation, norm=self.norm, norm_eps=self.norm_eps, gate=self.gate,
        )  # fmt: skip

    def _rates(self, layer: int, layers: int) -> Float[Tensor, " heads"] | None:
        if self.rates == "none":
            return None
        if self.rates == "alibi":
            return alibi_slopes(self.heads)
        if self.rates == "retnet":
            return retnet_rates(self.heads)
        if self.rates not in get_args(Convention):
            known = ", ".join((*get_args(Convention), "alibi", "retnet", "none"))
            raise ValueError(f"rates must be one of {known}, got {self.rates!r}")
        return tnl_rates(self.heads, layer, layers, self.rates)


@mixer("taylor")
@dataclass(frozen=True)
class TaylorSpec:
    """`windeye.nn.TaylorLinearAttention`."""

    kind: ClassVar[str]
    heads: int = 4
    feature_dim: int = 16
    head_dim: int | None = None

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        return TaylorLinearAttention(dim, self.heads, self.feature_dim, head_dim=self.head_dim)


@mixer("attention")
@dataclass(frozen=True)
class AttentionSpec:
    """`windeye.nn.CausalAttention`: over everything, or over a sliding window."""

    kind: ClassVar[str]
    heads: int = 4
    window: int | None = None
    kv_heads: int | None = None
    rotary_base: float | None = 10000.0
    bias: bool = False

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        return CausalAttention(
            dim, self.heads, self.window, kv_heads=self.kv_heads, rotary_base=self.rotary_base, bias=self.bias
        )


@mixer("dynamic_mask")
@dataclass(frozen=True)
class DynamicMaskSpec:
    """`windeye.nn.DynamicMaskAttention`."""

    kind: ClassVar[str]
    heads: int = 4
    keep: int = 2048
    kv_heads: int | None = None
    head_dim: int | None = None
    score_heads: ScoreHeads = "query"
    score: Score = "exp"
    window: int | None = None
    rotary_base: float | None = 10000.0
    qk_norm: bool = False
    norm_eps: float = 1e-6
    a_std: float = 0.0
    bias: bool = False

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        return DynamicMaskAttention(dim, **asdict(self))


@mixer("titans")
@dataclass(frozen=True)
class TitansSpec:
    """The memory of Titans alone ("lmm", `windeye.nn.NeuralMemory`) or as context ("mac"), gate ("mag") or layer
    ("mal") of attention with ``heads`` heads.

    ``window`` is the window of attention, for "mac" the length of segments. ``memory_heads`` defaults to ``heads``.
    The rest is as in `windeye.nn.NeuralMemory`.
    """

    kind: ClassVar[str]
    variant: TitansVariant = "mac"
    heads: int = 4
    window: int = 32
    persistent: int = 4
    kv_heads: int | None = None
    rotary_base: float | None = 10000.0
    memory_heads: int | None = None
    memory_head_dim: int | None = None
    depth: int = 2
    expansion: int = 4
    chunk_size: int = 16
    max_step: float | None = None
    kernel_size: int = 4
    momentum: bool = True
    forgetting: bool = True
    activation: MemoryActivation = "gelu"
    loss_factor: float = 1.0
    reduction: Reduction = "sum"
    residual: bool = False
    predict_decayed: bool = False
    gate: Activation = "silu"
    """Activation of the gate in "mac" and "mag"."""
    max_grad_norm: float | None = None
    recompute: bool = False

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        if self.variant not in get_args(TitansVariant):
            raise ValueError(f"variant must be one of {', '.join(get_args(TitansVariant))}, got {self.variant!r}")
        memory = NeuralMemory(
            dim, self.heads if self.memory_heads is None else self.memory_heads, head_dim=self.memory_head_dim,
            depth=self.depth, expansion=self.expansion, chunk_size=self.chunk_size, max_step=self.max_step,
            kernel_size=self.kernel_size, persistent=self.persistent if self.variant == "lmm" else 0,
            momentum=self.momentum, forgetting=self.forgetting, activation=self.activation,
            loss_factor=self.loss_factor, reduction=self.reduction, residual=self.residual,
            predict_decayed=self.predict_decayed, max_grad_norm=self.max_grad_norm, recompute=self.recompute,
        )  # fmt: skip
        if self.variant == "lmm":
            return memory
        window = None if self.variant == "mac" else self.window
        attention = CausalAttention(
            dim, self.heads, window, kv_heads=self.kv_heads, rotary_base=self.rotary_base
        )  # fmt: skip
        if self.variant == "mac":
            return MemoryAsContext(attention, memory, self.window, self.persistent, self.gate)
        if self.variant == "mag":
            return MemoryAsGate(attention, memory, self.persistent, self.gate)
        return MemoryAsLayer(attention, memory, self.persistent)


@mixer("convolution")
@dataclass(frozen=True)
class ConvolutionSpec:
    """`windeye.nn.GatedShortConvolution`."""

    kind: ClassVar[str]
    kernel_size: int = 3
    expand: int = 4
    conv_bias: bool = False

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        return GatedShortConvolution(dim, self.kernel_size, expand=self.expand, conv_bias=self.conv_bias)


@mixer("product_convolution")
@dataclass(frozen=True)
class ProductConvolutionSpec:
    """`windeye.nn.ProductConvolution`."""

    kind: ClassVar[str]
    kernel_size: int = 3
    activation: Activation = "none"

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        return ProductConvolution(dim, self.kernel_size, activation=self.activation)
