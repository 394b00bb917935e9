"""What is compared: every mechanism by name, as the blocks that stand behind the skeleton's convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windeye.compare.parts import arms_named
from windeye.models import AttentionSpec, DynamicMaskSpec, LightningSpec, MixerSpec, TaylorSpec, TitansSpec
from windeye.models.mixers import TitansVariant

Mixers = tuple[MixerSpec, ...]

BASELINE = "softmax"
"""Among the rows whatever is asked for."""


@dataclass(frozen=True)
class Arm:
    """A mechanism: its name, what it is in words, and its blocks for a number of heads."""

    name: str
    words: str
    mixers: Callable[[int], Mixers]


def _titans(variant: TitansVariant, words: str) -> Arm:
    """Memory heads of 32 channels that the memory's network does not widen: a state of the size that others have. Steps
    are small enough for a key that repeats at once, as keys of a text do: larger ones diverge there."""

    def mixers(heads: int) -> Mixers:
        return (TitansSpec(variant, heads, window=16, memory_head_dim=32, expansion=1),)

    return Arm(f"titans_{variant}", words, mixers)


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("softmax", "softmax attention over the past", lambda heads: (AttentionSpec(heads),)),
        Arm("window", "softmax attention over the last 32 tokens", lambda heads: (AttentionSpec(heads, window=32),)),
        Arm("tnl", "lightning attention: a decay per head, norm and gate", lambda heads: (LightningSpec(heads),)),
        Arm(
            "based",
            "Taylor linear attention with 16 features, then a window of 16",
            lambda heads: (TaylorSpec(heads, feature_dim=16), AttentionSpec(heads, window=16)),
        ),
        _titans("lmm", "the memory of Titans alone: a network of two layers that learns at test time"),
        _titans("mac", "Titans, the memory as context of attention in segments of 16"),
        _titans("mag", "Titans, the memory as gate of a window of 16"),
        _titans("mal", "Titans, the memory as a layer before a window of 16"),
        Arm(
            "dma",
            "softmax attention over 32 keys of largest learned score",
            lambda heads: (DynamicMaskSpec(heads, 32),),
        ),
    )
}


def selected(names: Sequence[str] | None) -> tuple[Arm, ...]:
    """The arms of these names in the order of `ARMS`, the baseline always among them; all for None.

    Raises:
        ValueError: an unknown name; says which there are.

    Example:
        >>> [arm.name for arm in selected(["window"])]
        ['softmax', 'window']
    """
    return arms_named(ARMS, names, BASELINE, "arm")
