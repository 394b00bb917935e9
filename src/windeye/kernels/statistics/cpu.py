"""The compiled route of CPUs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from windeye.kernels import native
from windeye.kernels.statistics import passes
from windeye.kernels.statistics.compiled import Work
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import Statistic


def can_run(scores: Scores, stat: Statistic) -> str | None:
    """Why the kernel cannot take this statistic of these scores; None if it can."""
    if native.cpu is None:
        return native.missing
    query, key = scores.query, scores.key
    if query.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {query.device}"
    if query.dtype not in native.TYPES or key.dtype != query.dtype:
        return f"query and key must both be float32, bfloat16, float16 or float64, got {query.dtype} and {key.dtype}"
    return passes.refusal(scores, stat)


def run(scores: Scores, stats: Mapping[str, Statistic]) -> dict[str, Tensor]:
    """Values of row statistics and sums of column statistics, which `can_run` has let pass."""
    return passes.values(Work(scores, passes.asked_of(stats)), stats)
