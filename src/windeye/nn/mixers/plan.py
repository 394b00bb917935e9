"""One attention over a map, told as who attends to what: a pattern, or groups of queries with resampled keys.

Fast passes, the dense matrix, single rows of it and costs are all derived from a `Plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.nn.sited import sited
from windeye.ops import attend
from windeye.patterns import Blocks, Full, Pattern, Routed
from windeye.patterns.pattern import per_axis
from windeye.tokens import windows

Rearrange = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Groups:
    """Queries in groups, each of which sees keys of its own.

    All three functions are linear and leave the last two axes, heads and width, alone; the width differs between calls.
    Keys and values go through the same ``resample``: it may crop, gather, pool, sample or mix positions.
    """

    split: Rearrange
    """Queries of the map, [batch, height, width, heads, c] -> [batch, groups, *cells, heads, c]."""
    join: Rearrange
    """Back to the map; undoes ``split``."""
    resample: Rearrange
    """Positions, [batch, *grid_kv, heads, c] -> keys of each group, [batch, groups, *cells_kv, heads, c]."""
    absent: Bool[Tensor, "batch_or_1 groups *cells_kv"] | None = None
    """True hides a key from its group."""


@dataclass(frozen=True, eq=False)
class Plan:
    """``out = softmax(scale query keys^T + bias) values`` with what ``relation`` makes of key and value.

    Queries may stand on a map that is padded at its right and bottom; whoever runs the plan crops.
    """

    query: Float[Tensor, "batch height width heads head_dim"]
    key: Float[Tensor, "batch *grid_kv heads head_dim"]
    value: Float[Tensor, "batch *grid_kv heads value_dim"]
    relation: Pattern | Groups
    scale: float
    bias: Float[Tensor, "heads *offsets"] | None = None
    """Relative table as of `windeye.attend`: by key minus query, on the map, or among the cells of a group."""
    cell: tuple[int, int] = (1, 1)
    """Each position stands for the mean of so many rows and columns of tokens."""
    tokens: tuple[int, int] | None = None
    """Rows and columns of the map under the cells, where those at its rim are means of fewer tokens. None is whole
    cells."""
    absent: Bool[Tensor, "batch_or_1 *grid_kv"] | None = None
    """True hides a position from every query; for patterns, as groups say it themselves."""

    @property
    def key_padding(self) -> Tensor | None:
        """``absent`` for every batch entry."""
        return None if self.absent is None else self.absent.expand(self.key.shape[:-2])


def attended(
    plan: Plan, *, dropout_p: float = 0.0, layer: nn.Module | None = None
) -> Float[Tensor, "batch height width heads value_dim"]:
    """The output of each head, by fused kernels.

    Args:
        dropout_p: probability of dropping an attention weight.
        layer: the module whose attention this is, for those who watch it.
    """
    return _run(plan, plan.value, dropout_p=dropout_p, layer=layer)


def dense(plan: Plan) -> Float[Tensor, "batch heads queries positions"]:
    """Weights composed with the resampling: what the plan makes of the identity, by the reference backend.

    Queries and positions are row-major; positions are tokens of the map where ``cell`` says how they lie on it.
    """
    grid = plan.value.shape[1:-2]
    eye = torch.eye(prod(grid), dtype=plan.value.dtype, device=plan.value.device)
    eye = eye.reshape(1, *grid, 1, -1).expand(*plan.value.shape[:-1], -1)
    weights = _run(plan, eye, backend="reference").flatten(1, 2).transpose(1, 2)
    return _over_cells(torch.unflatten(weights, -1, grid), plan).flatten(3)


def positions(plan: Plan) -> Float[Tensor, "batch positions heads value_dim"]:
    """Values at the positions that the columns of `dense` stand for."""
    value = plan.value
    if plan.cell != (1, 1) or plan.tokens is not None:
        value = value.repeat_interleave(plan.cell[0], dim=1).repeat_interleave(plan.cell[1], dim=2)
        if plan.tokens is not None:
            value = value[:, : plan.tokens[0], : plan.tokens[1]]
    return value.flatten(1, -3)


def row(plan: Plan, y: int, x: int) -> Float[Tensor, "batch heads *grid_kv"]:
    """How the query at row ``y`` and column ``x`` spreads over the positions: one row of `dense`, as a map.

    It is the gradient of that query's output in the values, so its memory is that of one pass.
    """
    query, key = plan.query.detach(), plan.key.detach()
    value = plan.value.new_zeros(*plan.value.shape[:-1], 1).requires_grad_()
    still = replace(plan, query=query, key=key, value=value)
    with torch.enable_grad():
        (weights,) = torch.autograd.grad(_run(still, value)[:, y, x].sum(), value)
    return _over_cells(weights[..., 0].movedim(-1, 1), plan)


def pairs(plan: Plan) -> int:
    """Pairs of query and key per batch entry and head, padding counted where it is computed."""
    if isinstance(plan.relation, Routed):  # counted without reading which regions they are
        index = plan.relation.index
        return prod(plan.query.shape[1:-2]) * index.shape[-1] * prod(plan.key.shape[1:-2]) // index.shape[-2]
    if isinstance(plan.relation, Pattern):
        grid, grid_kv = tuple(plan.query.shape[1:-2]), tuple(plan.key.shape[1:-2])
        return plan.relation.bind(grid, grid_kv).pairs()
    query, key = plan.relation.split(plan.query[:1]), plan.relation.resample(plan.key)
    return prod(query.shape[1:-2]) * prod(key.shape[2:-2])


def multiply_adds(plan: Plan) -> int:
    """Multiply-adds of both products, per batch entry."""
    return pairs(plan) * plan.query.shape[-2] * (plan.query.shape[-1] + plan.value.shape[-1])


def _over_cells(weights: Float[Tensor, "*rest rows columns"], plan: Plan) -> Float[Tensor, "*rest tall wide"]:
    """Each position's weight spread evenly over the tokens that it is the mean of."""
    if plan.cell == (1, 1) and plan.tokens is None:
        return weights
    tall, wide = plan.tokens or (weights.shape[-2] * plan.cell[0], weights.shape[-1] * plan.cell[1])
    rows, columns = (
        torch.arange(n, device=weights.device) // size for n, size in zip((tall, wide), plan.cell, strict=True)
    )
    shares = torch.outer(rows.bincount()[rows], columns.bincount()[columns])
    return weights[..., rows[:, None], columns] / shares


def _run(
    plan: Plan, value: Tensor, *, dropout_p: float = 0.0, layer: nn.Module | None = None, backend: str = "auto"
) -> Tensor:
    if isinstance(plan.relation, Groups):
        return _grouped(plan.relation, plan, plan.query, plan.key, value, dropout_p, backend)
    groups = _cheaper(plan, dropout_p) if backend == "auto" else None
    pattern, grid, grid_kv = plan.relation, plan.query.shape[1:-2], plan.key.shape[1:-2]

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = query.reshape(query.shape[0], *grid, *query.shape[-2:])
        key, value = (t.reshape(t.shape[0], *grid_kv, *t.shape[-2:]) for t in (key, value))
        if groups is not None:
            return _grouped(groups, plan, query, key, value, dropout_p, backend)
        return attend(
            query, key, value, pattern, scale=plan.scale, bias=plan.bias, key_padding=plan.key_padding,
            dropout_p=dropout_p, backend=backend,
        )  # fmt: skip

    if layer is None:
        return run(plan.query, plan.key, value)

    def flat(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return run(query, key, value).flatten(1, -3)

    return sited(
        layer, plan.query, plan.key, value, pattern, scale=plan.scale, bias=plan.bias, key_padding=plan.key_padding,
        run=flat,
    )  # fmt: skip


def _cheaper(plan: Plan, dropout_p: float) -> Groups | None:
    """Groups that torch's fused kernels take, where those are cheaper than a kernel that reads the map as it lies: on
    GPUs, and on CPUs while training, because they keep what ours compute again."""
    grid, device = (plan.query.shape[1], plan.query.shape[2]), plan.query.device
    if plan.absent is not None:
        return None
    if device.type != "cuda" and not (_trains(plan) and plan.bias is None and dropout_p == 0.0):
        return None
    if isinstance(plan.relation, Full):
        return Groups(lambda x: x[:, None], lambda x: x[:, 0], lambda x: x[:, None])
    if isinstance(plan.relation, Blocks):
        groups = blocks_as_groups(plan.relation, grid, device)
        return groups if device.type == "cuda" or groups.absent is None else None
    return None


def _trains(plan: Plan) -> bool:
    tensors = (plan.query, plan.key, plan.value, plan.bias)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def blocks_as_groups(pattern: Blocks, grid: tuple[int, int], device: torch.device) -> Groups:
    """The same relation as windows that are cut out."""
    rows, columns = per_axis(pattern.size, 2, "size")
    down, right = per_axis(pattern.shift, 2, "shift")
    size, shift = (rows, columns), (down, right)
    absent = windows.absent(grid, size, shift, device)
    return Groups(
        split=lambda x: windows.partition(x, size, shift),
        join=lambda x: windows.merge(x, grid, shift),
        resample=lambda x: windows.partition(x, size, shift),
        absent=None if absent is None else absent[None],
    )


FEW_QUERIES = 32
"""Below so many queries a group is too small for the CPU kernel's lanes (measured)."""


def _grouped(
    groups: Groups, plan: Plan, query: Tensor, key: Tensor, value: Tensor, dropout_p: float, backend: str
) -> Tensor:
    query, key, value = groups.split(query), groups.resample(key), groups.resample(value)
    by_torch = False
    if backend == "auto":
        few = prod(query.shape[2:-2]) < FEW_QUERIES or _trains(plan)
        by_torch = query.device.type == "cuda" or (
            few and plan.bias is None and groups.absent is None and dropout_p == 0.0
        )
    out = fused_groups(
        query, key, value, groups.absent, plan.bias, plan.scale, dropout_p, backend, by_torch=by_torch
    )  # fmt: skip
    return groups.join(out)


def fused_groups(
    query: Float[Tensor, "batch groups *cells heads head_dim"],
    key: Float[Tensor, "batch groups *cells_kv heads head_dim"],
    value: Float[Tensor, "batch groups *cells_kv heads value_dim"],
    absent: Tensor | None,
    bias: Tensor | None,
    scale: float,
    dropout_p: float,
    backend: str,
    *,
    by_torch: bool,
) -> Float[Tensor, "batch groups *cells heads value_dim"]:
    """Full attention inside each group, groups in the batch: by torch's fused kernels, or by `windeye.attend`."""
    shape = (*query.shape[:-1], value.shape[-1])
    if absent is not None:
        absent = absent.expand(*key.shape[:2], *absent.shape[2:]).flatten(0, 1)
    query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    if by_torch:
        mask = None if absent is None else ~absent.flatten(1)[:, None, None]
        if bias is not None:
            spread = bias_of_pairs(bias, tuple(query.shape[1:-2])).to(query.dtype)
            mask = spread if mask is None else spread.expand(len(query), -1, -1, -1).masked_fill(~mask, -torch.inf)
        q, k, v = (t.flatten(1, -3).transpose(1, 2) for t in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale)
        return out.transpose(1, 2).reshape(shape)
    out = attend(
        query, key, value, Full(), scale=scale, bias=bias, key_padding=absent, dropout_p=dropout_p, backend=backend
    )
    return out.reshape(shape)


def bias_of_pairs(
    table: Float[Tensor, "heads *offsets"], cells: tuple[int, ...]
) -> Float[Tensor, "heads cells cells_kv"]:
    """The relative table as a number per pair."""
    return table.flatten(1)[:, _offsets(cells, tuple(table.shape[1:]), table.device)]


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # else what inference has cached could not be trained with
def _offsets(cells: tuple[int, ...], offsets: tuple[int, ...], device: torch.device) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n) for n in cells), indexing="ij")
    index = torch.zeros(prod(cells), prod(cells), dtype=torch.long)
    for axis, count in zip(axes, offsets, strict=True):
        at = axis.flatten()
        index = index * count + (at[None] - at[:, None] + count // 2)
    return index.to(device)
