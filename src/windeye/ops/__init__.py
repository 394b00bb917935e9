"""The public functions: softmax attention (attend, merge, explain) and linear attention."""

from windeye.ops.linear import linear_attention
from windeye.ops.softmax import Explanation, attend, explain, merge

__all__ = ["Explanation", "attend", "explain", "linear_attention", "merge"]
