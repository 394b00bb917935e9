"""The compiled route of GPUs, as Triton kernels: row sums with a running maximum, column sums and gradients from the
normalisers. Triton's interpreter runs them on a CPU.

A program takes a box of queries, or of keys for columns, and visits the boxes that it meets by the plan of softmax
attention, where the relation is a pattern, and by runs of keys elsewhere. Every number has one writer: the same bits on
every run.

Triton is imported by the first call that runs here; nothing else needs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import util

import torch
from torch import Tensor

from windeye.kernels.statistics import passes
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import Statistic

LARGEST_DIM = 256
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_INSTALLED = util.find_spec("triton") is not None


def can_run(scores: Scores, stat: Statistic) -> str | None:
    """Why the kernels cannot take this statistic of these scores; None if they can."""
    query, key = scores.query, scores.key
    device = query.device.type
    if device != "cuda" and not (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return (
            f"it runs on CUDA, the tensors are on {query.device}; TRITON_INTERPRET=1 in the environment of the process "
            "tries it on a CPU, slowly"
        )
    if not _INSTALLED:
        return "the package triton is not installed"
    if query.dtype not in TYPES or key.dtype != query.dtype:
        return f"query and key must both be float32, bfloat16, float16 or float64, got {query.dtype} and {key.dtype}"
    if query.shape[-1] > LARGEST_DIM:
        return f"it holds up to {LARGEST_DIM} coordinates, got {query.shape[-1]}"
    return passes.refusal(scores, stat)


def run(scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """Values of row statistics and sums of column statistics, which `can_run` has let pass."""
    from windeye.kernels.statistics.triton.launch import Work

    return passes.values(Work(scores, passes.asked_of(stats)), stats)
