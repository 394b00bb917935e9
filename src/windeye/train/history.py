"""What is told of each step."""

from __future__ import annotations

#: A step's number (from 1), its numbers by `STEP_NAMES`, and those of an evaluation after it.
Row = dict[str, float]

STEP_NAMES = frozenset({"step", "loss", "rate", "gradient_norm"})
