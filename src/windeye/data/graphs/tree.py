"""Two-hop neighbourhoods as trees."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from windeye.data.graphs.graph import Graph


@dataclass(frozen=True)
class NeighbourTree:
    """A centre, its neighbours, and for each of these a list of neighbours of its own.

    A node may stand in several places: places, not nodes, are what a prompt spells out.

    Example:
        >>> tree = NeighbourTree(5, (1, 2), ((7, 8), ()))
        >>> tree.places, tree.nodes
        (5, (1, 2, 7, 8))
    """

    centre: int
    hop1: tuple[int, ...]
    hop2: tuple[tuple[int, ...], ...]
    """One list per node of ``hop1``."""

    def __post_init__(self) -> None:
        if len(self.hop1) != len(self.hop2):
            raise ValueError(f"hop2 must be one list for each of the {len(self.hop1)} nodes of hop1, got {self.hop2}")

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes but the centre: the first hop, then the lists of the second."""
        return self.hop1 + tuple(node for children in self.hop2 for node in children)

    @property
    def places(self) -> int:
        """How many places the tree has, the centre counted."""
        return 1 + len(self.nodes)


def sample_tree(
    graph: Graph, centre: int, fan_out: tuple[int, int] = (8, 8), generator: torch.Generator | None = None
) -> NeighbourTree:
    """At most ``fan_out[0]`` neighbours of the centre and ``fan_out[1]`` neighbours of each, without replacement.

    The centre is left out of the second hop. With a generator the choice and the order are random, so that the order
    carries no information; without one they are the first ones, ascending.

    Raises:
        ValueError: there is no such node, or a fan-out below 0.

    Source: llm-graphs spec, prompt and node tokens; equal to the official trees, see tests/data/test_graphs.py.

    Example:
        >>> graph = Graph.of(torch.tensor([[0, 1], [0, 2], [1, 2], [2, 3]]), torch.zeros(4, dtype=torch.long), ["a"])
        >>> sample_tree(graph, 0)
        NeighbourTree(centre=0, hop1=(1, 2), hop2=((2,), (1, 3)))
    """
    if min(fan_out) < 0:
        raise ValueError(f"fan_out must not be negative, got {fan_out}")

    def some(node: int, most: int) -> tuple[int, ...]:
        found = graph.neighbours_of(node)
        found = found[found != centre]
        if generator is not None:
            found = found[torch.randperm(len(found), generator=generator)]
        return tuple(found[:most].tolist())

    hop1 = some(centre, fan_out[0])
    return NeighbourTree(centre, hop1, tuple(some(node, fan_out[1]) for node in hop1))
