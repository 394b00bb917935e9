"""Hierarchical vision backbones: one skeleton, entered by stages, for every mixer of maps; published sizes by name."""

from windeye.models.vision.backbone import BackboneConfig, FeatureInfo, HierarchicalBackbone
from windeye.models.vision.biformer import biformer
from windeye.models.vision.block import Block, StageSpec
from windeye.models.vision.cost import Cost, cost
from windeye.models.vision.cswin import cswin
from windeye.models.vision.deformable import DeformableSpec
from windeye.models.vision.entries import ENTRIES, ConvSpec, EntrySpec, MergeSpec, TwoConvSpec, entry
from windeye.models.vision.files import load_backbone, save_backbone
from windeye.models.vision.litv2 import litv2
from windeye.models.vision.maformer import maformer
from windeye.models.vision.masked import DecoderSpec, MaskedAutoencoder
from windeye.models.vision.nat import nat
from windeye.models.vision.reduction import ReductionSpec
from windeye.models.vision.swin import swin
from windeye.models.vision.vit import VisionTransformer, ViTConfig, vit
from windeye.models.vision.vitae import vitae
from windeye.models.vision.vsa_swin import vsa_swin

__all__ = [
    "ENTRIES",
    "BackboneConfig",
    "Block",
    "ConvSpec",
    "Cost",
    "DecoderSpec",
    "DeformableSpec",
    "EntrySpec",
    "FeatureInfo",
    "HierarchicalBackbone",
    "MaskedAutoencoder",
    "MergeSpec",
    "ReductionSpec",
    "StageSpec",
    "TwoConvSpec",
    "ViTConfig",
    "VisionTransformer",
    "biformer",
    "cost",
    "cswin",
    "entry",
    "litv2",
    "load_backbone",
    "maformer",
    "nat",
    "save_backbone",
    "swin",
    "vit",
    "vitae",
    "vsa_swin",
]
