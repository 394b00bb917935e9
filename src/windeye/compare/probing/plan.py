"""What a probe is: encoder, pools, data, and how heads are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from windeye.compare.probing.arms import arm_of
from windeye.compare.probing.pictures import LAYOUT, Scaling
from windeye.compare.vision.images import check_data
from windeye.data.sequences import check_integer
from windeye.train import LARS, AdamW
from windeye.train.optimiser import Optimiser

Named = Literal["lars", "adamw"]
RATE, SHARE = 0.1, 256
"""Of LARS: the rate of so many examples in a batch; it grows with them."""
ADAMW_RATE = 1e-3
GIBIBYTE = 2**30


@dataclass(frozen=True)
class ProbePlan:
    """Everything that decides the numbers of a probe.

    Args:
        model: a published backbone of images, a file of `windeye.models.vision.save_backbone` or of official weights,
            or a folder of transformers.
        data: "fashion-mnist" and what else `windeye compare vision` knows, or a folder with ``train/CLASS/*`` and
            ``val/CLASS/*``.
        pools: names of `windeye.nn.pools.POOLS`, with settings: "ep:queries=8,keep=all".
        weights: a checkpoint of a named model; None leaves it random.
        settings: of a named model, such as ``{"in_chans": 1}``.
        stage, final_norm, leading: as of `windeye.models.probing.FrozenEncoder`.
        side: of the squares that the model sees; None is that of the model for folders, and 28 for the others.
        scaling: of pixels: "imagenet", "unit" (0 to 1) or "symmetric" (-1 to 1).
        epochs, batch_size, warm_up: of training; warm-up in epochs. The study has 90, 4,096 and 10.
        optimiser, rate: "lars" with a rate of 0.1 for each 256 examples of a batch, as in the study, or "adamw" with
            1e-3, or another rate.
        augment: whether folders are trained on random parts, turned half of the times, or on middles, whose tokens can
            be kept.
        keep_gib: tokens are kept in a file where they take no more than so many GiB, and made again in every epoch
            where they take more.
        most: of the training images so many at most, drawn by the seed.
        precision: of the encoder: "no" or "bf16".
        seed: of initial weights, order of images and random parts.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.
    """

    model: str
    data: str = "fashion-mnist"
    pools: tuple[str, ...] = ("average", "ep")
    weights: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    stage: int | None = None
    final_norm: bool | None = None
    leading: int | None = None
    side: int | None = None
    scaling: Scaling | None = None
    epochs: int = 90
    batch_size: int = 256
    warm_up: int = 10
    optimiser: Named = "lars"
    rate: float | None = None
    augment: bool = False
    keep_gib: float = 4.0
    most: int | None = None
    precision: Literal["no", "bf16"] = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        check_data(self.data, LAYOUT)
        for name, least in (("epochs", 1), ("batch_size", 2), ("warm_up", 0)):
            check_integer(name, getattr(self, name), least)
        for name in ("most", "side"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), 2)
        if not self.pools:
            raise ValueError("pools must name at least one pool")
        names = [arm_of(words).name for words in self.pools]
        if len(names) != len(set(names)):
            raise ValueError(f"pools must differ, got {', '.join(names)}")
        for name, kinds in (("optimiser", Named), ("precision", Literal["no", "bf16"])):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")
        if self.scaling is not None and self.scaling not in get_args(Scaling):
            raise ValueError(f"scaling must be one of {', '.join(get_args(Scaling))}, got {self.scaling!r}")
        if self.augment and not self.of_folder:
            raise ValueError(f"augment is for folders of images; {self.data} is shown as it is")
        self.moves()

    @property
    def of_folder(self) -> bool:
        """Whether the data is a folder of images."""
        return Path(self.data).is_dir()

    def moves(self) -> Optimiser:
        """How weights move.

        Example:
            >>> ProbePlan("vit_micro", batch_size=512).moves().rate
            0.2
        """
        if self.optimiser == "lars":
            return LARS(rate=RATE * self.batch_size / SHARE if self.rate is None else self.rate)
        return AdamW(rate=ADAMW_RATE if self.rate is None else self.rate, weight_decay=0.0, clip=None)

    def as_plain(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"pools": list(self.pools), "settings": dict(self.settings)}
