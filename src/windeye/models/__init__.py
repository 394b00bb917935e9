"""Whole networks: decoders of any mixers, published sizes by name, official weights, generation."""

from windeye.models.attentive import AttentiveClassifier, AttentiveConfig
from windeye.models.based import based
from windeye.models.decoder import DecoderConfig, DecoderLM
from windeye.models.doge import doge
from windeye.models.generate import generate
from windeye.models.mixers import (
    MIXERS,
    AttentionSpec,
    ConvolutionSpec,
    DynamicMaskSpec,
    LightningSpec,
    MixerSpec,
    ProductConvolutionSpec,
    TaylorSpec,
    TitansSpec,
    mixer,
)
from windeye.models.registry import create, names, register
from windeye.models.sampling import Sampling
from windeye.models.titans import titans
from windeye.models.tnl import tnl
from windeye.models.transformer import transformer
from windeye.models.weights import LoadReport, WeightMap, read_checkpoint

__all__ = [
    "MIXERS",
    "AttentionSpec",
    "AttentiveClassifier",
    "AttentiveConfig",
    "ConvolutionSpec",
    "DecoderConfig",
    "DecoderLM",
    "DynamicMaskSpec",
    "LightningSpec",
    "LoadReport",
    "MixerSpec",
    "ProductConvolutionSpec",
    "Sampling",
    "TaylorSpec",
    "TitansSpec",
    "WeightMap",
    "based",
    "create",
    "doge",
    "generate",
    "mixer",
    "names",
    "read_checkpoint",
    "register",
    "titans",
    "tnl",
    "transformer",
]
