"""Timing on machines that are never quiet: candidates take turns, and what is reported are medians and ratios."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Candidate = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """One candidate: its median time and how much faster it is than the baseline, round by round."""

    name: str
    seconds: float
    fastest: float
    speedup: float
    rounds: int


def compare(
    candidates: dict[str, Candidate],
    *,
    baseline: str,
    rounds: int = 7,
    most_seconds: float = 30.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time candidates in turn, A B C A B C, after one warm-up of each.

    With ``clock=time.process_time`` what counts are seconds of the processor, which other work hardly stretches: for
    what runs on one thread of a CPU and waits for nothing.

    ``speedup`` is the median over rounds of (baseline time / candidate time) of the same round, so that a machine whose
    speed drifts does not decide. Stops after ``rounds``, or after ``most_seconds`` once three rounds are done.

    Raises:
        ValueError: the baseline is not one of the candidates.

    Example:
        >>> result = compare({"a": lambda: None, "b": lambda: None}, baseline="a", rounds=3)
        >>> result["a"].speedup
        1.0
    """
    if baseline not in candidates:
        raise ValueError(f"baseline must be one of {', '.join(candidates)}, got {baseline!r}")
    for run in candidates.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    began = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            if number >= 3 and time.perf_counter() - began > most_seconds:
                break
            for name, run in candidates.items():
                start = clock()
                run()
                times[name].append(clock() - start)
    finally:
        if collecting:
            gc.enable()
    against = times[baseline]
    return {
        name: Timing(
            name=name,
            seconds=statistics.median(own),
            fastest=min(own),
            speedup=statistics.median(b / a for a, b in zip(own, against, strict=True)),
            rounds=len(own),
        )
        for name, own in times.items()
    }


def peak_extra_bytes(code: str, *, timeout: float = 600.0) -> int:
    """Peak memory that ``run()`` adds to its process, in bytes, measured in a fresh Python.

    ``code`` defines inputs and a function ``run() -> tensors``, which is called once on a small case by the code itself
    if it needs warming up. Bytes of the returned tensors are not counted. Linux only.
    """
    script = _PEAK.format(code=code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the measured process failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout.strip().splitlines()[-1])


_PEAK = """
{code}
import re
def status(field):
    with open("/proc/self/status") as f:
        return 1024 * int(re.search(field + r":\\s+(\\d+)", f.read()).group(1))
with open("/proc/self/clear_refs", "w") as f:
    f.write("5")  # resets the high-water mark
before = status("VmRSS")
out = run()
kept = sum(t.numel() * t.element_size() for t in (out if isinstance(out, (tuple, list)) else [out]))
print(max(0, status("VmHWM") - before - kept))
"""


def can_measure_memory() -> bool:
    """Whether this system reports and resets a process's peak memory."""
    return Path("/proc/self/clear_refs").exists()
