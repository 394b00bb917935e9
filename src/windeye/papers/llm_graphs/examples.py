"""A graph as examples: words, prompts of training and held-out centres, and the same prompts with broken structure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from windeye.data.graphs import PERTURBATIONS, Graph, NeighbourTree, TreePrompts, lay_out, sample_tree, tree_prompt
from windeye.data.sequences import derived_seed
from windeye.papers.llm_graphs.plan import WORDING, Plan

PAD, RARE = "<pad>", "<rare>"
ENOUGH = 3
"""How often a word must stand in the texts to be a word."""
TOGETHER = 32
"""Trees of a batch, from each other of which perturbation IV takes its strangers."""


@dataclass(frozen=True)
class Words:
    """Numbers of the words of prompts and texts, with one more word per class; nodes come behind."""

    number: dict[str, int]
    classes: int

    @classmethod
    def of(cls, graph: Graph) -> Words:
        prompt = tree_prompt(NeighbourTree(0, (0, 0), ((0, 0), ())), WORDING)
        fixed = dict.fromkeys(token for token in prompt.tokens if isinstance(token, str))
        counts = Counter(word for text in graph.texts or () for word in text.split())
        texts = sorted(word for word, count in counts.items() if count >= ENOUGH and word not in fixed)
        words = (PAD, RARE, *fixed, *texts)
        return cls({word: number for number, word in enumerate(words)}, len(graph.classes))

    def __len__(self) -> int:
        return len(self.number) + self.classes

    def __getitem__(self, word: str) -> int:
        return self.number.get(word, self.number[RARE])

    def answer(self, labels: Int64[Tensor, " some"]) -> Int64[Tensor, " some"]:
        """The word of each class."""
        return labels + len(self.number)

    def texts(self, graph: Graph) -> list[list[int]]:
        """The text of each node in numbers."""
        return [[self[word] for word in graph.text_of(node).split()] for node in range(len(graph))]


@dataclass(frozen=True)
class Examples:
    """Packed prompts, see `packed`, and the words that answer them."""

    prompts: Int64[Tensor, "examples 3 n"]
    answers: Int64[Tensor, " examples"]

    def __len__(self) -> int:
        return len(self.answers)


@dataclass(frozen=True)
class Task:
    """A graph with the trees of one seed."""

    graph: Graph
    words: Words
    train: tuple[NeighbourTree, ...]
    held_out: tuple[NeighbourTree, ...]

    @classmethod
    def of(cls, graph: Graph, plan: Plan, seed: int) -> Task:
        """Random splits, and one random tree per centre."""
        splits = graph.shuffled_splits(seed)
        generator = torch.Generator().manual_seed(derived_seed("trees", seed))

        def trees(split: str, most: int) -> tuple[NeighbourTree, ...]:
            centres = splits[split][:most].tolist()
            return tuple(sample_tree(graph, centre, plan.fan_out, generator) for centre in centres)

        return cls(graph, Words.of(graph), trees("train", plan.train), trees("test", plan.held_out))

    def examples(self, trees: Sequence[NeighbourTree]) -> Examples:
        """The prompts of trees and the classes of their centres."""
        node = len(self.words).__add__
        laid = lay_out([tree_prompt(tree, WORDING) for tree in trees], self.words.__getitem__, node)
        centres = torch.tensor([tree.centre for tree in trees])
        return Examples(packed(laid), self.words.answer(self.graph.labels[centres]))

    def perturbed(self, name: str, seed: int) -> tuple[NeighbourTree, ...]:
        """The held-out trees with one of `PERTURBATIONS`."""
        generator = torch.Generator().manual_seed(derived_seed("perturbation", name, seed))
        change = PERTURBATIONS[name]
        made: list[NeighbourTree] = []
        for first in range(0, len(self.held_out), TOGETHER):
            batch = self.held_out[first : first + TOGETHER]
            nodes = sorted({node for tree in batch for node in tree.nodes})
            made += [change(tree, nodes, generator) for tree in batch]
        return tuple(made)


def packed(prompts: TreePrompts) -> Int64[Tensor, "batch 3 n"]:
    """Prompts as one tensor: tokens, which are nodes of the tree, and parents."""
    return torch.stack((prompts.ids, prompts.tree.long(), prompts.parents), dim=1)


def unpacked(rows: Int64[Tensor, "batch 3 n"]) -> TreePrompts:
    """What `packed` packed, cut to the longest prompt.

    Example:
        >>> from windeye.data.graphs import NeighbourTree
        >>> laid = lay_out([tree_prompt(NeighbourTree(0, (1,), ((),)), WORDING)], lambda word: 1, lambda node: 5 + node)
        >>> torch.equal(unpacked(packed(laid)).query, laid.query)
        True
    """
    lengths = (rows[:, 0] != 0).sum(dim=1)
    n = int(lengths.max())
    # The centre that is asked for stands before the last token.
    return TreePrompts(rows[:, 0, :n], rows[:, 1, :n].bool(), rows[:, 2, :n], lengths, lengths - 2)
