"""What a step of training costs beside a plain one, at the published sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from windeye.bench.timing import Candidate, compare
from windeye.models import AttentiveClassifier, AttentiveConfig
from windeye.nn.perturbation import Adversarial
from windeye.papers.attention_perturbation.plan import ADVERSARIAL, ARMS, VANILLA, word_at
from windeye.papers.attention_perturbation.texts import Texts
from windeye.papers.attention_perturbation.training import Words, binary_loss, total
from windeye.papers.experiment import Budget

WHOLE = "Attention AT 8, gradient by a whole backward pass"


@dataclass(frozen=True)
class Sizes:
    """One batch and the model that reads it."""

    words: int = 5000
    dim: int = 300
    hidden: int = 128
    texts: int = 32
    length: int = 40
    rounds: int = 9


SIZES: dict[Budget, Sizes] = {
    "smoke": Sizes(50, 8, 4, 4, 6, rounds=3),
    "default": Sizes(),
    "full": Sizes(length=100, rounds=25),
}


def step_times(sizes: Sizes) -> dict[str, float]:
    """Time of forward and backward pass of each kind of training over that of a plain one; medians of turns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AttentiveClassifier(AttentiveConfig(sizes.words, sizes.dim, sizes.hidden))
        rows = torch.randint(1, sizes.words, (sizes.texts, sizes.length))
        lengths = torch.randint(1 + sizes.length // 2, sizes.length + 1, (sizes.texts,))
        batch = Texts(rows[:, : int(lengths.max())], lengths, torch.randint(0, 2, (sizes.texts,)).float())
    words = Words(model, None)
    arms = (VANILLA, ADVERSARIAL, word_at(8.0))
    candidates: dict[str, Candidate] = {arm: partial(_step, model, words, arm, batch) for arm in arms}
    candidates[WHOLE] = partial(_whole, model, words, batch)
    return {arm: 1 / timing.speedup for arm, timing in compare(
        candidates, baseline=VANILLA, rounds=sizes.rounds
    ).items()}  # fmt: skip


def _step(model: AttentiveClassifier, words: Words, arm: str, batch: Texts) -> None:
    model.zero_grad()
    torch.autograd.backward(total(model, words, ARMS[arm], batch))


def _whole(model: AttentiveClassifier, words: Words, batch: Texts) -> None:
    """With the gradient of the scores taken as the released code does: by a backward pass through all before them."""
    model.zero_grad()
    reading = model.read(words(batch.rows), batch.lengths)
    reading.scores.retain_grad()
    clean = binary_loss(model.answer(reading), batch)
    torch.autograd.backward(clean, retain_graph=True)
    step = Adversarial(8.0).step(reading.scores, reading.scores.grad, ~reading.padding)
    torch.autograd.backward(clean + binary_loss(model.answer(reading, reading.scores + step), batch))
