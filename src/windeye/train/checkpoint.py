"""What a folder of a run holds: settings, one row per step, and the last checkpoint.

``settings.json`` describes the run, ``history.jsonl`` holds its rows, ``checkpoint/`` the state behind one of them:
weights (``model.safetensors``), optimiser, gradient scaler and random generators as Accelerate writes them, and
``step.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windeye.train.history import Row


class Folder:
    """A run's folder. Files are written by the main process.

    Args:
        path: the folder; it need not exist.
        settings: JSON values that describe the run.
        accelerator: holds the model and optimiser that are saved and restored.

    Raises:
        ValueError: the folder belongs to a run with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], accelerator: Any) -> None:
        self.path, self.accelerator = path, accelerator
        self.checkpoint, self.history = path / "checkpoint", path / "history.jsonl"
        self._staged, self._settings = path / "checkpoint.new", path / "settings.json"
        now = json.loads(json.dumps(settings))
        before = json.loads(self._settings.read_text()) if self._settings.exists() else now
        if before != now:
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            told = ", ".join(f"{key} {before.get(key)} (now {now.get(key)})" for key in changed)
            raise ValueError(f"folder {path} holds a run with other settings: {told}; name another folder or remove it")
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            path.mkdir(parents=True, exist_ok=True)
            self._settings.write_text(json.dumps(now, indent=1))
            if (self._staged / "step.json").exists():  # killed between the last two lines of `save`
                self._replace()
        accelerator.wait_for_everyone()

    def resume(self) -> list[Row]:
        """The rows up to the checkpoint, whose state is put in place; none without one.

        Rows behind the checkpoint are forgotten: their steps will be done again.
        """
        rows: list[Row] = []
        if self.checkpoint.is_dir():
            done = json.loads((self.checkpoint / "step.json").read_text())["step"]
            rows = [json.loads(line) for line in self.history.read_text().splitlines()[:done]]
            self.accelerator.load_state(str(self.checkpoint))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.history.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def append(self, row: Row) -> None:
        """Add a row to the history."""
        if self.accelerator.is_main_process:
            with self.history.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def save(self, step: int) -> None:
        """Replace the checkpoint by the state after a step. A kill at any moment leaves a whole one behind."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self._staged, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(self._staged), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            # Written last: a staged checkpoint that has it is whole.
            (self._staged / "step.json").write_text(json.dumps({"step": step}))
            self._replace()
        self.accelerator.wait_for_everyone()

    def _replace(self) -> None:
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        self._staged.rename(self.checkpoint)
