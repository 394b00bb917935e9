"""Probing frozen encoders: what a small head can read from their tokens."""

from windeye.models.probing.head import ProbeHead
from windeye.models.probing.weights import export_head, head_map, load_head

__all__ = ["ProbeHead", "export_head", "head_map", "load_head"]
