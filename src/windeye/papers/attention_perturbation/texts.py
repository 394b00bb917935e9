"""Texts of a task as numbers of words, to train on and held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from windeye.data.text.labels import LabelledTexts, labelled
from windeye.data.text.words import Vocabulary, rows_of, words_of
from windeye.papers.attention_perturbation.plan import Plan, Task


@dataclass(frozen=True)
class Texts:
    """Texts as numbers of words."""

    rows: Tensor
    lengths: Tensor
    labels: Tensor

    @classmethod
    def of(cls, texts: LabelledTexts, vocabulary: Vocabulary, longest: int) -> Texts:
        rows, lengths = rows_of([vocabulary.numbers(words_of(text)) for text in texts.texts], longest)
        return cls(rows, lengths, torch.tensor(texts.labels, dtype=torch.float32))

    def batches(self, size: int, order: Tensor) -> Iterator[Texts]:
        """Texts in an order; each batch is as wide as its longest text."""
        for places in torch.split(order, size):
            lengths = self.lengths[places]
            yield Texts(self.rows[places, : int(lengths.max())], lengths, self.labels[places])

    def to(self, device: str) -> Texts:
        return Texts(self.rows.to(device), self.lengths, self.labels.to(device))


def prepared(task: Task, plan: Plan, seed: int) -> tuple[Texts, Texts, Vocabulary]:
    """Texts to train on, texts that are held out, and the words of the first."""
    train, test = labelled(task.collection).split(task.train, task.test, seed=seed)
    vocabulary = Vocabulary.of(map(words_of, train.texts), plan.least)
    return Texts.of(train, vocabulary, task.longest), Texts.of(test, vocabulary, task.longest), vocabulary
