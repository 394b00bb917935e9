"""What is lost, where it is lost, and how fast strides are."""

from __future__ import annotations

import torch

from windeye.papers.denoiser import GRID
from windeye.papers.gna import speed
from windeye.papers.gna.effect import CLEAN, RANDOM, SHUFFLED, SIZE, STRIDES, TIMES, Outcome, arm
from windeye.papers.gna.judgement import BEHIND, BOUND, COUNTED, NEAR, SIMULATED, SPEEDUP, increase
from windeye.report import Picture, Row
from windeye.report.figures import COLOURS, as_png, as_svg, canvas


def costs(rows: tuple[Row, ...]) -> Picture:
    """Left: costs of the arms that see 64 keys over the noise. Right: what strides cost more than stride 1."""
    from matplotlib.figure import Figure

    values = {(row.arm, row.metric): row for row in rows}
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    windows = [arm(SIZE, stride) for stride in STRIDES[SIZE]]
    for place, name in enumerate((*windows, SHUFFLED, RANDOM)):
        means = [values[name, increase(t)].mean for t in TIMES]
        style = {"marker": "o", "markersize": 4} if name in windows else {"linestyle": "--"}
        left.plot(TIMES, means, color=COLOURS[place], label=name, **style)
    left.set_yscale("log")
    left.set_xticks(TIMES)
    left.set_yticks(ticks := (5, 10, 20, 50, 100, 200), [str(tick) for tick in ticks])
    left.set_ylim(top=1000)
    left.minorticks_off()
    left.set_ylabel("loss increase over dense, %")
    left.legend(frameon=False, fontsize=7, ncols=2, loc="upper left")
    for place, stride in enumerate(STRIDES[SIZE][1:], start=1):
        for at, t in enumerate(CLEAN):
            gaps = values[f"{arm(SIZE, stride)} minus s=1", f"paired difference at t={t}"]
            here = at + 0.2 * (place - 2)
            right.plot([here] * gaps.n, gaps.values, "o", color=COLOURS[place], alpha=0.5, markersize=4)
            right.plot([here], [gaps.mean], "_", color=COLOURS[place], markersize=12, markeredgewidth=2)
    for gate in (NEAR, BEHIND):
        right.axhline(gate, color="#66727d", linewidth=0.8, linestyle=":")
    right.set_xticks(range(len(CLEAN)), [str(t) for t in CLEAN])
    right.set_ylabel("points above stride 1")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("t, share of noise")
    caption = (
        f"Every arm sees {SIZE * SIZE} of {GRID * GRID} keys in a network trained with all of them. Left: means over "
        f"seeds, broken lines are controls. Right: dots are seeds, bars their means; dotted lines are the margins "
        f"{NEAR} for strides 2 and 4 and {BEHIND} for stride 8."
    )
    return as_svg(figure, "What is lost without training", caption)


def maps(trained: list[Outcome]) -> Picture:
    """Where on the token grid the strides of W=8 lose."""
    from matplotlib.figure import Figure

    size, clean = STRIDES[SIZE], len(CLEAN)
    errors = {
        name: torch.tensor([outcome["errors"][name][:clean] for outcome in trained], dtype=torch.float64).mean(dim=0)
        for name in ("dense", *(arm(SIZE, stride) for stride in size))
    }
    lost = {s: (100 * (errors[arm(SIZE, s)] / errors["dense"] - 1)).mean(dim=0).reshape(GRID, GRID) for s in size}
    top = max(float(values.quantile(0.98)) for values in lost.values())
    figure = Figure(figsize=(7.4, 2.3), layout="constrained")
    panels = figure.subplots(1, len(size))
    for panel, stride in zip(panels, size, strict=True):
        image = panel.imshow(lost[stride].numpy(), cmap="magma", vmin=0, vmax=top)
        panel.set_title(arm(SIZE, stride), fontsize=10)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.colorbar(image, ax=panels, label="loss increase, %", shrink=0.85)
    caption = "Increase over dense token by token on 16x16 tokens, mean over t = 0.2, 0.4, 0.6 and seeds."
    return as_png(figure, "Where it is lost", caption)


def speedups(rows: tuple[Row, ...]) -> Picture:
    """Measured speed-ups as bars below the simulated and the FLOP bound."""
    figure, axes = canvas(6.4, 3.4)
    values = {(row.arm, row.metric): row for row in rows}
    place, ticks = 0.0, []
    for colour, case in zip((COLOURS[0], COLOURS[2]), speed.CASES, strict=True):
        for stride in case.strides:
            name = case.name(stride)
            measured = values[name, SPEEDUP]
            axes.barh(place, measured.mean, color=colour, height=0.7)
            axes.plot(measured.values, [place] * measured.n, "o", color=COLOURS[4], markersize=3)
            for metric, mark, size in ((BOUND, COLOURS[1], 16), (COUNTED, COLOURS[3], 9), (SIMULATED, "#1d2730", 9)):
                axes.plot([values[name, metric].mean], [place], "|", color=mark, markersize=size, markeredgewidth=2)
            ticks.append((place, name))
            place += 1
        place += 0.6
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("speed-up over dense SDPA, forward, one thread")
    caption = (
        "Bars: measured on a machine that was not reserved, dots are repetitions. Long red marks: FLOP "
        "bound. Dark marks: tile simulator. Violet marks, where they differ: idle lanes counted too."
    )
    return as_svg(figure, "How fast", caption)
