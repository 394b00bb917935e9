"""Tiles of queries and keys: what hardware visits, and what that leaves of a window's saving."""

from windeye.tiling.boxes import common_classes
from windeye.tiling.simulate import Simulation, is_fully_block_sparse, simulate
from windeye.tiling.sweep import Suggestion, suggest, sweep_strides

__all__ = [
    "Simulation",
    "Suggestion",
    "common_classes",
    "is_fully_block_sparse",
    "simulate",
    "suggest",
    "sweep_strides",
]
