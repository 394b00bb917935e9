"""Peak memory of a training step and of inference, each in a process that did nothing before."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from windeye.bench.timing import can_measure_memory
from windeye.compare.vision.arms import Arm, arms
from windeye.compare.vision.skeleton import Skeleton
from windeye.compare.vision.speed import SpeedPlan, Work, candidate
from windeye.report import Tell, silent

Bytes = dict[str, int | None]
"""Of each arm; None where the system cannot say it."""


def peaks(
    chosen: Sequence[Arm], work: Work, side: int, plan: SpeedPlan, device: str = "cpu", tell: Tell = silent
) -> Bytes:
    """Bytes that one call takes at its peak beside weights and images.

    On a CPU every arm runs in a process of its own, forked from one that has only imported: what an earlier arm left in
    the allocator would be taken again unseen. Such a process knows registered arms alone. On CUDA torch's own count.
    """
    if torch.device(device).type == "cuda":
        found: Bytes = {arm.name: _on_cuda(candidate(arm, work, side, plan, device), device) for arm in chosen}
    else:
        known = [arm.name for arm in chosen if arm.name in arms()] if can_measure_memory() else []
        found = dict.fromkeys(arm.name for arm in chosen) | (_forked(known, work, side, plan) if known else {})
    tell(1.0)
    return found


def _on_cuda(run: Callable[[], object], device: str) -> int:
    run()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def _forked(names: Sequence[str], work: Work, side: int, plan: SpeedPlan) -> Bytes:
    code = (
        "from windeye.compare.vision.memory import Skeleton, SpeedPlan, tell_peaks\n"
        f"tell_peaks({list(names)}, {work!r}, {side}, {plan!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found: Bytes = {name: count for line in lines for name, count in line.items()}
    if missing := [name for name in names if name not in found]:
        raise RuntimeError(f"the measured process failed at {missing[0]}: {done.stderr.strip().splitlines()[-1:]}")
    return found


def tell_peaks(names: Sequence[str], work: Work, side: int, plan: SpeedPlan) -> None:
    """Print a line of JSON per arm. For a fresh process, which forks: nothing may run in threads before."""
    torch.set_num_threads(1)
    for name in names:
        child = os.fork()
        if child == 0:
            try:
                print(json.dumps({name: _peak(arms()[name], work, side, plan)}), flush=True)
            except BaseException as error:  # whatever it is, the child must not go on as its parent
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(0)
        os.waitpid(child, 0)


def _peak(arm: Arm, work: Work, side: int, plan: SpeedPlan) -> int:
    small = 4 * plan.skeleton.patch
    candidate(arm, work, small, SpeedPlan(plan.skeleton, (small,), small**2))()  # what is loaded once is no peak
    run = candidate(arm, work, side, plan)
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    run()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    found = re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


__all__ = ["Bytes", "Skeleton", "SpeedPlan", "peaks", "tell_peaks"]
