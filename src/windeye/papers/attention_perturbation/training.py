"""One arm on one task: a classifier trained with its perturbation, and everything that is measured of it."""

from __future__ import annotations

import time
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.data.sequences import derived_seed
from windeye.data.text.words import Vocabulary
from windeye.models import AttentiveClassifier, AttentiveConfig
from windeye.nn.perturbation import RULES, Adversarial, PerturbedLoss, Rule, WordDirections, frequency_normalised
from windeye.papers.attention_perturbation.evaluation import Measured, measure
from windeye.papers.attention_perturbation.plan import Arm, Plan, Task
from windeye.papers.attention_perturbation.texts import Texts, prepared
from windeye.report import Tell


class Outcome(TypedDict):
    """What one training leaves; all plain JSON values."""

    measured: Measured
    seconds: float


class Words:
    """How an arm embeds: as the model does, or normalised by frequency where words are perturbed."""

    def __init__(self, model: AttentiveClassifier, vocabulary: Vocabulary | None) -> None:
        self.model = model
        self.counts = None if vocabulary is None else torch.tensor(vocabulary.counts, dtype=torch.float32)

    def table(self) -> Tensor:
        weight = self.model.embedding.weight
        return weight if self.counts is None else frequency_normalised(weight, self.counts.to(weight.device))

    def __call__(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.table())


def train(arm: Arm, task: Task, plan: Plan, seed: int, device: str, tell: Tell) -> Outcome:
    """Train on a seed's texts, from a seed's weights, and measure on the texts that are held out."""
    began = time.process_time()
    train_texts, test_texts, vocabulary = prepared(task, plan, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("attention-perturbation", seed))
        config = AttentiveConfig(len(vocabulary), plan.dim, plan.hidden, encoder=task.encoder, dropout=arm.dropout)
        model = AttentiveClassifier(config).to(device)
        words = Words(model, vocabulary if arm.target == "words" else None)
        optimiser = _optimiser(model, arm, plan.rate)
        for epoch in range(task.epochs):
            for batch in train_texts.to(device).batches(plan.batch_size, torch.randperm(len(train_texts.labels))):
                optimiser.zero_grad()
                torch.autograd.backward(total(model, words, arm, batch))
                optimiser.step()
            tell((epoch + 1) / (task.epochs + 1))
    model.eval()
    return Outcome(measured=measure(model, words, test_texts.to(device), seed), seconds=time.process_time() - began)


def total(model: AttentiveClassifier, words: Words, arm: Arm, batch: Texts) -> Tensor:
    """The loss of an arm on one batch: of one term or two."""
    embedded = words(batch.rows)
    if arm.target == "words":
        reads = torch.arange(batch.rows.shape[1], device=batch.rows.device) < batch.lengths[:, None].to(embedded.device)
        rule: Rule = (
            WordDirections(arm.radius, words.table()[1:]) if arm.rule == "directions" else Adversarial(arm.radius)
        )

        def of_words(moved: Tensor) -> Tensor:
            return binary_loss(model.answer(model.read(moved, batch.lengths)), batch)

        return PerturbedLoss(rule)(of_words, embedded, reads[..., None]).total
    reading = model.read(embedded, batch.lengths)

    def of_scores(scores: Tensor) -> Tensor:
        return binary_loss(model.answer(reading, scores), batch)

    if arm.target == "nothing":
        return of_scores(reading.scores)
    return PerturbedLoss(RULES[arm.rule](arm.radius))(of_scores, reading.scores, ~reading.padding).total


def binary_loss(logits: Tensor, batch: Texts) -> Tensor:
    """Binary cross-entropy, the mean over texts; both classes are equally many."""
    return F.binary_cross_entropy_with_logits(logits[:, 0], batch.labels)


def _optimiser(model: AttentiveClassifier, arm: Arm, rate: float) -> torch.optim.Optimizer:
    """Adam with amsgrad; the attention's own parameters do not decay."""
    own = {id(weight) for weight in model.attention.parameters()}
    others = [weight for weight in model.parameters() if id(weight) not in own]
    groups = [
        {"params": others, "weight_decay": arm.weight_decay},
        {"params": [*model.attention.parameters()], "weight_decay": 0.0},
    ]
    return torch.optim.Adam(groups, lr=rate, amsgrad=True)
