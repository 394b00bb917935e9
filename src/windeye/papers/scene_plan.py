"""What an experiment takes that trains a small network per arm and seed to read scenes, and then times it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScenePlan:
    """Width and heads of the networks, their blocks, training, held-out scenes, rounds of timing."""

    dim: int
    heads: int
    blocks: int
    steps: int
    batch: int
    rate: float
    held_out: int
    rounds: int
