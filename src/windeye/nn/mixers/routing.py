"""Attention of regions to the regions that match them best."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.nn.mixer import check_count, check_divides
from windeye.nn.mixers.grouped import FEW_QUERIES
from windeye.nn.mixers.groups import Groups, routed_as_groups
from windeye.nn.mixers.mixer import TokenMixer
from windeye.nn.mixers.plan import Plan
from windeye.nn.mixers.registry import token_mixer
from windeye.patterns import Full, Routed
from windeye.patterns.pattern import check_axes, per_axis
from windeye.tokens import always, crop, fill, gather, merge, partition, pool, route

MOST_COPIED = 2**24
"""Numbers of keys that may be copied, 64 MiB in float32."""

RoutingPadding = Literal["none", "input", "projected", "masked"]
Pair = tuple[int, int]


class BiLevelRoutingMixer(TokenMixer):
    """First regions choose regions, by content; then tokens attend to all tokens of the chosen ones (BiFormer).

    With ``q, k, v = qkv(x)`` and their means over regions, region ``r`` keeps the ``keep`` regions with the largest
    ``mean_r(q) . mean(k)``. ``out = proj(concat_h softmax(scale q_h k_h^T) v_h + local(v))`` over the kept tokens,
    where ``scale = qk_dim^-0.5``, of all heads together, as the published models were trained. No gradient flows
    through the choice, and no region is forced in. All regions are full attention.

    Args:
        dim, heads: channels, and heads that share them.
        regions: regions along each side of the map, whatever its size.
        keep: regions that each region keeps; where the map has fewer, all.
        local: side of a depthwise convolution of the values that is added to the result; None adds none.
        qk_dim: channels of queries and keys, default ``dim``.
        padding: what is done with a map that the regions do not divide. "masked": smaller regions at its right and
            bottom, and no padding is seen. As published, "input" fills up with zeros before ``qkv``, and padding counts
            and is seen; "projected" takes regions of the size that is cut off, as many as needed, and fills up queries,
            keys and values with zeros that are seen. "none" refuses.
        pool: side of the cells of a region whose mean keys and values are attended to instead of tokens; it must divide
            the regions.
        soft: multiply keys and values of a kept region by its share in the softmax of the kept scores, so that the
            choice learns. Memory then grows with the keys that are kept.
        router: a learned linear map of region means before they are compared; needs ``soft``.
        qkv_bias: whether ``qkv`` adds a bias.
        attn_drop, proj_drop: dropout of attention weights and of the output, in training.

    Raises:
        ValueError: ``keep`` is more than all regions, a size that does not fit, ``router`` without ``soft``.

    Source: Zhu et al., "BiFormer: Vision Transformer with Bi-Level Routing Attention" (biformer spec). Official names:
    qkv.qkv, wo, lepe, router.emb.

    Example:
        >>> layer = BiLevelRoutingMixer(32, heads=4, regions=4, keep=2)
        >>> x = torch.randn(2, 16, 12, 32)
        >>> layer(x).shape, layer.routes(x).shape
        (torch.Size([2, 16, 12, 32]), torch.Size([2, 16, 2]))
    """

    attention_site = True

    def __init__(
        self,
        dim: int,
        heads: int,
        regions: int | Pair = 7,
        keep: int = 4,
        *,
        local: int | None = 5,
        qk_dim: int | None = None,
        padding: RoutingPadding = "masked",
        pool: int = 1,
        soft: bool = False,
        router: bool = False,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        rows, columns = per_axis(check_axes(regions, "regions", 1), 2, "regions")
        self.regions = (rows, columns)
        self.keep = check_count("keep", keep)
        if keep > rows * columns:
            raise ValueError(f"keep must be at most the {rows} x {columns} = {rows * columns} regions, got {keep}")
        if padding not in get_args(RoutingPadding):
            raise ValueError(f"padding must be one of {', '.join(get_args(RoutingPadding))}, got {padding!r}")
        if router and not soft:
            raise ValueError("router needs soft: no gradient reaches it otherwise")
        if local is not None and local % 2 == 0:
            raise ValueError(f"local must be odd, got {local}")
        self.qk_dim = dim if qk_dim is None else qk_dim
        check_divides(heads, self.qk_dim, "qk_dim")
        self.padding: RoutingPadding = padding
        self.pool, self.soft = check_count("pool", pool), soft
        self.scale = self.qk_dim**-0.5
        self.qkv = nn.Linear(dim, 2 * self.qk_dim + dim, bias=qkv_bias)
        self.router = nn.Linear(self.qk_dim, self.qk_dim) if router else None
        self.local = None if local is None else nn.Conv2d(dim, dim, local, padding=local // 2, groups=dim)
        self.proj = nn.Linear(dim, dim)

    def cut(self, height: int, width: int) -> tuple[Pair, Pair]:
        """Regions along each axis of such a map, and the rows and columns of one.

        Raises:
            ValueError: without padding, the regions do not divide the map.
        """
        sides = (height, width)
        if self.padding == "none" and any(n % count for n, count in zip(sides, self.regions, strict=True)):
            raise ValueError(
                f"x has {height} x {width} tokens, which {self.regions[0]} x {self.regions[1]} regions do not divide; "
                'padding="masked" takes any size'
            )
        size = tuple(
            max(1, n // count) if self.padding == "projected" else -(-n // count)
            for n, count in zip(sides, self.regions, strict=True)
        )
        counts = tuple(-(-n // side) for n, side in zip(sides, size, strict=True))
        counts = self.regions if self.padding == "input" else (counts[0], counts[1])
        return counts, (size[0], size[1])

    def routes(self, x: Float[Tensor, "batch height width dim"]) -> Int[Tensor, "batch regions keep"]:
        """The regions that each region keeps, numbered row by row, best first.

        Raises:
            ValueError: as of the layer's own call.
        """
        _, size = self.cut(x.shape[1], x.shape[2])
        query, key, _ = self._projected(x)
        return self._choice(query, key, size)[0]

    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        tokens = (x.shape[1], x.shape[2])
        counts, size = self.cut(*tokens)
        query, key, value = self._projected(x)
        choice = None
        if self.soft or self.keep < prod(counts):
            choice = self._choice(query, key, size)
        whole = all(always(n == count * side) for n, count, side in zip(tokens, counts, size, strict=True))
        hides = self.padding == "masked" and not whole
        cell = (self.pool, self.pool)
        if self.pool > 1:
            if size[0] % self.pool or size[1] % self.pool:
                raise ValueError(f"pool {self.pool} does not divide regions of {size[0]} x {size[1]} tokens")
            key, value = (pool(t if hides else fill(t, size), cell, count_padding=not hides) for t in (key, value))
        kv_size = (size[0] // self.pool, size[1] // self.pool)
        absent = None
        if hides:
            there = torch.zeros(1, *key.shape[1:3], dtype=torch.bool, device=x.device)
            absent = ~fill(~there, kv_size)
        query, key, value = fill(query, size), fill(key, kv_size), fill(value, kv_size)
        query, key, value = (torch.unflatten(t, -1, (self.heads, -1)) for t in (query, key, value))
        relation: Full | Routed | Groups = Full()
        copied: Groups | None = None
        if choice is not None:
            index, shares = choice
            relation = Routed(torch.unflatten(index, 1, counts)[:, None])
            if self.soft:
                relation = _weighted(index, shares, size, kv_size, (query.shape[1], query.shape[2]), absent)
                absent = None
            elif _copies(query, key, index, prod(size)):
                grid, grid_kv = ((t.shape[1], t.shape[2]) for t in (query, key))
                copied = routed_as_groups(relation, grid, grid_kv, absent)
        return (
            Plan(
                query, key, value, relation, self.scale, cell=cell, tokens=tokens if hides else None, absent=absent,
                copied=copied,
            ),
        )  # fmt: skip

    def finish(
        self, out: Float[Tensor, "batch height width heads head_dim"], x: Tensor, plans: tuple[Plan, ...]
    ) -> Float[Tensor, "batch height width dim"]:
        mixed = out.flatten(-2)
        if self.local is not None:
            value = plans[0].value.flatten(-2) if self.pool == 1 else self._projected(x)[2]
            near = self.local(value.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            mixed = mixed + crop(near, (x.shape[1], x.shape[2]))
        return self.proj_drop(self.proj(mixed))

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}, regions={self.regions}, keep={self.keep}, padding={self.padding}"

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads, on the map or on the padded map."""
        x = fill(x, self.regions) if self.padding == "input" else x
        query, key, value = self.qkv(x).split((self.qk_dim, self.qk_dim, self.dim), dim=-1)
        return query, key, value

    def _choice(self, query: Tensor, key: Tensor, size: Pair) -> tuple[Tensor, Tensor]:
        """The regions that each region keeps, and their shares."""
        means = [pool(t, size, count_padding=False).flatten(1, 2) for t in (query, key)]
        if self.router is not None:
            means = [self.router(mean) for mean in means]
        regions = means[0].shape[1]
        keep = self.keep if self.keep < regions else regions  # a comparison: a number wherever sizes are traced
        if not self.soft:
            index = route(means[0], means[1], keep)
            return index, torch.ones_like(index, dtype=query.dtype)
        scores, index = (self.scale * means[0] @ means[1].transpose(1, 2)).topk(keep, dim=-1)
        return index, scores.softmax(dim=-1)


def _copies(query: Tensor, key: Tensor, index: Tensor, queries: int) -> bool:
    """Whether a CPU is faster with every kept region copied: where regions have few queries, and few are kept."""
    copied = key.numel() * index.shape[-1]
    return query.device.type == "cpu" and always(queries < FEW_QUERIES) and always(copied <= MOST_COPIED)


def _weighted(
    index: Int[Tensor, "batch regions keep"],
    shares: Float[Tensor, "batch regions keep"],
    size: Pair,
    kv_size: Pair,
    grid: Pair,
    absent: Tensor | None,
) -> Groups:
    """Tokens of kept regions, multiplied by their region's share."""

    def kept(x: Tensor) -> Tensor:
        return gather(partition(x, kv_size).flatten(2, 3), index)

    def resample(x: Tensor) -> Tensor:
        return kept(x) * shares.repeat_interleave(prod(kv_size), dim=-1)[..., None, None]

    return Groups(
        split=lambda x: partition(x, size).flatten(2, 3),
        join=lambda x: merge(torch.unflatten(x, 2, size), grid),
        resample=resample,
        absent=None if absent is None else kept(absent.expand(len(index), -1, -1)[..., None])[..., 0],
    )


@token_mixer("bi_level_routing")
@dataclass(frozen=True)
class BiLevelRoutingSpec:
    """`windeye.nn.mixers.BiLevelRoutingMixer`."""

    kind: ClassVar[str]
    regions: int | Pair = 7
    keep: int = 4
    local: int | None = 5
    qk_dim: int | None = None
    padding: RoutingPadding = "masked"
    pool: int = 1
    soft: bool = False
    router: bool = False
    qkv_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0

    def build(self, dim: int, heads: int) -> TokenMixer:
        return BiLevelRoutingMixer(dim, heads, **asdict(self))
