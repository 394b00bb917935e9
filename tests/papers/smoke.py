"""A smoke run of an experiment, and what holds for every one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from windeye.papers.experiment import Experiment, Run
from windeye.report import Evidence, Recorder


class Kept(Recorder):
    """Parts of an earlier run; what is not among them is not computed."""

    def part(self, name, compute):
        assert name in self, f"{name} was not kept"
        return super().part(name, compute)


@dataclass(frozen=True)
class Smoke:
    """What a run left, and where its finished parts lie."""

    evidence: Evidence
    path: Path

    @property
    def parts(self) -> list[str]:
        return [json.loads(line)["name"] for line in self.path.read_text().splitlines()]


def smoke_run(paper: Experiment, folder: Path) -> Smoke:
    """Run an experiment's smoke budget: progress rises to one, threads are given back, the command is told, pictures
    are drawn, and a second run reads every part back."""
    path, told, threads = folder / "parts.jsonl", [], torch.get_num_threads()

    def run(recorder: Recorder) -> Evidence:
        progress = lambda _part, share: told.append(share)  # noqa: E731
        return paper.experiment(Run("smoke", paper.SEEDS["smoke"], "cpu", None, recorder, progress, "windeye run it"))

    evidence = run(Recorder(path, {}))
    assert torch.get_num_threads() == threads
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    assert (evidence.budget, evidence.command) == ("smoke", "windeye run it")
    assert evidence.pictures
    assert all(picture.content.startswith(("<svg", "data:")) for picture in evidence.pictures)
    assert run(Kept(path, {})).rows == evidence.rows
    return Smoke(evidence, path)
