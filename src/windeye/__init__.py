"""windeye: every published way of restricting attention, on one small, proven, fast core."""

from windeye.kernels.recurrence import decay
from windeye.ops import attend, explain, linear_attention, merge, topw_expiry, topw_mask
from windeye.patterns import (
    Blocks,
    Causal,
    Documents,
    Expiry,
    Full,
    Halo,
    Inward,
    Neighborhood,
    Pattern,
    Prefix,
    Sinks,
    Sliding,
    TileWindow,
)

__version__ = "0.1.0"

__all__ = [
    "Blocks",
    "Causal",
    "Documents",
    "Expiry",
    "Full",
    "Halo",
    "Inward",
    "Neighborhood",
    "Pattern",
    "Prefix",
    "Sinks",
    "Sliding",
    "TileWindow",
    "attend",
    "decay",
    "explain",
    "linear_attention",
    "merge",
    "topw_expiry",
    "topw_mask",
]
