"""From what was measured to rows, and from rows to the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.papers.circuit_reuse.real import Reading
from windeye.papers.circuit_reuse.speed import Timing
from windeye.papers.circuit_reuse.toy import Outcome, Table
from windeye.report import Check, Row, Verdict

LEARNED = 0.99
"""Accuracy that every seed must reach."""
LARGE, FAR = 0.5, 5.0
"""The mean effect of the previous-token head, and how many times that of any other head."""
FALLS = 0.8
"""At most so much of its effect is left when MLPs are frozen, and less than all of it with every seed."""
AGREE, COUNTED = 0.9, 0.1
"""Edited heads whose change follows its direct effect, of those with at least so much of the largest direct effect."""

TOY, HALF, REAL_IOI, REAL_COBJ, REAL, SPEED = (
    "small model", "half-trained model", "SmolLM2-135M, IOI", "SmolLM2-135M, Colored Objects", "SmolLM2-135M", "speed",
)  # fmt: skip
ACCURACY, FIRST, FREE, NEXT, FROZEN, AGREED = (
    "accuracy", "previous-token head ranks first", "effect of the previous-token head, MLPs free",
    "largest effect of another head, MLPs free", "effect of the previous-token head, MLPs frozen",
    "edited heads whose change follows its direct effect",
)  # fmt: skip

EDITS = (
    "no edit", "four heads of IOI edited", "its three inhibitors edited", "its head against edited",
    "four random heads of these layers edited",
)  # fmt: skip


def rows_of(found: Sequence[Outcome], reading: Reading | None, timing: Timing | None) -> tuple[Row, ...]:
    """Everything as rows."""
    rows = _toy(found)
    if reading is not None:
        rows += _real(reading)
    if timing is not None:
        rows += _speed(timing)
    return tuple(rows)


def _toy(found: Sequence[Outcome]) -> list[Row]:
    circuits, repairs = [o["circuit"] for o in found], [o["repair"] for o in found]
    carried = [sum(c["logits"][c["answering"]]) for c in circuits]
    indirect = [apart(c["by_all_routes"], c["logits"]) for c in circuits]
    guessed = [apart(c["first_order"], c["by_all_routes"]) for c in circuits]
    ranked = [ranking(c["keys_free"], c["keys_frozen"], c["previous"], c["answering"]) for c in circuits]

    def row(arm: str, metric: str, values: Sequence[float], unit: str = "") -> Row:
        return Row(arm, metric, tuple(float(value) for value in values), unit)

    return [
        row(TOY, ACCURACY, [o["accuracy"] for o in found], "share"),
        row(TOY, "steps", [o["steps"] for o in found]),
        row(TOY, "trainings begun", [o["attempts"] for o in found]),
        row(TOY, "logit difference, clean", [c["difference"] for c in circuits], "nats"),
        row(TOY, "logit difference, corrupted", [c["corrupt"] for c in circuits], "nats"),
        row(TOY, "answering layer", [c["answering"] for c in circuits]),
        row(TOY, "effect of the answering layer's heads on the logits", carried),
        row(TOY, "attention of the previous-token head to the token before", [r["attention"] for r in ranked], "share"),
        row(TOY, FIRST, [r["first"] for r in ranked], "share"),
        row(TOY, FREE, [r["free"] for r in ranked]),
        row(TOY, NEXT, [r["next"] for r in ranked]),
        row(TOY, FROZEN, [r["frozen"] for r in ranked]),
        row(TOY, "accuracy without the previous-token head", [c["without"] for c in circuits], "share"),
        row(TOY, "accuracy without another head below", [c["other"] for c in circuits], "share"),
        row(TOY, "activation patching against path to the logits, largest difference", indirect),
        row(TOY, "first-order guess against activation patching, largest difference", guessed),
        row(HALF, ACCURACY, [o["half"] for o in found], "share"),
        row(HALF, AGREED, [agreement(r["direct"], r["change"]) for r in repairs], "share"),
        row(HALF, "accuracy, judged prompts", [r["plain"] for r in repairs], "share"),
        row(HALF, "accuracy, rows of four chosen heads on the wrong values", [r["edited"] for r in repairs], "share"),
        row(HALF, "accuracy, rows of four random heads on the wrong values", [r["random"] for r in repairs], "share"),
    ]  # fmt: skip


def ranking(free: Table, frozen: Table, previous: Table, answering: int) -> dict[str, float]:
    """How the head below the answering layer that attends most to the token before ranks among the senders.

    Example:
        >>> ranking([[0.1, 0.8], [0.0, 0.0]], [[0.0, 0.2], [0.0, 0.0]], [[0.3, 0.9], [1.0, 0.0]], answering=1)
        {'first': 1.0, 'free': 0.8, 'next': 0.1, 'frozen': 0.2, 'attention': 0.9}
    """
    below = [(layer, head) for layer in range(answering) for head in range(len(free[0]))]
    head = max(below, key=lambda at: previous[at[0]][at[1]])
    others = [abs(free[layer][h]) for layer, h in below if (layer, h) != head]
    effect = free[head[0]][head[1]]
    return {
        "first": float(effect > max(others)),
        "free": effect,
        "next": max(others),
        "frozen": frozen[head[0]][head[1]],
        "attention": previous[head[0]][head[1]],
    }


def agreement(direct: Table, change: Table) -> float:
    """The share of heads whose change has the sign of its direct effect, of those that have one worth the name.

    Example:
        >>> agreement([[1.0, -0.5, 0.01]], [[0.7, 0.1, -0.3]])
        0.5
    """
    pairs = [(d, c) for row, moved in zip(direct, change, strict=True) for d, c in zip(row, moved, strict=True)]
    largest = max(abs(d) for d, _ in pairs)
    counted = [(d, c) for d, c in pairs if abs(d) >= COUNTED * largest]
    return sum((d > 0) == (c > 0) for d, c in counted) / len(counted)


def apart(a: Table, b: Table) -> float:
    """The largest difference of two tables."""
    return max(abs(x - y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))


def _real(found: Reading) -> list[Row]:
    rows = []
    for arm, task in ((REAL_IOI, found["ioi"]), (REAL_COBJ, found["colored_objects"])):
        frozen, free = ([e for layer in task[key] for e in layer] for key in ("frozen", "logits"))
        rows += [
            Row(arm, "logit difference, clean", (task["difference"],), "nats"),
            Row(arm, "logit difference, corrupted", (task["corrupt"],), "nats"),
            Row(arm, "prompts with a positive logit difference", (task["positive"],), "share"),
            Row(arm, ACCURACY, (task["accuracy"],), "share"),
            Row(arm, "largest effect on the logits, MLPs free", (max(free, key=abs),)),
            Row(arm, "largest effect on the logits, MLPs frozen", (max(frozen, key=abs),)),
        ]
    return [
        *rows,
        *(
            Row(REAL_COBJ, f"{metric}, {arm}", tuple(values), "share")
            for metric, numbers in (("accuracy", found["accuracy"]), ("right among the colours", found["among"]))
            for arm, values in zip(EDITS, _by_edit(numbers), strict=True)
        ),
        *(
            Row(REAL, f"important heads shared, effects on {stage}, of {found['of']}", (float(count),), "heads")
            for stage, count in found["shared"].items()
        ),
        Row(REAL, "shared in one stage by chance", (found["of"] ** 2 / found["heads"],), "heads"),
        Row(REAL, "as many shared by chance, p", (found["p_value"],)),
        Row(REAL, "rank correlation of effects on the logits", (found["spearman"],)),
        Row(REAL, "as large by chance, p", (found["spearman_p"],)),
    ]


def _by_edit(numbers: list[float]) -> list[list[float]]:
    """The model as it is, three kinds of edits, and all draws of random heads."""
    return [*([number] for number in numbers[:4]), numbers[4:]]


def _speed(found: Timing) -> list[Row]:
    reference = found["reference"] * found["heads"]
    return [
        Row(SPEED, "heads", (float(found["heads"]),)),
        Row(SPEED, "two passes per head, all heads", (reference,), "s"),
        Row(SPEED, "closed form, MLPs free", (found["free"],), "s"),
        Row(SPEED, "closed form, MLPs frozen", (found["frozen"],), "s"),
        Row(SPEED, "times faster, MLPs free", (reference / found["free"],)),
        Row(SPEED, "times faster, MLPs frozen", (reference / found["frozen"],)),
        Row(SPEED, "largest difference of the two", (found["off"],), "nats"),
    ]


def checks(rows: Sequence[Row]) -> tuple[Check, ...]:
    """The gates of the rule, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    by_name = {(row.arm, row.metric): row for row in rows}
    accuracy, first = by_name[TOY, ACCURACY], by_name[TOY, FIRST]
    free, other, frozen = (by_name[TOY, metric] for metric in (FREE, NEXT, FROZEN))
    agreed = by_name[HALF, AGREED]
    left = frozen.mean / free.mean if free.mean > 0 else float("inf")
    less = all(held < freely for held, freely in zip(frozen.values, free.values, strict=True))
    learned, wins = min(accuracy.values) >= LEARNED, free.mean >= FAR * other.mean
    follows = f"edits change the logits as their direct effects say: at least {AGREE:.0%} of heads"
    return (
        Check(f"keys are looked up: at least {LEARNED:.0%} with every seed", f"{min(accuracy.values):.1%}", learned),
        Check("the previous-token head ranks first with every seed", f"{first.mean:.0%} of seeds", first.mean == 1),
        Check(f"its effect is at least {LARGE}", f"{free.mean:.2f}", free.mean >= LARGE),
        Check(f"and at least {FAR:g} times that of any other head", f"{free.mean:.2f}, {other.mean:.3f}", wins),
        Check(
            f"with MLPs frozen at most {FALLS} of it are left, less with every seed",
            f"{left:.2f}",
            less and left <= FALLS,
        ),
        Check(follows, f"{agreed.mean:.1%}", agreed.mean >= AGREE),
    )


def verdict(rows: Sequence[Row]) -> Verdict:
    """What the rule says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    by_name = {(row.arm, row.metric): row for row in rows}
    learned = min(by_name[TOY, ACCURACY].values) >= LEARNED
    return "opposite" if learned and by_name[TOY, FIRST].mean == 0 else "not shown"
