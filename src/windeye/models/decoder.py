"""A decoder language model made of any sequence mixers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from windeye.memory import HybridState, State
from windeye.models.mixers import MIXERS, MixerSpec
from windeye.nn import GatedLinearUnit
from windeye.nn.activations import Activation
from windeye.nn.mixer import check_count
from windeye.nn.norms import Norm, norm_of
from windeye.nn.padding import layout_of


@dataclass(frozen=True)
class DecoderConfig:
    """What a `DecoderLM` is.

    Example:
        >>> from windeye.models import AttentionSpec, LightningSpec
        >>> config = DecoderConfig(vocab_size=256, dim=64, mixers=(LightningSpec(), AttentionSpec(window=32)))
        >>> DecoderConfig.from_dict(config.to_dict()) == config
        True
    """

    vocab_size: int
    dim: int
    mixers: tuple[MixerSpec, ...]
    """One per layer."""
    glu_dim: int | None = None
    """Inner width of the gated linear unit after each mixer; None leaves it out."""
    glu_activation: Activation = "silu"
    norm: Norm = "rms"
    """Before each mixer and each gated linear unit, and before the head."""
    norm_eps: float = 1e-5
    tied_head: bool = True
    """The head is the embedding."""
    embedding_scale: float = 1.0
    embedding_dropout: float = 0.0
    init_std: float = 0.02
    scaled_init: bool = False
    """Weights that write into the residual stream start smaller by ``sqrt(2 layers)``."""
    residual_scale: bool = False
    """Channels of the residual stream are scaled before each branch is added, by learned factors that start at 1."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        return {**asdict(self), "mixers": [MIXERS.to_dict(spec) for spec in self.mixers]}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        return cls(**settings | {"mixers": tuple(MIXERS.from_dict(spec) for spec in settings["mixers"])})


class DecoderBlock(nn.Module):
    """``x + mixer(norm(x))``, then ``x + glu(norm(x))``; with residual scales ``scale * x + ...`` in both."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.mixer_norm = norm_of(config.norm, config.dim, config.norm_eps)
        self.mixer = config.mixers[layer].build(config.dim, layer, len(config.mixers))
        self.channel_norm: nn.Module | None = None
        self.channel_mixer: nn.Module | None = None
        if config.glu_dim is not None:
            self.channel_norm = norm_of(config.norm, config.dim, config.norm_eps)
            self.channel_mixer = GatedLinearUnit(config.dim, config.glu_dim, config.glu_activation)
        self.mixer_residual = nn.Parameter(torch.ones(config.dim)) if config.residual_scale else None
        scaled = config.residual_scale and config.glu_dim is not None
        self.channel_residual = nn.Parameter(torch.ones(config.dim)) if scaled else None

    def forward(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], State]:
        mixed, state = self.mixer(self.mixer_norm(x), lengths=lengths, state=state, return_state=True)
        x = _scaled(x, self.mixer_residual) + mixed
        if self.channel_norm is not None and self.channel_mixer is not None:
            x = _scaled(x, self.channel_residual) + self.channel_mixer(self.channel_norm(x))
        return x, state


class DecoderLM(nn.Module):
    """Embedding, blocks, norm and head. Padding and states follow the contract of `windeye.nn.SequenceMixer`.

    Example:
        >>> import torch
        >>> from windeye.models import ConvolutionSpec, TaylorSpec
        >>> model = DecoderLM(DecoderConfig(50, 32, (ConvolutionSpec(), TaylorSpec()), glu_dim=64))
        >>> ids = torch.randint(50, (2, 20))
        >>> logits, state = model(ids[:, :12], return_state=True)
        >>> rest = model(ids[:, 12:], state=state)
        >>> torch.allclose(torch.cat((logits, rest), dim=1), model(ids), atol=1e-5)
        True
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        if not config.mixers:
            raise ValueError("mixers must name at least one layer")
        self.config = config
        self.embedding = nn.Embedding(check_count("vocab_size", config.vocab_size), check_count("dim", config.dim))
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.blocks = nn.ModuleList(DecoderBlock(config, layer) for layer in range(len(config.mixers)))
        self.norm = norm_of(config.norm, config.dim, config.norm_eps)
        self.head = None if config.tied_head else nn.Linear(config.dim, config.vocab_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Linear maps and embeddings start normal with ``init_std``, biases zero; the rest as its modules say."""
        std = self.config.init_std
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = self.config.scaled_init and name.endswith("out_proj")
                nn.init.normal_(module.weight, std=std / math.sqrt(2 * len(self.blocks)) if residual else std)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    @overload
    def forward(
        self, ids: Tensor, *, padding: Tensor | None = ..., lengths: Tensor | None = ...,
        cu_seqlens: Tensor | None = ..., state: State | None = ..., return_state: Literal[False] = ...,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def forward(
        self, ids: Tensor, *, padding: Tensor | None = ..., lengths: Tensor | None = ...,
        cu_seqlens: Tensor | None = ..., state: State | None = ..., return_state: Literal[True],
    ) -> tuple[Tensor, HybridState]: ...  # fmt: skip

    def forward(
        self,
        ids: Int[Tensor, "batch n"],
        *,
        padding: Bool[Tensor, "batch n"] | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
        cu_seqlens: Int[Tensor, " bounds"] | None = None,
        state: State | None = None,
        return_state: bool = False,
    ) -> Float[Tensor, "batch n vocab"] | tuple[Tensor, HybridState]:
        """Logits of the next token at every place.

        Args:
            ids: tokens in order.
            padding: True where there is no token, on any side; logits are zero there.
            lengths: padding on the right, as the number of true tokens.
            cu_seqlens: documents packed one after the other into batch 1, as rising bounds ``0 .. n``; none sees
                another, and states have a row per document. Costs what a batch of ``documents x longest`` costs.
            state: the past that these tokens continue.
            return_state: also return the past including these tokens.

        Raises:
            ValueError, TypeError: shapes or types do not fit; names the argument and the values.
        """
        _check(ids)
        layout = layout_of(ids, padding, lengths, cu_seqlens)
        hidden, after = self.hidden(layout.to_front(ids), lengths=layout.lengths, state=state)
        # Back before the head, which has no bias: it is not spent on padding, and zeros stay zeros.
        logits = self.logits(layout.back(hidden))
        return (logits, after) if return_state else logits

    def hidden(
        self, ids: Int[Tensor, "batch n"], *, lengths: Int[Tensor, " batch"] | None = None, state: State | None = None
    ) -> tuple[Float[Tensor, "batch n dim"], HybridState]:
        """What the head reads, and the state: for those who need logits of few places."""
        _check(ids)
        layout_of(ids, lengths=lengths)
        x = self.dropout(self.embedding(ids) * self.config.embedding_scale)
        states: list[State] = []
        for layer, (block, before) in enumerate(zip(self.blocks, self._per_layer(state), strict=True)):
            try:
                x, after = block(x, lengths, before)
            except ArithmeticError as error:
                error.add_note(f"in layer {layer} of {len(self.blocks)}")
                raise
            states.append(after)
        return self.norm(x), HybridState(states)

    def logits(self, hidden: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """The head."""
        return F.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)

    def state_bytes(self, n: int) -> int:
        """Memory that the past of one sequence of ``n`` tokens takes, counters left out."""
        return sum(block.mixer.state_bytes(n) for block in self.blocks if isinstance(block, DecoderBlock))

    def _per_layer(self, state: State | None) -> list[State] | list[None]:
        layers = len(self.blocks)
        if state is None:
            return [None] * layers
        if not isinstance(state, HybridState) or len(state.layers) != layers:
            raise ValueError(f"state must be a HybridState of {layers} layers, as this model returns it")
        return state.layers


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


def _check(ids: Tensor) -> None:
    if ids.dim() != 2:
        raise ValueError(f"ids must be [batch, tokens], got shape {tuple(ids.shape)}")
