"""What a run leaves behind: a claim, a rule fixed before the run, rows of numbers, a verdict, how to run it again."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from windeye.report.writing import write_whole

Verdict = Literal["shown", "not shown", "opposite"]
VERDICTS: tuple[Verdict, ...] = ("shown", "not shown", "opposite")


@dataclass(frozen=True)
class Row:
    """One arm and one metric, with a value per seed.

    Example:
        >>> row = Row("windows", "accuracy", (0.8, 0.9), "share")
        >>> round(row.mean, 3), round(row.spread, 3), row.n
        (0.85, 0.071, 2)
    """

    arm: str
    metric: str
    values: tuple[float, ...]
    unit: str = ""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds; zero for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text or as a PNG data URL, with what it shows."""

    title: str
    caption: str
    content: str


@dataclass(frozen=True)
class Check:
    """One gate of the rule: what was demanded, what was measured, whether it held."""

    demand: str
    measured: str
    held: bool


@dataclass(frozen=True)
class Evidence:
    """The result of one experiment.

    Args:
        slug: the paper.
        claim: what the paper says, in words.
        rule: how the verdict follows from the rows; fixed in the code before the run.
        verdict: "shown" if every check of the rule held, "opposite" if the rows contradict the claim, else "not shown".
        limits: what this run cannot say.
    """

    slug: str
    claim: str
    rule: str
    verdict: Verdict
    checks: tuple[Check, ...]
    rows: tuple[Row, ...]
    budget: str
    seeds: tuple[int, ...]
    seconds: float
    command: str
    limits: str = ""
    pictures: tuple[Picture, ...] = ()
    machine: dict[str, str] = field(default_factory=lambda: machine())
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}, got {self.verdict!r}")
        if self.verdict == "shown" and not (self.checks and all(check.held for check in self.checks)):
            raise ValueError(f'{self.slug}: the verdict is "shown" but not every check of the rule held')

    def row(self, arm: str, metric: str) -> Row:
        """The row of one arm and metric.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.arm, row.metric) == (arm, metric):
                return row
        raise KeyError(f"no row for arm {arm!r} and metric {metric!r}")

    def save(self, path: Path, *, pictures: bool = True) -> None:
        """Write as JSON, whole or not at all; without pictures it stays small enough to commit."""
        facts = asdict(self)
        if not pictures:
            facts["pictures"] = ()
        write_whole(path, json.dumps(facts, indent=1) + "\n")


def load(path: Path) -> Evidence:
    """Read evidence that `Evidence.save` wrote.

    Raises:
        ValueError: the file is not evidence; says what is missing.
    """
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
        facts["rows"] = tuple(Row(r["arm"], r["metric"], tuple(r["values"]), r["unit"]) for r in facts["rows"])
        facts["checks"] = tuple(Check(**c) for c in facts["checks"])
        facts["pictures"] = tuple(Picture(**p) for p in facts["pictures"])
        facts["seeds"] = tuple(facts["seeds"])
        return Evidence(**facts)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not evidence: {error}") from error


def machine() -> dict[str, str]:
    """The machine in words: processor, cores, memory, system; a GPU if torch has been imported and sees one."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = str(torch.get_num_threads())
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what decides numbers."""
    found = {"python": platform.python_version()}
    for name in ("windeye", "torch", "numpy", "triton", "natten"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
