"""What a mixer of maps does with the map that comes into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from jaxtyping import Float
from torch import Tensor

from windeye.inspection.images.capture import Layer
from windeye.inspection.images.layers import LayerLook, Query, Routes
from windeye.inspection.images.photo import Pair
from windeye.inspection.images.placement import Placement, on_tokens
from windeye.inspection.images.spectrum import spectrum
from windeye.nn.mixers import BiLevelRoutingMixer, TokenMixer, TokenMixerSpec, VSAMixer


def seen_by(
    layer: Layer, words: str, mixer: TokenMixer, x: Float[Tensor, "1 height width dim"], place: Placement,
    queries: Sequence[Query],
) -> LayerLook:  # fmt: skip
    """What a mixer does with the map that comes into it."""
    grid = place.grid
    tokens = tuple(place.token(query) for query in queries if query != "class")
    rows = [mixer.look(x, token)[0].detach().double().cpu().numpy() for token in tokens]
    kinds = mixer.head_kinds()
    outputs = _outputs(mixer, x, kinds) if kinds else {}
    return LayerLook(
        layer=layer,
        mixer=words,
        heads=kinds,
        place=place,
        tokens=tokens,
        maps=on_tokens(np.stack(rows), grid, mixer.span(*grid)),
        rectangles=_rectangles(mixer, x, place, tokens) if isinstance(mixer, VSAMixer) else None,
        samples=mixer.window if isinstance(mixer, VSAMixer) else None,
        routes=_routes(mixer, x, place, tokens) if isinstance(mixer, BiLevelRoutingMixer) else None,
        spectra={"input": spectrum(x[0])} | {kind: spectrum(out) for kind, out in outputs.items()} if kinds else None,
        outputs={kind: _strength(out) for kind, out in outputs.items()} if kinds else None,
    )


def told(spec: TokenMixerSpec) -> str:
    """A mixer in words: its kind, and the settings that are not the defaults.

    Example:
        >>> from windeye.nn.mixers import FullSpec, NeighborhoodSpec
        >>> told(NeighborhoodSpec(7, dilation=4)), told(FullSpec())
        ('neighborhood, dilation=4', 'full')
    """
    usual = asdict(type(spec)())
    own = [f"{name}={value}" for name, value in asdict(spec).items() if value != usual[name]]
    return ", ".join([spec.kind.replace("_", " "), *own])


def _rectangles(mixer: VSAMixer, x: Tensor, place: Placement, tokens: Sequence[Pair]) -> np.ndarray:
    """Around what is read, half a step of its places wider on every side, as a window reaches around its tokens."""
    found = mixer.rectangles(x)[0].double().cpu().numpy()
    boxes = []
    for token in tokens:
        row, column = mixer.window_of(token, place.grid)
        ends = found[row, column]
        steps = [
            (ends[:, axis + 2] - ends[:, axis]) / (count - 1) if count > 1 else np.ones(len(ends))
            for axis, count in enumerate(mixer.window[::-1])
        ]
        left, top = (ends[:, axis] - steps[axis] / 2 for axis in (0, 1))
        right, bottom = (ends[:, axis + 2] + steps[axis] / 2 for axis in (0, 1))
        boxes.append([
            [*place.across(a, b), *place.across(c, d)] for a, b, c, d in zip(left, top, right, bottom, strict=True)
        ])  # fmt: skip
    return np.array(boxes)


def _routes(mixer: BiLevelRoutingMixer, x: Tensor, place: Placement, tokens: Sequence[Pair]) -> Routes | None:
    (rows, columns), (tall, wide) = mixer.cut(*place.grid)
    if mixer.keep >= rows * columns:
        return None  # all regions see all
    boxes = []
    for row in range(rows):
        for column in range(columns):
            ends = [
                borders[min(at, len(borders) - 1)]
                for at, borders in (
                    (column * wide, place.columns), (row * tall, place.rows),
                    ((column + 1) * wide, place.columns), ((row + 1) * tall, place.rows),
                )
            ]  # fmt: skip
            boxes.append(ends)
    own = tuple(token[0] // tall * columns + token[1] // wide for token in tokens)
    return Routes(np.array(boxes), mixer.routes(x)[0].cpu().numpy(), own)


def _outputs(mixer: TokenMixer, x: Tensor, kinds: Sequence[str]) -> dict[str, Float[Tensor, "height width channels"]]:
    """What the heads of each kind give."""
    out = mixer.attention(x)[0].detach()
    return {
        kind: out[:, :, [head for head, name in enumerate(kinds) if name == kind]].flatten(2)
        for kind in dict.fromkeys(kinds)
    }


def _strength(out: Float[Tensor, "height width channels"]) -> Float[np.ndarray, "height width"]:
    """How far tokens are from their mean, root mean square over channels."""
    away = out.double() - out.double().mean(dim=(0, 1))
    return away.square().mean(dim=-1).sqrt().cpu().numpy()


def seen_in_sequence(
    layer: Layer, words: str, mixer: TokenMixer, x: Float[Tensor, "1 1 tokens dim"], place: Placement,
    queries: Sequence[Query], before: int,
) -> LayerLook:  # fmt: skip
    """The same where tokens are one row, ``before`` others in front of those of the map."""
    columns = place.grid[1]
    tokens = tuple(None if query == "class" else place.token(query) for query in queries)
    at = [0 if token is None else before + token[0] * columns + token[1] for token in tokens]
    weights = np.stack([mixer.look(x, (0, index))[0, :, 0].detach().double().cpu().numpy() for index in at])
    return of_sequence(layer, words, place, tokens, weights, before)


def of_sequence(
    layer: Layer, words: str, place: Placement, tokens: tuple[Pair | None, ...],
    weights: Float[np.ndarray, "queries heads tokens"], before: int,
) -> LayerLook:  # fmt: skip
    """A layer whose rows of weights are known, over tokens of which ``before`` stand in front of those of the map."""
    maps = weights[..., before:].reshape(*weights.shape[:2], *place.grid)
    beside = weights[..., :before].sum(axis=-1) if before else None
    return LayerLook(layer, words, (), place, tokens, maps, beside)
