"""Mixers of maps as data: what a configuration says of a block, and how its mixer is built from it.

A new mixer registers a frozen dataclass whose defaults build on any width that is a multiple of the heads; it then
works in every backbone and passes through the tests that all mixers share.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from windeye.nn.kinds import Kinds
from windeye.nn.mixers.mixer import TokenMixer


class TokenMixerSpec(Protocol):
    """A frozen dataclass that builds a mixer."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def build(self, dim: int, heads: int) -> TokenMixer:
        """The mixer of a block of ``dim`` channels and ``heads`` heads."""
        ...


MIXERS: Kinds[TokenMixerSpec] = Kinds("token mixer")
"""Every registered kind of mixer."""

token_mixer = MIXERS.register
"""Registers a kind of mixer under its name in configurations."""
