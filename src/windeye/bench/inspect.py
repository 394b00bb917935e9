"""The inspect suite: statistics of every head of a real model, against taking its maps; other libraries take part where
an environment with them is named. Steering a query against the plain pass."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from windeye.bench import inspected
from windeye.bench.table import ratio

MODEL = "smollm2-135m-instruct"
LAYERS, HEADS = 30, 9
SIZES = (512, 1024, 2048, 4096, 8192)
OWN = ("plain", "windeye", "steered", "one_map", "maps")
ROUNDS = 1
PEERS_MOST = 2048
"""Tokens that the peers read: what forms maps costs minutes beyond, and the rows of eager attention tell as much."""
PEERS = ("transformer_lens", "nnsight_trace")
PEERS_PYTHON = "WINDEYE_BENCH_PEERS"
"""Names a Python in which the peers are installed; they bring versions of their own."""

TOLD = {
    "plain": "the model's own pass (SDPA)",
    "windeye": "windeye: statistics beside the pass",
    "steered": "windeye: the last query steered",
    "one_map": "eager, one layer's maps at a time",
    "maps": "eager, output_attentions=True",
    "transformer_lens": "TransformerLens, hooks on the patterns",
    "nnsight_trace": "nnsight, a trace of the patterns",
}
COLUMNS = (
    "tokens, way", "processor s", "over the plain pass", "beside the model, MiB", "process, MiB", "largest difference",
)  # fmt: skip


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts; ``quick`` measures a short text: to see it works."""
    peers = os.environ.get(PEERS_PYTHON)
    for tokens in (64,) if quick else SIZES:
        for way in (*OWN, *(PEERS if peers and tokens <= PEERS_MOST else ())):
            interpreter = peers if peers and way in PEERS else sys.executable
            yield f"{tokens} tokens, {TOLD[way]}", partial(_measure, interpreter, way, tokens, 1 if quick else ROUNDS)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line per size and way; what did not run says why."""
    table: list[tuple[str, ...]] = []
    done = {(told["tokens"], told["way"]): told for told in result["parts"].values()}
    for name, told in result["parts"].items():
        if "why not" in told:
            table.append((name, told["why not"], "", "", "", ""))
            continue
        over = ratio(told["processor"] / done[told["tokens"], "plain"]["processor"])
        peak, whole = (f"{told[what] / 2**20:,.0f}" for what in ("peak", "whole"))
        difference = "" if told["difference"] is None or told["way"] == "windeye" else f"{told['difference']:.0e}"
        table.append((name, f"{told['processor']:.2f}", over, peak, whole, difference))
    return table


def _measure(interpreter: str, way: str, tokens: int, rounds: int) -> dict[str, Any]:
    """Medians of a way, each round in a process of its own. What is compared are seconds of the processor: they hold on
    machines that do other work as well."""
    told: dict[str, Any] = {"tokens": tokens, "way": way}
    # Kept maps need all of their memory at once, others that of one layer's map and of a few products with it.
    maps = 0 if way in ("plain", "windeye", "steered") else 1.2 * LAYERS if way == "maps" else 5
    needed, there = maps * HEADS * tokens**2 * 4, 0.6 * _available()
    if needed > there:
        return told | {"why not": f"would need {needed / 2**30:.0f} GiB for maps, {there / 2**30:.0f} may be taken"}
    measured: list[dict[str, Any]] = []
    for _ in range(rounds):
        found = _ours(tokens) if way == "windeye" and not measured else _once(interpreter, way, tokens)
        if isinstance(found, str):
            return told | {"why not": found}
        measured.append(found)
    numbers = ("seconds", "processor", "peak", "whole")
    medians = {what: statistics.median(found[what] for found in measured) for what in numbers}
    statistic = measured[0]["statistics"]
    difference = None if statistic is None else _difference(statistic, _ours(tokens)["statistics"])
    return told | medians | {"difference": difference}


@cache
def _ours(tokens: int) -> dict[str, Any]:
    """What others are compared with."""
    found = _once(sys.executable, "windeye", tokens)
    assert isinstance(found, dict)
    return found


def _difference(found: list[list[float]], expected: list[list[float]]) -> float:
    """The largest, relative to the largest value of its statistic."""
    ours, theirs = (torch.tensor(values, dtype=torch.float64) for values in (expected, found))
    return float(((theirs - ours).abs() / ours.abs().amax(dim=1, keepdim=True).clamp(min=1e-9)).max())


def _once(interpreter: str, way: str, tokens: int) -> dict[str, Any] | str:
    """One measurement, or why there is none."""
    threads = str(torch.get_num_threads())
    # -P: modules beside the file, such as this one, do not stand in for the standard library's.
    command = [interpreter, "-P", str(inspected.__file__), way, _folder(), str(tokens), threads]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        if way in OWN:
            raise RuntimeError(f"{way} failed: {done.stderr.strip().splitlines()[-1:]}")
        return "did not run: " + (done.stderr.strip().splitlines() or ["killed"])[-1][:120]
    return json.loads(done.stdout.strip().splitlines()[-1])


@cache
def _folder() -> str:
    """Where the model lies in the layout of transformers, which every library reads."""
    from windeye.hf.pretrained import load

    return str(load(MODEL)[0].name_or_path)


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
