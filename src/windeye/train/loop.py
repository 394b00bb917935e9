"""The training loop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from windeye.data.sequences import BatchSource, check_integer
from windeye.train.checkpoint import Folder
from windeye.train.history import STEP_NAMES, Row
from windeye.train.interrupt import Interrupt
from windeye.train.optimiser import AdamW, Cosine, Optimiser
from windeye.train.training import PRECISIONS, Objective, Precision, cross_entropy, prepared

_ADAMW, _COSINE = AdamW(), Cosine()


def fit(
    model: nn.Module,
    batches: BatchSource,
    *,
    steps: int,
    optimiser: Optimiser = _ADAMW,
    schedule: Cosine = _COSINE,
    objective: Objective = cross_entropy,
    precision: Precision = "no",
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    every: int | None = None,
    until: Callable[[Row], bool] | None = None,
    folder: Path | str | None = None,
    progress: bool | Callable[[float], None] = True,
) -> list[Row]:
    """Train a model to predict the targets of its batches, by the mean cross-entropy over judged positions, or to make
    another objective small.

    Trains on the device that the model is on. Under ``torchrun`` or ``accelerate launch`` every process takes batches
    of its own, process ``r`` of ``p`` in step ``s`` (from 0) ``batches(s * p + r)``, and gradients are averaged.

    Args:
        model: any module whose forward takes tokens and gives logits or (logits, ...).
        batches: ``batches(step)`` gives (tokens, targets), as `windeye.data.tasks.Fresh` and `Epochs` do. It must give
            the same batch for the same step, or a resumed run sees other data than one that went through.
        steps: how many optimiser steps in all.
        optimiser: `AdamW` or `LARS`, with rate, weight decay and clipping.
        schedule: the course of the rate over the steps.
        objective: ``objective(model, tokens, targets)`` gives the loss of a batch, whatever its two tensors are. It
            must call the model that it is handed, or processes do not share their gradients.
        precision: "bf16" and "fp16" compute under autocast, weights stay as they are; "fp16" needs a GPU.
        evaluate: called with the model in evaluation mode, without gradients; its numbers join the row of the step.
            What it draws from torch's generators changes nothing: training goes on as if it had not been called.
        every: evaluate, and save, after so many steps each, and after the last; None only after the last.
        until: called with every row that was evaluated; a true answer ends the training early.
        folder: where settings, history and checkpoint go. A folder that holds a run with the same settings is resumed
            from its checkpoint: on CPUs the remaining losses are bit for bit those of a run that was never interrupted.
        progress: draw a bar with the time left on a terminal, or call a function with the share that is done.

    Returns:
        One row per step: ``step`` (from 1), ``loss`` (cross-entropy in nats, or the objective), ``rate``,
        ``gradient_norm`` (before clipping), and what ``evaluate`` gave. ``history.jsonl`` in the folder holds the same
        rows.

    Raises:
        NonFinite: a loss or gradient is NaN or infinite; names the step. The folder keeps its last checkpoint.
        KeyboardInterrupt: Ctrl-C, after the step was finished and, with a folder, saved.
        ValueError, TypeError: bad settings, or a folder of a run with other ones.
        ImportError: without Accelerate; names the extra.

    Example:
        >>> from windeye.data.tasks import MQAR, Fresh
        >>> model = nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 32))
        >>> rows = fit(model, Fresh(MQAR(vocabulary=32, length=16).sample, batch_size=8), steps=3)
        >>> [row["step"] for row in rows], sorted(rows[0])
        ([1, 2, 3], ['gradient_norm', 'loss', 'rate', 'step'])
    """
    check_integer("steps", steps, 1)
    if every is not None:
        check_integer("every", every, 1)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    settings = asdict(optimiser) | asdict(schedule) | {"steps": steps, "precision": precision, "model": _shapes(model)}
    if objective is not cross_entropy:
        settings["objective"] = _named(objective)

    def due(step: int) -> bool:
        return step == steps or (every is not None and step % every == 0)

    def satisfied(row: Row) -> bool:
        return until is not None and row.keys() > STEP_NAMES and until(row)

    with (
        prepared(model, optimiser, precision, objective) as training,
        Interrupt() as interrupt,
        _told(progress) as tell,
    ):
        store = None if folder is None else Folder(Path(folder), settings, training.accelerator)
        rows = [] if store is None else store.resume()
        while len(rows) < steps and not (rows and satisfied(rows[-1])):
            tell(len(rows) / steps)
            step = len(rows) + 1
            row = training.step(step, optimiser.rate * schedule.share(step - 1, steps), batches)
            if evaluate is not None and due(step):
                row |= training.evaluated(evaluate)
            stop = training.agreed(interrupt.asked)
            rows.append(row)
            if store is not None:
                store.append(row)
                if stop or due(step):
                    store.save(step)
            if stop:
                kept = "" if store is None else f"; call fit again to resume from {store.path}"
                raise KeyboardInterrupt(f"interrupted after step {step} of {steps}{kept}")
        tell(1.0)
    return rows


def _named(objective: Objective) -> str:
    """What tells an objective from others, the same in the next process."""
    if is_dataclass(objective):
        return repr(objective)
    return getattr(objective, "__qualname__", type(objective).__qualname__)


def _shapes(model: nn.Module) -> str:
    """A digest of the names and shapes of a model's weights."""
    shapes = [(name, list(weight.shape)) for name, weight in model.state_dict().items()]
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]


@contextmanager
def _told(progress: bool | Callable[[float], None]) -> Iterator[Callable[[float], Any]]:
    """Where the share that is done is told: to a function, a bar on stderr, or nobody."""
    if callable(progress):
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (progress and console.is_terminal):
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=1.0)
        yield lambda share: bar.update(task, completed=share)
