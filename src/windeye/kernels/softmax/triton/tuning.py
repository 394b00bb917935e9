"""Measuring the few best sizes of boxes for a problem, once: with ``WINDEYE_AUTOTUNE=1`` in the environment, on a GPU.

Not by default, for the first call of each problem then compiles several kernels, a minute's work. Without it the sizes
follow from the problem alone, and so do the bits of the result; that holds also where torch is asked for deterministic
algorithms. While a CUDA graph is captured nothing can be measured: what was not measured before takes the first sizes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from math import inf

import torch

from windeye.kernels.softmax.problem import Problem
from windeye.kernels.softmax.triton.sizes import Kernel, Sizes, candidates, first

MEASURED: dict[tuple[Kernel, Problem, str], Sizes] = {}
"""What was found best, per kernel, problem and device."""


def best(problem: Problem, kernel: Kernel, run: Callable[[Sizes], None]) -> Sizes:
    """The sizes to run with; ``run`` launches the kernel and may be called many times."""
    if not wanted(problem.device):
        return first(problem, kernel)
    key = kernel, _alike(problem), _device_name(problem.device)
    if key not in MEASURED:
        if problem.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return first(problem, kernel)
        options = candidates(problem, kernel)
        MEASURED[key] = min(options, key=lambda option: milliseconds(lambda: run(option)))
    return MEASURED[key]


def wanted(device: torch.device) -> bool:
    """Whether sizes are measured on this device."""
    asked = os.environ.get("WINDEYE_AUTOTUNE") == "1"
    return asked and device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()


def milliseconds(run: Callable[[], None]) -> float:
    """The median of some runs; infinite where the GPU has not what the kernel needs."""
    from triton.runtime.errors import OutOfResources, PTXASError
    from triton.testing import do_bench

    try:
        return float(do_bench(run, warmup=10, rep=50, return_mode="median"))
    except (OutOfResources, PTXASError):
        return inf


def _alike(problem: Problem) -> Problem:
    """The problem up to what does not matter to its speed: batches of similar size share a measurement."""
    batch = 1 << max(problem.batch - 1, 0).bit_length()
    dropout_p = 0.5 if problem.dropout_p > 0.0 else 0.0
    return replace(problem, batch=batch, scale=1.0, dropout_p=dropout_p, needs_grad=False, needs_lse=False)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
