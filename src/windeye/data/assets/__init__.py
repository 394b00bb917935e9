"""Real weights and data that come inside ordinary packages: found, downloaded without installing, verified, cached.

>>> from windeye.data import assets
>>> assets.find("rxnmapper").kind
'weights'

`assets.get("rxnmapper")` then brings it to this machine and `assets.where("rxnmapper")` says where it lies.
"""

from windeye.data.assets.cache import AssetPaths, cache_directory
from windeye.data.assets.loaders import load
from windeye.data.assets.manifest import Asset, AssetFile, UnknownAsset, find, list_assets
from windeye.data.assets.store import AssetUnavailable, Attempt, get, where

__all__ = [
    "Asset",
    "AssetFile",
    "AssetPaths",
    "AssetUnavailable",
    "Attempt",
    "UnknownAsset",
    "cache_directory",
    "find",
    "get",
    "list_assets",
    "load",
    "where",
]
