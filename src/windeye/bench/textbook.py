"""Layers of maps with their weights in memory: product, softmax, product, as papers publish them."""

from __future__ import annotations

import copy
from functools import lru_cache

import torch
from torch import Tensor

from windeye.kernels.softmax.problem import bias_steps
from windeye.nn.mixers import Groups, Plan, TokenMixer
from windeye.nn.mixers.grouped import bias_of_pairs
from windeye.nn.mixers.groups import blocks_as_groups, routed_as_groups
from windeye.patterns import Blocks, Bound, Full, Routed


def textbook(mixer: TokenMixer) -> TokenMixer:
    """The same layer without a kernel of ours; weights are shared. Dropout of weights is left out.

    Example:
        >>> from windeye.nn.mixers import HiLoMixer
        >>> layer, x = HiLoMixer(48, heads=4), torch.randn(2, 6, 8, 48)
        >>> torch.allclose(textbook(layer)(x), layer(x), atol=1e-6)
        True
    """

    def outputs(x: Tensor, plans: tuple[Plan, ...]) -> Tensor:
        parts = [eager(plan)[:, : x.shape[1], : x.shape[2]] for plan in plans]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)

    twin = copy.copy(mixer)
    twin.outputs = outputs  # type: ignore[method-assign]
    return twin


def eager(plan: Plan) -> Tensor:
    """What the plan says, by automatic differentiation through whole weights: of each group, or of each query where
    every query has keys of its own.

    Raises:
        ValueError: a relation that has no such form here.
    """
    query, key, value, pattern = plan.query, plan.key, plan.value, plan.relation
    grid = (query.shape[1], query.shape[2])
    if isinstance(pattern, Groups):
        return _grouped(pattern, plan)
    if isinstance(pattern, Blocks):
        return _grouped(blocks_as_groups(pattern, grid, query.device), plan)
    if isinstance(pattern, Full):
        absent = None if plan.absent is None else plan.absent[:, None]
        return _grouped(Groups(lambda x: x[:, None], lambda x: x[:, 0], lambda x: x[:, None], absent), plan)
    if isinstance(pattern, Routed):
        return _grouped(routed_as_groups(pattern, grid, (key.shape[1], key.shape[2]), plan.absent), plan)
    bound = pattern.bind(grid, (key.shape[1], key.shape[2]))
    seen = _seen(bound)
    keys, values = (t.flatten(1, 2)[:, seen] for t in (key, value))
    scores = torch.einsum("bnhd,bnwhd->bnhw", query.flatten(1, 2), keys) * plan.scale
    if plan.bias is not None:
        scores = scores + plan.bias.flatten(1)[:, _offsets(bound, plan.bias.shape[1:])].transpose(0, 1)
    out = torch.einsum("bnhw,bnwhd->bnhd", scores.softmax(-1), values)
    return torch.unflatten(out, 1, grid)


def _grouped(groups: Groups, plan: Plan) -> Tensor:
    query, key, value = groups.split(plan.query), groups.resample(plan.key), groups.resample(plan.value)
    q, k, v = (t.flatten(2, -3).transpose(2, 3) for t in (query, key, value))
    scores = q @ k.transpose(-2, -1) * plan.scale
    if plan.bias is not None:
        scores = scores + bias_of_pairs(plan.bias, tuple(query.shape[2:-2]))
    if groups.absent is not None:
        scores = scores.masked_fill(groups.absent.flatten(2)[:, :, None, None], -torch.inf)
    out = (scores.softmax(-1) @ v).transpose(2, 3)
    return groups.join(out.reshape(*query.shape[:-1], value.shape[-1]))


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)
def _seen(bound: Bound) -> Tensor:
    """The keys of each query, [queries, keys of each].

    Raises:
        ValueError: queries see differently many keys.
    """
    mask = bound.mask()
    counts = mask.sum(dim=-1)
    if mask.dim() != 2 or int(counts.min()) != int(counts.max()):
        raise ValueError("no textbook form of a pattern whose queries see differently many keys is written here")
    return mask.nonzero()[:, 1].reshape(len(mask), -1)


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)
def _offsets(bound: Bound, table: tuple[int, int]) -> Tensor:
    """Where in a flat bias table each query and key of `_seen` stand."""
    seen = _seen(bound)
    key = torch.stack([seen // bound.grid_kv[1], seen % bound.grid_kv[1]])
    query = torch.cartesian_prod(*(torch.arange(n) for n in bound.grid)).T[..., None]
    steps = bias_steps(bound)
    rows, columns = ((key - query)[axis] // steps[axis] + table[axis] // 2 for axis in range(2))
    return rows * table[1] + columns
