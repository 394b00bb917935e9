"""What is made of the measurements: rows, the gates of the rule, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable

from windeye.papers.lightning_attention_2.memory import Memory
from windeye.papers.lightning_attention_2.plan import PARALLEL, SDPA
from windeye.papers.lightning_attention_2.speed import FORMS, KERNEL, Speeds
from windeye.papers.lightning_attention_2.training import BLOCKS, OTHER, PAIRS, Curve
from windeye.papers.paired import mean, values
from windeye.report import Check, Row, Verdict

SAME = 1e-3
"""Nats: how far two losses of the same step may lie apart."""
FLAT, FALLS = 1.3, 1.6
"""Factors: what the kernel's speed may vary by; what others must lose on it per doubling of the length."""
STREAMED, GROWS, NOISE = 1e-4, 10.0, 4.0
"""Relative error of a stream; growth of the parallel form's memory for four times the tokens; mebibytes of noise."""

APART, LAST = "largest difference of a step's loss", "loss of the last step"
RANGE, SPEED = "fastest over slowest length", "tokens per second"
OVER, CROSSOVER = "time over the kernel's", "crossover"
PASS, STREAM, ERROR = "peak memory of a pass", "peak memory of a stream", "error of the stream"


def at(metric: str, n: str | int) -> str:
    return f"{metric}, n={n}"


def equal_rows(trained: dict[str, list[Curve]]) -> tuple[Row, ...]:
    """How far the curves of the forms lie apart, a value per seed."""
    rows = [
        Row(arm, LAST, tuple(curve["losses"][-1] for curve in trained[arm]), "nats") for arm in (BLOCKS, PAIRS, OTHER)
    ]
    for arm in (BLOCKS, OTHER):
        gaps = []
        for own, pairs in zip(trained[arm], trained[PAIRS], strict=True):
            gaps.append(max(abs(a - b) for a, b in zip(own["losses"], pairs["losses"], strict=True)))
        rows.append(Row(f"{arm} against {PAIRS}", APART, tuple(gaps), "nats"))
    return tuple(rows)


def speed_rows(repetitions: list[Speeds]) -> tuple[Row, ...]:
    """Speeds and ratios, a value per repetition, and the crossover of their means, where there is one."""
    ranges = (r["over_longest"].values() for r in repetitions)
    rows = [Row(KERNEL, RANGE, tuple(max(speeds) / min(speeds) for speeds in map(list, ranges)), "x")]
    lengths = list(repetitions[0]["seconds_per_pass"])
    for form in FORMS:
        mine = [n for n in lengths if form in repetitions[0]["seconds_per_pass"][n]]
        for n in mine:
            seconds = (r["seconds_per_pass"][n][form] for r in repetitions)
            rows.append(Row(form, at(SPEED, n), tuple(int(n) / s for s in seconds), "tokens/s"))
        if form != KERNEL:
            over = {n: [r["over_kernel"][n][form] for r in repetitions] for n in mine}
            rows += [Row(form, at(OVER, n), tuple(values), "x") for n, values in over.items()]
            found = crossover({int(n): math.fsum(values) / len(values) for n, values in over.items()})
            rows += [Row(form, CROSSOVER, (float(found),), "tokens")] if found else []
    return tuple(rows)


def crossover(over: dict[int, float]) -> int | None:
    """The shortest length from which on a form is slower than the kernel at every length.

    Example:
        >>> crossover({512: 0.8, 1024: 1.5, 2048: 3.0}), crossover({512: 2.0, 1024: 0.5})
        (1024, None)
    """
    slower = None
    for n in sorted(over, reverse=True):
        if over[n] <= 1:
            break
        slower = n
    return slower


def memory_rows(memory: Memory) -> tuple[Row, ...]:
    """Mebibytes; no such rows where the system does not tell."""
    rows = [
        Row(form, at(PASS, n), (value,), "MiB")
        for form, sizes in memory["passes"].items()
        for n, value in sizes.items()
    ]
    rows += [Row(KERNEL, at(STREAM, n), (value,), "MiB") for n, value in memory["streams"].items()]
    return (*rows, Row(KERNEL, ERROR, (memory["error"],), "relative"))


def per_doubling(rows: tuple[Row, ...], form: str) -> float:
    """What a form's time over the kernel's grows by per doubling from the crossover on; nan without two lengths."""
    over = {int(row.metric.split("n=")[1]): row.mean for row in rows if row.arm == form and row.metric.startswith(OVER)}
    if not over:
        raise KeyError(f"no row for arm {form!r} and metric {OVER!r}")
    first, last = crossover(over), max(over)
    if first is None or first == last:
        return math.nan
    return (over[last] / over[first]) ** (1 / math.log2(last / first))


def checks(rows: tuple[Row, ...]) -> tuple[Check, ...]:
    """The gates of the rule, from rows alone.

    Raises:
        KeyError: a row that the rule needs is not there.
    """
    apart = max(values(rows, f"{BLOCKS} against {PAIRS}", APART))
    other = min(values(rows, f"{OTHER} against {PAIRS}", APART))
    flat = mean(values(rows, KERNEL, RANGE))
    found = [
        Check(
            f"losses of blocks and parallel form within {SAME:g} at every step and seed", f"{apart:.1e}", apart <= SAME
        ),
        Check(f"rates 5% faster are told apart: above {SAME:g} in every seed", f"{other:.1e}", other > SAME),
        Check(f"the kernel's speed varies by less than {FLAT}x over the lengths", f"{flat:.2f}x", flat < FLAT),
    ]
    for form in (PARALLEL, SDPA):
        factor = per_doubling(rows, form)
        demand = f"{form} loses at least {FALLS}x per doubling on the kernel beyond the crossover"
        found.append(Check(demand, f"{factor:.2f}x", factor >= FALLS))
    error = values(rows, KERNEL, ERROR)[0]
    found.append(Check(f"a stream in pieces equals one pass within {STREAMED:g}", f"{error:.1e}", error <= STREAMED))
    found.append(_memory(rows, KERNEL, STREAM, "a longer stream takes no more memory", lambda a, b, _: b <= a + NOISE))
    found.append(
        _memory(rows, KERNEL, PASS, "the kernel's memory grows at most linearly", lambda a, b, n: b <= n * a + NOISE)
    )
    demand = f"the parallel form's memory grows at least {GROWS:.0f}x"
    found.append(_memory(rows, PARALLEL, PASS, demand, lambda a, b, _: b >= GROWS * max(a, NOISE)))
    return tuple(found)


def _memory(
    rows: tuple[Row, ...], arm: str, metric: str, demand: str, holds: Callable[[float, float, float], bool]
) -> Check:
    """A gate on mebibytes at few and at many tokens and on their ratio; it fails where the system tells no memory."""
    found = {
        row.metric.split("n=")[1]: row.values[0] for row in rows if row.arm == arm and row.metric.startswith(metric)
    }
    if not found:
        return Check(demand, "this system does not tell", False)
    (few, short), (many, long) = sorted((int(n), mebibytes) for n, mebibytes in found.items())
    told = f"{short:.1f} MiB at {few} tokens, {long:.1f} MiB at {many}"
    return Check(demand, told, holds(short, long, many / few))


def verdict(rows: tuple[Row, ...]) -> Verdict:
    """What the rule says about these rows."""
    if all(check.held for check in checks(rows)):
        return "shown"
    over = [value for row in rows if row.arm == SDPA and row.metric.startswith(OVER) for value in row.values]
    return "opposite" if max(over) <= 1 else "not shown"
