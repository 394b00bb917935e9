"""Softmax attention of a layer, open to those who watch or steer it."""

from __future__ import annotations

from torch import Tensor, nn

from windeye.kernels.statistics.relation import Relation
from windeye.ops import attend
from windeye.ops.statistics import relation_of
from windeye.patterns import Pattern
from windeye.sites import AttentionCall, attention
from windeye.sites.call import Run


def sited(
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern,
    *,
    key_padding: Tensor | None = None,
    extra_kv: tuple[Tensor, Tensor] | None = None,
    key_start: int | Tensor = 0,
    run: Run | None = None,
) -> Tensor:
    """`windeye.attend`, as a call that sessions on the layer see.

    Args:
        layer: the module that calls; it declares ``attention_site = True``.
        query, key, value, pattern, key_padding, extra_kv: as of `windeye.attend`.
        key_start: position of the first key in its sequence.
        run: what to compute instead of `windeye.attend`, where the same is cheaper some other way.
    """

    scale = query.shape[-1] ** -0.5

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend(query, key, value, pattern, scale=scale, key_padding=key_padding, extra_kv=extra_kv)

    def relation() -> Relation:
        if extra_kv is not None:
            raise ValueError(
                f"{type(layer).__name__} shows keys to every query besides its pattern (extra_kv); such a layer cannot "
                "be watched or steered yet"
            )
        return relation_of(pattern, query, key, key_padding)

    return attention(layer, AttentionCall(query, key, value, scale, relation, run or plain, key_start=key_start))
