"""Real models for tests: loaded once, skipped with the reason where the asset is not on the machine."""

from functools import cache

import pytest

from windeye.data import assets


def real(name):
    """The model and its tokenizer."""
    if assets.where(name) is None:
        pytest.skip(f"the asset is not on this machine: windeye assets get {name}")
    return _loaded(name)


@cache
def _loaded(name):
    from windeye.hf.pretrained import load

    return load(name, offline=True)
