"""The state of each paper, computed from what is there and never typed."""

from __future__ import annotations

from importlib import import_module, util
from pathlib import Path
from typing import Literal, cast

from windeye.papers.card import Card
from windeye.papers.experiment import Experiment
from windeye.report import Evidence, load

State = Literal["planned", "built", "works"]


def experiment_of(card: Card) -> Experiment | None:
    """The module that runs a paper, or None while there is only a card."""
    name = f"windeye.papers.{card.module}"
    return cast(Experiment, import_module(name)) if util.find_spec(name) is not None else None


def evidence_path(card: Card) -> Path | None:
    """Where the last committed run of a paper lies: beside the sources, or inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "evidence", package / "evidence"):
        path = folder / f"{card.slug}.json"
        if path.is_file():
            return path
    return None


def evidence_of(card: Card) -> Evidence | None:
    """The last committed run of a paper."""
    path = evidence_path(card)
    return None if path is None else load(path)


def state(card: Card) -> State:
    """``planned``: a card only. ``built``: the mechanism is there, proven against its oracles by the test suite.

    ``works``: a real run (never a smoke run) whose rule held, or that was not shown and whose module argues why in
    ``ARGUMENT``.
    """
    if util.find_spec(f"windeye.papers.{card.module}") is None:
        return "planned"
    evidence = evidence_of(card)
    if evidence is None or evidence.budget == "smoke":
        return "built"
    if evidence.verdict == "shown":
        return "works"
    argued = bool(getattr(experiment_of(card), "ARGUMENT", ""))
    return "works" if evidence.verdict == "not shown" and argued else "built"
