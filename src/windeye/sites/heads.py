"""What kind of head each head is: told from where it looks on random tokens that come twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.slab import RowSlab
from windeye.kernels.statistics.statistic import RowStatistic
from windeye.ops import DistanceMass, SinkMass
from windeye.sites.watch import watch

NEIGHBOURS = 4
"""How far a local head looks, in tokens."""

KINDS = {
    "previous": "looks at the token before",
    "next": "looks at the token after (models that see what is to come)",
    "self": "looks at the token itself",
    "duplicate": "looks at the same token elsewhere",
    "induction": "looks at what followed the same token elsewhere",
    "sink": "rests on the first token",
    "local": f"looks within {NEIGHBOURS} tokens, at none of them above all",
}
"""Kinds of heads by name."""


@dataclass(frozen=True, eq=False)
class HeadScan:
    """Scores of every head for every kind: the share of its attention that a pure head of this kind would give in full.

    ``layers`` are the numbers of the model's layers that were looked at.
    """

    scores: Mapping[str, Float[Tensor, "layers heads"]]
    layers: tuple[int, ...]

    def kinds(self, threshold: float = 0.4) -> list[list[str]]:
        """Per layer and head the kind of the largest score, or "" where none reaches the threshold. A head is local
        where no other kind tells more of it."""
        told = [name for name in self.scores if name != "local"]
        best, which = torch.stack([self.scores[name] for name in told]).max(dim=0)
        local = self.scores["local"]
        return [
            [
                told[kind] if share >= threshold else "local" if near >= threshold else ""
                for share, kind, near in zip(*row, strict=True)
            ]
            for row in zip(best.tolist(), which.tolist(), local.tolist(), strict=True)
        ]

    def ranked(self, kind: str, count: int = 10) -> list[tuple[int, int, float]]:
        """The heads of the highest scores: layer, head, score.

        Raises:
            ValueError: there is no such kind; lists those that there are.
        """
        if kind not in self.scores:
            raise ValueError(f"there is no kind {kind!r}; there are {', '.join(self.scores)}")
        scores = self.scores[kind]
        values, places = scores.flatten().topk(min(count, scores.numel()))
        heads = scores.shape[1]
        return [
            (self.layers[place // heads], place % heads, value)
            for place, value in zip(places.tolist(), values.tolist(), strict=True)
        ]


def repeated_tokens(
    vocabulary: Int[Tensor, " tokens"],
    *,
    period: int = 64,
    batch: int = 2,
    begin: Sequence[int] = (),
    end: Sequence[int] = (),
    seed: int = 0,
) -> Int[Tensor, "batch n"]:
    """``begin``, ``period`` different random tokens, the same again, ``end``: what follows a token is known the second
    time and cannot be known the first.

    Raises:
        ValueError: the vocabulary has too few tokens, or sizes are below 1.

    Example:
        >>> repeated_tokens(torch.arange(5, 100), period=3, batch=1, begin=[1])
        tensor([[ 1, 39, 27, 84, 39, 27, 84]])
    """
    if period < 2 or batch < 1:
        raise ValueError(f"period must be at least 2 and batch at least 1, got {period} and {batch}")
    if vocabulary.numel() < period:
        raise ValueError(f"period {period} needs as many different tokens, the vocabulary has {vocabulary.numel()}")
    generator = torch.Generator().manual_seed(seed)
    rows = [vocabulary[torch.randperm(vocabulary.numel(), generator=generator)[:period]] for _ in range(batch)]
    first, last = (torch.tensor(list(ids), dtype=torch.long).expand(batch, -1) for ids in (begin, end))
    return torch.cat((first, torch.stack(rows).repeat(1, 2), last), dim=1)


def scan_heads(
    model: nn.Module,
    vocabulary: Int[Tensor, " tokens"],
    *,
    period: int = 64,
    batch: int = 2,
    begin: Sequence[int] = (),
    end: Sequence[int] = (),
    both_ways: bool = False,
    layers: Sequence[int] | None = None,
    seed: int = 0,
) -> HeadScan:
    """How much each head is of each kind of `KINDS`, on random tokens that come twice.

    Scores are shares of attention, averaged over the tokens of the second copy; where the model sees both ways, over
    the second copy looking back and the first looking ahead. Uniform attention would give ``1 / n`` for a kind of one
    key.

    Args:
        model: any whose attention `windeye.sites.watch` reaches.
        vocabulary: ids to draw from; ordinary tokens.
        period: tokens before the repetition.
        batch: how many draws.
        begin, end: ids around them, such as [CLS] and [SEP]. The first token of all is the sink.
        both_ways: whether queries see what is to come.
        layers: of the model, default all.

    Raises:
        ValueError, IndexError: sizes or layers do not fit.

    Source: the names are the field's; circuit-reuse spec and inspection notes, section 2.

    Example:
        >>> from windeye.models import transformer
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> scan = scan_heads(model, torch.arange(50), period=8)
        >>> scan.scores["induction"].shape, len(scan.kinds())
        (torch.Size([2, 4]), 2)
    """
    ids = repeated_tokens(vocabulary, period=period, batch=batch, begin=begin, end=end, seed=seed)
    ids = ids.to(next(model.parameters()).device)
    back = {
        "previous": DistanceMass(1, 1),
        "next": DistanceMass(-1, -1),
        "self": DistanceMass(0, 0),
        "duplicate": DistanceMass(period, period),
        "induction": DistanceMass(period - 1, period - 1),
        "sink": SinkMass(1),
        "local": DistanceMass(-NEIGHBOURS if both_ways else 0, NEIGHBOURS),
    }
    ahead = {
        "duplicate": DistanceMass(-period, -period),
        "induction": DistanceMass(-period - 1, -period - 1),
    }
    if not both_ways:
        del back["next"]
    asked = {**back, **({f"{name} ahead": stat for name, stat in ahead.items()} if both_ways else {})}
    with watch(model, asked, layers=layers) as seen, torch.no_grad():
        model(ids)
    start = len(begin)
    # In the first copy its last token has no follower in the second.
    first, second = slice(start, start + period - 1), slice(start + period, start + 2 * period)
    scores = {}
    for name in back:
        scores[name] = _mean(seen[name], second)
        if both_ways:
            other = f"{name} ahead" if name in ahead else name
            scores[name] = (scores[name] + _mean(seen[other], first)) / 2
    return HeadScan(scores, tuple(range(len(scores["self"]))) if layers is None else tuple(layers))


@dataclass(frozen=True, eq=False)
class TargetMass(RowStatistic):
    """The weight that each query gives to one key that is known to be its own: [batch, queries, heads].

    Args:
        targets: the key of each query; -1 where it has none, which gives 0.
        candidates: keys that are compared, [batch, keys]; the weight is then the share of theirs. Default all.
    """

    targets: Int[Tensor, "batch queries"]
    candidates: Bool[Tensor, "batch keys"] | None = None

    def check(self, scores: Scores) -> None:
        keys = scores.relation.keys
        if self.targets.shape != scores.query.shape[:2] or int(self.targets.max()) >= keys:
            raise ValueError(
                f"targets must be [batch, queries] {tuple(scores.query.shape[:2])} of keys below {keys}, got shape "
                f"{tuple(self.targets.shape)} up to {int(self.targets.max())}"
            )
        if self.candidates is not None and self.candidates.shape != (scores.batch, keys):
            raise ValueError(
                f"candidates must be [batch, keys] {(scores.batch, keys)}, got shape {tuple(self.candidates.shape)}"
            )

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows"]:
        weights = self._compared(slab)
        target = self.targets[:, None, slab.rows, None].to(weights.device)
        found = weights.gather(-1, target.clamp(min=0).expand(*weights.shape[:-1], 1))
        total = weights.sum(dim=-1, keepdim=True) if self.candidates is not None else torch.ones_like(found)
        return (found / total.clamp(min=1e-30)).masked_fill(target < 0, 0.0)[..., 0]

    def _compared(self, slab: RowSlab) -> Float[Tensor, "batch heads rows keys"]:
        if self.candidates is None:
            return slab.weights
        return slab.weights * self.candidates[:, None, None].to(slab.weights)


@dataclass(frozen=True, eq=False)
class TargetHit(TargetMass):
    """1 where no other key gets more weight than the one that is known to be the query's own, else 0."""

    def of_rows(self, slab: RowSlab) -> Float[Tensor, "batch heads rows"]:
        target = self.targets[:, None, slab.rows].to(slab.weights.device)
        return (self._compared(slab).argmax(dim=-1) == target).to(slab.weights.dtype)


@dataclass(frozen=True, eq=False)
class Alignment:
    """How well each head knows an alignment: shares of weight, and shares of queries whose heaviest key is right."""

    mass: Float[Tensor, "layers heads"]
    hits: Float[Tensor, "layers heads"]
    layers: tuple[int, ...]


def aligned_heads(
    model: nn.Module,
    ids: Int[Tensor, "batch n"],
    targets: Int[Tensor, "batch n"],
    *,
    candidates: Bool[Tensor, "batch n"] | None = None,
    layers: Sequence[int] | None = None,
) -> Alignment:
    """How well each head maps queries to the keys that an alignment gives them: atoms of a product to those of the
    reactants, words to their translations.

    Args:
        ids: what the model reads.
        targets: per query the position of its own key, -1 for queries that have none and do not count.
        candidates: keys that are compared; default all.
        layers: of the model, default all.

    Raises:
        ValueError: shapes do not fit, or no query has a target.

    Example:
        >>> from windeye.models import transformer
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> ids = torch.arange(6)[None]
        >>> aligned_heads(model, ids, torch.tensor([[-1, 0, 1, 2, 3, 4]])).hits.shape
        torch.Size([2, 4])
    """
    if not bool((targets >= 0).any()):
        raise ValueError("targets names no query that has a key")
    stats = {"mass": TargetMass(targets, candidates), "hits": TargetHit(targets, candidates)}
    with watch(model, stats, layers=layers) as seen, torch.no_grad():
        model(ids)
    counted = (targets >= 0).to(seen["mass"])
    mass, hits = ((seen[name] * counted[..., None]).sum(dim=(1, 2)) / counted.sum() for name in stats)
    return Alignment(mass, hits, tuple(range(len(mass))) if layers is None else tuple(layers))


def _mean(values: Float[Tensor, "layers batch queries heads"], rows: slice) -> Float[Tensor, "layers heads"]:
    return values[:, :, rows].mean(dim=(1, 2)).cpu()
