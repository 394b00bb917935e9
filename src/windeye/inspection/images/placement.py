"""Where the tokens of a map lie on a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Pair = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """Borders of the rows and columns of a map, in pixels of a picture: a pixel belongs to the token whose middle is
    nearest, on each axis.

    Example:
        >>> place = Placement.of(grid=(3, 2), stride=4, seen=(10, 8), photo=(20, 16))
        >>> place.rows, place.columns
        ((0.0, 8.0, 16.0, 20.0), (0.0, 8.0, 16.0))
        >>> place.token((17, 3)), place.box((2, 0))
        ((2, 0), (0.0, 16.0, 8.0, 20.0))
    """

    rows: tuple[float, ...]
    columns: tuple[float, ...]
    step: tuple[float, float]
    """From one token to the next."""
    start: tuple[float, float] = (0.0, 0.0)
    """Where the first token would begin if it reached equally far to either side of its middle."""

    @classmethod
    def of(cls, grid: Pair, stride: float, seen: Pair, photo: Pair, middle: float | None = None) -> Placement:
        """The tokens of a map on a photograph.

        Args:
            grid: rows and columns of the map.
            stride: from one token to the next, in pixels of the image that the model saw.
            seen, photo: height and width of that image, and of the photograph that was resampled to it.
            middle: of the first token, in pixels of the image, the first of which lies at 0. None is half a token in.
        """
        shift = 0.0 if middle is None else middle - (stride - 1) / 2
        rows, columns = (
            (0.0, *(min(max(k * stride + shift, 0.0), n) * whole / n for k in range(1, count)), float(whole))
            for count, n, whole in zip(grid, seen, photo, strict=True)
        )
        scale = (photo[0] / seen[0], photo[1] / seen[1])
        step, start = (tuple(value * each for each in scale) for value in (stride, shift))
        return cls(rows, columns, (step[0], step[1]), (start[0], start[1]))

    @property
    def grid(self) -> Pair:
        """Rows and columns of tokens."""
        return len(self.rows) - 1, len(self.columns) - 1

    def token(self, pixel: Pair) -> Pair:
        """The token that a pixel belongs to."""
        found = [
            min(int(np.searchsorted(borders, at + 0.5, side="right")) - 1, len(borders) - 2)
            for at, borders in zip(pixel, (self.rows, self.columns), strict=True)
        ]
        return found[0], found[1]

    def box(self, token: Pair) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a token."""
        y, x = token
        return self.columns[x], self.rows[y], self.columns[x + 1], self.rows[y + 1]

    def across(self, x: float, y: float) -> tuple[float, float]:
        """A place between tokens, in units in which the first token's middle is 0 and the next one's 1, as pixels from
        the left and from the top. Off the map it goes on as inside."""
        return (x + 0.5) * self.step[1] + self.start[1], (y + 0.5) * self.step[0] + self.start[0]

    def on_pixels(
        self, weights: Float[np.ndarray, "*rest rows columns"], size: Pair
    ) -> Float[np.ndarray, "*rest height width"]:
        """The weight of each pixel of a picture of this size: a token's weight, spread evenly over what it covers, so
        that the sum over a token's pixels is its weight.

        Example:
            >>> place = Placement((0.0, 2.0), (0.0, 1.5, 3.0), (2.0, 1.5))
            >>> place.on_pixels(np.array([[0.6, 0.4]]), (2, 3)).round(3).tolist()
            [[0.2, 0.167, 0.133], [0.2, 0.167, 0.133]]
        """
        return _shares(self.rows, size[0]) @ weights @ _shares(self.columns, size[1]).T


def on_tokens(
    weights: Float[np.ndarray, "*rest rows columns"], grid: Pair, span: tuple[float, float] = (1.0, 1.0)
) -> Float[np.ndarray, "*rest height width"]:
    """Weights of positions as weights of the tokens of a map: what lies on its padding is cut off, and that of a
    position that stands for several tokens is shared evenly among those that are there.

    Example:
        >>> on_tokens(np.array([[0.5, 0.3]]), (1, 3), span=(1, 2)).tolist()
        [[0.25, 0.25, 0.3]]
    """
    if span == (1, 1):
        return weights[..., : grid[0], : grid[1]]
    down, across = (
        _shares(tuple(min(k * step, n) for k in range(count + 1)), n)
        for n, step, count in zip(grid, span, weights.shape[-2:], strict=True)
    )
    return down @ weights @ across.T


def _shares(borders: tuple[float, ...], pixels: int) -> Float[np.ndarray, "pixels tokens"]:
    """How much of each token is in each pixel."""
    edges = np.asarray(borders, dtype=np.float64)
    first, last = edges[:-1], edges[1:]
    at = np.arange(pixels)[:, None]
    overlap = np.clip(np.minimum(at + 1, last) - np.maximum(at, first), 0, None)
    return overlap / np.maximum(last - first, 1e-12)
