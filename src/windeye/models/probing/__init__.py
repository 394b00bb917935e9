"""Probing frozen encoders: what a small head can read from their tokens.

>>> import torch
>>> from windeye.models.vision import swin
>>> from windeye.nn.pools import EfficientPool
>>> probe = Probe(swin(16, (1, 1), (2, 2), num_classes=0), EfficientPool(32, queries=8), classes=5)
>>> probe(torch.randn(2, 3, 32, 32)).shape
torch.Size([2, 5])
"""

from windeye.models.probing.encoder import FrozenEncoder
from windeye.models.probing.head import ProbeHead
from windeye.models.probing.maps import evenness, groups, overlap
from windeye.models.probing.nearest import nearest_vote
from windeye.models.probing.probe import Probe
from windeye.models.probing.weights import export_head, head_map, load_head

__all__ = [
    "FrozenEncoder",
    "Probe",
    "ProbeHead",
    "evenness",
    "export_head",
    "groups",
    "head_map",
    "load_head",
    "nearest_vote",
    "overlap",
]
