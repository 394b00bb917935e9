"""Full attention inside of groups, groups in the batch: which way computes it, and the way that keeps the weights."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from windeye.ops import attend
from windeye.tokens import always

FEW_QUERIES = 32
"""Groups of fewer queries are too small for the lanes of the CPU kernel (measured)."""
KEPT = 256
"""Up to so many queries and keys a group's weights are kept for the backward pass (measured); memory stays linear in
the tokens."""

Way = Literal["attend", "torch", "keep"]


def way_of(query: Tensor, key: Tensor, bias: Tensor | None, absent: Tensor | None, *, trains: bool) -> Way:
    """How attention without dropout inside of groups runs fastest: our kernels, torch's, or with kept weights.

    torch's kernels serve GPUs, and CPUs where there is neither bias nor mask. With a bias torch would take its own
    textbook form; keeping the weights is that with fewer passes over memory.
    """
    few = always(prod(query.shape[2:-2]) < FEW_QUERIES)
    if query.device.type != "cpu":
        return "torch"
    small = all(always(prod(t.shape[2:-2]) <= KEPT) for t in (query, key))
    if trains and small and (bias is not None or few) and query.dtype in (torch.float32, torch.float64):
        return "keep"
    return "torch" if (few or trains) and bias is None and absent is None else "attend"


def grouped_attention(
    query: Float[Tensor, "batch groups *cells heads head_dim"],
    key: Float[Tensor, "batch groups *cells_kv heads head_dim"],
    value: Float[Tensor, "batch groups *cells_kv heads value_dim"],
    absent: Bool[Tensor, "batch_or_1 groups *cells_kv"] | None,
    bias: Float[Tensor, "heads *offsets"] | None,
    scale: float,
    *,
    way: Way,
    dropout_p: float = 0.0,
    backend: str = "auto",
) -> Float[Tensor, "batch groups *cells heads value_dim"]:
    """``softmax(scale query key^T + bias) value`` of every group.

    Args:
        absent: True hides a key from its group. What is hidden must be finite.
        bias: relative table as of `windeye.attend`, among the cells of a group.
        way: see `way_of`. Only "attend" knows backends, and drops the weights that every backend drops.
    """
    cells, shape = tuple(query.shape[2:-2]), (*query.shape[:-1], value.shape[-1])
    if absent is not None:
        absent = absent.expand(*key.shape[:2], *absent.shape[2:]).flatten(0, 1)
    query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    if way == "attend":
        out = attend(
            query, key, value, scale=scale, bias=bias, key_padding=absent, dropout_p=dropout_p, backend=backend
        )
        return out.reshape(shape)
    q, k, v = (t.flatten(1, -3).transpose(1, 2) for t in (query, key, value))
    pairs = None if bias is None else bias_of_pairs(bias, cells).to(q.dtype)
    hidden = None if absent is None else absent.flatten(1)[:, None, None]
    if way == "keep":
        out = _Kept.apply(q, k, v, pairs, hidden, scale)  # type: ignore[no-untyped-call]
    else:
        mask = pairs if hidden is None else ~hidden
        if pairs is not None and hidden is not None:
            mask = pairs.expand(len(q), -1, -1, -1).masked_fill(hidden, -torch.inf)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale)
    return out.transpose(1, 2).reshape(shape)


class _Kept(torch.autograd.Function):
    """Attention by matrix products that keeps its weights, with as few passes over them as there can be: what automatic
    differentiation makes of the same products reads and writes them about twice as often."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys value_dim"],
        bias: Float[Tensor, "heads queries keys"] | None,
        hidden: Bool[Tensor, "batch 1 1 keys"] | None,
        scale: float,
    ) -> Float[Tensor, "batch heads queries value_dim"]:
        heads = query.shape[:2]
        query, key, value = (t.reshape(-1, *t.shape[2:]) for t in (query, key, value))
        scores = torch.unflatten(_scaled(query, key.transpose(1, 2), scale), 0, heads)
        if bias is not None:
            scores += bias
        if hidden is not None:
            scores.masked_fill_(hidden, -torch.inf)
        weights = scores.softmax(-1)
        if hidden is not None:
            weights.masked_fill_(hidden, 0.0)  # a query without keys gives zeros
        weights = weights.flatten(0, 1)
        out = weights @ value
        ctx.save_for_backward(query, key, value, weights, out)
        ctx.scale, ctx.heads, ctx.has_bias = scale, heads, bias is not None
        return torch.unflatten(out, 0, heads)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "attention with kept weights can be differentiated once; windeye.attend with backend='reference' has "
                "second derivatives"
            )
        query, key, value, weights, out = ctx.saved_tensors
        grad = grad.reshape(out.shape)
        grad_value = weights.transpose(1, 2) @ grad
        grad_scores = grad @ value.transpose(1, 2)
        grad_scores.sub_((grad * out).sum(-1, keepdim=True)).mul_(weights)
        grad_bias = torch.unflatten(grad_scores, 0, ctx.heads).sum(0) if ctx.has_bias else None
        grad_query = _scaled(grad_scores, key, ctx.scale)
        grad_key = _scaled(grad_scores.transpose(1, 2), query, ctx.scale)
        grads = (torch.unflatten(t, 0, ctx.heads) for t in (grad_query, grad_key, grad_value))
        return *grads, grad_bias, None, None


def _scaled(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``scale left @ right`` without another pass for the scale."""
    return torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=scale)


def bias_of_pairs(
    table: Float[Tensor, "heads *offsets"], cells: tuple[int, ...]
) -> Float[Tensor, "heads queries keys"]:
    """The relative table as a number per pair of cells."""
    offsets = _offsets if torch.compiler.is_compiling() else _offsets_once
    return table.flatten(1)[:, offsets(cells, tuple(table.shape[1:]), table.device)]


def _offsets(cells: tuple[int, ...], offsets: tuple[int, ...], device: torch.device) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n) for n in cells), indexing="ij")
    index = torch.zeros(prod(cells), prod(cells), dtype=torch.long)
    for axis, count in zip(axes, offsets, strict=True):
        at = axis.flatten()
        index = index * count + (at[None] - at[:, None] + count // 2)
    return index.to(device)


# Without inference mode, else what inference has cached could not be trained with.
_offsets_once = lru_cache(maxsize=64)(torch.inference_mode(mode=False)(_offsets))
