"""Which boxes of queries and of keys meet: by the plan of a pattern, or from the runs of any relation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from windeye.kernels.softmax.triton import launch
from windeye.kernels.softmax.triton.arguments import Lists
from windeye.kernels.softmax.triton.arguments import Relation as Tables
from windeye.kernels.softmax.triton.plan import AXES
from windeye.kernels.statistics.relation import Runs, Tabled
from windeye.kernels.statistics.triton.arguments import Visits


def visits(relation: Runs, queries: int, keys: int) -> tuple[Visits, dict[str, Any]]:
    """The relation in boxes of so many queries and keys, powers of two, and what kernels are compiled for by it."""
    tabled = tables_of(relation)
    return _of_runs(relation, queries, keys) if tabled is None else _of_tables(tabled, queries, keys)


def tables_of(relation: Runs) -> Tabled | None:
    """The relation, where it is planned from interval tables."""
    if isinstance(relation, Tabled) and relation.bound.rank <= AXES and relation.bound.terms:
        return relation
    return None


def _of_tables(relation: Tabled, queries: int, keys: int) -> tuple[Visits, dict[str, Any]]:
    t = launch.tables(relation.bound, queries, keys, relation.device)
    options = {
        "QUERIES": tuple(axis.size for axis in t.plan.queries), "KEYS": tuple(axis.size for axis in t.plan.keys),
        "RANK": t.plan.rank, "CHECKS": t.plan.relation.checks,
    }  # fmt: skip
    return Visits(t.queries, t.keys, t.of_queries, t.of_keys, t.relation, 0, 0), options


def _of_runs(relation: Runs, queries: int, keys: int) -> tuple[Visits, dict[str, Any]]:
    start, stop = (t.int().contiguous() for t in (relation.start, relation.stop))
    batch, runs, tokens = start.shape
    met, whole = _meetings(relation, queries, keys)
    place = torch.tensor([runs], dtype=torch.int32, device=start.device)
    apart = int(batch > 1)
    found = Visits(
        launch.sequence(tokens, queries), launch.sequence(relation.keys, keys), _listed(met, whole, keys),
        _listed(met.mT, whole.mT, queries), Tables(start, stop, place), runs * tokens * apart, apart,
    )  # fmt: skip
    return found, {"QUERIES": (1, 1, queries), "KEYS": (1, 1, keys), "RANK": 0, "CHECKS": (0, 0, 0)}


def _meetings(
    relation: Runs, queries: int, keys: int
) -> tuple[Bool[Tensor, "batch q_boxes k_boxes"], Bool[Tensor, "batch q_boxes k_boxes"]]:
    """Whether any query of a box sees any key of another, and whether one run of each shows it all of them."""
    start, stop = relation.start.long(), relation.stop.long()
    batch, _, tokens = start.shape
    rows, columns = -(-tokens // queries), -(-relation.keys // keys)
    row = torch.arange(tokens, device=start.device) // queries

    def covered(first: Tensor, beyond: Tensor) -> Int[Tensor, "batch q_boxes k_boxes"]:
        """How many runs of the queries of a box hold ``first <= key box < beyond``."""
        there = ((stop > start) & (beyond > first)).long().flatten(1)
        change = torch.zeros(batch, rows * (columns + 1), dtype=torch.long, device=start.device)
        for at, step in ((first, there), (beyond, -there)):
            change.scatter_add_(1, (row * (columns + 1) + at.clamp(0, columns)).flatten(1), step)
        return change.view(batch, rows, columns + 1).cumsum(dim=-1)[..., :-1]

    met = covered(start // keys, (stop + keys - 1) // keys) > 0
    everyone = (tokens - queries * torch.arange(rows, device=start.device)).clamp(max=queries)[:, None]
    return met, covered((start + keys - 1) // keys, stop // keys) == everyone


def _listed(met: Bool[Tensor, "batch boxes others"], whole: Bool[Tensor, "batch boxes others"], size: int) -> Lists:
    """Other boxes are of so many tokens, and named by the first of them."""
    met, whole = met.flatten(0, 1), (met & whole).flatten(0, 1)
    box, other = met.nonzero(as_tuple=True)
    count = met.shape[1]
    order = (box * (2 * count) + (~whole[box, other]).long() * count + other).argsort()
    begin = F.pad(met.sum(dim=1).cumsum(dim=0), (1, 0))
    middle = begin[:-1] + whole.sum(dim=1)
    # An empty list would have no address.
    return Lists(begin.int(), middle.int(), F.pad(other[order] * size, (0, 1)).int())
