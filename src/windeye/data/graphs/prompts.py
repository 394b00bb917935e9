"""Neighbourhoods spelled out as prompts in which every node is one token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from windeye.data.graphs.tree import NeighbourTree

NO_PARENT = -1
"""The parent of the centre, and of what is no node of the tree."""


@dataclass(frozen=True)
class Wording:
    """The words around a tree: what an edge means, what a node is called, what is asked.

    ``asked`` follows the tree and is followed by the centre once more. Words are split at spaces.
    """

    noun: str
    context: str = ""
    asked: str = ""


WORDINGS: dict[str, Wording] = {
    "pubmed": Wording(
        "paper", "Two papers of a medical data set are connected if one cites the other .", "Which kind of diabetes is"
    ),
    "wikics": Wording("paper", "Two papers are connected if one links to the other .", "Which category has"),
    "roman_empire": Wording(
        "word", "Words of an article are connected if they follow or depend on each other .", "Which role has"
    ),
    "amazon_ratings": Wording("product", "Products are connected if they are bought together .", "Which rating has"),
}
"""Ours for the four published data sets; the nouns are the official ones (llm-graphs spec)."""


@dataclass(frozen=True)
class TreePrompt:
    """A prompt before it is numbered: words and nodes in order.

    ``tokens`` are words (text) and nodes (numbers). ``parents`` is for each token of the tree the place of its parent's
    token and `NO_PARENT` for the centre; ``tree`` says which tokens those are. The centre that is asked for at the end
    is no token of the tree.
    """

    tokens: tuple[str | int, ...]
    tree: tuple[bool, ...]
    parents: tuple[int, ...]

    @property
    def query(self) -> int:
        """The place of the centre that is asked for."""
        return max(place for place, token in enumerate(self.tokens) if isinstance(token, int))

    def __str__(self) -> str:
        return " ".join(token if isinstance(token, str) else f"node_{token}" for token in self.tokens)


def tree_prompt(tree: NeighbourTree, wording: Wording) -> TreePrompt:
    """The prompt of a tree, in the order of the official one: user, context, tree, question, centre, assistant.

    Source: llm-graphs spec, prompt and node tokens.

    Example:
        >>> prompt = tree_prompt(NeighbourTree(5, (1, 2), ((7, 8), ())), Wording("word", asked="Which role has"))
        >>> print(prompt)
        <User>: Given that a word node_5 that connect [ node_1 is connected [ node_7 , node_8 ] , node_2 is connected [
        ] ] Which role has node_5 <Assistant>:
        >>> [prompt.parents[place] for place, node in enumerate(prompt.tree) if node]
        [-1, 5, 9, 9, 5]
    """
    tokens: list[str | int] = ["<User>:", *wording.context.split(), "Given", "that", "a", wording.noun]
    parents = [NO_PARENT] * len(tokens)
    places: set[int] = set()

    def write(words: str) -> None:
        tokens.extend(words.split())
        parents.extend([NO_PARENT] * len(words.split()))

    def name(node: int, parent: int) -> int:
        places.add(len(tokens))
        tokens.append(node)
        parents.append(parent)
        return len(tokens) - 1

    centre = name(tree.centre, NO_PARENT)
    write("that connect [")
    for number, (node, children) in enumerate(zip(tree.hop1, tree.hop2, strict=True)):
        if number:
            write(",")
        parent = name(node, centre)
        write("is connected [")
        for rank, child in enumerate(children):
            if rank:
                write(",")
            name(child, parent)
        write("]")
    write(f"] {wording.asked}")
    tokens.append(tree.centre)
    parents.append(NO_PARENT)
    write("<Assistant>:")
    return TreePrompt(tuple(tokens), tuple(place in places for place in range(len(tokens))), tuple(parents))


@dataclass(frozen=True, eq=False)
class TreePrompts:
    """A batch of prompts with the padding on the right.

    ``parents`` counts from the beginning of each row. A padded place holds token 0, is no node and has no parent.
    """

    ids: Int64[Tensor, "batch n"]
    tree: Bool[Tensor, "batch n"]
    parents: Int64[Tensor, "batch n"]
    lengths: Int64[Tensor, " batch"]
    query: Int64[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, which: Int64[Tensor, " rows"]) -> TreePrompts:
        """Some of the prompts, cut to the longest of them."""
        lengths = self.lengths[which]
        n = int(lengths.max())
        ids, tree, parents = (field[which, :n] for field in (self.ids, self.tree, self.parents))
        return TreePrompts(ids, tree, parents, lengths, self.query[which])


def lay_out(prompts: Sequence[TreePrompt], word_id: Callable[[str], int], node_id: Callable[[int], int]) -> TreePrompts:
    """Prompts as tensors, given the token of each word and of each node.

    Raises:
        ValueError: there is no prompt.

    Example:
        >>> prompts = [tree_prompt(NeighbourTree(3, hop1, ((),) * len(hop1)), Wording("word")) for hop1 in ((), (9,))]
        >>> batch = lay_out(prompts, word_id=len, node_id=lambda node: 100 + node)
        >>> batch.ids.shape, batch.lengths.tolist(), batch.ids[1, batch.tree[1]].tolist()
        (torch.Size([2, 17]), [12, 17], [103, 109])
    """
    if not prompts:
        raise ValueError("prompts must hold at least one prompt, got none")
    lengths = [len(prompt.tokens) for prompt in prompts]
    shape = (len(prompts), max(lengths))
    ids = torch.zeros(shape, dtype=torch.long)
    tree = torch.zeros(shape, dtype=torch.bool)
    parents = torch.full(shape, NO_PARENT)
    for row, prompt in enumerate(prompts):
        n = lengths[row]
        numbers = [word_id(token) if isinstance(token, str) else node_id(token) for token in prompt.tokens]
        ids[row, :n] = torch.tensor(numbers)
        tree[row, :n] = torch.tensor(prompt.tree)
        parents[row, :n] = torch.tensor(prompt.parents)
    return TreePrompts(ids, tree, parents, torch.tensor(lengths), torch.tensor([prompt.query for prompt in prompts]))
