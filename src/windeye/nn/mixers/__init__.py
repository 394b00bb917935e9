"""Mixers of maps: every way of grouping queries and resampling keys, behind one protocol."""

from windeye.nn.mixers.full import FullMixer, FullSpec
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Groups, Plan
from windeye.nn.mixers.registry import MIXERS, TokenMixerSpec, spec_from_dict, spec_to_dict, token_mixer
from windeye.nn.mixers.window import WindowMixer, WindowSpec

__all__ = [
    "MIXERS",
    "FullMixer",
    "FullSpec",
    "Groups",
    "Plan",
    "TokenMixer",
    "TokenMixerSpec",
    "WindowMixer",
    "WindowSpec",
    "spec_from_dict",
    "spec_to_dict",
    "token_mixer",
]
