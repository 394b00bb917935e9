"""A cache of the ``w`` best keys of each head: what decoding needs of attention over `windeye.topw_expiry`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from windeye.memory.buffer import Buffer, may_append
from windeye.memory.tensors import TensorState
from windeye.ops import attend, topw_expiry
from windeye.patterns import Expiry
from windeye.patterns.pattern import is_int

EMPTY = -1


@dataclass
class TopwCache(TensorState):
    """Keys, values and scores of the ``w`` best tokens so far, for each head: exact, and of bounded size.

    A key that was dropped never returns, so that nothing else of the past can matter to later queries: a step over the
    cache equals the row of a pass over the whole sequence, for every way to cut the sequence into steps. Where
    several score heads share a key head each keeps keys of its own. Entries stand in the order of the sequence, the
    newest last; a sequence that has fewer than others has empty places in front. It grows to ``w`` places and stays;
    until then, and where no gradients are taken, a token is written behind the others into memory that doubles.
    Scores are compared in float32: tokens whose wider scores differ by rounding are equals, of which the later wins.

    Source: dma spec, properties 1 and 4.

    Example:
        >>> import windeye
        >>> q, k, v = torch.randn(3, 1, 100, 2, 8, dtype=torch.float64).unbind(0)
        >>> score = torch.randn(1, 2, 100, dtype=torch.float64)
        >>> whole = windeye.attend(q, k, v, windeye.Expiry(windeye.topw_expiry(score, 16)), bias=score)
        >>> cache = TopwCache.empty(16, k, v, score)
        >>> outs = []
        >>> for s in (slice(0, 60), slice(60, 99), slice(99, 100)):
        ...     out, cache = cache.step(q[:, s], k[:, s], v[:, s], score[..., s])
        ...     outs.append(out)
        >>> torch.allclose(torch.cat(outs, dim=1), whole)
        True
        >>> cache.key.shape
        torch.Size([1, 16, 2, 8])
    """

    key: Float[Tensor, "batch places heads head_dim"]
    value: Float[Tensor, "batch places heads value_dim"]
    score: Float[Tensor, "batch places heads"]
    """-inf in places that are empty."""
    position: Int[Tensor, "batch places heads"]
    """Where in the sequence each entry stood, ascending; `EMPTY` in places that are empty."""
    w: int
    window: int | None = None

    def __post_init__(self) -> None:
        # No field, so that states derived from this one start without: a buffer is of these very tensors.
        self._buffers: Sequence[Buffer | None] = (None,) * 4

    @classmethod
    def empty(
        cls,
        w: int,
        key: Float[Tensor, "batch _ kv_heads head_dim"],
        value: Float[Tensor, "batch _ kv_heads value_dim"],
        score: Float[Tensor, "batch score_heads _"],
        *,
        window: int | None = None,
    ) -> Self:
        """A cache before the first token, for tokens like these, whose contents are not read.

        Args:
            w: keys that each query keeps, at least 1.
            key, value, score: give the batch, heads, dims, types and device. Of the heads of ``key`` and of ``score``
                one number divides the other.
            window: as in `windeye.topw_expiry`, a key is seen for this many queries at most.

        Raises:
            ValueError: w, window or the numbers of heads do not fit.
        """
        for name, number in (("w", w), ("window", window)):
            if (number is not None or name == "w") and (not is_int(number) or number < 1):  # type: ignore[operator]
                raise ValueError(f"{name} must be an integer of at least 1, got {number!r}")
        batch, heads = key.shape[0], _heads(key, score)
        return cls(
            seen=torch.zeros(batch, dtype=torch.int64, device=key.device),
            key=key.new_empty(batch, 0, heads, key.shape[-1]),
            value=value.new_empty(batch, 0, heads, value.shape[-1]),
            score=score.new_empty(batch, 0, heads),
            position=torch.empty(batch, 0, heads, dtype=torch.int64, device=key.device),
            w=w,
            window=window,
        )

    def step(
        self,
        query: Float[Tensor, "batch new heads head_dim"],
        key: Float[Tensor, "batch new kv_heads head_dim"],
        value: Float[Tensor, "batch new kv_heads value_dim"],
        score: Float[Tensor, "batch score_heads new"],
        *,
        scale: float | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch new heads value_dim"], Self]:
        """What new tokens see, and the cache that they leave; this one stays as it was.

        One token takes a time that does not depend on how many came before, many take that of a pass over all of them.

        Args:
            query, key, value, score: of the new tokens, in order.
            scale: of the logits; default ``head_dim ** -0.5``.
            lengths: true tokens of each sequence where they are padded on the right. Padding is neither kept nor
                counted, whatever it holds; its outputs are arbitrary.

        Raises:
            ValueError, TypeError: tensors do not fit the cache or each other, or a score is NaN; names the argument
                and values.
        """
        self._check(query, key, value, score)
        heads = self.key.shape[2]
        score = _spread(score, heads, dim=1)
        if key.shape[1] == 1 and lengths is None:
            after = self._with_one(_spread(key, heads), _spread(value, heads), score.transpose(1, 2))
            return _row(query, after.key, after.value, after._shown(), scale), after
        return self._many(query, key, value, score, scale, lengths)

    def _with_one(self, key: Tensor, value: Tensor, score: Tensor) -> Self:
        """One token more; in a full cache it takes the place of the worst entry of each head, if it is better."""
        _, places, heads, _ = self.key.shape
        own, seen = (self.key, self.value, self.score, self.position), self.seen[:, None, None]
        new = (key, value, score, seen.expand(-1, -1, heads))
        if bool(score.isnan().any()):
            raise ValueError("score is NaN; a NaN has no rank")
        if places < self.w:
            return self._grown(own, new)
        worst, place = self.score.float().min(dim=1, keepdim=True)  # of several the first, which is the oldest
        taken = score.float() >= worst  # of equal scores the later token wins
        if not bool(taken.any()):
            return replace(self, seen=self.seen + 1)
        # Entries after the one that leaves move up by a place, that is by a row of all heads.
        moves = taken & (torch.arange(places, device=key.device)[:, None] >= place)
        row = torch.arange(moves.numel(), device=key.device) + heads * moves.flatten()
        row = row.clamp(max=moves.numel() - 1)
        kept = [t.flatten(0, 2).index_select(0, row).view_as(t) for t in own]
        for tensor, comes in zip(kept, new, strict=True):
            last = tensor[:, -1:]
            last.copy_(torch.where(taken if last.dim() == 3 else taken[..., None], comes, last))
        return self._replaced(self.seen + 1, kept)

    def _grown(self, own: Sequence[Tensor], new: Sequence[Tensor]) -> Self:
        """The cache while it has room for all."""
        if not all(may_append(*pair) for pair in zip(own, new, strict=True)):
            return self._replaced(self.seen + 1, [torch.cat(pair, dim=1) for pair in zip(own, new, strict=True)])
        buffers = [Buffer.append(*three) for three in zip(self._buffers, own, new, strict=True)]
        after = self._replaced(self.seen + 1, [buffer.view for buffer in buffers])
        after._buffers = buffers
        return after

    def _replaced(self, seen: Tensor, tensors: Sequence[Tensor]) -> Self:
        key, value, score, position = tensors
        return replace(self, seen=seen, key=key, value=value, score=score, position=position)

    def _shown(self) -> Float[Tensor, "batch places heads"]:
        """Scores as the newest token sees them: -inf where an entry has outlived the window."""
        if self.window is None:
            return self.score
        return self.score.masked_fill(self.position < self.seen[:, None, None] - self.window, -torch.inf)

    def _many(
        self, query: Tensor, key: Tensor, value: Tensor, score: Tensor, scale: float | None, lengths: Tensor | None
    ) -> tuple[Tensor, Self]:
        """A pass over the entries followed by the new tokens."""
        new = key.shape[1]
        batch, places, heads, _ = self.key.shape
        total = places + new
        here = torch.arange(new, device=key.device)
        position = (self.seen[:, None] + here)[:, None].expand(-1, heads, -1)
        absent = torch.zeros(batch, new, dtype=torch.bool, device=key.device)
        if lengths is not None:
            absent = here >= lengths[:, None].to(key.device)
            score = score.masked_fill(absent[:, None], -torch.inf)
        if places:
            key, value = (
                torch.cat((old, _spread(t, heads)), dim=1) for old, t in ((self.key, key), (self.value, value))
            )
            score = torch.cat((self.score.transpose(1, 2), score), dim=-1)
            position = torch.cat((self.position.transpose(1, 2), position), dim=-1)
            absent = torch.cat((self.position[..., 0] == EMPTY, absent), dim=-1)  # the same in every head
        some_absent = places or lengths is not None
        expiry = topw_expiry(score.float(), self.w, key_padding=absent if some_absent else None)
        lives = expiry
        if self.window is not None:
            last = position - self.seen[:, None, None] + (places + self.window)
            lives = torch.minimum(expiry, last.int())
        out = attend(query, key, value, Expiry(lives), bias=score, scale=scale)
        stays = expiry == total
        order = stays.int().argsort(dim=-1, stable=True)[..., max(0, total - self.w) :]
        stays = stays.gather(-1, order)
        score = score.gather(-1, order).masked_fill(~stays, -torch.inf)
        position = position.gather(-1, order).masked_fill(~stays, EMPTY)
        return out, self._replaced(
            self.seen + (new if lengths is None else lengths.to(self.seen.device)),
            (_taken(key, order), _taken(value, order), score.mT.contiguous(), position.mT.contiguous()),
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Scores keep their type: rounded ones would rank otherwise than those of the tokens that follow."""
        moved = super().to(device, dtype)
        return replace(moved, score=self.score.to(device))

    def _check(self, query: Tensor, key: Tensor, value: Tensor, score: Tensor) -> None:
        shapes = ", ".join(str(tuple(t.shape)) for t in (query, key, value, score))
        if (query.dim(), key.dim(), value.dim(), score.dim()) != (4, 4, 4, 3):
            raise ValueError(
                "a step takes query, key and value [batch, new, heads, dim] and score [batch, heads, new], "
                f"got shapes {shapes}"
            )
        batch, _, heads, _ = self.key.shape
        for name, tensor, own in (("query", query, self.key), ("key", key, self.key), ("value", value, self.value)):
            if tensor.shape[0] != batch or tensor.shape[-1] != own.shape[-1]:
                raise ValueError(
                    f"{name} has batch {tensor.shape[0]} and dim {tensor.shape[-1]} but the cache has {batch} and "
                    f"{own.shape[-1]}"
                )
        new = {t.shape[1] for t in (query, key, value)} | {score.shape[2]}
        if score.shape[0] != batch or len(new) > 1 or value.shape[2] != key.shape[2]:
            raise ValueError(f"query, key, value and score are not of the same tokens: {shapes}")
        if _heads(key, score) != heads or query.shape[2] % heads:
            raise ValueError(
                f"query has {query.shape[2]} heads, key {key.shape[2]} and score {score.shape[1]}, but the cache was "
                f"made for {heads}"
            )

    def check_integrity(self) -> None:
        """Entries are tokens that were seen, in order, as many in each head; empty places rank below all."""
        super().check_integrity()
        filled = self.position != EMPTY
        assert self.key.shape[1] <= self.w, "there are more places than entries may be kept"
        assert (self.position < self.seen[:, None, None]).all(), "an entry stands after what was seen"
        assert torch.isneginf(self.score[~filled]).all(), "an empty place has a score"
        counts = filled.sum(dim=1)
        assert (counts == self.seen.clamp(max=self.w)[:, None]).all(), "a head does not hold all that it should"
        before, after = self.position[:, :-1], self.position[:, 1:]
        assert ((before < after) | (before == EMPTY)).all(), "entries are not in the order of the sequence"


def _heads(key: Tensor, score: Tensor) -> int:
    """Heads of a cache: the more of the two, so that each has its own keys and its own scores."""
    few, many = sorted((key.shape[2], score.shape[1]))
    if few == 0 or many % few:
        raise ValueError(f"key has {key.shape[2]} heads and score {score.shape[1]}; one must divide the other")
    return many


def _spread(tensor: Tensor, heads: int, dim: int = 2) -> Tensor:
    """One head for each of ``heads`` that share it."""
    sharing = heads // tensor.shape[dim]
    return tensor if sharing == 1 else tensor.repeat_interleave(sharing, dim=dim)


def _taken(tokens: Tensor, order: Tensor) -> Tensor:
    """``tokens`` [batch, n, kv_heads, dim] in the order [batch, heads, m] of each head, copied row by row."""
    batch, n, kv_heads, dim = tokens.shape
    heads, m = order.shape[1:]
    head = torch.arange(heads, device=order.device) // (heads // kv_heads)
    sequence = torch.arange(batch, device=order.device)[:, None, None]
    row = (sequence * n + order.transpose(1, 2)) * kv_heads + head
    return tokens.flatten(0, 2).index_select(0, row.flatten()).view(batch, m, heads, dim)


def _row(query: Tensor, key: Tensor, value: Tensor, score: Tensor, scale: float | None) -> Tensor:
    """Attention of one token over all entries. One query leaves the lanes of our kernel idle; torch's is faster."""
    batch, heads = key.shape[0], key.shape[2]
    sharing = query.reshape(batch, heads, -1, query.shape[-1])  # query heads that share entries, as if they were tokens
    bias = score.transpose(1, 2)[:, :, None]
    out = F.scaled_dot_product_attention(
        sharing, key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias, scale=scale
    )
    return out.reshape(batch, 1, -1, value.shape[-1])
