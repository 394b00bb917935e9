"""The ways of choosing keys that are compared, each as one block behind the skeleton's convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.memory import KeyValueState, State
from windeye.models import AttentionSpec, DynamicMaskSpec, MixerSpec
from windeye.nn import DynamicMaskAttention, SequenceMixer
from windeye.nn.mixer import positions
from windeye.nn.rotary import rotate
from windeye.ops import attend, topw_expiry
from windeye.patterns import Expiry

Choice = Literal["logits", "random"]


class ChoosingAttention(SequenceMixer):
    """A control: causal softmax attention over ``keep`` keys, with one head, that are chosen without a score.

    ``choice="logits"`` gives each query the keys of its own largest logits, which takes the full map: what a perfect
    selection would see. ``choice="random"`` ranks the keys of a sequence by fixed random numbers. Nothing is added to
    the logits. Whole sequences only.

    Example:
        >>> ChoosingAttention(8, keep=3, choice="logits")(torch.randn(2, 10, 8)).shape
        torch.Size([2, 10, 8])
    """

    def __init__(self, dim: int, keep: int, choice: Choice) -> None:
        super().__init__(dim)
        self.keep, self.choice = keep, choice
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], KeyValueState]:
        if state is not None:
            raise ValueError(f"a control that chooses keys by {self.choice} reads whole sequences, got a state")
        query, key, value = self.qkv_proj(x).unflatten(-1, (3, 1, self.dim)).unbind(-3)
        where = positions(x, None)
        query, key = rotate(query, where), rotate(key, where)
        out = self._best(query, key, value) if self.choice == "logits" else self._any(query, key, value)
        after = KeyValueState.empty(key, value).append(key, value, lengths)
        return self.out_proj(out.flatten(-2)), after

    def _best(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        n = query.shape[2]
        past = torch.ones(n, n, dtype=torch.bool, device=query.device).tril()
        logits = (query @ key.mT * self.dim**-0.5).masked_fill(~past, -torch.inf)
        least = logits.detach().topk(min(self.keep, n), dim=-1).values[..., -1:]
        return (logits.masked_fill(logits < least, -torch.inf).softmax(dim=-1) @ value).transpose(1, 2)

    def _any(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, n = query.shape[:2]
        ranks = torch.rand(batch, 1, n, generator=torch.Generator().manual_seed(0)).to(query.device)
        return attend(query, key, value, Expiry(topw_expiry(ranks, self.keep)))

    def state_bytes(self, n: int) -> int:
        """Every key by its logits; at random ``keep`` of them."""
        return 2 * self.dim * self.itemsize * (n if self.choice == "logits" else min(n, self.keep))


@dataclass(frozen=True)
class ChoosingSpec:
    """`ChoosingAttention`."""

    kind: ClassVar[str] = "choosing"
    keep: int = 32
    choice: Choice = "logits"

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        return ChoosingAttention(dim, self.keep, self.choice)


@dataclass(frozen=True)
class EqualSpec:
    """Dynamic mask attention whose factor ``A`` stays zero: all scores are equal, and of equals the later wins."""

    kind: ClassVar[str] = "equal"
    keep: int = 32

    def build(self, dim: int, layer: int, layers: int) -> SequenceMixer:  # noqa: ARG002 - the same in every layer
        mixer = DynamicMaskAttention(dim, 1, self.keep)
        mixer.A.requires_grad_(False)
        return mixer


@dataclass(frozen=True)
class Arm:
    """A way of choosing keys: its name, and its block for a number of keys."""

    name: str
    mixer: Callable[[int], MixerSpec]


DMA, FULL, WINDOW, BEST, RANDOM, EQUAL = "DMA", "full", "window", "best logits", "random keys", "DMA, A = 0"

ARMS = (
    Arm(FULL, lambda _keep: AttentionSpec(1)),
    Arm(WINDOW, lambda keep: AttentionSpec(1, window=keep)),
    Arm(DMA, lambda keep: DynamicMaskSpec(1, keep)),
    Arm(BEST, lambda keep: ChoosingSpec(keep, "logits")),
    Arm(RANDOM, lambda keep: ChoosingSpec(keep, "random")),
    Arm(EQUAL, EqualSpec),
)
