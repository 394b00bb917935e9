"""NATTEN's interface on windeye's kernels: ``import windeye.compat.natten as natten`` runs NATTEN code on any device.

Public names, parameters, defaults and results are those of NATTEN 0.21; `windeye.compat.natten.functional` also has the
unfused operators that NATTEN had until 0.17.

Example:
    >>> import torch
    >>> import windeye.compat.natten as natten
    >>> q = k = v = torch.randn(1, 16, 16, 4, 32)
    >>> natten.na2d(q, k, v, kernel_size=7, stride=2).shape
    torch.Size([1, 16, 16, 4, 32])
"""

from windeye.compat.natten import functional, modules
from windeye.compat.natten.context import (
    allow_flex_compile,
    allow_flex_compile_backprop,
    are_deterministic_algorithms_enabled,
    disable_flex_compile,
    disable_flex_compile_backprop,
    get_memory_usage_preference,
    is_flex_compile_allowed,
    is_flex_compile_backprop_allowed,
    is_kv_parallelism_in_fused_na_enabled,
    is_memory_usage_default,
    is_memory_usage_strict,
    is_memory_usage_unrestricted,
    set_memory_usage_preference,
    use_deterministic_algorithms,
    use_kv_parallelism_in_fused_na,
)
from windeye.compat.natten.functional import attention, merge_attentions, na1d, na2d, na3d
from windeye.compat.natten.modules import NeighborhoodAttention1D, NeighborhoodAttention2D, NeighborhoodAttention3D
from windeye.compat.natten.varlen import generate_varlen_parameters

__all__ = [
    "NeighborhoodAttention1D",
    "NeighborhoodAttention2D",
    "NeighborhoodAttention3D",
    "allow_flex_compile",
    "allow_flex_compile_backprop",
    "are_deterministic_algorithms_enabled",
    "attention",
    "disable_flex_compile",
    "disable_flex_compile_backprop",
    "functional",
    "generate_varlen_parameters",
    "get_memory_usage_preference",
    "is_flex_compile_allowed",
    "is_flex_compile_backprop_allowed",
    "is_kv_parallelism_in_fused_na_enabled",
    "is_memory_usage_default",
    "is_memory_usage_strict",
    "is_memory_usage_unrestricted",
    "merge_attentions",
    "modules",
    "na1d",
    "na2d",
    "na3d",
    "set_memory_usage_preference",
    "use_deterministic_algorithms",
    "use_kv_parallelism_in_fused_na",
]
