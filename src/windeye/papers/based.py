"""Based: what is recalled from how much state, by Taylor features with a small window, by windows, by convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from windeye.compare.sequence.figures import mark, over_state
from windeye.compare.sequence.recall import ArmRecall, RecallPlan, cost, recall
from windeye.data.tasks import MQAR
from windeye.models import AttentionSpec, LightningSpec, MixerSpec, ProductConvolutionSpec, TaylorSpec
from windeye.papers.experiment import Budget, Run, one_thread
from windeye.report import Check, Evidence, Picture, Pieces, Row, Verdict
from windeye.report.figures import as_svg, canvas

SEEDS: dict[Budget, tuple[int, ...]] = {"smoke": (0,), "default": (0, 1, 2), "full": (0, 1, 2, 3, 4)}

PLANS: dict[Budget, RecallPlan] = {
    "smoke": RecallPlan(
        MQAR(32, 16, 2, 1.0, "zero"), 16, steps=2, batch_size=4, rates=(1e-3, 1e-2), held_out=8, every=1
    ),
    "default": RecallPlan(),
    "full": RecallPlan(MQAR(256, 128, 32, 1.0, "zero"), steps=4000, batch_size=64, held_out=1024),
}

FULL, CONVOLUTION, ELU = "attention", "convolution only", "1+elu linear attention"
FEATURES, WINDOWS = (4, 8, 16), (8, 16, 32, 64)
SMALL = 16
"""The window of Based here."""


def based(features: int) -> str:
    """The name of an arm."""
    return f"Based, f={features}"


def window(size: int) -> str:
    """The name of an arm."""
    return f"window {size}"


ARMS: dict[str, tuple[MixerSpec, ...]] = {
    FULL: (AttentionSpec(1),),
    **{based(f): (TaylorSpec(1, f), AttentionSpec(1, window=SMALL)) for f in FEATURES},
    **{window(w): (AttentionSpec(1, window=w),) for w in WINDOWS},
    # Over a single head a norm divides out what a denominator would.
    ELU: (LightningSpec(1, rates="none", activation="1+elu", gate="none"),),
    CONVOLUTION: (ProductConvolutionSpec(),),
}
"""The blocks of each arm behind the convolution that all of them have."""

ACCURACY, STATE, REACH = "recall accuracy", "state of one sequence", "queries whose pair is within reach"
SOLVED, NEAR, TOLERANCE, FAR = 95.0, 20.0, 3.0, 10.0
"""Points of accuracy: what attention must reach; how near Based must come; by how much more state may recall less and
still be no worse; how far Based must be ahead of its own window."""

CLAIM = (
    "Recall is paid for with state. Taylor linear attention with a window of a few tokens recalls far more than the "
    "window alone, more the more features it has, and comes close to full attention; convolutions alone recall least."
)
RULE = (
    "Accuracy in multi-query associative recall on held-out examples, means over seeds. All arms have the same "
    "skeleton, examples and steps; each takes that of the plan's rates that suits it best on a seed that is not "
    f"reported. Shown if all of: attention recalls at least {SOLVED:g} %; Based is at least {FAR:g} points above the "
    f"window of {SMALL}, and at most {TOLERANCE:g} points above attention, with every number of features; along Based "
    f"with {', '.join(map(str, FEATURES))} features, and along windows of {', '.join(map(str, WINDOWS))}, no step "
    f"loses more than {TOLERANCE:g} points and the last is above the first; Based with {FEATURES[-1]} features is at "
    f"most {NEAR:g} points below attention; convolution only is the lowest of all, or within {TOLERANCE:g} points of "
    f"it. Opposite if the window of {SMALL} recalls more than Based with {FEATURES[-1]} features in every seed. 1+elu "
    "linear attention is reported and decides nothing."
)
LIMITS = (
    "A toy: 64 tokens of a vocabulary of 256, 16 pairs, width 64, one head, fresh examples and a short training, which "
    "may leave arms below what their state could hold; how many queries have their pair within reach of a window is a "
    "row. In 64 tokens the cache of full attention is smaller than the state of 16 Taylor features; it grows with the "
    "length and theirs does not. Queries lie anywhere with equal chance, which is harder on windows than the "
    "benchmark's own law, and initial weights are wider than its 0.02. Length, pairs, steps, batch, rates and initial "
    "weights were chosen from single runs of attention, windows and Taylor features alone, so that attention is done "
    "in half of the steps. Based has one block more than the other arms. Nothing about language, other tasks or speed. "
    "Added after the first default run: linear attention with 1+elu features and a norm recalls nearly as much as "
    "Based with 8 features, from less state, so at this size nothing speaks for the Taylor features against others; "
    "and windows of 16 and 32 came to what is within their reach with one seed of three each, while the other seeds "
    "were still on the plateau when training ended: their means say how soon they learn, and not what they can hold."
)


def experiment(run: Run) -> Evidence:
    """Train every arm with every seed and judge by `RULE`.

    Raises:
        ImportError: without Accelerate or torchmetrics; names the extra.
    """
    plan = PLANS[run.budget]
    pieces = Pieces(run.recorder, run.progress, cost(plan, len(run.seeds)) * len(ARMS))
    with one_thread():
        found = {name: recall(name, mixers, plan, run.seeds, run.device, pieces) for name, mixers in ARMS.items()}
        rows = rows_of(found, plan, run.seeds)
        parts = [part for arm in found.values() for part in (arm["choice"], *arm["runs"])]
        return Evidence(
            slug="based",
            claim=CLAIM,
            rule=RULE,
            verdict=verdict(rows),
            checks=checks(rows),
            rows=rows,
            budget=run.budget,
            seeds=run.seeds,
            seconds=sum(part["seconds"] for part in parts),
            command=run.command,
            limits=LIMITS,
            pictures=(picture(rows),),
        )


def rows_of(found: dict[str, ArmRecall], plan: RecallPlan, seeds: Sequence[int]) -> tuple[Row, ...]:
    """Accuracy, state and rate of every arm, and what the windows could reach at best."""
    rows = []
    for name, arm in found.items():
        runs = arm["runs"]
        rows += [
            Row(name, ACCURACY, tuple(run["accuracy"] for run in runs), "share"),
            Row(name, STATE, (float(runs[0]["state_bytes"]),), "bytes"),
            Row(name, "steps", tuple(float(run["steps"]) for run in runs)),
            Row(name, "rate", (arm["choice"]["rate"],)),
            Row(name, "parameters", (float(runs[0]["parameters"]),)),
        ]
    rows += [Row(window(w), REACH, tuple(plan.within_reach(seed, w) for seed in seeds), "share") for w in WINDOWS]
    return tuple(rows)


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of `RULE`, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    points = {row.arm: 100 * row.mean for row in rows if row.metric == ACCURACY}
    small = points[window(SMALL)]
    found = [Check(f"attention recalls at least {SOLVED:g} %", f"{points[FULL]:.1f} %", points[FULL] >= SOLVED)]
    for f in FEATURES:
        ahead, over = points[based(f)] - small, points[based(f)] - points[FULL]
        demand = f"{based(f)}: at least {FAR:g} points above window {SMALL}, at most {TOLERANCE:g} above attention"
        found.append(Check(demand, f"{ahead:+.1f}, {over:+.1f}", ahead >= FAR and over <= TOLERANCE))
    for told, arms in (("more features", [*map(based, FEATURES)]), ("larger windows", [*map(window, WINDOWS)])):
        course = [points[arm] for arm in arms]
        steps = [later - earlier for earlier, later in pairwise(course)]
        held = min(steps) >= -TOLERANCE and course[-1] > course[0]
        measured = ", ".join(f"{value:.1f}" for value in course)
        found.append(Check(f"no less with {told} (margin {TOLERANCE:g} points), more in all", measured, held))
    behind = points[FULL] - points[based(FEATURES[-1])]
    near = f"{based(FEATURES[-1])} at most {NEAR:g} points below attention"
    found.append(Check(near, f"{behind:.1f}", behind <= NEAR))
    above = points[CONVOLUTION] - min(points.values())
    found.append(Check(f"{CONVOLUTION} lowest (margin {TOLERANCE:g} points)", f"{above:.1f}", above <= TOLERANCE))
    return tuple(found)


def verdict(rows: Sequence[Row]) -> Verdict:
    """What `RULE` says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    values = {row.arm: row.values for row in rows if row.metric == ACCURACY}
    pairs = zip(values[window(SMALL)], values[based(FEATURES[-1])], strict=True)
    return "opposite" if all(alone > both for alone, both in pairs) else "not shown"


def picture(rows: Sequence[Row]) -> Picture:
    """Accuracy over state: the trade-off of the paper."""
    figure, axes = canvas(7.4, 3.8)
    values = {(row.arm, row.metric): row for row in rows}
    for place, name in enumerate(ARMS):
        mark(axes, name, place, values[name, STATE].mean, values[name, ACCURACY].values)
    for names, style in (([*map(based, FEATURES)], "-"), ([*map(window, WINDOWS)], "--")):
        states = [values[name, STATE].mean for name in names]
        means = [100 * values[name, ACCURACY].mean for name in names]
        axes.plot(states, means, style, color="#66727d", linewidth=0.8, zorder=0)
    over_state(axes, STATE)
    caption = "Small dots are seeds; lines join Based over its features, and windows over their size."
    return as_svg(figure, "Recall from how much state", caption)
