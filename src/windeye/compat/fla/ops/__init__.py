"""The operators; also by the names of fla's modules, as in ``fla.ops.simple_gla``."""

from windeye.compat.fla.ops.based import fused_chunk_based, parallel_based
from windeye.compat.fla.ops.lightning_attn import chunk_lightning_attn, fused_recurrent_lightning_attn
from windeye.compat.fla.ops.linear_attn import (
    chunk_linear_attn,
    fused_chunk_linear_attn,
    fused_recurrent_linear_attn,
)
from windeye.compat.fla.ops.retention import (
    chunk_retention,
    fused_chunk_retention,
    fused_recurrent_retention,
    parallel_retention,
)
from windeye.compat.fla.ops.simple_gla import (
    chunk_simple_gla,
    fused_chunk_simple_gla,
    fused_recurrent_simple_gla,
    parallel_simple_gla,
)

__all__ = [
    "chunk_lightning_attn",
    "chunk_linear_attn",
    "chunk_retention",
    "chunk_simple_gla",
    "fused_chunk_based",
    "fused_chunk_linear_attn",
    "fused_chunk_retention",
    "fused_chunk_simple_gla",
    "fused_recurrent_lightning_attn",
    "fused_recurrent_linear_attn",
    "fused_recurrent_retention",
    "fused_recurrent_simple_gla",
    "parallel_based",
    "parallel_retention",
    "parallel_simple_gla",
]
