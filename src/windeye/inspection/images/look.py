"""Where the queries of a vision backbone look, layer by layer, in pixels of the photograph."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.inspection.images.capture import Layer, capture, mixers_of
from windeye.inspection.images.photo import Pair, Photo, Scaling, as_input, model_size, read_photo, shown
from windeye.inspection.images.placement import Placement, on_tokens
from windeye.inspection.images.spectrum import spectrum
from windeye.models.vision import HierarchicalBackbone
from windeye.nn.mixers import BiLevelRoutingMixer, TokenMixer, TokenMixerSpec, VSAMixer

Curve = tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]
"""Frequencies in cycles per token, and mean log amplitudes."""


@dataclass(frozen=True, eq=False)
class Routes:
    """Which regions of a map attend to which."""

    boxes: Float[np.ndarray, "regions 4"]
    """Left, top, right and bottom of each region, in pixels of the photograph; of no size where a region lies on
    padding."""
    chosen: np.ndarray
    """[regions, keep]: the regions that each region keeps, best first."""
    own: tuple[int, ...]
    """The region that each query is in."""


@dataclass(frozen=True, eq=False)
class LayerLook:
    """What one layer does with every query.

    Args:
        mixer: the layer in words: its kind and settings, or the kind of the entry that it is in.
        heads: what each head is, such as "high" or "low"; empty where heads are of one kind.
        place: where tokens lie on the photograph.
        tokens: row and column of the token of each query.
        maps: weight of each token of the map. What is missing to 1 lies on padding, or is not read off the map.
        rectangles: of varied windows: left, top, right and bottom of what each head reads, in pixels of the photograph;
            mirrored where left is to the right of right. They may reach beyond the photograph.
        samples: of varied windows: rows and columns of places that are read inside a rectangle.
        routes: of routed attention: its regions.
        spectra: of heads of several kinds: what comes in, and the heads' outputs by kind.
    """

    layer: Layer
    mixer: str
    heads: tuple[str, ...]
    place: Placement
    tokens: tuple[Pair, ...]
    maps: Float[np.ndarray, "queries heads rows columns"]
    rectangles: Float[np.ndarray, "queries heads 4"] | None = None
    samples: Pair | None = None
    routes: Routes | None = None
    spectra: Mapping[str, Curve] | None = None

    def visible(self, query: int, heads: slice = slice(None)) -> Bool[np.ndarray, "rows columns"]:
        """Tokens that get weight in any of these heads."""
        weights = self.maps[query, heads]
        # Places of samples are rounded: a token's neighbours may get a millionth of its weight.
        least = 1e-4 * weights.max() if self.rectangles is not None else 0.0
        return np.any(weights > least, axis=0)

    @property
    def elsewhere(self) -> Float[np.ndarray, "queries heads"]:
        """The share of each row that lies on no token of the map: on padding, or read off the map."""
        return 1 - self.maps.sum(axis=(2, 3))

    def kinds(self) -> dict[str, Float[np.ndarray, "queries rows columns"]]:
        """Means over the heads of each kind; over all of them where there is one."""
        named = np.array(self.heads) if self.heads else np.array(["mean"] * self.maps.shape[1])
        return {str(kind): self.maps[:, named == kind].mean(axis=1) for kind in dict.fromkeys(named.tolist())}

    def as_plain(self) -> dict[str, Any]:
        """What JSON holds; weights are rounded to six digits, pixels to hundredths."""
        rows, columns = self.place.grid
        plain: dict[str, Any] = {
            "layer": str(self.layer),
            "mixer": self.mixer,
            "heads": list(self.heads) or self.maps.shape[1],
            "map": [rows, columns],
            "rows": [round(at, 2) for at in self.place.rows],
            "columns": [round(at, 2) for at in self.place.columns],
            "tokens": [list(token) for token in self.tokens],
            "weights": _rounded(self.maps),
            "elsewhere": _rounded(self.elsewhere),
        }
        if self.rectangles is not None:
            plain["rectangles"] = self.rectangles.round(2).tolist()
        if self.routes is not None:
            plain["routes"] = {
                "boxes": self.routes.boxes.round(2).tolist(),
                "chosen": self.routes.chosen.tolist(),
                "own": list(self.routes.own),
            }
        if self.spectra is not None:
            plain["spectra"] = {
                name: {"frequency": _rounded(at), "log_amplitude": _rounded(height)}
                for name, (at, height) in self.spectra.items()
            }
        return plain


@dataclass(frozen=True, eq=False)
class Look:
    """Where queries look, in every layer; `at` is one layer, `maps`, `rectangles` and `routes` are those of the chosen
    one.

    Args:
        model: its name.
        weights: where they come from; "random" is loudly said.
        photo: the photograph. Queries and boxes count in its pixels.
        seen: height and width at which the model saw it.
        queries: row and column of pixels.
        layers: in the order in which they run.
        chosen: the layer that is shown in full.
    """

    model: str
    weights: str
    photo: Photo
    seen: Pair
    queries: tuple[Pair, ...]
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
            "queries": [list(query) for query in self.queries],
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
    query: Pair | Sequence[Pair] | None = None,
    *,
    stage: int | None = None,
    block: int | str | None = None,
    size: int | Pair | Literal["own"] | None = None,
    scaling: Scaling | None = None,
    name: str = "",
    weights: str = "as given",
) -> Look:
    """Where tokens of an image look, in every layer of a backbone, in memory that grows with the tokens.

    Each weight is that of the mixer's own `look`: resampled, pooled and routed keys are followed back to the tokens
    that they are made of, and tokens to the pixels that they stand for. A token of a stage stands for the square of as
    many pixels as the stage is smaller than the image; where stems and downsamplers overlap, it sees more than that.

    Args:
        model: a backbone of `windeye.models.vision`.
        image: see `windeye.inspection.images.photo.read_photo`; or a tensor [channels, height, width] as the model
            takes it.
        query: row and column of a pixel of the upright photograph, or several. None is the centre.
        stage, block: the layer that is shown in full, from 0, negative from the end; a block may be "entry", the
            attention inside the entry of a stage. None is the last block with attention of the last stage but one with
            attention (where there are still many tokens).
        size, scaling: at which size the model sees the image, and how its colours are scaled; see
            `windeye.inspection.images.photo`. None is as many pixels as it was made for, and as published models were
            trained.
        name, weights: what pages and files call the model and its weights.

    Raises:
        TypeError: a model that is no backbone.
        ValueError, IndexError: not an image, a query outside of it, a layer that there is not; says what there is.

    Example:
        >>> from windeye.models.vision import swin
        >>> seen = look(swin(16, (1, 1), (2, 2), window=4), "astronaut", query=(200, 300), size=64)
        >>> seen.maps.shape, seen.here.tokens, str(seen.chosen)
        ((1, 2, 16, 16), ((6, 9),), '0.0')
        >>> int((seen.maps[0, 0] > 0).sum()), round(float(seen.on_pixels().sum()), 3)  # one window, both heads
        (16, 2.0)
    """
    if not isinstance(model, HierarchicalBackbone):
        raise TypeError(f"model must be a backbone of windeye.models.vision, got {type(model).__name__}")
    began = time.perf_counter()
    if isinstance(image, Tensor):
        given = image if image.dim() == 4 else image[None]
        if given.dim() != 4 or given.shape[0] != 1 or 0 in given.shape:
            raise ValueError(f"image must be a tensor [channels, height, width], got shape {tuple(image.shape)}")
        photo = shown(given[0])
    else:
        photo = read_photo(image)
        at = model_size(photo.size, size, model.config.img_size)
        given = as_input(photo, at, model.config.in_chans, scaling)
    queries = _queries(query, photo.size)
    chosen = _chosen(model, stage, block, name)
    parameter = next(model.parameters())
    given = given.to(parameter.device, parameter.dtype)
    seen = (given.shape[2], given.shape[3])
    strides = [info.reduction for info in model.feature_info]
    layers: list[LayerLook] = []

    def see(layer: Layer, mixer: TokenMixer, x: Tensor) -> None:
        place = Placement.of((x.shape[1], x.shape[2]), strides[layer.stage], seen, photo.size)
        layers.append(_seen(layer, _told(model, layer), mixer, x, place, queries))

    capture(model, given, see)
    order = {layer: place for place, layer in enumerate(mixers_of(model))}
    return Look(
        model=name or type(model).__name__,
        weights=weights,
        photo=photo,
        seen=seen,
        queries=queries,
        layers=tuple(sorted(layers, key=lambda each: order[each.layer])),
        chosen=chosen,
        seconds=time.perf_counter() - began,
    )


def _seen(
    layer: Layer, words: str, mixer: TokenMixer, x: Tensor, place: Placement, queries: Sequence[Pair]
) -> LayerLook:
    grid = place.grid
    tokens = tuple(place.token(query) for query in queries)
    rows = [mixer.look(x, token)[0].detach().double().cpu().numpy() for token in tokens]
    kinds = mixer.head_kinds()
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
        spectra=_spectra(mixer, x, kinds) if kinds else None,
    )


def told(spec: TokenMixerSpec) -> str:
    """A mixer in words: its kind, and the settings that are not the defaults.

    Example:
        >>> from windeye.nn.mixers import FullSpec, NeighborhoodSpec
        >>> told(NeighborhoodSpec(7, dilation=4)), told(FullSpec())
        ('neighborhood, dilation 4', 'full')
    """
    usual = type(spec)()
    own = {name: value for name, value in asdict(spec).items() if value != getattr(usual, name)}
    words = [spec.kind]
    for name, value in own.items():
        words.append(name if value is True else f"no {name}" if value is False else f"{name} {value}")
    return ", ".join(words).replace("_", " ")


def _told(model: HierarchicalBackbone, layer: Layer) -> str:
    stage = model.config.stages[layer.stage]
    spec = stage.mixers[layer.block] if isinstance(layer.block, int) else None
    words = stage.entry.kind if spec is None else told(spec)
    return f"{layer.branch} inside {words}" if layer.branch else words


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


def _spectra(mixer: TokenMixer, x: Tensor, kinds: Sequence[str]) -> dict[str, Curve]:
    outputs = mixer.attention(x)[0]
    curves = {"input": spectrum(x[0])}
    for kind in dict.fromkeys(kinds):
        heads = [index for index, name in enumerate(kinds) if name == kind]
        curves[kind] = spectrum(outputs[:, :, heads].flatten(2))
    return curves


def _queries(query: Pair | Sequence[Pair] | None, size: Pair) -> tuple[Pair, ...]:
    if query is None:
        return ((size[0] // 2, size[1] // 2),)
    several = [query] if query and isinstance(query[0], int) else list(query)
    if not several:
        raise ValueError("query names no pixel")
    found: list[Pair] = []
    for one in several:
        y, x = one if isinstance(one, Sequence) and len(one) == 2 else (None, None)
        if not (isinstance(y, int) and isinstance(x, int)):
            raise ValueError(f"query must be a row and a column of pixels such as 120,80, got {one!r}")
        if not (0 <= y < size[0] and 0 <= x < size[1]):
            raise ValueError(
                f"query {y},{x} lies outside of the image: its rows (first number) are 0 to {size[0] - 1}, its columns "
                f"0 to {size[1] - 1}"
            )
        found.append((y, x))
    return tuple(found)


def _chosen(model: HierarchicalBackbone, stage: int | None, block: int | str | None, name: str) -> Layer:
    layers = list(mixers_of(model))
    named = name or "the model"
    if not layers:
        raise ValueError(f"{named} has no attention over a map")
    count = len(model.stages)
    there = sorted({layer.stage for layer in layers})
    if stage is None:
        stage = there[-2] if len(there) > 1 else there[-1]
    elif not -count <= stage < count:
        raise IndexError(f"there is no stage {stage}: {named} has stages 0 to {count - 1}")
    stage = stage % count
    blocks = [layer.block for layer in layers if layer.stage == stage and not layer.branch]
    if not blocks:
        raise IndexError(f"stage {stage} of {named} has no attention; stages {', '.join(map(str, there))} have")
    if block is None:
        return Layer(stage, blocks[-1])
    depth = len(list(model.stages[stage].children()))
    if isinstance(block, int) and -depth <= block < 0:
        block += depth
    if block not in blocks:
        others = ", ".join(map(str, blocks))
        raise IndexError(f"there is no attention in block {block} of stage {stage} of {named}; there is in {others}")
    return Layer(stage, block)


def _rounded(values: Any) -> Any:
    if getattr(values, "ndim", 0):
        return [_rounded(part) for part in values]
    return float(f"{float(values):.6g}")
