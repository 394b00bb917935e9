"""The first thing a person sees: windows on a real photograph, proven equal to the oracle, and how fast they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from windeye.bench import peers
from windeye.bench.timing import can_measure_memory, compare, peak_extra_bytes
from windeye.ops import attend, explain
from windeye.patterns import Blocks, Halo, Neighborhood, Pattern, TileWindow
from windeye.patterns.draw import seen_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, PATCH, HEADS, HEAD_DIM = 64, 8, 8, 64
GRID = (SIDE, SIDE)
CHOSEN = ((4, 6), (20, 30), (58, 40))
"""Tokens whose view is drawn: near a corner, on the face, near the lower edge."""
TINTS = ((0.90, 0.34, 0.18), (0.17, 0.55, 0.85), (0.46, 0.73, 0.15))

PATTERNS: dict[str, Pattern] = {
    "window 13": Neighborhood(13),
    "window 16, stride 8": Neighborhood(16, stride=8),
    "window 9, dilation 4": Neighborhood(9, dilation=4),
    "window 15, rows causal": Neighborhood(15, is_causal=(True, False)),
    "blocks of 16, shifted": Blocks(16, shift=8),
    "halo 8 + 4": Halo(8, 4),
    "tile window 3 x 8": TileWindow(8, 3),
    "near 9 + far 5": Neighborhood(9) | Neighborhood(5, dilation=12),
}


@dataclass(frozen=True)
class Measured:
    """One pattern on the photograph. Times are medians of a forward pass in seconds, memory is in bytes."""

    name: str
    pattern: str
    pairs: int
    density: float
    flop_bound: float
    simulated: float | None
    max_error: float
    seconds: float
    dense_seconds: float
    over_dense: float
    flex_seconds: float | None
    over_flex: float | None
    flex_missing: str
    memory: int | None


def tokens(photo: UInt8[np.ndarray, "512 512 3"]) -> Float[Tensor, "3 1 64 64 8 64"]:
    """Query, key and value of the photograph's 8 x 8 patches: random projections, the same ones on every run.

    Query and key share a projection, so that logits measure how alike two patches are.
    """
    pixels = torch.from_numpy(photo).float() / 127.5 - 1
    patches = pixels.reshape(SIDE, PATCH, SIDE, PATCH, 3).permute(0, 2, 1, 3, 4).flatten(2)
    patches = (patches - patches.mean()) / patches.std()
    generator = torch.Generator().manual_seed(0)
    look, say = torch.randn(2, patches.shape[-1], HEADS * HEAD_DIM, generator=generator) / patches.shape[-1] ** 0.5
    shape = (1, SIDE, SIDE, HEADS, HEAD_DIM)
    query, value = (patches @ look).reshape(shape), (patches @ say).reshape(shape)
    return torch.stack([query, query, value])


def max_error(qkv: Tensor, pattern: Pattern) -> float:
    """Largest difference to dense float64 attention under the pattern's mask, over every token, head and channel."""
    query, key, value = qkv.unbind(0)
    ours = attend(query, key, value, pattern)[0].flatten(0, 1).transpose(0, 1)
    q, k, v = (t[0].flatten(0, 1).transpose(0, 1).double() for t in (query, key, value))
    hidden = ~pattern.bind(GRID).mask()
    worst = 0.0
    for head in range(HEADS):  # one at a time: the oracle's memory is quadratic
        logits = (q[head] @ k[head].T * HEAD_DIM**-0.5).masked_fill_(hidden, -torch.inf)
        worst = max(worst, float((ours[head] - logits.softmax(dim=-1) @ v[head]).abs().max()))
    return worst


def measure(qkv: Tensor, *, flex: bool, rounds: int = 5) -> Iterator[tuple[str, Callable[[], Measured]]]:
    """One named measurement per pattern, done when called."""
    query, key, value = qkv.unbind(0)
    flat = [t.flatten(1, 2).transpose(1, 2).contiguous() for t in (query, key, value)]
    data = peers.Inputs(query, key, value, (flat[0], flat[1], flat[2]))
    for name, pattern in PATTERNS.items():
        yield name, partial(_one, name, pattern, qkv, data, flex=flex, rounds=rounds)


def _one(name: str, pattern: Pattern, qkv: Tensor, data: peers.Inputs, *, flex: bool, rounds: int) -> Measured:
    facts = explain(data.query, data.key, data.value, pattern)
    candidates = {"dense": peers.dense(data, pattern), "windeye": peers.windeye(data, pattern)}
    missing = "" if flex else "not asked for"
    if flex:
        try:
            candidates["flex"] = peers.flex(data, pattern)
        except RuntimeError as error:
            missing = str(error)
    with torch.no_grad():
        timings = compare(candidates, baseline="dense", rounds=rounds)
    ours, compiled = timings["windeye"], timings.get("flex")
    return Measured(
        name=name,
        pattern=pattern.spec,
        pairs=facts.pairs,
        density=facts.density,
        flop_bound=facts.flop_bound,
        simulated=facts.predicted_speedup,
        max_error=max_error(qkv, pattern),
        seconds=ours.seconds,
        dense_seconds=timings["dense"].seconds,
        over_dense=ours.speedup,
        flex_seconds=compiled.seconds if compiled else None,
        over_flex=compiled.seconds / ours.seconds if compiled else None,
        flex_missing=missing,
        memory=_memory(pattern),
    )


_MEASURED = """
import torch, windeye
from windeye.patterns import from_spec
pattern = from_spec({spec!r})
small = torch.randn(1, 2, 2, 1, 8)
windeye.attend(small, small, small)
q, k, v = torch.randn(3, 1, {side}, {side}, {heads}, {dim}).unbind(0)
pattern.bind(({side}, {side}))
def run():
    return windeye.attend(q, k, v, pattern)
"""


def _memory(pattern: Pattern) -> int | None:
    """Peak bytes beyond inputs and output, in a fresh process; None where the system does not tell."""
    if not can_measure_memory():
        return None
    return peak_extra_bytes(_MEASURED.format(spec=pattern.spec, side=SIDE, heads=HEADS, dim=HEAD_DIM))


def picture(photo: UInt8[np.ndarray, "512 512 3"], qkv: Tensor) -> Figure:
    """What the chosen tokens see under every pattern: hidden parts dark, seen ones tinted by their attention weight."""
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(PATTERNS) // columns)
    figure = Figure(figsize=(3 * columns, 3.25 * rows), layout="constrained")
    for number, (name, pattern) in enumerate(PATTERNS.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(_view(photo, qkv, pattern), interpolation="nearest")
        for (y, x), tint in zip(CHOSEN, TINTS, strict=True):
            axes.plot(PATCH * (x + 0.5), PATCH * (y + 0.5), "s", color=tint, markeredgecolor="white", markersize=6)
        axes.set_title(name, fontsize=11)
        axes.set_axis_off()
    return figure


def _view(photo: UInt8[np.ndarray, "512 512 3"], qkv: Tensor, pattern: Pattern) -> np.ndarray:
    bound = pattern.bind(GRID)
    image = photo.astype(np.float64) / 255
    view = 0.28 * image
    for query, tint in zip(CHOSEN, TINTS, strict=True):
        seen = seen_by(bound, query)
        logits = torch.einsum("hd,yxhd->yx", qkv[0, 0, query[0], query[1]], qkv[1, 0]) / HEADS / HEAD_DIM**0.5
        logits = logits.masked_fill(~torch.from_numpy(seen), -torch.inf)
        weight = logits.flatten().softmax(0).reshape(GRID).numpy()
        strength = 0.12 + 0.55 * weight / weight.max()
        seen, strength = (np.kron(part, np.ones((PATCH, PATCH)))[..., None] for part in (seen, strength))
        lit = (1 - strength) * image + strength * np.asarray(tint)
        view = np.where(seen > 0, lit, view)
    return view


def facts(measured: list[Measured]) -> list[dict[str, Any]]:
    """Plain values for JSON."""
    return [asdict(m) for m in measured]
