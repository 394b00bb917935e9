"""Whole networks: decoders and vision backbones of any mixers, sizes by name, official weights, generation."""

from windeye.models.attentive import AttentiveClassifier, AttentiveConfig
from windeye.models.based import based
from windeye.models.checkpoints import read_checkpoint
from windeye.models.decoder import DecoderConfig, DecoderLM
from windeye.models.doge import doge
from windeye.models.generate import generate
from windeye.models.identify import Identity, identify
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
from windeye.models.vision import (
    BackboneConfig,
    HierarchicalBackbone,
    StageSpec,
    cswin,
    litv2,
    nat,
    swin,
    vitae,
    vsa_swin,
)
from windeye.models.weights import LoadReport, Rule, WeightMap, stacked

__all__ = [
    "MIXERS",
    "AttentionSpec",
    "AttentiveClassifier",
    "AttentiveConfig",
    "BackboneConfig",
    "ConvolutionSpec",
    "DecoderConfig",
    "DecoderLM",
    "DynamicMaskSpec",
    "HierarchicalBackbone",
    "Identity",
    "LightningSpec",
    "LoadReport",
    "MixerSpec",
    "ProductConvolutionSpec",
    "Rule",
    "Sampling",
    "StageSpec",
    "TaylorSpec",
    "TitansSpec",
    "WeightMap",
    "based",
    "create",
    "cswin",
    "doge",
    "generate",
    "identify",
    "litv2",
    "mixer",
    "names",
    "nat",
    "read_checkpoint",
    "register",
    "stacked",
    "swin",
    "titans",
    "tnl",
    "transformer",
    "vitae",
    "vsa_swin",
]
