"""Pools: many tokens of a frozen encoder in, one vector out, and where each query looked.

>>> import torch
>>> pool = EfficientPool(64, queries=8)
>>> x = torch.randn(2, 7, 7, 64)
>>> pool(x).shape, pool.maps(x).shape
(torch.Size([2, 64]), torch.Size([2, 8, 7, 7]))
"""

from windeye.nn.pools.abmilp import AbmilpPool
from windeye.nn.pools.aim import AimPool
from windeye.nn.pools.averages import AveragePool, ClassTokenPool, MeanMaxPool
from windeye.nn.pools.cae import CaePool
from windeye.nn.pools.cait import CaitPool
from windeye.nn.pools.cbam import CbamPool
from windeye.nn.pools.clip import ClipPool
from windeye.nn.pools.coca import CocaPool
from windeye.nn.pools.cross_attention import CrossAttentionPool
from windeye.nn.pools.dinovit import DinoVitPool
from windeye.nn.pools.dolg import DolgPool
from windeye.nn.pools.efficient import EfficientPool
from windeye.nn.pools.jepa import JepaPool
from windeye.nn.pools.pool import POOLS, TokenPool, create_pool, token_pool
from windeye.nn.pools.reading import Reading
from windeye.nn.pools.siglip import SiglipPool
from windeye.nn.pools.simpool import PlainSimPool, SimPool
from windeye.nn.pools.tokens import Tokens

__all__ = [
    "POOLS",
    "AbmilpPool",
    "AimPool",
    "AveragePool",
    "CaePool",
    "CaitPool",
    "CbamPool",
    "ClassTokenPool",
    "ClipPool",
    "CocaPool",
    "CrossAttentionPool",
    "DinoVitPool",
    "DolgPool",
    "EfficientPool",
    "JepaPool",
    "MeanMaxPool",
    "PlainSimPool",
    "Reading",
    "SiglipPool",
    "SimPool",
    "TokenPool",
    "Tokens",
    "create_pool",
    "token_pool",
]
