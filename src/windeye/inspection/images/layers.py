"""What one layer does with the queries: weights on tokens, and what its kind of attention has besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from windeye.inspection.images.capture import Layer
from windeye.inspection.images.photo import Pair
from windeye.inspection.images.placement import Placement

Query = Pair | Literal["class"]
"""Row and column of a pixel, or the class token."""

Curve = tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]
"""Frequencies in cycles per token, and mean log amplitudes."""


def named(query: Query) -> str:
    """
    Example:
        >>> named((120, 80)), named("class")
        ('120,80', 'class token')
    """
    return "class token" if query == "class" else f"{query[0]},{query[1]}"


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
        tokens: row and column of the token of each query; None is the class token.
        maps: weight of each token of the map.
        beside: weight of tokens that are no part of the map, such as the class token, in all.
        rectangles: of varied windows: left, top, right and bottom of what each head reads, in pixels of the photograph;
            mirrored where left is to the right of right. They may reach beyond the photograph.
        samples: of varied windows: rows and columns of places that are read inside a rectangle.
        routes: of routed attention: its regions.
        spectra: of heads of several kinds: how what comes in and the heads' outputs fall with frequency, by kind.
        outputs: of heads of several kinds: how far the output of each token is from the mean over tokens, root mean
            square over channels, by kind.
    """

    layer: Layer
    mixer: str
    heads: tuple[str, ...]
    place: Placement
    tokens: tuple[Pair | None, ...]
    maps: Float[np.ndarray, "queries heads rows columns"]
    beside: Float[np.ndarray, "queries heads"] | None = None
    rectangles: Float[np.ndarray, "queries heads 4"] | None = None
    samples: Pair | None = None
    routes: Routes | None = None
    spectra: Mapping[str, Curve] | None = None
    outputs: Mapping[str, Float[np.ndarray, "rows columns"]] | None = None

    def visible(self, query: int, heads: Sequence[int] | None = None) -> Bool[np.ndarray, "rows columns"]:
        """Tokens that get weight in any of these heads, default all."""
        weights = self.clean(query)
        return np.any((weights if heads is None else weights[list(heads)]) > 0, axis=0)

    def clean(self, query: int) -> Float[np.ndarray, "heads rows columns"]:
        """Weights without traces: places of samples are rounded, so that a token's neighbours may get a millionth of
        its weight."""
        weights = self.maps[query].clip(min=0)
        if self.rectangles is None:
            return weights
        return np.where(weights > 1e-4 * weights.max(axis=(1, 2), keepdims=True), weights, 0.0)

    @property
    def elsewhere(self) -> Float[np.ndarray, "queries heads"]:
        """What is missing to 1 in each row: weight on padding, or of what is read off the map."""
        found = 1 - self.maps.sum(axis=(2, 3))
        return found if self.beside is None else found - self.beside

    def kinds(self) -> dict[str, list[int]]:
        """Heads of each kind; all of them as "mean" where there is one."""
        named = self.heads or ("mean",) * self.maps.shape[1]
        return {kind: [head for head, name in enumerate(named) if name == kind] for kind in dict.fromkeys(named)}

    def mean(self, kind: str = "mean") -> Float[np.ndarray, "queries rows columns"]:
        """The mean over the heads of a kind, or over all."""
        return self.maps.mean(axis=1) if kind == "mean" else self.maps[:, self.kinds()[kind]].mean(axis=1)

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
            "tokens": [token and list(token) for token in self.tokens],
            "weights": _rounded(self.maps),
            "elsewhere": _rounded(self.elsewhere),
        }
        if self.beside is not None:
            plain["beside"] = _rounded(self.beside)
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
        if self.outputs is not None:
            plain["outputs"] = {name: _rounded(values) for name, values in self.outputs.items()}
        return plain


def _rounded(values: Any) -> Any:
    if getattr(values, "ndim", 0):
        return [_rounded(part) for part in values]
    return float(f"{float(values):.6g}")
