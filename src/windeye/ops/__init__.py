"""The public functions: softmax attention (attend, merge, explain), the selection of keys, and linear attention."""

from windeye.kernels.selection import topw_expiry, topw_mask
from windeye.ops.linear import linear_attention
from windeye.ops.softmax import Explanation, attend, explain, merge

__all__ = ["Explanation", "attend", "explain", "linear_attention", "merge", "topw_expiry", "topw_mask"]
