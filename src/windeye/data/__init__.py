"""Things to run on: assets that are fetched on demand, and a photograph that is always there.

>>> from windeye.data import photograph
>>> photograph().shape
(512, 512, 3)
"""

from windeye.data._photograph import PHOTOGRAPHS, photograph
from windeye.data.assets import (
    Asset,
    AssetPaths,
    AssetUnavailable,
    UnknownAsset,
    get,
    list_assets,
    load,
    where,
)

__all__ = [
    "PHOTOGRAPHS",
    "Asset",
    "AssetPaths",
    "AssetUnavailable",
    "UnknownAsset",
    "get",
    "list_assets",
    "load",
    "photograph",
    "where",
]
