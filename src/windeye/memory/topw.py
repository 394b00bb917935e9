"""A cache of the ``w`` best keys of each head: what decoding needs of attention over `windeye.topw_expiry`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.memory.tensors import TensorState
from windeye.ops import attend, topw_expiry
from windeye.patterns import Expiry
from windeye.patterns.pattern import is_int

EMPTY = -1


@dataclass
class TopwCache(TensorState):
    """Keys, values and scores of the ``w`` best tokens so far, for each head: exact, and of constant size.

    A key that was dropped never returns, so that nothing else of the past can matter to later queries: a step over the
    cache equals the row of a pass over the whole sequence, for every way to cut the sequence into steps. Where
    several score heads share a key head each keeps keys of its own. Unlike other states it changes in place, and
    ``seen`` counts padded tokens too: they hold places in the order of the sequence.

    Source: dma spec, properties 1 and 4.

    Example:
        >>> import windeye
        >>> q, k, v = torch.randn(3, 1, 100, 2, 8, dtype=torch.float64).unbind(0)
        >>> score = torch.randn(1, 2, 100, dtype=torch.float64)
        >>> whole = windeye.attend(q, k, v, windeye.Expiry(windeye.topw_expiry(score, 16)), bias=score)
        >>> cache = TopwCache.empty(16, k, v, score)
        >>> steps = [slice(0, 60), slice(60, 99), slice(99, 100)]
        >>> outs = [cache.step(q[:, s], k[:, s], v[:, s], score[..., s]) for s in steps]
        >>> torch.allclose(torch.cat(outs, dim=1), whole)
        True
        >>> cache.key.shape
        torch.Size([1, 16, 2, 8])
    """

    key: Float[Tensor, "batch w heads head_dim"]
    value: Float[Tensor, "batch w heads value_dim"]
    score: Float[Tensor, "batch heads w"]
    """-inf in places that are empty."""
    position: Int[Tensor, "batch heads w"]
    """Where in the sequence each entry stood; `EMPTY` in places that are empty. In no order."""
    window: int | None = None

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
        """A cache with ``w`` empty places per head for tokens like these, whose contents are not read.

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
            key=key.new_zeros(batch, w, heads, key.shape[-1]),
            value=value.new_zeros(batch, w, heads, value.shape[-1]),
            score=score.new_full((batch, heads, w), -torch.inf),
            position=torch.full((batch, heads, w), EMPTY, device=key.device),
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
        key_padding: Bool[Tensor, "batch new"] | None = None,
        backend: str = "auto",
    ) -> Float[Tensor, "batch new heads value_dim"]:
        """Take in new tokens and attend from them; one token in constant time, many as in a pass over all of them.

        The cache changes in place; with gradients its tensors are replaced, so that the graph stays whole.

        Raises:
            ValueError, TypeError: tensors do not fit the cache or each other; names the argument and values.
        """
        self._check(query, key, value, score)
        heads = self.score.shape[1]
        key, value = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (key, value))
        score = score.repeat_interleave(heads // score.shape[1], dim=1)
        if key.shape[1] == 1:
            return self._one(query, key, value, score, key_padding, scale, backend)
        return self._many(query, key, value, score, key_padding, scale, backend)

    def _one(
        self, query: Tensor, key: Tensor, value: Tensor, score: Tensor, hidden: Tensor | None, scale: float | None,
        backend: str,
    ) -> Tensor:  # fmt: skip
        """Put the token in the place of the worst entry, if it is better, and attend over the places."""
        new = score[..., 0]
        if new.isnan().any():
            raise ValueError("score is NaN; a NaN has no rank")
        worst = self.score.amin(dim=-1)
        oldest = self.position.masked_fill(self.score > worst[..., None], torch.iinfo(torch.int64).max)
        place = oldest.argmin(dim=-1)
        taken = new >= worst  # of equal scores the later token wins
        if hidden is not None:
            taken = taken & ~hidden
        self._write(place, taken, key[:, 0], value[:, 0], new)
        self.seen = self.seen + 1
        w = self.score.shape[-1]
        lives = self.position != EMPTY
        if self.window is not None:
            lives = lives & (self.position > self.seen[:, None, None] - 1 - self.window)
        # Places have no order: all that live are older than the query, which stands on the last one.
        table = Expiry(torch.where(lives, w, 0).int())
        return attend(query, self.key, self.value, table, bias=self.score, scale=scale, backend=backend)

    def _write(self, place: Tensor, taken: Tensor, key: Tensor, value: Tensor, score: Tensor) -> None:
        if torch.is_grad_enabled() and any(
            t.requires_grad for t in (self.key, self.value, self.score, key, value, score)
        ):
            self.key, self.value, self.score = self.key.clone(), self.value.clone(), self.score.clone()
        batch, heads = (torch.arange(n, device=place.device) for n in place.shape)
        at, batch = (batch[:, None], place, heads), batch[:, None]
        wide = taken[..., None]
        self.key[at] = torch.where(wide, key, self.key[at])
        self.value[at] = torch.where(wide, value, self.value[at])
        at = (batch, heads, place)
        self.score[at] = torch.where(taken, score, self.score[at])
        self.position[at] = torch.where(taken, self.seen[:, None], self.position[at])

    def _many(
        self, query: Tensor, key: Tensor, value: Tensor, score: Tensor, hidden: Tensor | None, scale: float | None,
        backend: str,
    ) -> Tensor:  # fmt: skip
        """A pass over the cache, in the order of the sequence, followed by the new tokens."""
        new = key.shape[1]
        w = self.score.shape[-1]
        order = self.position.argsort(dim=-1)
        here = self.seen[:, None] + torch.arange(new, device=key.device)
        position = torch.cat((self.position.gather(-1, order), here[:, None].expand(-1, order.shape[1], -1)), dim=-1)
        key, value = (torch.cat((_taken(old, order), t), dim=1) for old, t in ((self.key, key), (self.value, value)))
        score = torch.cat((self.score.gather(-1, order), score), dim=-1)
        # Empty places come first, and as many in every head.
        absent = position[:, 0] == EMPTY
        if hidden is not None:
            absent[:, w:] |= hidden
        expiry = topw_expiry(score, w, key_padding=absent)
        lives = expiry
        if self.window is not None:
            last = position + self.window - self.seen[:, None, None] + w
            lives = torch.minimum(expiry, last.int())
        out = attend(query, key, value, Expiry(lives), bias=score, scale=scale, backend=backend)
        stays = expiry == w + new
        order = stays.int().argsort(dim=-1, stable=True)[..., new:]
        stays = stays.gather(-1, order)
        self.key, self.value = _taken(key, order), _taken(value, order)
        self.score = score.gather(-1, order).masked_fill(~stays, -torch.inf)
        self.position = position.gather(-1, order).masked_fill(~stays, EMPTY)
        self.seen = self.seen + new
        return out

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
        """Entries are distinct tokens that were seen; empty places rank below all; heads hold equally many."""
        super().check_integrity()
        filled = self.position != EMPTY
        assert (self.position < self.seen[:, None, None]).all(), "an entry stands after what was seen"
        assert torch.isneginf(self.score[~filled]).all(), "an empty place has a score"
        counts = filled.sum(dim=-1)
        assert (counts == counts[:, :1]).all(), "heads hold different numbers of keys"
        assert (counts <= self.seen[:, None]).all(), "more entries than tokens"
        ordered = self.position.sort(dim=-1).values
        twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] != EMPTY)
        assert not twice.any(), "a token is kept twice"


def _heads(key: Tensor, score: Tensor) -> int:
    """Heads of a cache: the more of the two, so that each has its own keys and its own scores."""
    few, many = sorted((key.shape[2], score.shape[1]))
    if few == 0 or many % few:
        raise ValueError(f"key has {key.shape[2]} heads and score {score.shape[1]}; one must divide the other")
    return many


def _taken(tokens: Tensor, order: Tensor) -> Tensor:
    """``tokens`` [batch, n, heads, dim] in the order [batch, heads, m] of each head."""
    index = order.transpose(1, 2)[..., None]
    return tokens.gather(1, index.expand(-1, -1, -1, tokens.shape[-1]))
