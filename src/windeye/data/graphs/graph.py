"""A graph with a class and a text for every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from windeye.data.sequences import derived_seed

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes ``0 .. n - 1``; the neighbours of node ``i`` are ``neighbours[start[i]:start[i + 1]]``, ascending.

    Undirected, without loops or repeated edges; make one with `Graph.of`.

    Example:
        >>> graph = Graph.of(torch.tensor([[0, 1], [1, 0], [2, 1], [2, 2]]), torch.tensor([0, 0, 1]), ("a", "b"))
        >>> graph.neighbours_of(1).tolist(), graph.homophily
        ([0, 2], 0.5)
    """

    start: Int64[Tensor, " nodes_plus_one"]
    neighbours: Int64[Tensor, " twice_edges"]
    labels: Int64[Tensor, " nodes"]
    classes: tuple[str, ...]
    texts: tuple[str, ...] | None = None
    features: Float[Tensor, "nodes channels"] | None = None
    splits: Mapping[str, Int64[Tensor, " some"]] = field(default_factory=dict)
    """Which nodes are for training, validation and test, by `SPLITS`."""

    @classmethod
    def of(
        cls,
        edges: Int64[Tensor, "edges 2"],
        labels: Int64[Tensor, " nodes"],
        classes: Sequence[str],
        *,
        texts: Sequence[str] | None = None,
        features: Float[Tensor, "nodes channels"] | None = None,
        splits: Mapping[str, Int64[Tensor, " some"]] | None = None,
    ) -> Graph:
        """From pairs of nodes in any direction, any of them any number of times; loops are dropped.

        Raises:
            ValueError: an edge names a node that is not there, a label has no class, or there is not one text and one
                row of features per node.
        """
        nodes, classes = len(labels), tuple(classes)
        if edges.numel() and not (int(edges.min()) >= 0 and int(edges.max()) < nodes):
            raise ValueError(
                f"edges name nodes from {int(edges.min())} to {int(edges.max())} but labels are given for {nodes}"
            )
        if nodes and not (int(labels.min()) >= 0 and int(labels.max()) < len(classes)):
            raise ValueError(
                f"labels go from {int(labels.min())} to {int(labels.max())} but classes are {len(classes)}"
            )
        for name, rows in (("texts", texts), ("features", features)):
            if rows is not None and len(rows) != nodes:
                raise ValueError(f"{name} are given for {len(rows)} nodes but labels for {nodes}")
        both = torch.cat((edges, edges.flip(1)))
        both = torch.unique(both[both[:, 0] != both[:, 1]], dim=0)
        start = torch.searchsorted(both[:, 0].contiguous(), torch.arange(nodes + 1))
        return cls(
            start, both[:, 1].contiguous(), labels, classes, None if texts is None else tuple(texts), features,
            dict(splits or {}),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def neighbours_of(self, node: int) -> Int64[Tensor, " degree"]:
        """The neighbours of a node, ascending.

        Raises:
            ValueError: there is no such node.
        """
        if not 0 <= node < len(self):
            raise ValueError(f"node must be in 0 .. {len(self) - 1}, got {node}")
        return self.neighbours[int(self.start[node]) : int(self.start[node + 1])]

    def text_of(self, node: int) -> str:
        """The text of a node.

        Raises:
            ValueError: the node, or every node, has none.
        """
        if self.texts is None or not self.texts[node].strip():
            raise ValueError(f"node {node} has no text")
        return self.texts[node]

    @property
    def homophily(self) -> float:
        """The share of edges whose ends are of one class."""
        ends = torch.arange(len(self)).repeat_interleave(self.start.diff())
        same = self.labels[ends] == self.labels[self.neighbours]
        return same.double().mean().item() if same.numel() else 0.0

    def shuffled_splits(self, seed: int, shares: tuple[float, float] = (0.6, 0.2)) -> dict[str, Int64[Tensor, " some"]]:
        """Random splits by `SPLITS`: the shares of training and validation, and the rest.

        Example:
            >>> graph = Graph.of(torch.zeros(0, 2, dtype=torch.long), torch.zeros(10, dtype=torch.long), ["a"])
            >>> {name: len(part) for name, part in graph.shuffled_splits(0).items()}
            {'train': 6, 'validation': 2, 'test': 2}
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(derived_seed("splits", seed)))
        bounds = [round(shares[0] * len(self)), round((shares[0] + shares[1]) * len(self))]
        return dict(zip(SPLITS, order.tensor_split(bounds), strict=True))
