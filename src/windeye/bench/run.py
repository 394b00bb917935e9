"""Run a suite part by part and keep what is finished; the result is one JSON with machine, versions and command."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from windeye.report import Recorder, machine, versions
from windeye.report.writing import write_whole

Part = tuple[str, Callable[[], Any]]


def run(
    parts: Iterable[Part],
    *,
    suite: str,
    command: str,
    threads: int,
    folder: Path,
    fresh: bool = True,
    progress: Callable[[str], None] = lambda _part: None,
) -> dict[str, Any]:
    """Measure every part with ``threads`` threads.

    With ``fresh=False`` parts that an interrupted run finished, on the same versions, are not measured again.
    """
    before = torch.get_num_threads()
    record = folder / f"{suite}-parts.jsonl"
    if fresh:
        record.unlink(missing_ok=True)
    recorder = Recorder(record, {"command": command, "threads": threads, "versions": versions()})
    torch.set_num_threads(threads)
    try:
        done = {}
        for name, measure in parts:
            progress(name)
            done[name] = recorder.part(name, measure)
        return {
            "suite": suite,
            "date": datetime.date.today().isoformat(),
            "command": command,
            "machine": machine(),
            "versions": versions(),
            "parts": done,
        }
    finally:
        torch.set_num_threads(before)


def save(result: dict[str, Any], path: Path) -> None:
    """Write whole or not at all."""
    write_whole(path, json.dumps(result, indent=1) + "\n")
