"""Four ways to break the structure of a neighbourhood and keep its text: does a reader use the edges?

All leave the centre alone. I and II move nodes of the second hop between lists, III moves nodes between hops, IV brings
nodes of other neighbourhoods in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from windeye.data.graphs.tree import NeighbourTree

ROUNDS = 11
"""How often II exchanges and IV replaces (llm-graphs spec)."""

Perturbation = Callable[[NeighbourTree, Sequence[int], torch.Generator], NeighbourTree]
"""From a tree, the nodes of the other trees of its batch and a source of chance to the perturbed tree."""


def swap_lists(tree: NeighbourTree, _others: Sequence[int], generator: torch.Generator) -> NeighbourTree:
    """I: two random nodes of the first hop swap their lists, once.

    Example:
        >>> tree = NeighbourTree(0, (1, 2), ((3, 4), (5,)))
        >>> swap_lists(tree, (), torch.Generator())
        NeighbourTree(centre=0, hop1=(1, 2), hop2=((5,), (3, 4)))
    """
    if len(tree.hop1) < 2:
        return tree
    lists = list(tree.hop2)
    a, b = _pair(len(lists), generator)
    lists[a], lists[b] = lists[b], lists[a]
    return replace(tree, hop2=tuple(lists))


def exchange_prefixes(tree: NeighbourTree, _others: Sequence[int], generator: torch.Generator) -> NeighbourTree:
    """II: in each of 11 rounds two random nodes of the first hop exchange their children one for one, as far as the
    shorter list goes."""
    if len(tree.hop1) < 2:
        return tree
    lists = list(tree.hop2)
    for _ in range(ROUNDS):
        a, b = _pair(len(lists), generator)
        shared = min(len(lists[a]), len(lists[b]))
        lists[a], lists[b] = lists[b][:shared] + lists[a][shared:], lists[a][:shared] + lists[b][shared:]
    return replace(tree, hop2=tuple(lists))


def redeal(tree: NeighbourTree, _others: Sequence[int], generator: torch.Generator) -> NeighbourTree:
    """III: all nodes but the centre are shuffled and dealt to the same places again, first and second hop alike.

    Differs from: the official code, whose second hop gets lists as long as the first hop, and which loses nodes.
    """
    pool = [tree.nodes[i] for i in torch.randperm(len(tree.nodes), generator=generator).tolist()]
    hop1, rest = tuple(pool[: len(tree.hop1)]), pool[len(tree.hop1) :]
    lists = []
    for children in tree.hop2:
        lists.append(tuple(rest[: len(children)]))
        rest = rest[len(children) :]
    return replace(tree, hop1=hop1, hop2=tuple(lists))


def replace_nodes(tree: NeighbourTree, others: Sequence[int], generator: torch.Generator) -> NeighbourTree:
    """IV: in each of 11 rounds some nodes from ``others`` come in: ``min(others, first hop) // 2`` of them, each in the
    place of a random node of the first hop, which keeps its list, or of a random child of one, by the toss of a coin.

    ``others`` that stand in the tree are left out. A child of a node without children is a toss for nothing.
    """
    strangers = sorted(set(others) - {tree.centre, *tree.nodes})
    hop1, lists = list(tree.hop1), [list(children) for children in tree.hop2]
    coming = min(len(strangers), len(hop1)) // 2
    for _ in range(ROUNDS if coming else 0):
        for index in torch.randperm(len(strangers), generator=generator)[:coming].tolist():
            place = _draw(len(hop1), generator)
            if _draw(2, generator):
                hop1[place] = strangers[index]
            elif lists[place]:
                lists[place][_draw(len(lists[place]), generator)] = strangers[index]
    return replace(tree, hop1=tuple(hop1), hop2=tuple(tuple(children) for children in lists))


PERTURBATIONS: dict[str, Perturbation] = {
    "I": swap_lists, "II": exchange_prefixes, "III": redeal, "IV": replace_nodes
}  # fmt: skip
"""By the names of the paper."""


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _pair(count: int, generator: torch.Generator) -> tuple[int, int]:
    """Two different places."""
    first, second = torch.randperm(count, generator=generator)[:2].tolist()
    return first, second
