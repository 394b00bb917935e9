"""Statistics of attention maps without the maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from windeye.kernels.softmax.problem import check_key_padding, check_pattern, check_tensors
from windeye.kernels.statistics import pair, planner
from windeye.kernels.statistics.columns import ColumnMean, ColumnSum, FutureInfluence
from windeye.kernels.statistics.relation import LiveKeys, Masked, Relation, Tabled
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import (
    Entropy,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    SinkMass,
    Statistic,
    WindowedDistance,
)
from windeye.patterns import Allowed, Causal, Expiry, Pattern, Routed

Stats = Mapping[str, Statistic | str] | Sequence[str] | str
"""Statistics by the names that their values get, or names of those that need no arguments."""

NAMED: dict[str, type[Statistic]] = {
    "column_mean": ColumnMean,
    "column_sum": ColumnSum,
    "entropy": Entropy,
    "future_influence": FutureInfluence,
    "max_weight": MaxWeight,
    "mean_distance": MeanDistance,
    "participation": Participation,
    "row_mass": RowMass,
    "sink_mass": SinkMass,
    "windowed_distance": WindowedDistance,
}
"""Statistics that need no arguments, by name."""

_PAST = Causal()


def statistics(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid_kv kv_heads head_dim"],
    stats: Stats,
    pattern: Pattern = _PAST,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sink_logits: Float[Tensor, " heads"] | None = None,
    bias: Float[Tensor, "batch heads queries keys"] | None = None,
    key_padding: Bool[Tensor, "batch *grid_kv"] | None = None,
    rows: Bool[Tensor, "batch queries"] | None = None,
    route: str = "auto",
) -> dict[str, Tensor]:
    """Numbers about the attention map ``A = softmax(scale q k^T)`` of every head, with memory that grows with tokens.

    Args:
        query, key: as of `windeye.attend`; tokens of a grid are numbered row-major.
        stats: what to compute, as ``{"far": MeanDistance(), "H": "entropy"}`` or ``["entropy", "sink_mass"]``.
        pattern: who sees whom; default the past.
        scale: factor of the logits, default ``head_dim ** -0.5``.
        softcap: ``c`` of ``c tanh(logit / c)``; None: none.
        sink_logits: one more logit per head in the denominator (learned sinks), which no key has.
        bias: added to the logits; axes may be 1. A bias per key, as ALiBi's, has 1 query.
        key_padding: True hides a key from every query.
        rows: queries that count in columns; default all. Rows of the others are computed as well.
        route: "auto" takes for each statistic the first that can: "cpu" (the compiled passes; rows can be
            differentiated once), "triton" (the same on CUDA), "fused" (torch's attention with functions of the key as
            values; differentiable), "band" (tiles along the diagonal), "slab" (a few whole rows at a time; everything,
            differentiable). A name takes that one for all.

    Returns:
        By name: row statistics [batch, queries, heads], some with more axes behind; column statistics
        [batch, keys, heads]; in float32, or float64 for float64. Rows that see nothing give zeros.

    Raises:
        ValueError, TypeError: shapes, names or options do not fit; says what would.

    Source: inspection notes, section 3. Statistics are of the weights before dropout.

    Example:
        >>> import torch, windeye
        >>> q, k = torch.randn(2, 1, 50, 4, 16).unbind(0)
        >>> seen = windeye.statistics(q, k, {"far": windeye.MeanDistance(), "H": "entropy"})
        >>> seen["far"].shape, bool(seen["H"][0, 0].abs().max() < 1e-6)
        (torch.Size([1, 50, 4]), True)
    """
    check_tensors(query, key, key)
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be a windeye.Pattern such as Causal(), got {pattern!r}")
    if key_padding is not None:
        check_key_padding(key_padding, key)
    relation = relation_of(pattern, query, key, key_padding)
    scores = Scores(
        query.flatten(1, -3), key.flatten(1, -3), relation, query.shape[-1] ** -0.5 if scale is None else float(scale),
        softcap, sink_logits, bias, rows,
    )  # fmt: skip
    check_scores(scores)
    return planner.run(scores, named(stats), route)


def divergence(
    first: tuple[Float[Tensor, "batch *grid heads head_dim"], Float[Tensor, "batch *grid_kv kv_heads head_dim"]],
    second: tuple[Tensor, Tensor],
    pattern: Pattern = _PAST,
    *,
    kind: Literal["kl", "js"] = "js",
    scale: float | None = None,
    key_padding: Bool[Tensor, "batch *grid_kv"] | None = None,
) -> Float[Tensor, "batch queries heads"]:
    """How far each query's weights in one pass are from those in another, in nats.

    ``kl = sum_s A log(A / B)``; ``js`` is the mean of both against ``(A + B) / 2``, between 0 and ``log 2``. Rows of
    both maps are made a few at a time; differentiable.

    Args:
        first, second: query and key of each pass, of the same shapes.
        pattern, scale, key_padding: as of `statistics`, for both.
        kind: "kl", which is not symmetric, or "js".

    Raises:
        ValueError, TypeError: shapes do not fit, or there is no such kind.

    Example:
        >>> import torch, windeye
        >>> q, k = torch.randn(2, 1, 8, 2, 4).unbind(0)
        >>> windeye.divergence((q, k), (2 * q, k)).shape
        torch.Size([1, 8, 2])
    """
    if kind not in ("kl", "js"):
        raise ValueError(f'kind must be "kl" or "js", got {kind!r}')
    for query, key in (first, second):
        check_tensors(query, key, key)
    shapes = [(tuple(query.shape), tuple(key.shape)) for query, key in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the passes differ in shape: query and key are {shapes[0]} and {shapes[1]}")
    if key_padding is not None:
        check_key_padding(key_padding, first[1])
    relation = relation_of(pattern, *first, key_padding)
    scale = first[0].shape[-1] ** -0.5 if scale is None else float(scale)
    passes = [Scores(query.flatten(1, -3), key.flatten(1, -3), relation, scale) for query, key in (first, second)]
    return pair.divergence(passes[0], passes[1], kind)


def relation_of(pattern: Pattern, query: Tensor, key: Tensor, key_padding: Tensor | None = None) -> Relation:
    """Who sees whom in one call of attention, for statistics."""
    hidden = None if key_padding is None else key_padding.flatten(1)
    check_pattern(pattern, query, key)
    offset = key.shape[1] - query.shape[1]
    if isinstance(pattern, Expiry | Allowed | Routed):
        routes = isinstance(pattern, Routed)
        planes = pattern.bind(query.shape[1:-2], key.shape[1:-2]).mask() if routes else pattern.planes
        planes = planes.repeat_interleave(query.shape[-2] // planes.shape[1], dim=1)
        if isinstance(pattern, Expiry):
            return LiveKeys(planes, query.shape[1], hidden, offset)
        return Masked(planes if hidden is None else planes & ~hidden[:, None, None], offset)
    return Tabled(pattern.bind(tuple(query.shape[1:-2]), tuple(key.shape[1:-2])), query.device, hidden)


def named(stats: Stats) -> dict[str, Statistic]:
    """Statistics by name.

    Raises:
        ValueError, TypeError: a name is unknown, or something is no statistic; lists what there is.
    """
    if isinstance(stats, str):
        stats = [stats]
    chosen = dict(stats) if isinstance(stats, Mapping) else {name: name for name in stats}
    if not chosen:
        raise ValueError("stats names nothing to compute")
    return {name: _statistic(name, stat) for name, stat in chosen.items()}


def _statistic(name: str, stat: Statistic | str) -> Statistic:
    if isinstance(stat, Statistic):
        return stat
    if not isinstance(stat, str):
        raise TypeError(f"stats[{name!r}] must be a statistic such as Entropy(), or a name, got {stat!r}")
    if stat not in NAMED:
        raise ValueError(f"there is no statistic {stat!r}; by name there are {', '.join(NAMED)}")
    return NAMED[stat]()


def check_scores(scores: Scores) -> None:
    """Refuse options that do not fit the tensors.

    Raises:
        ValueError: names the argument, its shape and what would be valid.
    """
    batch, queries, heads, keys = scores.batch, scores.query.shape[1], scores.heads, scores.key.shape[1]
    if scores.softcap is not None and not scores.softcap > 0:
        raise ValueError(f"softcap must be positive, got {scores.softcap}")
    if scores.sink_logits is not None and scores.sink_logits.shape != (heads,):
        raise ValueError(f"sink_logits must be [heads {heads}], got shape {tuple(scores.sink_logits.shape)}")
    if scores.rows is not None and (scores.rows.shape != (batch, queries) or scores.rows.dtype != torch.bool):
        raise ValueError(
            f"rows must be bool [batch {batch}, queries {queries}], got {scores.rows.dtype} "
            f"of shape {tuple(scores.rows.shape)}"
        )
    if scores.bias is not None:
        full = (batch, heads, queries, keys)
        shape = tuple(scores.bias.shape)
        if len(shape) != 4 or any(n not in (1, m) for n, m in zip(shape, full, strict=True)):
            raise ValueError(f"bias must be [batch, heads, queries, keys] {full} with axes of 1 allowed, got {shape}")
