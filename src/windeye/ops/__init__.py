"""The public functions: softmax attention (attend, merge, explain), the selection of keys, linear attention, and
memories that learn while they read."""

from windeye.kernels.selection import topw_expiry, topw_mask
from windeye.ops.associative import MemoryDiverged, associative_memory, associative_recall
from windeye.ops.linear import linear_attention
from windeye.ops.softmax import Explanation, attend, explain, merge

__all__ = [
    "Explanation",
    "MemoryDiverged",
    "associative_memory",
    "associative_recall",
    "attend",
    "explain",
    "linear_attention",
    "merge",
    "topw_expiry",
    "topw_mask",
]
