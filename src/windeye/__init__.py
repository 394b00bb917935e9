"""windeye: every published way of restricting attention, on one small, proven, fast core."""

from importlib import import_module
from types import ModuleType

from windeye.kernels.recurrence import decay
from windeye.ops import (
    ColumnMean,
    ColumnSum,
    DistanceMass,
    Entropy,
    FutureInfluence,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    SinkMass,
    SpanMass,
    TopKeys,
    WindowedDistance,
    associative_memory,
    attend,
    divergence,
    explain,
    linear_attention,
    merge,
    statistics,
    topw_expiry,
    topw_mask,
)
from windeye.patterns import (
    Allowed,
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
    Routed,
    Sinks,
    Sliding,
    TileWindow,
)

__version__ = "0.1.0"

__all__ = [
    "Allowed",
    "Blocks",
    "Causal",
    "ColumnMean",
    "ColumnSum",
    "DistanceMass",
    "Documents",
    "Entropy",
    "Expiry",
    "Full",
    "FutureInfluence",
    "Halo",
    "Inward",
    "MaxWeight",
    "MeanDistance",
    "Neighborhood",
    "Participation",
    "Pattern",
    "Prefix",
    "Routed",
    "RowMass",
    "SinkMass",
    "Sinks",
    "Sliding",
    "SpanMass",
    "TileWindow",
    "TopKeys",
    "WindowedDistance",
    "associative_memory",
    "attend",
    "decay",
    "divergence",
    "explain",
    "linear_attention",
    "merge",
    "statistics",
    "topw_expiry",
    "topw_mask",
]

_ON_DEMAND = ("compat", "data", "hf", "inspection", "memory", "models", "nn", "sites", "tiling", "train")
"""Subpackages that `import windeye` leaves alone until they are asked for."""


def __getattr__(name: str) -> ModuleType:
    if name in _ON_DEMAND:
        return import_module(f"windeye.{name}")
    raise AttributeError(f"module 'windeye' has no attribute {name!r}")
