"""A model and its optimiser in Accelerate's hands: one step, one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from windeye.data.sequences import IGNORED, BatchSource
from windeye.train.extra import required
from windeye.train.history import STEP_NAMES, Row
from windeye.train.metrics import logits_of, token_loss
from windeye.train.optimiser import Optimiser

Precision = Literal["no", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("no", "bf16", "fp16")


Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""What is made small: a number from the model and the two tensors of a batch."""


def cross_entropy(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """The mean cross-entropy in nats over judged positions."""
    return token_loss(logits_of(model(tokens)), targets)


class NonFinite(ArithmeticError):
    """The loss or the gradient of a step is NaN or infinite; the weights are those from before the step."""


@dataclass(frozen=True)
class Training:
    """What `prepared` yields."""

    accelerator: Any
    model: nn.Module
    optimiser: Any
    clip: float | None
    objective: Objective = cross_entropy

    @property
    def device(self) -> torch.device:
        """Where the weights are, and batches go."""
        return next(self.model.parameters()).device

    def step(self, number: int, rate: float, batches: BatchSource) -> Row:
        """One step of the optimiser; ``number`` counts from 1.

        Raises:
            NonFinite: see there.
        """
        accelerator = self.accelerator
        tokens, targets = batches((number - 1) * accelerator.num_processes + accelerator.process_index)
        loss = self.objective(self.model, tokens.to(self.device), targets.to(self.device))
        mean = float(accelerator.reduce(loss.detach(), "mean"))
        if not math.isfinite(mean):
            told = f"rate {rate:.3g}"
            if self.objective is cross_entropy:
                told += f", {int((targets != IGNORED).sum())} judged positions"
            raise NonFinite(f"the loss of step {number} is {mean} ({told})")
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        accelerator.backward(loss)
        norm = float(accelerator.clip_grad_norm_(self.model.parameters(), self.clip or math.inf))
        # Under fp16 overflows are part of the game: the scaler skips the step and lowers its scale.
        if not math.isfinite(norm) and accelerator.mixed_precision != "fp16":
            raise NonFinite(f"the gradient of step {number} has norm {norm} (loss {mean:.4g}, rate {rate:.3g})")
        self.optimiser.step()
        return {"step": number, "loss": mean, "rate": rate, "gradient_norm": norm}

    @torch.no_grad()
    def evaluated(self, evaluate: Callable[[nn.Module], Mapping[str, float]]) -> Row:
        """Numbers of an evaluation that leaves torch's random generators as they were.

        Raises:
            ValueError: it uses a name that the rows of steps use.
        """
        devices = [] if self.device.type == "cpu" else [self.device]
        self.model.eval()
        with torch.random.fork_rng(devices, device_type="cuda" if not devices else self.device.type):
            found = {name: float(value) for name, value in evaluate(self.model).items()}
        self.model.train()
        if taken := STEP_NAMES & found.keys():
            raise ValueError(f"evaluate must not use the names of a step's own numbers, got {sorted(taken)}")
        return found

    def agreed(self, asked: bool) -> bool:
        """Whether any process was asked to stop, so that all stop after the same step."""
        if self.accelerator.num_processes == 1:
            return asked
        return bool(self.accelerator.reduce(torch.tensor(float(asked), device=self.device), "sum"))


@contextmanager
def prepared(
    model: nn.Module, optimiser: Optimiser, precision: Precision, objective: Objective = cross_entropy
) -> Iterator[Training]:
    """Put a model in training mode and into Accelerate's hands; give it back as it was, but for its weights.

    Raises:
        ImportError: without Accelerate; names the extra.
        ValueError: the model has nothing to train, or fp16 is asked for on a CPU.
    """
    accelerate = required("accelerate")
    optim = optimiser.of(model)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and precision == "fp16":
        raise ValueError('precision "fp16" needs a GPU and the model is on the CPU; "bf16" runs there')
    was_training, own_forward = model.training, vars(model).get("forward")
    # Accelerate's state is one for the process, with one precision. What was not there before is taken away again, so
    # that the next run may choose another one.
    partial, whole = bool(accelerate.PartialState._shared_state), accelerate.state.is_initialized()
    try:
        accelerator = accelerate.Accelerator(mixed_precision=precision, cpu=on_cpu)
        # One process stays on the model's device; of several each gets its own.
        placed = accelerator.num_processes > 1
        wrapped, optim = accelerator.prepare(model.train(), optim, device_placement=[placed, placed])
        yield Training(accelerator, wrapped, optim, optimiser.clip, objective)
    finally:
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(model).pop(name, None)
        if own_forward is not None:
            model.forward = own_forward
        model.train(was_training)
        if not whole:
            accelerate.state.AcceleratorState._reset_state(reset_partial_state=not partial)
