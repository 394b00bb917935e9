"""An encoder that drew hidden patches, the same after it named digits, too, and what each makes of scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from windeye.data.sequences import derived_seed
from windeye.models.vision import DecoderSpec, MaskedAutoencoder, VisionTransformer, vit
from windeye.papers.efficient_probing import scenes
from windeye.papers.efficient_probing.plan import Plan
from windeye.papers.efficient_probing.scenes import PATCH, SIDE, Split
from windeye.report import Tell, silent
from windeye.train import AdamW, Cosine, HiddenPixels, Masked, Row, fit

Kind = Literal["masked", "labelled"]
KINDS: tuple[Kind, ...] = ("masked", "labelled")
DECAY, WARM_UP, FINAL = 0.05, 0.1, 0.01
SAVED = 50
"""Steps between checkpoints."""


class Tokens(NamedTuple):
    """What a frozen encoder makes of scenes: tokens of its last block, as they are."""

    first: Float[Tensor, "number 1 dim"]
    patches: Float[Tensor, "number patches dim"]
    digits: Int64[Tensor, " number"]
    covered: Bool[Tensor, "number patches"]


@dataclass(frozen=True)
class Trained:
    """An encoder, and the losses of its training at ten stages of it."""

    encoder: VisionTransformer
    losses: list[float]


@dataclass
class Encoders:
    """Encoders of one seed, trained when they are asked for, and their tokens of all scenes, made when they are.

    Args:
        plan, seed, device: as the run has them.
        folder: where checkpoints go, so that an interrupted training goes on; None keeps none.
    """

    plan: Plan
    seed: int
    device: str
    folder: Path | None
    tell: Tell = silent
    """Is told the share of a training that is done."""
    _trained: dict[Kind, Trained] = field(default_factory=dict)
    _read: dict[Kind, dict[Split, Tokens]] = field(default_factory=dict)

    def trained(self, kind: Kind) -> Trained:
        """The encoder of a kind."""
        if kind not in self._trained:
            self._trained[kind] = self._masked() if kind == "masked" else self._labelled()
        return self._trained[kind]

    def tokens(self, kind: Kind) -> dict[Split, Tokens]:
        """What it makes of the scenes of all splits. Those of one kind are held at a time: they are large."""
        if kind not in self._read:
            encoder, plan = self.trained(kind).encoder, self.plan
            counts: dict[Split, int] = {"train": plan.trained, "check": plan.checked, "test": plan.tested}
            self._read = {
                kind: {split: tokens(encoder, count, self.seed, split, self.device) for split, count in counts.items()}
            }
        return self._read[kind]

    def _masked(self) -> Trained:
        """Trained to draw what is hidden. No label was seen."""
        plan = self.plan
        encoder = self._fresh("masked", classes=0)
        with _seeded("decoder", self.seed):
            model = MaskedAutoencoder(encoder, DecoderSpec(plan.decoder_dim, 1, plan.heads)).to(self.device)
        rows = fit(
            model, Masked(self._batches("masked"), PATCH, seed=self.seed), steps=plan.masked_steps, every=SAVED,
            objective=HiddenPixels(normalise=False), optimiser=AdamW(plan.masked_rate, weight_decay=DECAY),
            schedule=_course(plan.masked_steps), folder=self._folder("masked"), progress=self.tell,
        )  # fmt: skip
        return Trained(encoder.eval(), stages(rows))

    def _labelled(self) -> Trained:
        """The same, trained on to name the digit by its class token."""
        plan = self.plan
        encoder = self._fresh("labelled", classes=10)
        encoder.load_state_dict(self.trained("masked").encoder.state_dict(), strict=False)  # all but the head
        encoder.to(self.device)
        rows = fit(
            encoder, self._batches("labelled"), steps=plan.labelled_steps, every=SAVED,
            optimiser=AdamW(plan.labelled_rate, weight_decay=DECAY), schedule=_course(plan.labelled_steps),
            folder=self._folder("labelled"), progress=self.tell,
        )  # fmt: skip
        return Trained(encoder.eval(), stages(rows))

    def _fresh(self, kind: Kind, classes: int) -> VisionTransformer:
        plan = self.plan
        with _seeded(kind, self.seed):
            return vit(
                plan.dim, plan.depth, plan.heads, patch=PATCH, in_chans=1, num_classes=classes, img_size=(SIDE, SIDE)
            )

    def _batches(self, kind: Kind) -> Callable[[int], tuple[Tensor, Tensor]]:
        def batches(step: int) -> tuple[Tensor, Tensor]:
            random = torch.Generator().manual_seed(derived_seed("efficient probing scenes", kind, self.seed, step))
            images, digits, _ = scenes.scenes(self.plan.batch, random)
            return images, digits

        return batches

    def _folder(self, kind: Kind) -> Path | None:
        return None if self.folder is None else self.folder / f"{kind}-{self.seed}"


@contextmanager
def _seeded(part: str, seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("efficient probing", part, seed))
        yield


def _course(steps: int) -> Cosine:
    return Cosine(warm_up=max(1, int(WARM_UP * steps)), final=FINAL)


def stages(rows: list[Row]) -> list[float]:
    """Mean losses of the tenths of a training.

    Example:
        >>> stages([{"loss": float(step)} for step in range(20)])[:3]
        [0.5, 2.5, 4.5]
    """
    parts = min(10, len(rows))
    borders = [part * len(rows) // parts for part in range(parts + 1)]
    return [fmean(row["loss"] for row in rows[a:b]) for a, b in pairwise(borders)]


@torch.no_grad()
def tokens(encoder: VisionTransformer, number: int, seed: int, split: Split, device: str) -> Tokens:
    """Scenes of a seed through a frozen encoder."""
    random = torch.Generator().manual_seed(derived_seed("efficient probing probes", split, seed))
    images, digits, covered = scenes.scenes(number, random, split)
    found = torch.cat([encoder.tokens(part.to(device)) for part in torch.split(images, 200)])
    return Tokens(found[:, :1], found[:, 1:], digits.to(device), covered)
