"""What the attention of a model does with a text, in one pass and without a map."""

from __future__ import annotations

import inspect as signatures
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.statistic import ColumnStatistic
from windeye.ops import DistanceMass, FutureInfluence, MeanDistance, Statistic, WindowedDistance
from windeye.sites import AttentionCall, parts_of, watch
from windeye.sites.heads import HeadScan, scan_heads
from windeye.sites.session import Session
from windeye.sites.until import until
from windeye.train.credit.rhythm import type_heads

Progress = Callable[[str, float], None]
"""What is being done, and the share that is done."""

AHEAD = DistanceMass(-(2**20), -1)
"""Weight on what is to come."""


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was measured of some layers over one text.

    Args:
        per_head: by statistic, its mean over the tokens.
        per_token: by statistic, its mean over the heads of a layer.
        signals: by statistic, one number a token: the mean over all heads; WAAD over the heads that look nearest (30 %
            by mean distance), FAI over those that look farthest.
        scan: kinds of heads, told on random tokens that come twice.
        both_ways: whether queries see what is to come.
        received: the statistic that says how much attention each token receives, if one was asked for.
    """

    model: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    per_head: Mapping[str, Float[np.ndarray, "layers heads"]]
    per_token: Mapping[str, Float[np.ndarray, "layers tokens"]]
    signals: Mapping[str, Float[np.ndarray, " tokens"]]
    scan: HeadScan
    both_ways: bool
    received: str | None
    seconds: float

    @property
    def heads(self) -> int:
        return len(self.scan.kinds()[0])

    def top_tokens(self, count: int = 20) -> list[tuple[int, str, float]]:
        """The tokens that receive most attention: position, text, and what they receive. In models that only look back
        the last eighth is left out: few queries see it, and most of them stand near."""
        if self.received is None:
            return []
        values = self.signals[self.received]
        if not self.both_ways:
            values = values[: len(values) - len(values) // 8]
        places = np.argsort(-values, kind="stable")[:count]
        return [(int(place), self.tokens[place], float(values[place])) for place in places]

    def as_plain(self) -> dict[str, Any]:
        """What JSON holds; numbers are rounded to six digits."""
        return {
            "model": self.model,
            "tokens": len(self.tokens),
            "layers": list(self.layers),
            "heads": self.heads,
            "both_ways": self.both_ways,
            "seconds": round(self.seconds, 3),
            "per_head": {name: _rounded(values) for name, values in self.per_head.items()},
            "kinds": self.scan.kinds(),
            "scores": {name: _rounded(values.numpy()) for name, values in self.scan.scores.items()},
            "signals": {name: _rounded(values) for name, values in self.signals.items()},
            "top_tokens": [
                {"position": place, "text": text, "received": float(f"{value:.6g}")}
                for place, text, value in self.top_tokens()
            ],
        }


def inspect(
    model: nn.Module,
    ids: Int[Tensor, "1 n"],
    tokens: Sequence[str],
    stats: Mapping[str, Statistic],
    *,
    layers: Sequence[int] | None = None,
    scan: HeadScan | None = None,
    vocabulary: Int[Tensor, " tokens"] | None = None,
    ends: tuple[Sequence[int], Sequence[int]] = ((), ()),
    name: str = "",
    progress: Progress = lambda _what, _share: None,
) -> Inspection:
    """Statistics of every head over one text, beside the model's own pass: memory grows with the tokens, and neither
    maps nor logits of all tokens are kept.

    Args:
        model: whose attention `windeye.sites.watch` reaches.
        ids: the text.
        tokens: its tokens as text.
        stats: by name; see `windeye.inspection.words`.
        layers: default all. The pass ends behind the last one.
        scan: kinds of heads if they are known already; else they are told here.
        vocabulary, ends: ids to draw from for that, default all; and ids before and behind them.

    Raises:
        ValueError, IndexError: no tokens, or layers that there are not.

    Example:
        >>> from windeye.inspection.words import DEFAULT, statistics_of
        >>> from windeye.models import transformer
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> seen = inspect(model, torch.arange(6)[None], list("window"), statistics_of(DEFAULT))
        >>> seen.per_head["entropy"].shape, seen.signals["waad"].shape, len(seen.top_tokens(3))
        ((2, 4), (6,), 3)
    """
    if ids.shape != (1, len(tokens)) or not tokens:
        raise ValueError(f"ids must be [1, tokens {len(tokens)}] with a token at least, got shape {tuple(ids.shape)}")
    count = len(parts_of(model).layers)
    chosen = tuple(range(count)) if layers is None else tuple(layers)
    began = time.perf_counter()
    both_ways = sees_both_ways(model, ids)
    if scan is None:
        progress("kinds of heads", 0.0)
        if vocabulary is None:
            embedding = parts_of(model).embedding
            if not isinstance(embedding, nn.Embedding):
                raise ValueError(f"the embedding of {type(model).__name__} is not known; give vocabulary or scan")
            vocabulary = torch.arange(embedding.num_embeddings)
        begin, end = ends
        period = min(64, vocabulary.numel(), (longest(model) - len(begin) - len(end)) // 2)
        scan = scan_heads(model, vocabulary, period=period, begin=begin, end=end, both_ways=both_ways, layers=chosen)
    with ExitStack() as stack:
        seen = stack.enter_context(watch(model, stats, layers=chosen))
        stack.enter_context(_Ticks(model, progress, max(chosen) + 1))
        if max(chosen) + 1 < count:
            stack.enter_context(until(model, max(chosen)))
        run(model, ids)
    values = {name: seen[name][:, 0].cpu() for name in stats}
    per_head = {name: value.mean(dim=1).numpy() for name, value in values.items()}
    received = next((name for name, stat in stats.items() if isinstance(stat, ColumnStatistic)), None)
    return Inspection(
        model=name or type(model).__name__,
        tokens=tuple(tokens),
        layers=chosen,
        per_head=per_head,
        per_token={name: value.mean(dim=2).numpy() for name, value in values.items()},
        signals=_signals(values, stats, chosen),
        scan=scan,
        both_ways=both_ways,
        received="received" if "received" in stats else received,
        seconds=time.perf_counter() - began,
    )


@torch.no_grad()
def run(model: nn.Module, ids: Int[Tensor, "batch n"]) -> Any:
    """A pass that keeps no cache and, where the model can, computes logits of the last token only."""
    known = signatures.signature(model.forward).parameters
    wanted = {"use_cache": False, "logits_to_keep": 1}
    return model(ids, **{name: value for name, value in wanted.items() if name in known})


def sees_both_ways(model: nn.Module, ids: Int[Tensor, "batch n"]) -> bool:
    """Whether queries give weight to what is to come, asked on a few tokens."""
    with watch(model, {"ahead": AHEAD}, layers=[0]) as seen, until(model, 0):
        run(model, ids[:, :8])
    return bool(seen["ahead"].max() > 0)


def longest(model: nn.Module) -> int:
    """Tokens that the model has positions for."""
    config = getattr(model, "config", None)
    return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**30)


def _signals(
    values: Mapping[str, Float[Tensor, "layers tokens heads"]], stats: Mapping[str, Statistic], layers: Sequence[int]
) -> dict[str, Float[np.ndarray, " tokens"]]:
    """One curve a statistic: over near heads for WAAD, over far heads for FAI, if they can be told, else over all."""
    spans = next((values[name].mean(dim=1) for name, stat in stats.items() if isinstance(stat, MeanDistance)), None)
    types = type_heads(spans, layers) if spans is not None and spans.numel() > 1 else None
    curves = {}
    for name, stat in stats.items():
        if types is not None and isinstance(stat, WindowedDistance | FutureInfluence):
            near = isinstance(stat, WindowedDistance)
            heads = types.local_heads if near else types.global_heads
            curve = torch.stack([values[name][layers.index(layer), :, head] for layer, head in heads]).mean(dim=0)
        else:
            curve = values[name].mean(dim=(0, 2))
        curves[name] = curve.numpy()
    return curves


def _rounded(values: Any) -> Any:
    return [_rounded(row) for row in values] if getattr(values, "ndim", 0) else float(f"{float(values):.6g}")


class _Ticks(Session):
    """Tells how many layers have run."""

    def __init__(self, model: nn.Module, progress: Progress, count: int) -> None:
        super().__init__(model)
        self._progress, self._count = progress, count

    def see(self, layer: int, call: AttentionCall, scores: Scores) -> None:
        del call, scores
        self._progress(f"layer {layer}", min(1.0, (layer + 1) / self._count))
