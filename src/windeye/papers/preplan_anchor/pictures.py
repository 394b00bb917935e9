"""Both signals over one text, and rewards over training."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.data.tasks.plan_then_fill import Role
from windeye.papers.preplan_anchor.policy import Course
from windeye.papers.preplan_anchor.signals import Example
from windeye.report import Picture
from windeye.report.figures import COLOURS, as_svg, canvas


def rhythm(example: Example) -> Picture:
    """WAAD and FAI over one text; where chunks begin, and the values that they begin from."""
    figure, axes = canvas(9.0, 3.2)
    axes.plot(example["waad"], color=COLOURS[0], linewidth=1.0)
    axes.set_xlabel("token")
    axes.set_ylabel("WAAD, tokens", color=COLOURS[0])
    influence = axes.twinx()
    influence.plot(example["fai"], color=COLOURS[1], linewidth=1.0)
    influence.set_ylabel("FAI", color=COLOURS[1])
    for line, signal, role, colour in (
        (axes, example["waad"], Role.REFERENCE, COLOURS[0]),
        (influence, example["fai"], Role.VALUE, COLOURS[1]),
    ):
        places = [place for place, found in enumerate(example["roles"]) if found == role]
        line.plot(places, [signal[place] for place in places], "o", color=colour, markersize=4)
    caption = "Blue dots: the next token is the first of a chunk. Red dots: values that definitions give."
    return as_svg(figure, "Rhythm of a text", caption)


def rewards(courses: dict[str, Sequence[Course]]) -> Picture:
    """Mean reward of each step by rule of credit, means over seeds and over five steps."""
    figure, axes = canvas(6.4, 3.2)
    for colour, (rule, found) in zip(COLOURS, courses.items(), strict=False):
        steps = [sum(step) / len(step) for step in zip(*(one["rewards"] for one in found), strict=True)]
        smooth = [sum(steps[max(0, at - 4) : at + 1]) / len(steps[max(0, at - 4) : at + 1]) for at in range(len(steps))]
        axes.plot(range(1, len(steps) + 1), [100 * value for value in smooth], color=colour, label=rule)
    axes.set_xlabel("step")
    axes.set_ylabel("chunks that are right, %")
    axes.legend(frameon=False, fontsize=8)
    return as_svg(figure, "Rewards", "Of what the policy writes before each step; means over seeds and five steps.")
