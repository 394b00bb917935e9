"""Two branches and the ways of joining them, in one skeleton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, StageSpec
from windeye.nn.mixers import MultiScaleFusionMixer, TokenMixer
from windeye.papers.maformer.plan import ABLATIONS, CONCAT, GLOBAL, LOCAL, MAF, RATIO, SUM
from windeye.papers.maformer.scenes import PATCH, SIDE
from windeye.papers.scene_plan import ScenePlan
from windeye.tokens import resize

WINDOW = 4
"""Side of the windows of the local branch: two small digits."""
EXPANSION = 4.0
"""Inner width of the feed-forward parts of fusion by attention, in widths; of others what makes their sizes equal."""
CLASSES = 10


class Local(MultiScaleFusionMixer):
    """The local branch alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        del self.tokens, self.query, self.key_value, self.proj

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        return self.local(x)


class Global(MultiScaleFusionMixer):
    """The global tokens alone, made as large as the map."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        del self.norm1, self.window, self.norm2, self.feed_forward, self.query, self.key_value

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        return self.proj(resize(self.tokens(x), (x.shape[1], x.shape[2])))


class Sum(MultiScaleFusionMixer):
    """What both branches add."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        del self.query, self.key_value

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        return self.local(x) + self.proj(resize(self.tokens(x), (x.shape[1], x.shape[2])))


class Concatenation(MultiScaleFusionMixer):
    """A linear map of both branches side by side."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        del self.query, self.key_value
        self.proj = nn.Linear(2 * self.dim, self.dim)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        near = self.local(x)
        far = resize(self.tokens(x), (x.shape[1], x.shape[2]))
        return near + self.proj(torch.cat((x + near, far), dim=-1))


FORMS: Mapping[str, type[MultiScaleFusionMixer]] = {
    LOCAL: Local, GLOBAL: Global, SUM: Sum, CONCAT: Concatenation, MAF: MultiScaleFusionMixer
}  # fmt: skip


@dataclass(frozen=True)
class ArmSpec:
    """The mixer of an arm."""

    kind: ClassVar[str] = "arm"
    arm: str
    expansion: float

    def build(self, dim: int, heads: int) -> TokenMixer:
        form = FORMS.get(self.arm, MultiScaleFusionMixer)
        ratio = ABLATIONS.get(self.arm, RATIO)
        return form(dim, heads, SIDE // PATCH, ratio, window=WINDOW, expansion=self.expansion)


def network(arm: str, plan: ScenePlan) -> HierarchicalBackbone:
    """One stage of blocks at the resolution of patches, the mean token, and ten logits for either digit.

    Arms of `windeye.papers.maformer.plan.ARMS` have equal sizes.
    """
    return _network(arm, plan, _expansion(arm, plan))


def _network(arm: str, plan: ScenePlan, expansion: float) -> HierarchicalBackbone:
    spec = ArmSpec(arm, expansion)
    stage = StageSpec(plan.dim, plan.heads, ConvSpec(PATCH, PATCH), (spec,) * plan.blocks, ratio=expansion)
    return HierarchicalBackbone(
        BackboneConfig((stage,), 1, 2 * CLASSES, img_size=(SIDE, SIDE), init_std=None)
    )  # fmt: skip


@lru_cache(maxsize=64)
def _expansion(arm: str, plan: ScenePlan) -> float:
    """The inner width with which an arm has as many parameters as fusion by attention; sizes grow linearly with it."""
    if arm == MAF or arm in ABLATIONS:
        return EXPANSION
    wanted = _size(MAF, plan, EXPANSION)
    narrow, wide = (_size(arm, plan, ratio) for ratio in (EXPANSION, 2 * EXPANSION))
    return EXPANSION * (1 + (wanted - narrow) / (wide - narrow))


def _size(arm: str, plan: ScenePlan, expansion: float) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in _network(arm, plan, expansion).parameters())
