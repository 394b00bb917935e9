"""One attention over a map, told as who attends to what: a pattern, or groups of queries with resampled keys.

Fast passes, the dense matrix, single rows of it and costs are all derived from a `Plan`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.nn.mixers.grouped import Way, grouped_attention, way_of
from windeye.nn.mixers.groups import Groups, blocks_as_groups
from windeye.nn.sited import sited
from windeye.ops import attend
from windeye.patterns import Blocks, Full, Pattern, Routed


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
    copied: Groups | None = None
    """The relation and ``absent`` once more as groups, where those run faster than the pattern. Groups that are told as
    another relation, such as that of a plan which this one was made of, are not used."""

    @property
    def key_padding(self) -> Tensor | None:
        """``absent`` for every batch entry."""
        return None if self.absent is None else self.absent.expand(self.key.shape[:-2])

    @property
    def faster(self) -> Groups | None:
        """``copied``, if it is this plan's relation."""
        if self.copied is None or self.copied.told_as is None:
            return None
        pattern, absent = self.copied.told_as
        return self.copied if pattern is self.relation and absent is self.absent else None


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

    It is the gradient of that query's output in the values, so its memory is that of one pass, linear in the tokens.
    """
    query, key = plan.query.detach(), plan.key.detach()
    if isinstance(plan.relation, Full) and plan.bias is None:  # every query sees all: the others need not be there
        query, y, x = query[:, y, x, None, None], 0, 0
    value = plan.value.new_zeros(*plan.value.shape[:-1], 1).requires_grad_()
    still = replace(plan, query=query, key=key, value=value)
    with torch.enable_grad():
        (weights,) = torch.autograd.grad(_run(still, value)[:, y, x].sum(), value)
    return _over_cells(weights[..., 0].movedim(-1, 1), plan)


def pairs(plan: Plan) -> int:
    """Pairs of query and key per batch entry and head, padding counted where it is computed."""
    if isinstance(plan.relation, Routed):  # counted without reading which regions they are
        index = plan.relation.planes
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
    groups = (plan.faster or _cheaper(plan, dropout_p)) if backend == "auto" else None
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
    """Groups that run faster than a kernel that reads the map as it lies: on GPUs, where torch's fused kernels take
    them, and on CPUs while training, where they keep what our kernels compute again."""
    grid = (plan.query.shape[1], plan.query.shape[2])
    device, pattern = plan.query.device, plan.relation
    on_cpu, trains = device.type == "cpu", _trains(plan)
    if dropout_p > 0.0 and on_cpu:
        return None
    if isinstance(pattern, Full) and plan.absent is None and ((trains and plan.bias is None) or not on_cpu):
        return Groups(lambda x: x[:, None], lambda x: x[:, 0], lambda x: x[:, None])
    if isinstance(pattern, Blocks) and plan.absent is None and (trains or not on_cpu):
        groups = blocks_as_groups(pattern, grid, device)
        return groups if not on_cpu or plan.bias is not None or groups.absent is None else None
    return None


def _trains(plan: Plan) -> bool:
    tensors = (plan.query, plan.key, plan.value, plan.bias)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _grouped(
    groups: Groups, plan: Plan, query: Tensor, key: Tensor, value: Tensor, dropout_p: float, backend: str
) -> Tensor:
    query, key, value = groups.split(query), groups.resample(key), groups.resample(value)
    way: Way = "attend"
    if backend == "auto" and (dropout_p == 0.0 or query.device.type != "cpu"):
        way = way_of(query, key, plan.bias, groups.absent, trains=_trains(plan))
    out = grouped_attention(
        query, key, value, groups.absent, plan.bias, plan.scale, way=way, dropout_p=dropout_p, backend=backend
    )
    return groups.join(out)
