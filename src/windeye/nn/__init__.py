"""Layers: attention modules that own their projections, sequence mixers with a state, and what stands between them."""

from windeye.nn.additive import AdditiveAttention
from windeye.nn.attention import CausalAttention
from windeye.nn.convolution import GatedShortConvolution, ProductConvolution
from windeye.nn.dynamic_mask import DynamicMaskAttention
from windeye.nn.glu import GatedLinearUnit
from windeye.nn.lightning import LightningAttention
from windeye.nn.mixer import SequenceMixer
from windeye.nn.neighborhood import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)
from windeye.nn.node_tokens import NodeTokens
from windeye.nn.norms import SimpleRMSNorm
from windeye.nn.rotary import LearnedRotary
from windeye.nn.taylor import TaylorLinearAttention
from windeye.nn.titans import MemoryAsContext, MemoryAsGate, MemoryAsLayer, NeuralMemory

__all__ = [
    "AdditiveAttention",
    "CausalAttention",
    "DynamicMaskAttention",
    "GatedLinearUnit",
    "GatedShortConvolution",
    "LearnedRotary",
    "LightningAttention",
    "MemoryAsContext",
    "MemoryAsGate",
    "MemoryAsLayer",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "NeuralMemory",
    "NodeTokens",
    "ProductConvolution",
    "SequenceMixer",
    "SimpleRMSNorm",
    "TaylorLinearAttention",
]
