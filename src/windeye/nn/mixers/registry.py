"""Mixers of maps as data: what a configuration says of a block, and how its mixer is built from it.

A new mixer registers a frozen dataclass whose defaults build on any width that is a multiple of the heads; it then
works in every backbone and passes through the tests that all mixers share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, TypeVar

from windeye.nn.mixers.mixer import TokenMixer


class TokenMixerSpec(Protocol):
    """A frozen dataclass that builds a mixer."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def build(self, dim: int, heads: int) -> TokenMixer:
        """The mixer of a block of ``dim`` channels and ``heads`` heads."""
        ...


MIXERS: dict[str, type[TokenMixerSpec]] = {}
"""Every registered kind of mixer."""

T = TypeVar("T", bound=type[TokenMixerSpec])


def token_mixer(kind: str) -> Callable[[T], T]:
    """Register a kind of mixer under its name in configurations.

    Raises:
        ValueError: the name is taken.
    """

    def register(spec: T) -> T:
        if kind in MIXERS:
            raise ValueError(f"token mixer {kind!r} is registered twice")
        spec.kind = kind
        MIXERS[kind] = spec
        return spec

    return register


def spec_to_dict(spec: TokenMixerSpec) -> dict[str, Any]:
    """
    Example:
        >>> from windeye.nn.mixers import FullSpec
        >>> spec_to_dict(FullSpec())
        {'kind': 'full', 'local': None, 'local_on': 'values', 'qkv_bias': True, 'attn_drop': 0.0, 'proj_drop': 0.0}
    """
    return {"kind": spec.kind, **asdict(spec)}


def spec_from_dict(settings: dict[str, Any]) -> TokenMixerSpec:
    """Also from JSON, which has no tuples.

    Raises:
        ValueError: an unknown kind.
    """
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    kind = settings.pop("kind")
    if kind not in MIXERS:
        raise ValueError(f"unknown token mixer {kind!r}; known are {', '.join(MIXERS)}")
    return MIXERS[kind](**settings)
