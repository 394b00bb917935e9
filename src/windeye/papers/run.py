"""Run the experiment of a paper and leave a report; finished parts survive an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from windeye.papers.card import find
from windeye.papers.experiment import BUDGETS, Budget, Run
from windeye.papers.provenance import conditions
from windeye.papers.registry import experiment_of
from windeye.report import Evidence, Recorder, evidence_page


@dataclass(frozen=True)
class Report:
    """A finished run and where it was written."""

    evidence: Evidence
    json: Path
    html: Path


def run(
    slug: str,
    *,
    budget: Budget = "default",
    seeds: tuple[int, ...] | None = None,
    device: str = "cpu",
    data: Path | None = None,
    out: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Report:
    """Run a paper's experiment; ``report.json`` and ``report.html`` land in ``out`` (default ``runs/<slug>``).

    Parts that a run has finished are kept in ``out/parts.jsonl`` and read back under the same settings, versions and
    code; see `windeye.papers.provenance`.

    Raises:
        ValueError: an unknown paper, one without an experiment yet, or an unknown budget.
    """
    if budget not in BUDGETS:
        raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    card = find(slug)
    paper = experiment_of(card)
    if paper is None:
        raise ValueError(f"{slug} has a card but no experiment yet; its state is planned")
    seeds = paper.SEEDS[budget] if seeds is None else seeds
    folder = Path("runs") / slug if out is None else out
    command = f"windeye run {slug} --budget {budget}"
    if seeds != paper.SEEDS[budget]:
        command += "".join(f" --seed {seed}" for seed in seeds)
    recorder = Recorder(folder / "parts.jsonl", conditions(card, budget=budget, device=device, data=data))
    settings = Run(budget=budget, seeds=seeds, device=device, data=data, recorder=recorder, command=command)
    if progress is not None:
        settings = Run(**{**settings.__dict__, "progress": progress})
    evidence = paper.experiment(settings)
    evidence.save(folder / "report.json")
    html = folder / "report.html"
    html.write_text(evidence_page(evidence))
    return Report(evidence, folder / "report.json", html)
