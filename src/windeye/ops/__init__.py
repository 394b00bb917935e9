"""The public functions: softmax attention (attend, merge, explain) and statistics of its maps, the selection of keys,
linear attention, and memories that learn while they read."""

from windeye.kernels.selection import topw_expiry, topw_mask
from windeye.kernels.statistics.columns import ColumnMean, ColumnSum, FutureInfluence
from windeye.kernels.statistics.statistic import (
    DistanceMass,
    Entropy,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    SinkMass,
    SpanMass,
    Statistic,
    TopKeys,
    WindowedDistance,
)
from windeye.ops.associative import MemoryDiverged, associative_memory, associative_recall
from windeye.ops.linear import linear_attention
from windeye.ops.softmax import Explanation, attend, explain, merge
from windeye.ops.statistics import divergence, statistics

__all__ = [
    "ColumnMean",
    "ColumnSum",
    "DistanceMass",
    "Entropy",
    "Explanation",
    "FutureInfluence",
    "MaxWeight",
    "MeanDistance",
    "MemoryDiverged",
    "Participation",
    "RowMass",
    "SinkMass",
    "SpanMass",
    "Statistic",
    "TopKeys",
    "WindowedDistance",
    "associative_memory",
    "associative_recall",
    "attend",
    "divergence",
    "explain",
    "linear_attention",
    "merge",
    "statistics",
    "topw_expiry",
    "topw_mask",
]
