"""Bi-level routing: do regions that are chosen by content find what matters, where random regions do not?

A canvas holds 36 scanned digits in cells, one of them marked. To find its twins, what is in the marked cell must reach
every other one. A region is a cell, so that the choice of regions decides what can be known.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from windeye.data.digits import divided, scanned_digits
from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, StageSpec
from windeye.nn.mixers import BiLevelRoutingMixer, BiLevelRoutingSpec, FullSpec, TokenMixerSpec, WindowSpec
from windeye.papers.arms import each_arm
from windeye.papers.experiment import Budget, Run
from windeye.papers.paired import ahead, mean, told, values
from windeye.report import Check, Evidence, Picture, Pieces, Row, Tell, Verdict
from windeye.report.figures import COLOURS, as_svg, canvas

CELLS, GLYPH, PATCH = 6, 8, 4
"""Cells along a side, and pixels of a cell and of a token: 12 x 12 tokens in 6 x 6 regions of 2 x 2."""
DIM, HEADS, DEPTH, KEEP = 48, 4, 3, 4
WINDOW, SHIFT = 4, 2
"""As many tokens as four regions."""
CLASSES = 4
"""Digits from 0 to 3."""
MEAN, SPREAD = 0.3, 0.38
"""Of the pixels of scans."""
BATCH, RATE, DECAY, WARM_UP, COOL_DOWN = 16, 3e-3, 0.05, 0.1, 0.3

FULL, ROUTED, RANDOM, OWN, SHIFTED = "full", "routed", "random regions", "own region", "shifted windows"
KEPT, CLEAR = 0.9, 5.0
"""Share of the gap between own-region and full attention that routing must keep; points of average precision that are a
clear difference."""
LEARNED = 20.0
"""Points by which full attention must be above own-region attention, or nothing can be said."""

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (0, 1, 2), "full": tuple(range(6))}


@dataclass(frozen=True)
class Setting:
    """Training steps, and scenes of the test."""

    steps: int
    tests: int


SETTINGS: dict[Budget, Setting] = {"smoke": Setting(2, 8), "default": Setting(600, 256), "full": Setting(12000, 1024)}

CLAIM = (
    "A choice of regions by content, without any gradient of its own, finds the regions that matter: four of 36 "
    "regions keep nearly all of what full attention gains over attention inside regions, and random ones do not."
)
RULE = (
    "Average precision of finding the cells that hold the digit of the marked cell, in percent, on scenes of digits "
    "that were not trained on, paired by seed. Shown if all of: full attention is at least "
    f"{LEARNED} points above own-region attention on the mean; routed attention keeps at least {KEPT:.0%} of that gap "
    f"on the mean; it is at least {CLEAR} points above random regions and above shifted windows on the mean, and above "
    "both in every seed; the share of regions that keep the marked one in some block rises in training in every seed. "
    f"Opposite if random regions are at least {CLEAR} points above routed ones on the mean and in every seed."
)
LIMITS = (
    f"A toy: {CELLS**2} scanned digits of 8 x 8 pixels, 0 to {CLASSES - 1}, regions that coincide with the cells, "
    f"{DEPTH} blocks of width {DIM}, no convolution of the values, {SETTINGS['default'].steps} steps. All arms also "
    "learn to name the digit of every cell, without which full attention needs longer than this. How many cells and "
    "digits, steps and rate were chosen from single runs of full attention with seeds that are not reported: with 64 "
    "cells it had not begun to find twins after 500 steps. Nothing was tuned for routing. A first run was thrown away: "
    "by a mistake in this module the controls of regions had been routed by content as well. Random regions are drawn "
    "anew in every pass, so that three blocks of them can pass a message on to most regions. Nothing about "
    "photographs. Seen in the run: the frame of the marked cell is loud enough that most regions keep it in some block "
    "before any training; what training adds differs much between seeds, and the last block hardly needs it."
)


class Outcome(TypedDict):
    """Average precision in percent, and the percent of regions that keep the marked one: in some block before and after
    training, then in each block."""

    precision: float
    before: float
    after: float
    blocks: list[float]
    last: float
    seconds: float


class RandomRegions(BiLevelRoutingMixer):
    """Each region keeps regions that are drawn anew in every pass."""

    def _choice(self, query: Tensor, key: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        found, shares = super()._choice(query, key, size)
        draws = torch.rand(*found.shape[:2], found.shape[1], device=found.device)
        return draws.topk(self.keep, dim=-1).indices, shares


class OwnRegion(BiLevelRoutingMixer):
    """Each region keeps itself."""

    def _choice(self, query: Tensor, key: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        found, shares = super()._choice(query, key, size)
        own = torch.arange(found.shape[1], device=found.device)[None, :, None].expand(len(found), -1, -1)
        return own, shares[..., :1]


CONTROLS: dict[str, type[BiLevelRoutingMixer]] = {RANDOM: RandomRegions, OWN: OwnRegion}


def mixers(arm: str) -> tuple[TokenMixerSpec, ...]:
    """The mixers of the blocks of an arm; controls of regions replace those of the routed arm."""
    if arm == FULL:
        return (FullSpec(),) * DEPTH
    if arm == SHIFTED:
        return tuple(WindowSpec(WINDOW, SHIFT if block % 2 else 0, bias_table=False) for block in range(DEPTH))
    return (BiLevelRoutingSpec(CELLS, KEEP, local=None),) * DEPTH


ARMS = (FULL, ROUTED, RANDOM, OWN, SHIFTED)


class Finder(nn.Module):
    """Two answers for every cell: a logit that it holds the marked digit, and logits of the digit that it holds."""

    def __init__(self, arm: str) -> None:
        super().__init__()
        stage = StageSpec(DIM, HEADS, ConvSpec(PATCH, PATCH), mixers(arm), ratio=2.0, position=3)
        side = CELLS * GLYPH
        self.trunk = HierarchicalBackbone(BackboneConfig((stage,), 2, 0, img_size=(side, side), init_std=None))
        for block in self.trunk.stages[0].children():
            if arm in CONTROLS:
                assert isinstance(block.mixer, nn.Module)
                twin = CONTROLS[arm](DIM, HEADS, CELLS, KEEP, local=None)
                twin.load_state_dict(block.mixer.state_dict())
                block.mixer = twin
        self.twin, self.digit = nn.Linear(DIM, 1), nn.Linear(DIM, CLASSES)

    def forward(
        self, images: Float[Tensor, "n 2 side side"]
    ) -> tuple[Float[Tensor, "n cells"], Float[Tensor, "n cells digits"]]:
        glyphs, mark = images[:, :1], images[:, 1:]
        tokens = self.trunk.forward_features(torch.cat(((glyphs - MEAN) / SPREAD, 2 * mark), dim=1))
        cells = F.avg_pool2d(tokens.permute(0, 3, 1, 2), GLYPH // PATCH).flatten(2).mT
        return self.twin(cells)[..., 0], self.digit(cells)


@dataclass(frozen=True)
class Scenes:
    """Canvases of digits and marks, the digits, the cell that is marked, and the others that hold the same digit."""

    images: Float[Tensor, "n 2 side side"]
    digits: Int[Tensor, "n cells"]
    marked: Int[Tensor, " n"]
    twins: Bool[Tensor, "n cells"]


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Scans of scikit-learn from 0 to 1 and their labels, to train on and to test with.

    Raises:
        ImportError: without scikit-learn.
    """
    known, new = ((glyphs[labels < CLASSES], labels[labels < CLASSES]) for glyphs, labels in divided(scanned_digits()))
    return known, new


def scenes(source: tuple[Tensor, Tensor], number: int, random: torch.Generator) -> Scenes:
    """Canvases of digits drawn at random; every one has a twin at least."""
    glyphs, labels = source
    chosen = torch.randint(len(labels), (number, CELLS**2), generator=random)
    marked = torch.randint(CELLS**2, (number,), generator=random)
    rows = torch.arange(number)
    other = (marked + torch.randint(1, CELLS**2, (number,), generator=random)) % CELLS**2
    chosen[rows, other] = chosen[rows, marked]
    twins = labels[chosen] == labels[chosen[rows, marked]][:, None]
    twins[rows, marked] = False
    mark = torch.zeros(number, CELLS**2, GLYPH, GLYPH)
    mark[rows, marked] = 1.0
    mark[:, :, 1:-1, 1:-1] = 0.0
    cells = torch.unflatten(torch.stack((glyphs[chosen], mark), dim=1), 2, (CELLS, CELLS))
    images = cells.permute(0, 1, 2, 4, 3, 5).reshape(number, 2, CELLS * GLYPH, -1)
    return Scenes(images, labels[chosen], marked, twins)


def average_precision(scores: Float[Tensor, "n cells"], twins: Bool[Tensor, "n cells"]) -> Float[Tensor, " n"]:
    """The mean, over what is to be found, of the precision at its rank.

    Example:
        >>> average_precision(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[True, False, True]]))
        tensor([0.8333])
    """
    found = twins.gather(1, scores.argsort(dim=1, descending=True)).float()
    precision = found.cumsum(1) / torch.arange(1, found.shape[1] + 1)
    return (precision * found).sum(1) / found.sum(1)


def train_and_test(arm: str, seed: int, setting: Setting, device: str, tell: Tell) -> Outcome:
    """Train an arm on fresh scenes, then test it on digits that it never saw."""
    began = time.perf_counter()
    known, new = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Finder(arm).to(device)
        test = scenes(new, setting.tests, torch.Generator().manual_seed(2000 + seed))
        before, _ = keeps_the_mark(model, test, device)
        random = torch.Generator().manual_seed(1000 + seed)
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / setting.steps))
        losses = []
        for step in range(setting.steps):
            batch = scenes(known, BATCH, random)
            optimiser.zero_grad(set_to_none=True)
            twin, digit = model(batch.images.to(device))
            others = torch.ones_like(batch.twins).scatter(1, batch.marked[:, None], False).to(device)
            loss = F.binary_cross_entropy_with_logits(twin[others], batch.twins.to(device)[others].float())
            named = F.cross_entropy(digit.flatten(0, 1), batch.digits.to(device).flatten())
            torch.autograd.backward(loss + named)
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            tell((step + 1) / setting.steps)
        model.eval()
        with torch.no_grad():
            scores = torch.cat([model(images.to(device))[0].cpu() for images in torch.split(test.images, 64)])
        scores = scores.scatter(1, test.marked[:, None], -torch.inf)
        after, blocks = keeps_the_mark(model, test, device)
        recent = losses[-50:]
        return Outcome(
            precision=100 * average_precision(scores, test.twins).mean().item(),
            before=before,
            after=after,
            blocks=blocks,
            last=math.fsum(recent) / len(recent),
            seconds=time.perf_counter() - began,
        )


def _rate(done: float) -> float:
    """Share of the peak rate after a share ``done`` of all steps: linear up, held, linear down."""
    return min(done / WARM_UP, 1.0, (1 - done) / COOL_DOWN) + 1e-3


@torch.no_grad()
def keeps_the_mark(model: Finder, test: Scenes, device: str) -> tuple[float, list[float]]:
    """Percent of the other regions that keep the marked one, in some block and in each; none where no regions are."""
    kept: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], _out: Tensor) -> None:
        assert isinstance(module, BiLevelRoutingMixer)
        kept.append((module.routes(inputs[0]).cpu() == test.marked[:, None, None]).any(-1))

    routed = [module for module in model.modules() if isinstance(module, BiLevelRoutingMixer)]
    hooks = [mixer.register_forward_hook(look) for mixer in routed]
    model(test.images.to(device))
    for hook in hooks:
        hook.remove()
    if not kept:
        return 0.0, []
    others = torch.ones_like(kept[0]).scatter(1, test.marked[:, None], False)
    some = torch.stack(kept).any(0)
    return 100 * some[others].float().mean().item(), [100 * block[others].float().mean().item() for block in kept]


PRECISION, BEFORE, AFTER = "average precision", "regions that keep the marked one, untrained", "the same, trained"


def made(by_arm: dict[str, list[Outcome]]) -> tuple[Row, ...]:
    """What every arm finds, and what its regions keep."""
    rows = []
    for arm, outcomes in by_arm.items():
        rows.append(Row(arm, PRECISION, tuple(outcome["precision"] for outcome in outcomes), "%"))
        rows.append(Row(arm, "training loss, last 50 steps", tuple(outcome["last"] for outcome in outcomes)))
        rows.append(Row(arm, "training and test", tuple(outcome["seconds"] for outcome in outcomes), "s"))
    for arm in (ROUTED, RANDOM):
        rows.append(Row(arm, BEFORE, tuple(outcome["before"] for outcome in by_arm[arm]), "%"))
        rows.append(Row(arm, AFTER, tuple(outcome["after"] for outcome in by_arm[arm]), "%"))
        for block in range(DEPTH):
            kept = tuple(outcome["blocks"][block] for outcome in by_arm[arm])
            rows.append(Row(arm, f"{AFTER}, block {block + 1}", kept, "%"))
    return tuple(rows)


def checks(rows: tuple[Row, ...]) -> tuple[Check, ...]:
    """The gates of `RULE`, from rows alone."""
    gap, kept = mean(ahead(rows, FULL, OWN, PRECISION)), mean(ahead(rows, ROUTED, OWN, PRECISION))
    share = kept / gap if gap > 0 else 0.0
    found = [
        Check(f"full at least {LEARNED} points above own region", f"{gap:+.1f}", gap >= LEARNED),
        Check(f"routed keeps at least {KEPT:.0%} of that", f"{share:.0%}", gap > 0 and share >= KEPT),
    ]
    for other in (RANDOM, SHIFTED):
        gains = ahead(rows, ROUTED, other, PRECISION)
        demand = f"routed at least {CLEAR} points above {other}, and above in every seed"
        found.append(Check(demand, told(gains), mean(gains) >= CLEAR and min(gains) > 0))
    pairs = tuple(zip(values(rows, ROUTED, BEFORE), values(rows, ROUTED, AFTER), strict=True))
    shares = ", ".join(f"{before:.0f} to {after:.0f} %" for before, after in pairs)
    found.append(Check("more regions keep the marked one after training", shares, all(b < a for b, a in pairs)))
    return tuple(found)


def verdict(rows: tuple[Row, ...]) -> Verdict:
    """What `RULE` says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    behind = ahead(rows, RANDOM, ROUTED, PRECISION)
    return "opposite" if mean(behind) >= CLEAR and min(behind) > 0 else "not shown"


def by_arm_picture(rows: tuple[Row, ...]) -> Picture:
    """Average precision of the arms."""
    figure, axes = canvas(5.6, 3.0)
    for place, (colour, arm) in enumerate(zip(COLOURS, ARMS, strict=False)):
        found = values(rows, arm, PRECISION)
        axes.plot([place] * len(found), found, "o", color=colour, alpha=0.5, markersize=4)
        axes.plot([place], [mean(found)], "_", color=colour, markersize=16, markeredgewidth=2)
    axes.set_xticks(range(len(ARMS)), ARMS)
    axes.set_ylabel("average precision, %")
    return as_svg(figure, "Finding twins", "Dots are seeds, bars their means.")


def experiment(run: Run) -> Evidence:
    """Train and test every arm with every seed, and judge by `RULE`.

    Raises:
        ImportError: scikit-learn is missing.
    """
    setting = SETTINGS[run.budget]
    pieces = Pieces(run.recorder, run.progress, len(ARMS) * len(run.seeds))
    by_arm = each_arm(
        pieces, ARMS, run.seeds, f"{setting.steps} steps",
        lambda arm, seed, tell: train_and_test(arm, seed, setting, run.device, tell),
    )  # fmt: skip
    rows = made(by_arm)
    return Evidence(
        slug="biformer",
        claim=CLAIM,
        rule=RULE,
        verdict=verdict(rows),
        checks=checks(rows),
        rows=rows,
        budget=run.budget,
        seeds=run.seeds,
        seconds=math.fsum(outcome["seconds"] for found in by_arm.values() for outcome in found),
        command=run.command,
        limits=LIMITS,
        pictures=(by_arm_picture(rows),),
    )
