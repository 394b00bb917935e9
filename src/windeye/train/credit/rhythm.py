"""The two signals of a response: how far back its local heads look, and what its global heads come back to later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from windeye.nn.padding import layout_of
from windeye.ops import FutureInfluence, MeanDistance, WindowedDistance
from windeye.sites import parts_of, watch

Head = tuple[int, int]
"""A layer of the model and a head of it, both counted from 0."""


@dataclass(frozen=True)
class HeadTypes:
    """Heads that look near and heads that look far."""

    local_heads: tuple[Head, ...]
    global_heads: tuple[Head, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that have to be watched for them."""
        return tuple(sorted({layer for layer, _ in (*self.local_heads, *self.global_heads)}))


@dataclass(frozen=True)
class Rhythm:
    """WAAD (tokens) and FAI (a weight) of every token, 0 outside of the response, and the heads they are read from.

    ``spans`` is the mean backward distance over the response of every head of the watched ``layers``, in tokens.
    """

    waad: Float[Tensor, "batch tokens"]
    fai: Float[Tensor, "batch tokens"]
    heads: HeadTypes
    layers: tuple[int, ...]
    spans: Float[Tensor, "layers heads"]


def middle_layers(layers: int, count: int = 5) -> tuple[int, ...]:
    """``count`` layers evenly spaced over the middle third, from ``layers // 3`` to ``2 layers // 3``, or all of them.

    Example:
        >>> middle_layers(36), middle_layers(4)
        ((12, 15, 18, 21, 24), (1, 2))
    """
    if layers < 1 or count < 1:
        raise ValueError(f"layers and count must be at least 1, got {layers} and {count}")
    first, last = layers // 3, min(2 * layers // 3, layers - 1)
    places = torch.linspace(first, last, min(count, last - first + 1), dtype=torch.float64)
    return tuple(int(place) for place in places.round().tolist())


def type_heads(
    spans: Float[Tensor, "layers heads"], layers: Sequence[int], *, local_share: float = 0.3, global_share: float = 0.3
) -> HeadTypes:
    """The heads of smallest and of largest mean span: ``round(share x heads)`` of each, at least one.

    Args:
        spans: mean backward distance of each head, in tokens.
        layers: which layers of the model the rows of ``spans`` are.
        local_share, global_share: of all these heads; together at most 1.

    Raises:
        ValueError: shares that overlap or are outside (0, 1], sizes that differ, fewer than two heads.

    Source: preplan-anchor spec, mechanism 1.

    Example:
        >>> type_heads(torch.tensor([[1.0, 9.0], [5.0, 2.0]]), [3, 4])
        HeadTypes(local_heads=((3, 0),), global_heads=((3, 1),))
    """
    if min(local_share, global_share) <= 0 or local_share + global_share > 1:
        raise ValueError(f"shares must be above 0 and at most 1 together, got {local_share} and {global_share}")
    if len(layers) != len(spans):
        raise ValueError(f"layers must name the {len(spans)} rows of spans, got {list(layers)}")
    heads = spans.shape[1]
    low, high = (max(1, round(share * spans.numel())) for share in (local_share, global_share))
    if low + high > spans.numel():
        raise ValueError(f"{spans.numel()} heads are too few for {low} local and {high} global ones")
    order = spans.flatten().argsort(stable=True).tolist()
    named = [(layers[place // heads], place % heads) for place in order]
    return HeadTypes(tuple(sorted(named[:low])), tuple(sorted(named[-high:])))


@torch.no_grad()
def rhythm(
    model: nn.Module,
    ids: Int[Tensor, "batch tokens"],
    response: Bool[Tensor, "batch tokens"],
    *,
    heads: HeadTypes | None = None,
    layers: Sequence[int] | None = None,
    local_share: float = 0.3,
    global_share: float = 0.3,
    window: int = 10,
    low: int = 10,
    high: int | None = 100,
    padding: Bool[Tensor, "batch tokens"] | None = None,
) -> Rhythm:
    """WAAD and FAI in one forward pass without gradients; no map is kept, and no second copy of the model is needed.

    ``WAAD_t = sum_s A_ts min(t - s, window)`` with ``A`` averaged over the local heads, and ``FAI_s`` the mean of
    ``A_ts`` over the tokens ``s + low <= t <= s + high`` of the response with ``A`` averaged over the global heads, 0
    where there is none. Both are linear in ``A``, so that numbers of heads are averaged and never maps.

    Args:
        model: a causal model that `windeye.sites.watch` can watch, called with the tokens alone.
        ids: prompts with their responses.
        response: True at the tokens of the response; numbers of the others are 0.
        heads: types of earlier calls, on calibration texts; None types the heads by this very batch.
        layers: layers among which heads are typed; None takes `middle_layers`.
        local_share, global_share: as in `type_heads`.
        window: cap of the distance, in tokens.
        low, high: horizon of influence, in tokens; ``high`` None goes to the end of the response.
        padding: True where there is no token, on any side. Sequences are moved to the front, where a causal model needs
            no mask, and their numbers back.

    Raises:
        ValueError: an empty response, sizes that differ, shares that overlap. IndexError: layers that the model does
            not have.

    Source: preplan-anchor spec, mechanisms 1 to 4. The paper's first version has ``high=50``.

    Example:
        >>> from windeye.models import transformer
        >>> model, ids = transformer(3, 32, 4, vocab_size=50), torch.randint(50, (2, 40))
        >>> response = (torch.arange(40) >= 12).expand(2, 40)
        >>> found = rhythm(model, ids, response, low=2, high=10)
        >>> found.waad.shape, found.heads.layers
        (torch.Size([2, 40]), (1, 2))
    """
    if response.shape != ids.shape:
        raise ValueError(f"response must be as ids {tuple(ids.shape)}, got {tuple(response.shape)}")
    if padding is not None and bool((response & padding).any()):
        raise ValueError("response marks tokens that padding says are none")
    empty = (~response.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"response must have a token in every row, it has none in rows {empty}")
    if layers is None:
        layers = middle_layers(len(parts_of(model).layers)) if heads is None else heads.layers
    layers = tuple(layers)
    if heads is not None and not set(heads.layers) <= set(layers):
        raise ValueError(f"heads are of layers {list(heads.layers)}, but only {list(layers)} are watched")
    stats = {"span": MeanDistance(), "waad": WindowedDistance(window), "fai": FutureInfluence(low, high)}
    layout = layout_of(ids, padding)
    there = layout.to_front(response)
    with watch(model, stats, layers=layers, rows=there) as seen:
        model(layout.to_front(ids))
    spans = mean_spans(seen["span"], there)
    if heads is None:
        heads = type_heads(spans, layers, local_share=local_share, global_share=global_share)
    waad, fai = (
        layout.back(averaged(seen[name], layers, chosen)).masked_fill(~response, 0.0)
        for name, chosen in (("waad", heads.local_heads), ("fai", heads.global_heads))
    )
    return Rhythm(waad, fai, heads, layers, spans)


def mean_spans(
    distance: Float[Tensor, "layers batch tokens heads"], response: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "layers heads"]:
    """Mean distances over each response, averaged over responses, however long they are."""
    inside = distance.masked_fill(~response[None, :, :, None], 0.0).sum(dim=2)
    return (inside / response.sum(dim=1)[None, :, None]).mean(dim=1)


def averaged(
    signal: Float[Tensor, "layers batch tokens heads"], layers: Sequence[int], chosen: Sequence[Head]
) -> Float[Tensor, "batch tokens"]:
    """The mean of a signal over some heads of some layers."""
    return torch.stack([signal[layers.index(layer), :, :, head] for layer, head in chosen]).mean(dim=0)
