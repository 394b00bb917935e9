"""An inspection as rows of words, the same on a terminal and on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from windeye.inspection.measure import Inspection

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Columns and rows."""


def by_layer(seen: Inspection) -> Table:
    """A row per layer: means over its heads, and its heads that have a name."""
    kinds = seen.scan.kinds()
    rows = []
    for place, layer in enumerate(seen.layers):
        named = Counter(kind for kind in kinds[place] if kind)
        told = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in named.most_common())
        rows.append((str(layer), *(number(values[place].mean()) for values in seen.per_head.values()), told))
    return ("layer", *seen.per_head, "heads"), rows


def by_head(seen: Inspection) -> Table:
    """A row per head."""
    kinds = seen.scan.kinds()
    rows = [
        (f"{layer}.{head}", *(number(values[place, head]) for values in seen.per_head.values()), kinds[place][head])
        for place, layer in enumerate(seen.layers)
        for head in range(seen.heads)
    ]
    return ("head", *seen.per_head, "kind"), rows


def kinds(seen: Inspection, count: int = 5) -> Table:
    """A row per kind: how many heads are of it, and those that are most."""
    named = Counter(kind for row in seen.scan.kinds() for kind in row)
    rows = [
        (
            kind,
            str(named[kind]),
            ", ".join(f"{layer}.{head} {score:.2f}" for layer, head, score in seen.scan.ranked(kind, count)),
        )
        for kind in seen.scan.scores
    ]
    return ("kind", "heads", "most of it (layer.head)"), rows


def top_tokens(seen: Inspection, count: int = 20) -> Table:
    """A row per token that receives much attention."""
    rows = [(str(place), in_context(seen.tokens, place), number(value)) for place, _, value in seen.top_tokens(count)]
    return ("position", seen.received or "", "token"), rows


def in_context(tokens: Sequence[str], place: int, around: int = 4) -> str:
    """A token between marks, with its neighbours; line breaks are shown.

    Example:
        >>> in_context(["the", " wind", " eye", "\\n"], 2)
        'the wind[ eye]⏎'
    """
    before = "".join(tokens[max(0, place - around) : place])
    after = "".join(tokens[place + 1 : place + 1 + around])
    return f"{before}[{tokens[place]}]{after}".replace("\n", "⏎")


def number(value: float) -> str:
    """Three digits, two of small numbers.

    Example:
        >>> number(1234.5), number(0.512), number(0.001234)
        ('1234', '0.512', '0.0012')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.2g}"
