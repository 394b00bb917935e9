"""Mixers of maps: every way of grouping queries and resampling keys, behind one protocol."""

from windeye.nn.mixers.down_sampling import GlobalDownSampling
from windeye.nn.mixers.full import FullMixer, FullSpec
from windeye.nn.mixers.fusion import MultiScaleFusionMixer, MultiScaleFusionSpec
from windeye.nn.mixers.groups import Groups
from windeye.nn.mixers.hilo import HiLoMixer, HiLoSpec
from windeye.nn.mixers.layouts import as_nchw, as_sequence
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.neighborhood import NeighborhoodMixer, NeighborhoodSpec
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import MIXERS, TokenMixerSpec, token_mixer
from windeye.nn.mixers.routing import BiLevelRoutingMixer, BiLevelRoutingSpec
from windeye.nn.mixers.spatial_reduction import SpatialReductionMixer, SpatialReductionSpec
from windeye.nn.mixers.stripes import StripeMixer, StripeSpec
from windeye.nn.mixers.vsa import VSAMixer, VSASpec
from windeye.nn.mixers.window import WindowMixer, WindowSpec

__all__ = [
    "MIXERS",
    "BiLevelRoutingMixer",
    "BiLevelRoutingSpec",
    "FullMixer",
    "FullSpec",
    "GlobalDownSampling",
    "Groups",
    "HiLoMixer",
    "HiLoSpec",
    "MultiScaleFusionMixer",
    "MultiScaleFusionSpec",
    "NeighborhoodMixer",
    "NeighborhoodSpec",
    "Plan",
    "SpatialReductionMixer",
    "SpatialReductionSpec",
    "StripeMixer",
    "StripeSpec",
    "TokenMixer",
    "TokenMixerSpec",
    "VSAMixer",
    "VSASpec",
    "WindowMixer",
    "WindowSpec",
    "as_nchw",
    "as_sequence",
    "token_mixer",
]
