"""What is made of the measurements: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from windeye.papers.efficient_probing.encoders import Kind
from windeye.papers.efficient_probing.plan import CLASS, HEADS, MATCHED, MEAN, NEAREST, POOLS, QUERIES, ep
from windeye.papers.efficient_probing.probes import Outcome
from windeye.papers.paired import ahead, told
from windeye.report import Check, Row, Verdict

NEAR, CLEAR = 1.0, 5.0
"""Points of accuracy that efficient probing may lie below cross-attention, and must lie above probes of one token."""
SMALL = 1 / 3
"""The share of the trained parameters of cross-attention that it may have."""
ACCURACY, PARAMETERS, TIME = "accuracy", "trained parameters", "training step"
COVERAGE, COVERED = "attention on the digit", "patches on the digit"
UNTRAINED, OVERLAP = "overlap of maps, untrained", "overlap of maps, trained"
STAGES = "loss, tenth {}"
SUFFIX = ", labelled encoder"
NAMES: dict[Kind, str] = {"masked": "masked encoder", "labelled": "labelled encoder"}
SEVERAL = tuple(ep(queries) for queries in QUERIES if queries > 1)
"""Arms whose maps can overlap."""


def arm_of(arm: str, kind: Kind) -> str:
    """The name of an arm in rows."""
    return arm if kind == "masked" else arm + SUFFIX


def rows_of(
    probed: Mapping[tuple[str, Kind], Sequence[Outcome]],
    nearest: Sequence[float],
    losses: Mapping[Kind, Sequence[Sequence[float]]],
) -> tuple[Row, ...]:
    """Accuracy, size, time and maps of every arm, and the losses of both trainings of encoders."""
    rows = []
    for (arm, kind), outcomes in probed.items():
        name = arm_of(arm, kind)
        rows.append(Row(name, ACCURACY, tuple(o["accuracy"] for o in outcomes), "%"))
        rows.append(Row(name, PARAMETERS, (float(outcomes[0]["parameters"]),)))
        rows.append(Row(name, TIME, tuple(o["milliseconds"] for o in outcomes), "ms of processor time"))
        rows.append(Row(name, "rate", tuple(o["rate"] for o in outcomes)))
        if outcomes[0]["covered"]:
            rows.append(Row(name, COVERAGE, tuple(o["coverage"] for o in outcomes), "share"))
            rows.append(Row(name, COVERED, tuple(o["covered"] for o in outcomes), "share"))
        if arm in SEVERAL:
            rows.append(Row(name, UNTRAINED, tuple(o["untrained"] for o in outcomes), "cosine"))
            rows.append(Row(name, OVERLAP, tuple(o["overlap"] for o in outcomes), "cosine"))
    rows.append(Row(NEAREST, ACCURACY, tuple(nearest), "%"))
    rows.append(Row(NEAREST, PARAMETERS, (0.0,)))
    for kind, courses in losses.items():
        for stage, values in enumerate(zip(*courses, strict=True), start=1):
            rows.append(Row(NAMES[kind], STAGES.format(stage), values))
    return tuple(rows)


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of `RULE`, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    found = {(row.arm, row.metric): row for row in rows}
    mean = {arm: found[arm, ACCURACY].mean for arm in POOLS}
    ahead_of_heads = round(mean[MATCHED] - mean[HEADS], 9)
    share = found[MATCHED, PARAMETERS].mean / found[HEADS, PARAMETERS].mean
    gates = [
        Check(f"{MATCHED}: at most {NEAR:g} point below {HEADS}", f"{ahead_of_heads:+.1f}", ahead_of_heads >= -NEAR),
        Check("at a third of its trained parameters or fewer", f"{share:.0%}", share <= SMALL),
    ]
    for other in (CLASS, MEAN):
        above = gaps(rows, MATCHED, other)
        demand = f"{MATCHED}: at least {CLEAR:g} points above {other}, every seed"
        gates.append(Check(demand, told(above), min(above) >= CLEAR))
    rises = [round(mean[ep(b)] - mean[ep(a)], 9) for a, b in pairwise(QUERIES)]
    most = gaps(rows, ep(QUERIES[-1]), ep(QUERIES[0]))
    gates.append(Check("more queries name more: 16 above 1, every seed", told(rises), min(most) > 0))
    last = "and ever fewer more: the last step gains less than the first"
    gates.append(Check(last, told(rises), rises[-1] < rises[0]))
    pairs = list(zip(found[MATCHED, COVERAGE].values, found[MATCHED, COVERED].values, strict=True))
    on_digit = ", ".join(f"{on:.2f} of {area:.2f}" for on, area in pairs)
    gates.append(Check("attention seeks the digit, every seed", on_digit, all(on > area for on, area in pairs)))
    falls = {arm: list(zip(found[arm, UNTRAINED].values, found[arm, OVERLAP].values, strict=True)) for arm in SEVERAL}
    overlaps = "; ".join(", ".join(f"{a:.2f} to {b:.2f}" for a, b in pair) for pair in falls.values())
    held = all(after < before for pair in falls.values() for before, after in pair)
    gates.append(Check("maps overlap less after training, every arm and seed", overlaps, held))
    hard, easy = (sum(gaps(rows, MATCHED, CLASS, kind)) / found[MATCHED, ACCURACY].n for kind in NAMES)
    demand = f"{MATCHED} gains less over the class token where labels trained it"
    gates.append(Check(demand, f"{hard:+.1f}, with labels {easy:+.1f}", easy < hard))
    return tuple(gates)


def verdict(rows: Sequence[Row]) -> Verdict:
    """What `RULE` says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    below = all(max(gaps(rows, MATCHED, other)) < 0 for other in (CLASS, MEAN))
    return "opposite" if below else "not shown"


def gaps(rows: Sequence[Row], first: str, second: str, kind: Kind = "masked") -> tuple[float, ...]:
    """Points of accuracy by which one arm is above another, seed by seed."""
    return ahead(rows, arm_of(first, kind), arm_of(second, kind), ACCURACY)
