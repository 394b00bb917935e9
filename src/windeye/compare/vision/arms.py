"""What is compared: every mixer of maps, as the blocks of two stages, and two controls without any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windeye.compare.parts import arms_named
from windeye.nn.mixers import (
    MIXERS,
    BiLevelRoutingSpec,
    FullSpec,
    HiLoSpec,
    MultiScaleFusionSpec,
    NeighborhoodSpec,
    SpatialReductionSpec,
    StripeSpec,
    TokenMixerSpec,
    VSASpec,
    WindowSpec,
)

Blocks = tuple[TokenMixerSpec | None, TokenMixerSpec | None]

BASELINE = "full"
"""Among the rows whatever is asked for: dense attention by fused kernels."""


@dataclass(frozen=True)
class Arm:
    """A mechanism: its name, what it is in words, the mixers of the two blocks of each stage, and whether a convolution
    tells them positions."""

    name: str
    words: str
    stages: tuple[Blocks, Blocks]
    position: bool = True


def _twice(spec: TokenMixerSpec | None) -> Blocks:
    return (spec, spec)


def _arm(name: str, words: str, first: TokenMixerSpec, second: TokenMixerSpec | None = None) -> Arm:
    """The same in both stages; ``second`` is that of every second block."""
    blocks = (first, second or first)
    return Arm(name, words, (blocks, blocks))


_CHOSEN = (
    _arm(BASELINE, "all tokens, dense attention by fused kernels", FullSpec()),
    _arm("window", "windows of 4 x 4", WindowSpec(4)),
    _arm(
        "shifted_window",
        "windows of 4 x 4, shifted by 2 in every second block",
        WindowSpec(4),
        WindowSpec(4, shift=2),
    ),
    _arm("neighborhood", "the 5 x 5 tokens around each", NeighborhoodSpec(5)),
    _arm(
        "dilated_neighborhood",
        "the same, in every second block of every second token",
        NeighborhoodSpec(5),
        NeighborhoodSpec(5, dilation=2),
    ),
    _arm("spatial_reduction", "learned sums of 2 x 2 tokens", SpatialReductionSpec(2)),
    _arm("hilo", "half of the heads in windows of 2 x 2, half over their means", HiLoSpec(2, alpha=0.5)),
    _arm("vsa", "windows of 4 x 4 that every head moves and stretches", VSASpec(4)),
    _arm("bi_level_routing", "of 4 x 4 regions the 4 that match best", BiLevelRoutingSpec(4, keep=4, local=None)),
    _arm("stripes", "half of the heads in stripes of 2 rows, half of 2 columns", StripeSpec(2)),
    Arm(
        "multi_scale_fusion",
        "windows of 4 x 4, which ask tokens that are learned sums of all",
        (_twice(MultiScaleFusionSpec(16, window=4)), _twice(MultiScaleFusionSpec(8, window=4))),
    ),
)
_CONTROLS = (
    Arm("none", "control: no mixer and no positions, each token alone", ((None, None), (None, None)), position=False),
    Arm(
        "position",
        "control: no mixer, the convolution for positions that all others have",
        ((None, None), (None, None)),
    ),
)
CONTROLS = tuple(arm.name for arm in _CONTROLS)


def arms() -> dict[str, Arm]:
    """Every arm by its name. A registered mixer of which nothing is said here takes part as its defaults build it."""
    said = {spec.kind for arm in _CHOSEN for blocks in arm.stages for spec in blocks if spec is not None}
    others = (
        _arm(kind, f"{kind.replace('_', ' ')}, as it is by default", spec())
        for kind, spec in MIXERS.items()
        if kind not in said
    )
    return {arm.name: arm for arm in (*_CHOSEN, *others, *_CONTROLS)}


def selected(names: Sequence[str] | None) -> tuple[Arm, ...]:
    """The arms of these names in the order of `arms`, the baseline always among them; all for None.

    Raises:
        ValueError: an unknown name; says which there are.

    Example:
        >>> [arm.name for arm in selected(["vsa", "none"])]
        ['full', 'vsa', 'none']
    """
    return arms_named(arms(), names, BASELINE, "mixer")
