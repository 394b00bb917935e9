"""The statistics suite: what numbers about one layer's attention map cost beside torch's fused causal attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import windeye
from windeye.bench.table import milliseconds
from windeye.bench.timing import Candidate, can_measure_memory, compare, peak_extra_bytes
from windeye.kernels.statistics.statistic import Statistic
from windeye.ops import DistanceMass, Entropy, FutureInfluence, MeanDistance, SinkMass, WindowedDistance

HEADS, KV_HEADS, HEAD_DIM = 9, 3, 64
"""A layer of a small language model of 135 million weights."""
WINDOW, LOW, HIGH = 10, 10, 100

ROWS: dict[str, Statistic] = {
    "entropy": Entropy(), "distance": MeanDistance(), "window": WindowedDistance(WINDOW), "sink": SinkMass(1),
    "self": DistanceMass(0, 0),
}  # fmt: skip
BAND: dict[str, Statistic] = {"influence": FutureInfluence(LOW, HIGH)}

TOKENS = (2048, 8192, 32768)
SLABS, MAPS, COLUMNS_UP_TO = 2048, 8192, 8192
"""The longest sequences for which some rows of the maps at a time, maps of one head at a time (of 8,192 tokens: 268 MB,
several times), and all columns are computed."""
MOST_MEMORY = 0.03
"""Memory to stay below at 8,192 tokens, as a share of one layer's map."""

DENSE, OURS, WITH_BAND, ALL_COLUMNS, SLAB, EAGER = (
    "causal SDPA", "row statistics", "row statistics and FAI", "column sums", "slabs of rows", "whole maps",
)  # fmt: skip
COLUMNS = (
    "entropy, distance, WAAD, sink, self", "causal SDPA, ms", "rows, ms", "over SDPA", "with FAI", "column sums",
    "slabs of rows", "whole maps", "memory beside one map",
)  # fmt: skip


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts; ``quick`` measures three rounds of a short sequence: to see it works."""
    for tokens in (256,) if quick else TOKENS:
        yield f"{tokens} tokens", partial(_measure, tokens, 3 if quick else 7)
        if can_measure_memory():
            yield f"memory {tokens} tokens", partial(_memory, tokens)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line per length: milliseconds of both, then how many times causal attention everything takes, and the memory of
    rows and FAI as a share of one layer's map."""
    table = []
    for name, part in result["parts"].items():
        if name.startswith("memory"):
            continue
        timings = part["timings"]
        cost = {candidate: f"{1 / timing['speedup']:.2f}x" for candidate, timing in timings.items()}
        memory = result["parts"].get(f"memory {name}")
        share = "" if memory is None else f"{memory['bytes'] / memory['map_bytes']:.1%}"
        times = (milliseconds(timings[candidate]["seconds"]) for candidate in (DENSE, OURS))
        ratios = (cost.get(candidate, "") for candidate in (OURS, WITH_BAND, ALL_COLUMNS, SLAB, EAGER))
        table.append((name, *times, *ratios, share))
    return table


def _measure(tokens: int, rounds: int) -> dict[str, Any]:
    inputs = Inputs(tokens)
    candidates: dict[str, Candidate] = {
        DENSE: inputs.dense,
        OURS: partial(inputs.statistics, ROWS),
        WITH_BAND: partial(inputs.statistics, ROWS | BAND),
    }
    if tokens <= COLUMNS_UP_TO:
        candidates[ALL_COLUMNS] = partial(inputs.statistics, {"received": "column_sum"})
    if tokens <= SLABS:
        candidates[SLAB] = partial(inputs.statistics, ROWS | BAND, "slab")
    if tokens <= MAPS:
        candidates[EAGER] = inputs.eager
    with torch.no_grad():
        timings = compare(candidates, baseline=DENSE, rounds=rounds)
    return {"tokens": tokens, "timings": {name: asdict(timing) for name, timing in timings.items()}}


def _memory(tokens: int) -> dict[str, int]:
    """Bytes of rows and FAI in a fresh process, values not counted, and of one map of all heads in float32."""
    code = (
        "from windeye.bench.statistics import BAND, ROWS, Inputs\n"
        "Inputs(64).statistics(ROWS | BAND)\n"
        f"inputs = Inputs({tokens})\n"
        "def run():\n"
        "    return list(inputs.statistics(ROWS | BAND).values())\n"
    )
    return {"bytes": peak_extra_bytes(code), "map_bytes": 4 * HEADS * tokens * tokens}


class Inputs:
    """Random queries, keys and values of one layer, and what is computed from them."""

    def __init__(self, tokens: int) -> None:
        generator = torch.Generator().manual_seed(tokens)
        self.query = torch.randn(1, tokens, HEADS, HEAD_DIM, generator=generator)
        self.key, self.value = (torch.randn(1, tokens, KV_HEADS, HEAD_DIM, generator=generator) for _ in range(2))
        repeated = (t.repeat_interleave(HEADS // KV_HEADS, dim=2) for t in (self.key, self.value))
        self.heads_first = [t.transpose(1, 2).contiguous() for t in (self.query, *repeated)]

    def dense(self) -> Tensor:
        """torch's fused causal attention as it is fastest: heads first, keys already repeated."""
        query, key, value = self.heads_first
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    def statistics(self, stats: Mapping[str, Statistic | str], route: str = "auto") -> dict[str, Tensor]:
        """Ours, with heads as they come out of a projection."""
        return windeye.statistics(self.query, self.key, stats, route=route)

    def eager(self) -> dict[str, Tensor]:
        """From whole maps, head by head, each number by the cheapest way that there is."""
        heads = [self._of_map(head) for head in range(HEADS)]
        return {name: torch.stack([values[name] for values in heads], dim=-1)[None] for name in heads[0]}

    def _of_map(self, head: int) -> dict[str, Tensor]:
        query, key = (tensor[0, head] for tensor in self.heads_first[:2])
        tokens = query.shape[0]
        place = torch.arange(tokens, dtype=torch.float32)
        logits = (query @ key.T).mul_(HEAD_DIM**-0.5)
        logits.masked_fill_(place[:, None] < place, -torch.inf)
        weights = logits.softmax(dim=-1)
        values = {
            "entropy": -torch.xlogy(weights, weights).sum(dim=-1),
            "distance": place - weights @ place,
            "sink": weights[:, 0],
            "self": weights.diagonal(),
        }
        # A row sums to one, so what lies beyond the window is what the window leaves.
        window = torch.full_like(values["entropy"], WINDOW)
        for lag in range(min(WINDOW, tokens)):
            window[lag:] -= (WINDOW - lag) * weights.diagonal(-lag)
        influence, counts = torch.zeros_like(window), torch.zeros(tokens)
        for lag in range(LOW, min(HIGH + 1, tokens)):
            influence[: tokens - lag] += weights.diagonal(-lag)
            counts[: tokens - lag] += 1
        return values | {"window": window, "influence": influence / counts.clamp(min=1)}
