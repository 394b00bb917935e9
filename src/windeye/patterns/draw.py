"""Pictures of a relation: text for the terminal, PNG or SVG for papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from windeye.patterns.bound import Bound
from windeye.patterns.table import Bools

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Query = tuple[int, ...]

MOST_TEXT_COLUMNS = 128
MOST_PICTURE_TOKENS = 1 << 22
SEEN, UNSEEN, SELF = "█", "·", "◆"
INK, PAPER, MARK = "#2b5c8a", "#eef1f4", "#e4572e"


def draw(bound: Bound, path: str | None = None, *, queries: list[Query] | None = None) -> str:
    """Draw who sees whom.

    A sequence is drawn as its mask, one row per query. A grid is drawn as panels, one per chosen query, in which the
    query is marked and the keys it sees are filled; three axes become one strip of slices per query.

    Args:
        bound: the relation.
        path: a file ending in .png or .svg; without it the drawing is returned as text.
        queries: grid coordinates of the queries to show; default a corner, an edge and the centre.

    Returns:
        The text, or the path that was written.

    Raises:
        ValueError: another suffix, no query or one outside the grid, or a relation that is empty or too large to draw.

    Example:
        >>> from windeye.patterns import Sliding
        >>> print(draw(Sliding(2).bind((4,))))
        ◆···
        █◆··
        ·█◆·
        ··█◆
    """
    if bound.tokens == 0 or bound.tokens_kv == 0:
        raise ValueError(f"nothing to draw: the grids are {bound.grid} and {bound.grid_kv}")
    chosen = _chosen(bound, queries)
    if path is None:
        return _text(bound, chosen, whole=queries is None)
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise ValueError(f"path must end in .png or .svg, got {str(path)!r}")
    figure(bound, chosen, whole=queries is None).savefig(path, dpi=150, facecolor="white")
    return str(path)


def _chosen(bound: Bound, queries: list[Query] | None) -> list[Query]:
    if queries is None:
        corner = (0,) * bound.rank
        centre = tuple(n // 2 for n in bound.grid)
        edge = (*centre[:-1], bound.grid[-1] - 1)
        return list(dict.fromkeys([corner, edge, centre]))
    if not queries:
        raise ValueError("queries must name at least one query, got []")
    return [bound.coordinates(query) for query in queries]


def seen_by(bound: Bound, query: Query) -> Bools:
    """The keys that one query sees, bool on the key grid."""
    seen = np.zeros(bound.tokens_kv, dtype=np.bool_)
    seen[bound.keys_of(query)] = True
    return seen.reshape(bound.grid_kv)


def _text(bound: Bound, chosen: list[Query], *, whole: bool) -> str:
    if bound.grid_kv[-1] > MOST_TEXT_COLUMNS:
        raise ValueError(
            f"the last axis has {bound.grid_kv[-1]} keys, text holds {MOST_TEXT_COLUMNS}; give a path ending in .png"
        )
    if bound.rank == 1 and whole:
        if bound.tokens > 4 * MOST_TEXT_COLUMNS:
            raise ValueError(
                f"{bound.tokens} queries are too many rows of text; give a path ending in .png, or queries"
            )
        rows = [_row(seen_by(bound, (i,)), i if bound.grid == bound.grid_kv else None) for i in range(bound.tokens)]
        return "\n".join(rows)
    return "\n\n".join(f"query {', '.join(map(str, query))}\n{_panel(bound, query)}" for query in chosen)


def _panel(bound: Bound, query: Query) -> str:
    seen = seen_by(bound, query)
    same = bound.grid == bound.grid_kv
    slices = []
    for place in np.ndindex(*bound.grid_kv[:-2]):
        plane = np.atleast_2d(seen[place])
        rows = []
        for y, row in enumerate(plane):
            here = (*place, y) if bound.rank > 1 else place
            rows.append(_row(row, query[-1] if same and here == query[:-1] else None))
        slices.append("\n".join(rows) if not place else f"slice {', '.join(map(str, place))}\n" + "\n".join(rows))
    return "\n".join(slices)


def _row(seen: Bools, own: int | None) -> str:
    return "".join(SELF if i == own else SEEN if s else UNSEEN for i, s in enumerate(seen))


def figure(bound: Bound, chosen: list[Query], *, whole: bool = True) -> Figure:
    """The picture as a matplotlib figure, outside of any global state."""
    from matplotlib.figure import Figure

    mask_view = bound.rank == 1 and whole
    if (bound.tokens * bound.tokens_kv if mask_view else bound.tokens_kv) > MOST_PICTURE_TOKENS:
        raise ValueError(f"the relation of {bound.tokens} queries and {bound.tokens_kv} keys is too large to draw")
    panels = 1 if mask_view else len(chosen)
    picture = Figure(figsize=(3.1 * panels + 0.2, 3.6), layout="constrained")
    for number in range(panels):
        axes = picture.add_subplot(1, panels, number + 1)
        if mask_view:
            _show(axes, bound.mask().numpy(), None)
            axes.set_xlabel("key")
            axes.set_ylabel("query")
        else:
            query = chosen[number]
            flat = seen_by(bound, query).reshape(-1, bound.grid_kv[-1])
            rows = [(q * k) // n for q, k, n in zip(query, bound.grid_kv, bound.grid, strict=True)]
            y = int(np.ravel_multi_index(tuple(rows[:-1]), bound.grid_kv[:-1])) if bound.rank > 1 else 0
            _show(axes, flat, (y, rows[-1]))
            if bound.rank == 3:
                for cut in range(bound.grid_kv[1], flat.shape[0], bound.grid_kv[1]):
                    axes.axhline(cut - 0.5, color="white", linewidth=1.5)
            axes.set_title(f"query {', '.join(map(str, query))}", fontsize=9)
    picture.suptitle(f"{bound.pairs():,} pairs, {bound.density():.1%} of all", fontsize=9, color="#555555")
    return picture


def _show(axes: Any, seen: Bools, mark: tuple[int, int] | None) -> None:
    from matplotlib.colors import ListedColormap

    axes.imshow(seen, cmap=ListedColormap([PAPER, INK]), vmin=0, vmax=1, interpolation="nearest")
    if mark is not None:
        axes.plot(mark[1], mark[0], marker="s", color=MARK, markersize=4)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
