"""Finished parts of long work survive Ctrl-C: each is written as soon as it is done and read back on the next run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Recorder:
    """Results by name in one file of JSON lines.

    ``settings`` describes the run; parts that were recorded under other settings are not used again.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Recorder(folder / "parts.jsonl", {"steps": 3}).part("a", lambda: {"loss": 0.5})
        {'loss': 0.5}
        >>> Recorder(folder / "parts.jsonl", {"steps": 3}).part("a", lambda: {"loss": 99.0})
        {'loss': 0.5}
        >>> Recorder(folder / "parts.jsonl", {"steps": 4}).part("a", lambda: {"loss": 99.0})
        {'loss': 99.0}
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        self._done: dict[str, Any] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = _entry(line)
                if entry is not None and entry["settings"] == self.settings:
                    self._done[entry["name"]] = entry["result"]

    def __contains__(self, name: str) -> bool:
        return name in self._done

    def part(self, name: str, compute: Callable[[], Any]) -> Any:
        """The recorded result of this part, or compute and record it. Results must be plain JSON values."""
        if name not in self._done:
            result = compute()
            line = json.dumps({"settings": self.settings, "name": name, "result": result})
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a") as file:
                    file.write(line + "\n")
            # What comes back is what a later run would read: tuples are lists, keys are text.
            self._done[name] = json.loads(line)["result"]
        return self._done[name]


def _entry(line: str) -> dict[str, Any] | None:
    """A recorded line; one that was cut off in the middle of writing is passed over."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and {"settings", "name", "result"} <= entry.keys() else None
