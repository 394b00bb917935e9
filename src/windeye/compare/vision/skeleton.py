"""The backbone that every mixer is put into: equal but for what is compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from windeye.compare.vision.arms import CONTROLS, Arm, arms
from windeye.data.sequences import check_integer, derived_seed
from windeye.models.vision import BackboneConfig, ConvSpec, EntrySpec, HierarchicalBackbone, MergeSpec, StageSpec


@dataclass(frozen=True)
class Skeleton:
    """Overlapping patches, two blocks, merging, two blocks, mean, head; all but the mixers is the same for every arm.

    Args:
        side: of the square images, in pixels. With the defaults 32 pixels are 16 x 16 tokens, then 8 x 8.
        patch: pixels between patches, each of which reaches half a patch into those beside it; without that a short
            training gets less far.
        dims, heads: of each stage.
        ratio: inner width of the feed-forward parts.
        position: side of the depthwise convolution before each block that tells tokens where they are.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.
    """

    side: int = 32
    patch: int = 2
    dims: tuple[int, int] = (32, 64)
    heads: tuple[int, int] = (2, 4)
    ratio: float = 2.0
    position: int = 3

    def __post_init__(self) -> None:
        check_integer("patch", self.patch, 1)
        check_integer("side", self.side, 4 * self.patch)

    def config(self, arm: Arm, in_chans: int, classes: int) -> BackboneConfig:
        """The backbone of an arm."""
        reach = self.patch // 2
        stem = ConvSpec(self.patch + 2 * reach, self.patch, reach)
        entries: tuple[EntrySpec, EntrySpec] = (stem, MergeSpec())
        position = self.position if arm.position else None
        stages = tuple(
            StageSpec(dim, heads, entry, blocks, ratio=self.ratio, position=position)
            for dim, heads, entry, blocks in zip(self.dims, self.heads, entries, arm.stages, strict=True)
        )
        return BackboneConfig(
            stages, in_chans=in_chans, num_classes=classes, img_size=(self.side, self.side), init_std=None
        )

    def build(self, arm: Arm, seed: int, *, in_chans: int = 1, classes: int = 10) -> HierarchicalBackbone:
        """The backbone before training; what arms have in common starts alike.

        torch's own generator is left as it was.

        Example:
            >>> one, other = (Skeleton().build(arms()[name], seed=0) for name in ("window", "stripes"))
            >>> torch.equal(one.head.weight, other.head.weight)
            True
        """
        # What a mixer draws moves everything that is drawn after it.
        common = _drawn(self.config(arms()[CONTROLS[1]], in_chans, classes), seed).state_dict()
        model = _drawn(self.config(arm, in_chans, classes), seed)
        known = model.state_dict()
        model.load_state_dict(known | {name: tensor for name, tensor in common.items() if name in known})
        return model


def _drawn(config: BackboneConfig, seed: int) -> HierarchicalBackbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("weights", seed))
        return HierarchicalBackbone(config)
