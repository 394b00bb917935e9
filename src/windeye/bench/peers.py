"""What windeye is measured against, each in its favourite layout and compiled outside of the timed region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.ops import attend
from windeye.patterns import Causal, Pattern

Run = Callable[[], object]


@dataclass(frozen=True)
class Inputs:
    """The same numbers twice: on their grid with heads last, and flat with heads first, as dense kernels like it."""

    query: Tensor
    key: Tensor
    value: Tensor
    heads_first: tuple[Tensor, Tensor, Tensor]


def inputs(
    grid: tuple[int, ...], *, heads: int = 8, head_dim: int = 64, dtype: torch.dtype = torch.float32, grad: bool = False
) -> Inputs:
    """Standard normal tensors, batch 1."""
    generator = torch.Generator().manual_seed(0)
    grids = [torch.randn(1, *grid, heads, head_dim, generator=generator).to(dtype) for _ in range(3)]
    flat = [t.flatten(1, -3).transpose(1, 2).contiguous() for t in grids]
    if grad:
        for t in (*grids, *flat):
            t.requires_grad_()
    return Inputs(grids[0], grids[1], grids[2], (flat[0], flat[1], flat[2]))


def _step(forward: Callable[[], Tensor], grad: bool) -> Run:
    if not grad:
        return forward

    def both() -> None:
        out = forward()
        torch.autograd.backward(out, out.detach())

    return both


def windeye(data: Inputs, pattern: Pattern, *, grad: bool = False, backend: str = "auto") -> Run:
    """Our `attend`."""
    return _step(lambda: attend(data.query, data.key, data.value, pattern, backend=backend), grad)


def dense(data: Inputs, pattern: Pattern, *, grad: bool = False) -> Run:
    """torch's fused attention over everything, or over the past where the pattern is causal on a sequence."""
    causal = isinstance(pattern, Causal) or getattr(pattern, "is_causal", False) is True
    q, k, v = data.heads_first
    return _step(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal and data.query.dim() == 4), grad)


def masked(data: Inputs, pattern: Pattern, *, grad: bool = False) -> Run:
    """torch's fused attention with the same relation as a dense boolean mask."""
    grid = tuple(data.query.shape[1:-2])
    mask = pattern.bind(grid).mask()
    q, k, v = data.heads_first
    return _step(lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), grad)


def flex(data: Inputs, pattern: Pattern) -> Run:
    """Compiled FlexAttention with the same relation as a block mask; forward only, as on CPUs it has no backward.

    Raises:
        RuntimeError: it does not compile here, with the reason.
    """
    from windeye.kernels.softmax.flex import block_mask

    blocks = block_mask(pattern.bind(tuple(data.query.shape[1:-2])))
    q, k, v = (t.detach() for t in data.heads_first)
    run = _compiled_flex()

    def forward() -> Tensor:
        with torch.no_grad():
            return run(q, k, v, block_mask=blocks)

    try:
        forward()
    except Exception as error:
        raise RuntimeError(f"FlexAttention does not compile here: {str(error).splitlines()[0]}") from error
    return forward


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    # One compiled function for all patterns: the relation is an argument. A full graph never runs uncompiled.
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    torch._dynamo.config.recompile_limit = 256
    return compiled


def gather(data: Inputs, pattern: Pattern, *, grad: bool = False) -> Run:
    """The textbook form: gather the keys of every query, then batched products. Needs equally many keys per query.

    Raises:
        ValueError: queries see different numbers of keys.
    """
    bound = pattern.bind(tuple(data.query.shape[1:-2]))
    mask = bound.mask()
    counts = mask.sum(dim=1)
    if counts.min() != counts.max():
        raise ValueError(f"gathering needs equally many keys per query, got {int(counts.min())} to {int(counts.max())}")
    index = mask.nonzero()[:, 1].reshape(bound.tokens, -1)
    scale = data.query.shape[-1] ** -0.5

    def forward() -> Tensor:
        q, k, v = (t.flatten(1, -3) for t in (data.query, data.key, data.value))
        logits = torch.einsum("bqhd,bqnhd->bqhn", q, k[:, index]) * scale
        return torch.einsum("bqhn,bqnhd->bqhd", logits.softmax(dim=-1), v[:, index])

    return _step(forward, grad)
