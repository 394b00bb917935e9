"""Training one reader, and what it answers: through every horizon, and when the structure is broken."""

from __future__ import annotations

import time
from typing import TypedDict

import torch
from torch import Tensor

from windeye.compare.training import Point, check_seed, trained
from windeye.data.graphs import PERTURBATIONS
from windeye.data.sequences import derived_seed
from windeye.papers.llm_graphs.attention import Attention, attention_of
from windeye.papers.llm_graphs.examples import Examples, Task
from windeye.papers.llm_graphs.plan import FULL, HORIZONS, Plan
from windeye.papers.llm_graphs.reader import Reader
from windeye.report import Tell


class Outcome(TypedDict):
    """What one reader leaves behind. ``through`` is its accuracy by horizon; ``broken`` its accuracy by perturbation,
    for full attention only; ``attention`` is read without a mask, ``before`` before training."""

    accuracy: float
    through: dict[str, float]
    broken: dict[str, float]
    attention: Attention
    before: Attention
    diverged: bool
    seconds: float
    history: list[Point]


def train(task: Task, plan: Plan, horizon: int, seed: int, device: str, tell: Tell) -> Outcome:
    """Train one reader with one horizon and look at it.

    Raises:
        ValueError: a seed below 0, on which sizes were chosen.
    """
    check_seed(seed)
    began = time.process_time()
    reader = Reader.of(task, plan, horizon, seed).to(device)
    examples, held_out = task.examples(task.train), task.examples(task.held_out)
    seen = Examples(held_out.prompts[: plan.looked_at], held_out.answers[: plan.looked_at])
    before = attention_of(reader, seen, FULL)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(derived_seed("batch", seed, step))
        rows = torch.randint(len(examples), (plan.batch_size,), generator=generator)
        return examples.prompts[rows], examples.answers[rows]

    history, diverged = trained(
        reader, batches, steps=plan.steps, every=plan.steps, rate=plan.rate, enough=None, tell=tell,
        score=lambda module: accuracy(module, held_out),  # type: ignore[arg-type]
    )  # fmt: skip
    reader.eval()
    found: dict[str, float] = {}
    for other in HORIZONS:
        with reader.reading_with(other):
            found[str(other)] = accuracy(reader, held_out)
    broken: dict[str, float] = {}
    if horizon == FULL:
        for name in PERTURBATIONS:
            scores = [accuracy(reader, task.examples(task.perturbed(name, repeat))) for repeat in range(plan.repeats)]
            broken[name] = sum(scores) / len(scores)
    return Outcome(
        accuracy=accuracy(reader, held_out),
        through=found,
        broken=broken,
        attention=attention_of(reader, seen, FULL),
        before=before,
        diverged=diverged,
        seconds=time.process_time() - began,
        history=history,
    )


@torch.no_grad()
def accuracy(reader: Reader, examples: Examples, batch_size: int = 100) -> float:
    """The share of examples whose answer is the likeliest word."""
    device = next(reader.parameters()).device
    right = 0
    for rows in torch.split(torch.arange(len(examples)), batch_size):
        named = reader(examples.prompts[rows].to(device)).argmax(dim=-1)
        right += int((named.cpu() == examples.answers[rows]).sum())
    return right / len(examples)
