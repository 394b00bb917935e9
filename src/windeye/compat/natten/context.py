"""NATTEN's settings: remembered, so that code which sets and reads them runs; windeye needs none of them.

NATTEN's settings choose between kernels that are faster or deterministic, that use more or less memory. windeye's CPU
kernels are deterministic and have one memory mode. A call that the natten package itself serves on a GPU follows the
settings of that package, not these.

Differs from: NATTEN, whose ``disable_flex_compile()`` leaves compilation allowed (windows notes, section 1.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class MemoryUsagePreference(Enum):
    """How much memory a backward pass may use."""

    Default = 0
    Strict = 1
    Unrestricted = 2


@dataclass
class _Settings:
    deterministic: bool = False
    kv_parallelism: bool = True
    memory: MemoryUsagePreference = MemoryUsagePreference.Default
    flex_compile: bool = False
    flex_compile_backprop: bool = False


_settings = _Settings()

_PREFERENCES = {
    "default": MemoryUsagePreference.Default,
    "strict": MemoryUsagePreference.Strict,
    "unrestricted": MemoryUsagePreference.Unrestricted,
}


def use_deterministic_algorithms(mode: bool = True) -> None:
    """Remember whether determinism is asked for.

    Example:
        >>> use_deterministic_algorithms(True)
        >>> are_deterministic_algorithms_enabled()
        True
        >>> use_deterministic_algorithms(False)
    """
    _settings.deterministic = mode


def are_deterministic_algorithms_enabled() -> bool:
    """What `use_deterministic_algorithms` was last told; False at first."""
    return _settings.deterministic


def use_kv_parallelism_in_fused_na(mode: bool = True) -> None:
    """Remember whether a backward pass may run over keys in parallel.

    Raises:
        RuntimeError: asked for in deterministic mode, as in NATTEN.
    """
    if mode and _settings.deterministic:
        raise RuntimeError(
            "KV parallelism is not deterministic, but use_deterministic_algorithms(True) is in force; "
            "call use_deterministic_algorithms(False) first"
        )
    _settings.kv_parallelism = mode


def is_kv_parallelism_in_fused_na_enabled() -> bool:
    """What `use_kv_parallelism_in_fused_na` was last told; True at first."""
    return _settings.kv_parallelism


def set_memory_usage_preference(pref: str = "default") -> None:
    """Remember a memory preference: "default", "strict" or "unrestricted".

    Raises:
        ValueError: another word.
    """
    if pref not in _PREFERENCES:
        raise ValueError(f"pref must be one of {tuple(_PREFERENCES)}, got {pref!r}")
    _settings.memory = _PREFERENCES[pref]


def get_memory_usage_preference() -> MemoryUsagePreference:
    """What `set_memory_usage_preference` was last told."""
    return _settings.memory


def is_memory_usage_default() -> bool:
    """Whether the memory preference is "default"."""
    return _settings.memory is MemoryUsagePreference.Default


def is_memory_usage_strict() -> bool:
    """Whether the memory preference is "strict"."""
    return _settings.memory is MemoryUsagePreference.Strict


def is_memory_usage_unrestricted() -> bool:
    """Whether the memory preference is "unrestricted"."""
    return _settings.memory is MemoryUsagePreference.Unrestricted


def allow_flex_compile(mode: bool = True, backprop: bool = False) -> None:
    """Remember whether FlexAttention may be compiled, and whether its backward pass may be.

    Example:
        >>> allow_flex_compile(True, backprop=True)
        >>> disable_flex_compile_backprop()
        >>> is_flex_compile_allowed(), is_flex_compile_backprop_allowed()
        (True, False)
        >>> disable_flex_compile()
        >>> is_flex_compile_allowed()
        False
    """
    _settings.flex_compile = mode
    _settings.flex_compile_backprop = mode and backprop


def allow_flex_compile_backprop(mode: bool = True) -> None:
    """Remember whether the backward pass may be compiled; holds only where compiling is allowed at all."""
    _settings.flex_compile_backprop = mode and _settings.flex_compile


def disable_flex_compile() -> None:
    """Neither pass may be compiled."""
    allow_flex_compile(False)


def disable_flex_compile_backprop() -> None:
    """The backward pass may not be compiled."""
    allow_flex_compile_backprop(False)


def is_flex_compile_allowed() -> bool:
    """What `allow_flex_compile` was last told; False at first."""
    return _settings.flex_compile


def is_flex_compile_backprop_allowed() -> bool:
    """Whether the backward pass may be compiled; False at first."""
    return _settings.flex_compile_backprop
