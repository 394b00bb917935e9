"""The README and the performance page show what `benchmarks/` holds: `make tables` writes it, a test keeps it so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from windeye.bench import (
    associative,
    compiled,
    decoding,
    floors,
    goals,
    hilo,
    lifetimes,
    mixers,
    pools,
    recurrence,
    routing,
    softmax,
    statistics,
)
from windeye.bench.table import between, grid

Result = dict[str, Any]
SUITES = (
    "softmax", "recurrence", "lifetimes", "associative", "statistics", "decoding", "routing", "mixers", "hilo", "pools",
)  # fmt: skip
SETTING = "batch 1, 8 heads x 64"


def committed(root: Path) -> dict[str, Result]:
    """The results of every suite in a checkout."""
    files = {suite: f"{suite}-cpu.json" for suite in SUITES} | {"compiled": "compiled-h100.json"}
    return {suite: json.loads((root / "benchmarks" / file).read_text()) for suite, file in files.items()}


def readme(text: str, results: dict[str, Result]) -> str:
    """The README with the table of the softmax suite between its marks.

    Raises:
        ValueError: the marks are missing.
    """
    result = results["softmax"]
    table = f"{grid(softmax.COLUMNS, softmax.rows(result))}\n\n{source(result, 'a forward pass')}"
    return between(text, table, "<!-- benchmark: softmax -->", "<!-- end of benchmark -->")


def performance(text: str, results: dict[str, Result]) -> str:
    """The performance page with the goals of the softmax suite and the tables of the others between their marks.

    Raises:
        ValueError: the marks are missing.
    """
    counted = {"parts": {name: count() for name, count in floors.parts()}}
    text = between(text, grid(floors.COLUMNS, floors.rows(counted)), "<!-- floors -->", "<!-- end of floors -->")
    text = between(
        text, f"{grid(compiled.COLUMNS, compiled.rows(results['compiled']))}\n\n{compiler(results['compiled'])}",
        "<!-- compiled -->", "<!-- end of compiled -->",
    )  # fmt: skip
    reached = grid(goals.COLUMNS, goals.rows(results["softmax"]))
    text = between(text, reached, "<!-- goals: softmax -->", "<!-- end of goals -->")
    for name, suite, timed, setting in (
        ("recurrence", recurrence, "both passes", SETTING),
        ("lifetimes", lifetimes, "a forward pass", SETTING),
        ("associative", associative, "both passes", SETTING),
        (
            "statistics",
            statistics,
            "a forward pass",
            f"batch 1, {statistics.HEADS} heads ({statistics.KV_HEADS} of keys) x 64",
        ),
        ("mixers", mixers, "a layer", "heads of 32"),
        ("hilo", hilo, "a forward pass", "batches as named"),
        ("pools", pools, "a training step", "batches as named"),
        ("routing", routing, "a forward pass, of both where said", f"heads of {routing.HEAD_DIM}"),
        ("decoding", decoding, "a token in one layer", SETTING),
    ):
        table = f"{grid(suite.COLUMNS, suite.rows(results[name]))}\n\n{source(results[name], timed, setting)}"
        text = between(text, table, f"<!-- {name} -->", f"<!-- end of {name} -->")
    return text


def source(result: Result, timed: str, setting: str = SETTING) -> str:
    """Where the numbers of a table are from."""
    machine, versions = result["machine"], result["versions"]
    return (
        f"Milliseconds of {timed}, float32 where nothing else is said, {setting}; {machine['processor']}, "
        f"{machine['threads']} threads, torch {versions['torch']}; medians of one run: `{result['command']}`."
    )


def compiler(result: Result) -> str:
    """What made the code that was counted."""
    return f"Code for compute capability 9.0, by Triton {result['versions']['triton']}: `{result['command']}`."


def write(root: Path) -> None:
    """Bring both pages of a checkout up to date."""
    results = committed(root)
    for path, page in ((root / "README.md", readme), (root / "docs" / "performance.md", performance)):
        path.write_text(page(path.read_text(), results))


if __name__ == "__main__":
    write(Path())
