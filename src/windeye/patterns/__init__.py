"""Who sees whom: frozen descriptions, bound to a grid as exact interval tables. Imports nothing else of windeye."""

from windeye.patterns.algebra import Both, Either
from windeye.patterns.bound import Bound, Grid
from windeye.patterns.lifetimes import Expiry, Lifetimes
from windeye.patterns.linkage import graph_horizon, tree_horizon
from windeye.patterns.pattern import Pattern, from_spec
from windeye.patterns.relation import Allowed, Relations
from windeye.patterns.routed import Routed, Routes
from windeye.patterns.sequence import Causal, Documents, Full, Prefix, Sinks
from windeye.patterns.table import AxisTable
from windeye.patterns.text import parse
from windeye.patterns.windows import Blocks, Halo, Inward, Neighborhood, Sliding, TileWindow

__all__ = [
    "Allowed",
    "AxisTable",
    "Blocks",
    "Both",
    "Bound",
    "Causal",
    "Documents",
    "Either",
    "Expiry",
    "Full",
    "Grid",
    "Halo",
    "Inward",
    "Lifetimes",
    "Neighborhood",
    "Pattern",
    "Prefix",
    "Relations",
    "Routed",
    "Routes",
    "Sinks",
    "Sliding",
    "TileWindow",
    "from_spec",
    "graph_horizon",
    "parse",
    "tree_horizon",
]
