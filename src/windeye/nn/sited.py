"""Softmax attention of a layer, open to those who watch or steer it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from windeye.kernels.softmax.reference import spread_bias
from windeye.kernels.statistics.relation import Relation
from windeye.ops import attend
from windeye.ops.statistics import relation_of
from windeye.patterns import Pattern
from windeye.sites import AttentionCall, attention
from windeye.sites.call import LISTENERS, Run


def sited(
    layer: nn.Module,
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid_kv kv_heads head_dim"],
    value: Float[Tensor, "batch *grid_kv kv_heads value_dim"],
    pattern: Pattern,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    key_padding: Tensor | None = None,
    extra_kv: tuple[Tensor, Tensor] | None = None,
    dropout_p: float = 0.0,
    backend: str = "auto",
    key_start: int | Tensor = 0,
    run: Run | None = None,
) -> Float[Tensor, "batch *grid heads value_dim"]:
    """`windeye.attend`, as a call that sessions on the layer see; tokens of a grid are numbered row-major there.

    Args:
        layer: the module that calls; it declares ``attention_site = True``.
        query, key, value, pattern, scale, bias, key_padding, extra_kv, dropout_p, backend: as of `windeye.attend`.
        key_start: position of the first key in its sequence.
        run: what to compute instead of `windeye.attend`, where the same is cheaper some other way.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    grid, grid_kv = query.shape[1:-2], key.shape[1:-2]

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = query.reshape(query.shape[0], *grid, *query.shape[2:])
        key, value = (t.reshape(t.shape[0], *grid_kv, *t.shape[2:]) for t in (key, value))
        out = attend(
            query, key, value, pattern, scale=scale, bias=bias, key_padding=key_padding, extra_kv=extra_kv,
            dropout_p=dropout_p, backend=backend,
        )  # fmt: skip
        return out.flatten(1, -3)

    def relation() -> Relation:
        if extra_kv is not None:
            raise ValueError(
                f"{type(layer).__name__} shows keys to every query besides its pattern; such a layer cannot be watched "
                "or steered yet"
            )
        return relation_of(pattern, query, key, key_padding)

    # A number per pair is made only while somebody looks.
    spread = None if bias is None or not LISTENERS else spread_bias(pattern.bind(grid, grid_kv), bias)[None]
    flat = [t.flatten(1, -3) for t in (query, key, value)]
    call = AttentionCall(flat[0], flat[1], flat[2], scale, relation, run or plain, bias=spread, key_start=key_start)
    out = attention(layer, call)
    return out.reshape(*query.shape[:-1], out.shape[-1])
