"""The routing suite: regions that choose regions against torch's fused attention over the map, in time and memory.

What is measured is everything between projections: means of regions, choice, attention. "all gathered" is the published
way: every kept key and value is copied for every region, then torch's fused attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.bench.table import ratio
from windeye.bench.timing import Candidate, can_measure_memory, compare, peak_extra_bytes
from windeye.ops import attend
from windeye.patterns import Routed
from windeye.tokens import gather, merge, partition, pool, route

HEAD_DIM = 32
GOAL = 2.0
"""Routed over dense on the map of 128 x 128, forward; and its memory is linear in the tokens."""
MOST_SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    """One map, and what its regions keep."""

    batch: int
    side: int
    heads: int
    regions: int
    keep: int
    train: bool = False
    """Forward and backward."""

    @property
    def name(self) -> str:
        passes = ", both passes" if self.train else ""
        return (
            f"{self.batch} x {self.side}x{self.side} x {self.heads * HEAD_DIM}, "
            f"{self.keep} of {self.regions}x{self.regions}{passes}"
        )


STAGES = (Case(8, 56, 2, 7, 1), Case(8, 28, 4, 7, 4), Case(8, 14, 8, 7, 16))
"""The routed stages of BiFormer at 224 pixels."""
LARGE = (Case(1, 64, 2, 8, 16), Case(1, 128, 2, 16, 16), Case(1, 128, 2, 16, 16, train=True))
"""Regions of 8 x 8 tokens: twice the side is four times the tokens and no more keys per query."""
QUICK = (Case(1, 16, 2, 4, 4), Case(1, 32, 2, 4, 4, train=True))
CASES = (*STAGES, *LARGE)
COLUMNS = (
    "input, kept regions", "dense ms", "all gathered ms", "routed ms", "dense / routed", "MB", "MB all gathered",
    "bytes per token",
)  # fmt: skip


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts. ``quick`` measures small maps in three rounds: to see that it works."""
    for case in QUICK if quick else CASES:
        yield f"time {case.name}", partial(times, case, 3 if quick else 7)
        if can_measure_memory():
            yield f"memory {case.name}", partial(memory, case)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per case."""
    table: list[tuple[str, ...]] = []
    for case in (*CASES, *QUICK):
        timed, kept = (result["parts"].get(f"{what} {case.name}") for what in ("time", "memory"))
        if timed is not None:
            ms = [f"{1000 * timed[name]['seconds']:.1f}" for name in ("dense", "all gathered", "routed")]
            peaks = [f"{kept[name] / 2**20:.1f}" for name in ("routed", "all gathered")] if kept else ["", ""]
            each = f"{kept['routed'] / (case.batch * case.side**2):,.0f}" if kept else ""
            table.append((case.name, *ms, ratio(timed["routed"]["speedup"]), *peaks, each))
    return table


def tensors(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value maps [batch, side, side, heads, head_dim]."""
    torch.manual_seed(0)
    shape = (case.batch, case.side, case.side, case.heads, HEAD_DIM)
    query, key, value = (torch.randn(shape, requires_grad=case.train) for _ in range(3))
    return query, key, value


def choice(case: Case, query: Tensor, key: Tensor) -> Tensor:
    """The regions that each region keeps."""
    side = case.side // case.regions
    queries, keys = (pool(t.flatten(-2), (side, side)).flatten(1, 2) for t in (query, key))
    return route(queries, keys, case.keep)


def routed(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attend(query, key, value, Routed(choice(case, query, key), case.regions))


def all_gathered(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As published.

    Example:
        >>> case = QUICK[0]
        >>> torch.allclose(all_gathered(case, *tensors(case)), routed(case, *tensors(case)), atol=1e-6)
        True
    """
    side = case.side // case.regions
    index = choice(case, query, key)
    q, k, v = (partition(t, (side, side)).flatten(2, 3) for t in (query, key, value))
    one, kept, values = (t.flatten(0, 1).transpose(1, 2) for t in (q, gather(k, index), gather(v, index)))
    out = F.scaled_dot_product_attention(one, kept, values).transpose(1, 2)
    return merge(out.reshape(*q.shape[:2], side, side, *q.shape[3:]), (case.side, case.side))


def dense(_case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(query.shape)


FORMS = {"dense": dense, "all gathered": all_gathered, "routed": routed}


def run(case: Case, form: str, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """One pass, or both."""
    with torch.set_grad_enabled(case.train):
        out = FORMS[form](case, *inputs)
    return torch.autograd.grad(out.sum(), inputs) if case.train else (out,)


def times(case: Case, rounds: int) -> dict[str, Any]:
    """Medians, and how much faster than dense attention each form is."""
    inputs = tensors(case)
    candidates: dict[str, Candidate] = {form: partial(run, case, form, inputs) for form in FORMS}
    timings = compare(candidates, baseline="dense", rounds=rounds, most_seconds=MOST_SECONDS)
    return {name: asdict(timing) for name, timing in timings.items()} | {"goal": GOAL}


def memory(case: Case, forms: Sequence[str] = ("routed", "all gathered")) -> dict[str, int]:
    """Peak bytes beyond inputs and results, each in a process of its own."""
    return {form: peak_extra_bytes(_MEASURED.format(case=asdict(case), form=form)) for form in forms}


_MEASURED = """
from windeye.bench import routing
import torch
torch.set_num_threads(1)
case = routing.Case(**{case})
small = routing.Case(1, case.regions, case.heads, case.regions, case.keep, case.train)
routing.run(small, "{form}", routing.tensors(small))
inputs = routing.tensors(case)
def run():
    return routing.run(case, "{form}", inputs)
"""
