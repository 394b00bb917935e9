"""Where the queries of a vision backbone look, layer by layer, in pixels of the photograph."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from windeye.data.images.scaling import Colours
from windeye.inspection.images.capture import Layer
from windeye.inspection.images.layers import LayerLook, Query, Routes
from windeye.inspection.images.photo import Pair, Photo, as_input, model_size, read_photo, shown
from windeye.inspection.images.subject import Subject, subject_of


@dataclass(frozen=True, eq=False)
class Look:
    """Where queries look, in every layer; `at` is one layer, `maps`, `rectangles` and `routes` are those of the chosen
    one.

    Args:
        model: its name.
        weights: where they come from; "random" is loudly said.
        photo: the photograph. Queries and boxes count in its pixels.
        seen: height and width at which the model saw it.
        queries: rows and columns of pixels, or the class token.
        layers: in the order in which they run.
        chosen: the layer that is shown in full.
    """

    model: str
    weights: str
    photo: Photo
    seen: Pair
    queries: tuple[Query, ...]
    layers: tuple[LayerLook, ...]
    chosen: Layer
    seconds: float

    def at(self, stage: int, block: int | str, branch: str = "") -> LayerLook:
        """One layer, or a mixer inside one.

        Raises:
            KeyError: it does not exist, or has no attention.
        """
        wanted = Layer(stage, block, branch)
        for seen in self.layers:
            if seen.layer == wanted:
                return seen
        raise KeyError(f"no attention at {wanted}; there is {', '.join(str(seen.layer) for seen in self.layers)}")

    @property
    def here(self) -> LayerLook:
        """The chosen layer."""
        return self.at(self.chosen.stage, self.chosen.block)

    @property
    def branches(self) -> tuple[LayerLook, ...]:
        """The chosen layer, and the mixers that it is made of."""
        place = (self.chosen.stage, self.chosen.block)
        return tuple(seen for seen in self.layers if (seen.layer.stage, seen.layer.block) == place)

    @property
    def maps(self) -> Float[np.ndarray, "queries heads rows columns"]:
        """Weights of the chosen layer."""
        return self.here.maps

    @property
    def rectangles(self) -> Float[np.ndarray, "queries heads 4"] | None:
        """What the heads of the chosen layer read, where its windows vary."""
        return self.here.rectangles

    @property
    def routes(self) -> Routes | None:
        """Regions of the chosen layer, where attention is routed."""
        return self.here.routes

    def on_pixels(self) -> Float[np.ndarray, "queries heads height width"]:
        """Weights of the chosen layer on the pixels of the photograph; they sum to what the tokens' weights do."""
        return self.here.place.on_pixels(self.here.maps, self.photo.size)

    def as_plain(self) -> dict[str, Any]:
        """What JSON holds. Pixels are [row, column] of the upright photograph; boxes are left, top, right, bottom."""
        return {
            "model": self.model,
            "weights": self.weights,
            "image": self.photo.name,
            "size": list(self.photo.size),
            "seen": list(self.seen),
            "queries": ["class" if query == "class" else list(query) for query in self.queries],
            "chosen": str(self.chosen),
            "seconds": round(self.seconds, 3),
            "layers": [layer.as_plain() for layer in self.layers],
        }

    def save(self, folder: str | Path, *, command: str = "") -> Path:
        """Write figures, numbers (`look.json`) and a page that asks for nothing outside itself (`look.html`); returns
        the page."""
        from windeye.inspection.images.page import save

        return save(self, Path(folder), command)


def look(
    model: nn.Module,
    image: Any,
    query: Query | Sequence[Query] | None = None,
    *,
    stage: int | None = None,
    block: int | str | None = None,
    size: int | Pair | Literal["own"] | None = None,
    scaling: str | Colours | None = None,
    name: str = "",
    weights: str = "as given",
) -> Look:
    """Where tokens of an image look, in every layer of a vision model, in memory that grows with the tokens.

    Each weight is that of the mixer's own `look`: resampled, pooled and routed keys are followed back to the tokens
    that they are made of, and tokens to pixels: each belongs to the token whose middle is nearest. Where stems and
    downsamplers overlap, tokens see more than that.

    Args:
        model: of `windeye.models.vision`, or a vision transformer of transformers.
        image: see `windeye.inspection.images.read_photo`; or a tensor [channels, height, width] as the model takes it.
        query: row and column of a pixel of the upright photograph, "class" for the class token where there is one, or
            several of them. None is the centre.
        stage, block: the layer that is shown in full, from 0, negative from the end; a block may be "entry", the
            attention inside the entry of a stage. None is the last block with attention of the last stage but one with
            attention (where there are still many tokens).
        size: at which size the model sees the image; see `windeye.inspection.images.photo.model_size`. None is as many
            pixels as it was made for.
        scaling: of colours; see `windeye.inspection.images.photo.as_input`. None is as published models were trained.
        name, weights: what pages and files call the model and its weights.

    Raises:
        TypeError: a model that cannot be looked at.
        ValueError, IndexError: not an image, a query outside of it, a layer that there is not; says what there is.

    Example:
        >>> from windeye.models.vision import swin
        >>> seen = look(swin(16, (1, 1), (2, 2), window=4), "astronaut", query=(200, 300), size=64)
        >>> seen.maps.shape, seen.here.tokens, str(seen.chosen)
        ((1, 2, 16, 16), ((6, 9),), '0.0')
        >>> int((seen.maps[0, 0] > 0).sum()), round(float(seen.on_pixels().sum()), 3)  # one window, both heads
        (16, 2.0)
    """
    subject = subject_of(model)
    began = time.perf_counter()
    if isinstance(image, Tensor):
        given = image if image.dim() == 4 else image[None]
        if given.dim() != 4 or given.shape[0] != 1 or 0 in given.shape:
            raise ValueError(f"image must be a tensor [channels, height, width], got shape {tuple(image.shape)}")
        photo = shown(given[0])
    else:
        photo = read_photo(image)
        at = model_size(photo.size, size, subject.img_size, subject.patch, resizes=subject.resizes)
        given = as_input(photo, at, subject.in_chans, scaling or subject.colours)
    queries = _queries(query, photo.size, subject.class_token)
    chosen = _chosen(subject, stage, block, name or "the model")
    parameter = next(model.parameters())
    layers = subject.measure(given.to(parameter.device, parameter.dtype), photo.size, queries)
    order = {layer: place for place, layer in enumerate(subject.layers)}
    return Look(
        model=name or type(model).__name__,
        weights=weights,
        photo=photo,
        seen=(given.shape[2], given.shape[3]),
        queries=queries,
        layers=tuple(sorted(layers, key=lambda each: order[each.layer])),
        chosen=chosen,
        seconds=time.perf_counter() - began,
    )


def _queries(query: Query | Sequence[Query] | None, size: Pair, class_token: bool) -> tuple[Query, ...]:
    if query is None:
        return ((size[0] // 2, size[1] // 2),)
    several: Sequence[Any] = [query] if query == "class" or (query and isinstance(query[0], Integral)) else list(query)
    if not several:
        raise ValueError("query names no pixel")
    found: list[Query] = []
    for one in several:
        if one == "class":
            if not class_token:
                raise ValueError("query class: the model has no class token")
            found.append("class")
            continue
        if isinstance(one, str) or len(one) != 2 or not all(isinstance(at, Integral) for at in one):
            raise ValueError(f"query must be a row and a column of pixels such as 120,80, or class, got {one!r}")
        y, x = map(int, one)
        if not (0 <= y < size[0] and 0 <= x < size[1]):
            raise ValueError(
                f"query {y},{x} lies outside of the image: its rows (first number) are 0 to {size[0] - 1}, its columns "
                f"0 to {size[1] - 1}"
            )
        found.append((y, x))
    return tuple(found)


def _chosen(subject: Subject, stage: int | None, block: int | str | None, named: str) -> Layer:
    count = len(subject.depths)
    there = sorted({layer.stage for layer in subject.layers})
    if not there:
        raise ValueError(f"{named} has no attention over a map")
    if stage is None:
        stage = there[-2] if len(there) > 1 else there[-1]
    elif not -count <= stage < count:
        stages = f"stages 0 to {count - 1}" if count > 1 else "stage 0 only"
        raise IndexError(f"there is no stage {stage}: {named} has {stages}")
    stage = stage % count
    blocks = [layer.block for layer in subject.layers if layer.stage == stage and not layer.branch]
    if not blocks:
        raise IndexError(f"stage {stage} of {named} has no attention; stages {', '.join(map(str, there))} have")
    if block is None:
        return Layer(stage, blocks[-1])
    if isinstance(block, int) and -subject.depths[stage] <= block < 0:
        block += subject.depths[stage]
    if block not in blocks:
        others = ", ".join(map(str, blocks))
        raise IndexError(f"there is no attention in block {block} of stage {stage} of {named}; there is in {others}")
    return Layer(stage, block)
