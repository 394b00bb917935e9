"""The report of an inspection: one page that asks for nothing outside itself."""

from __future__ import annotations

import html as text
from collections.abc import Iterable

import numpy as np

from windeye.inspection import table as tables
from windeye.inspection.measure import Inspection
from windeye.inspection.steering import Effect
from windeye.report import html
from windeye.report.curves import curves, script
from windeye.report.heat import heat_map, pixels
from windeye.sites.heads import KINDS

_STYLE = """<style>
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .5rem 1rem }
.maps figure { margin: .5rem 0 } .maps figcaption { font-size: .85rem }
.wide img { width: 100%; height: 14rem; image-rendering: pixelated }
td:last-child, th:last-child { text-align: left } .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem }
</style>"""


def report(seen: Inspection, command: str, effect: Effect | None = None) -> str:
    """The page: what the heads do, layer by layer and token by token, and what edits change."""
    layers = f"layers {seen.layers[0]} to {seen.layers[-1]}" if len(seen.layers) > 1 else f"layer {seen.layers[0]}"
    told = (
        f"{len(seen.tokens):,} tokens, {layers}, {seen.heads} heads each, {seen.seconds:.1f} s. Numbers are means over "
        "the text of what each head does; no attention map was formed."
    )
    parts = [_STYLE, html.paragraph(told)]
    if effect is not None:
        parts += _effect(effect)
    parts += [html.heading("Heads"), _maps(seen)]
    parts += [html.heading("Kinds of heads"), _kinds(seen)]
    parts += [html.heading("Layers"), html.table(*tables.by_layer(seen))]
    parts += [html.heading("Tokens"), *_tokens(seen)]
    if seen.received is not None:
        parts += [html.heading("Tokens that receive most attention"), html.table(*tables.top_tokens(seen))]
    parts += [html.heading("Again"), f"<pre>{text.escape(command)}</pre>", script()]
    return html.page(f"Attention of {seen.model}", parts)


def _maps(seen: Inspection) -> str:
    """Layers down, heads across, one map a statistic."""
    rows, columns = _names(seen)
    kinds = seen.scan.kinds()
    maps = [
        html.picture(heat_map(name, "Layers down, heads across.", values, rows=rows, columns=columns, notes=kinds))
        for name, values in seen.per_head.items()
    ]
    return f'<div class="maps">{"".join(maps)}</div>'


def _kinds(seen: Inspection) -> str:
    rows, columns = _names(seen)
    maps = [
        html.picture(
            heat_map(
                kind,
                f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}.",
                scores.numpy(),
                rows=rows,
                columns=columns,
                least=0.0,
                most=1.0,
            )
        )
        for kind, scores in seen.scan.scores.items()
    ]
    told = (
        "Shares of attention on random tokens that come twice, over the second copy. A head has the name of its "
        "largest share if that is at least 0.4."
    )
    return "".join(
        [html.paragraph(told, quiet=True), f'<div class="maps">{"".join(maps)}</div>', html.table(*tables.kinds(seen))]
    )


def _tokens(seen: Inspection) -> Iterable[str]:
    yield curves(
        "Token by token",
        "Means over heads; windowed_distance (WAAD) over the 30 % of heads that look nearest, future_influence (FAI) "
        "over those that look farthest, where mean_distance was measured.",
        seen.signals,
        seen.tokens,
    )
    for name, values in seen.per_token.items():
        if len(seen.layers) > 1:
            shown = _clipped(values)
            picture = html.picture(pixels(f"{name} by layer", "Layers down, tokens across.", shown))
            yield f'<div class="wide">{picture}</div>'


def _clipped(values: np.ndarray) -> np.ndarray:
    """Without the few largest values, which would make all others look alike."""
    low, high = np.quantile(values, [0.005, 0.995])
    return np.clip(values, low, high)


def _effect(effect: Effect) -> list[str]:
    parts = [html.heading("Before and after the edits")]
    if effect.next_before is not None:
        parts.append(html.table(*effect.next_tokens()))
        written = (("before", effect.text_before), ("after", effect.text_after))
        pair = "".join(f"<div><b>{when}</b><pre>{text.escape(words or '')}</pre></div>" for when, words in written)
        parts.append(f'<div class="pair">{pair}</div>')
    rows, columns = _names(effect.before)
    maps = [
        html.picture(
            heat_map(f"{name}, change", "After minus before, absolute.", abs(effect.after.per_head[name] - values),
                     rows=rows, columns=columns)
        )
        for name, values in effect.before.per_head.items()
    ]  # fmt: skip
    return [*parts, html.table(*effect.statistics()), f'<div class="maps">{"".join(maps)}</div>']


def _names(seen: Inspection) -> tuple[list[str], list[str]]:
    return [f"L{layer}" for layer in seen.layers], [f"H{head}" for head in range(seen.heads)]
