"""Relative bias tables on a GPU: the form in which kernels read them, and which sums of lanes make up their gradient.

A table counts offsets in dilations, and so do boxes, whose tokens are those of one residue class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from windeye.kernels.softmax.problem import bias_steps
from windeye.kernels.softmax.triton.arguments import Bias
from windeye.kernels.softmax.triton.plan import AXES, Ints, Plan, axis_classes, plan
from windeye.patterns import Bound

LOG2E = 1.4426950408889634
Places = npt.NDArray[np.int64]


def argument(bound: Bound, bias: torch.Tensor, work: Plan) -> Bias:
    """The table as the kernels take it, filled up with zeros as far as pairs of boxes that meet may lie apart.

    `check_reach` must have passed: there is a zero where the table ends.
    """
    units = axis_classes(bound)
    assert units[AXES - bound.rank :] == bias_steps(bound)  # without a wrap, keys lie dilations apart from their query
    more = [q.size + kv.size - 2 for q, kv in zip(work.queries, work.keys, strict=True)]
    sizes = [size + 2 * beyond for size, beyond in zip(_padded(tuple(bias.shape[1:])), more, strict=True)]
    strides = (sizes[1] * sizes[2], sizes[2], 1)
    centre = sum(size // 2 * stride for size, stride in zip(sizes, strides, strict=True))
    filled = bias.detach().float().reshape(len(bias), *_padded(tuple(bias.shape[1:])))
    table = F.pad(filled * LOG2E, [beyond for axis in reversed(more) for beyond in (axis, axis)]).contiguous()
    return Bias(table, prod(sizes), centre, units[0], units[1], units[2], strides[0], strides[1])


@dataclass(frozen=True, eq=False)
class Sums:
    """How the gradient of a table is added up, in two steps: lanes of pairs of boxes, then groups of pairs.

    ``q_boxes[begin[g]:begin[g + 1]]`` and ``kv_boxes`` are the pairs of group ``g``, which lie equally far apart. Its
    program leaves one sum per difference, ``extents`` of them; ``found[place]`` are those that belong to an entry of
    the table, filled up with the one past the last.
    """

    begin: Ints
    q_boxes: Ints
    kv_boxes: Ints
    extents: tuple[int, ...]
    found: Places

    @property
    def groups(self) -> int:
        return len(self.begin) - 1


@lru_cache(maxsize=64)
def sums(bound: Bound, queries: int, keys: int, shape: int, offsets: tuple[int, ...]) -> Sums:
    """The sums for boxes of so many queries and keys and a table of so many offsets per axis.

    Example:
        >>> from windeye.patterns import Neighborhood
        >>> s = sums(Neighborhood(3).bind((64,)), 16, 16, 0, (5,))
        >>> s.groups, s.extents, (s.found < s.groups * s.extents[-1]).sum(axis=1).tolist()
        (3, (1, 1, 32), [2, 2, 1, 2, 2])
    """
    work, classes = plan(bound, queries, keys, shape), axis_classes(bound)
    q_box = np.repeat(np.arange(len(work.of_queries.middle)), np.diff(work.of_queries.begin))
    kv_box = work.of_queries.other
    q_place = np.unravel_index(q_box, [axis.count for axis in work.queries])
    kv_place = np.unravel_index(kv_box, [axis.count for axis in work.keys])
    apart = [
        (kv.coordinates[kv_place[a] * kv.size] - q.coordinates[q_place[a] * q.size]) // classes[a]
        for a, (q, kv) in enumerate(zip(work.queries, work.keys, strict=True))
    ]
    kinds, group = np.unique(np.stack(apart, axis=1), axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    begin = np.concatenate([[0], np.cumsum(np.bincount(group.reshape(-1), minlength=len(kinds)))])
    sides = [(q.size, kv.size) for q, kv in zip(work.queries, work.keys, strict=True)]
    extents = tuple(1 << (q + kv - 2).bit_length() for q, kv in sides)
    found = _found(kinds, extents, sides, offsets)
    narrow = [array.astype(np.int32) for array in (begin, q_box[order], kv_box[order])]
    return Sums(narrow[0], narrow[1], narrow[2], extents, found)


def _found(kinds: Places, extents: tuple[int, ...], sides: list[tuple[int, int]], offsets: tuple[int, ...]) -> Places:
    """For each entry of the table the lanes of groups whose difference falls to it."""
    place: Places = np.zeros((len(kinds), 1, 1, 1), np.int64)
    known = np.ones_like(place, dtype=np.bool_)
    for axis, (most, (q, kv)) in enumerate(zip(_padded(offsets), sides, strict=True)):
        shape = [len(kinds), *(-1 if a == axis else 1 for a in range(AXES))]
        lane = np.arange(extents[axis])
        entry = kinds[:, axis, None] + lane - (q - 1) + most // 2
        inside = (entry >= 0) & (entry < most) & (lane < q + kv - 1)
        place = place * most + entry.reshape(shape)
        known = known & inside.reshape(shape)
    lanes = np.flatnonzero(known)
    of_lane = np.broadcast_to(place, known.shape).reshape(-1)[lanes]
    order = np.argsort(of_lane, kind="stable")
    counts = np.bincount(of_lane, minlength=prod(offsets))
    begin = np.cumsum(counts) - counts
    found = np.full((prod(offsets), counts.max(initial=0)), known.size, np.int64)
    found[of_lane[order], np.arange(len(order)) - np.repeat(begin, counts)] = lanes[order]
    return found


def _padded(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (AXES - len(sizes)) + sizes
