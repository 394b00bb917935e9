"""How fast one layer of each mechanism is as sequences grow: a training step, a prefill, and a decoded token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from windeye.bench.timing import Candidate, compare
from windeye.compare.sequence.arms import Arm
from windeye.data.sequences import check_integer
from windeye.memory import State
from windeye.report import Tell, silent

Work = Literal["training", "prefill", "decoding"]
WORKS: tuple[Work, ...] = get_args(Work)
"""Forward and backward over all tokens; forward without gradients, which leaves a state; one token more."""

Seconds = dict[str, float | None]
"""Of each arm; None where it was not measured because it would have taken too long."""


@dataclass(frozen=True)
class ThroughputPlan:
    """What is timed: one layer, batch 1.

    Args:
        lengths: tokens, rising.
        dim, heads: of the layer.
        rounds: arms take turns so many times, and the median of an arm counts.
        decoded: tokens that are decoded in a round, behind ``length`` others.
        most_seconds: an arm whose next point is expected to take longer is not measured there, nor beyond.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.
    """

    lengths: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16384, 32768)
    dim: int = 256
    heads: int = 4
    rounds: int = 3
    decoded: int = 16
    most_seconds: float = 15.0

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "rounds", "decoded"):
            check_integer(name, getattr(self, name), 1)
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)) or self.lengths[0] < 1:
            raise ValueError(f"lengths must be positive and rising, got {self.lengths}")


class Layers(nn.Module):
    """The blocks of an arm, one after the other, without norms and residuals."""

    def __init__(self, arm: Arm, plan: ThroughputPlan) -> None:
        super().__init__()
        mixers = arm.mixers(plan.heads)
        # Numbered as in the skeleton, where a convolution stands first.
        self.mixers = nn.ModuleList(
            spec.build(plan.dim, layer, len(mixers) + 1) for layer, spec in enumerate(mixers, start=1)
        )

    def forward(self, x: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        after = []
        for mixer, state in zip(self.mixers, states, strict=True):
            x, state = mixer(x, state=state, return_state=True)
            after.append(state)
        return x, after

    @property
    def unseen(self) -> list[None]:
        """The states before the first token."""
        return [None] * len(self.mixers)


def seconds(
    arms: Sequence[Arm],
    work: Work,
    length: int,
    plan: ThroughputPlan,
    before: Sequence[Seconds],
    device: str = "cpu",
    tell: Tell = silent,
) -> Seconds:
    """Median seconds of every arm, arms taking turns; of one token for "decoding", else of all.

    On a CPU those are seconds of the processor, which a busy machine hardly stretches; one thread is assumed.

    Args:
        arms: what is timed.
        work: what is done.
        length: tokens, or those behind which tokens are decoded.
        plan: sizes and limits.
        before: what was measured at the lengths below, in their order.
        device: where the layers are.
        tell: called with 1 at the end.

    Example:
        >>> from windeye.compare.sequence.arms import selected
        >>> plan = ThroughputPlan(lengths=(16,), dim=16, rounds=1)
        >>> list(seconds(selected(["window"]), "prefill", 16, plan, []))
        ['softmax', 'window']
    """
    # A decoded token is cheap, but the prefill before it is what takes the time: no expectation can be had from it.
    limited = work != "decoding"
    timed = [arm for arm in arms if not limited or expected(arm.name, before) <= plan.most_seconds]
    tokens = plan.decoded if work == "decoding" else 1
    candidates = {arm.name: candidate(arm, work, length, plan, device) for arm in timed}
    clock = time.process_time if torch.device(device).type == "cpu" else time.perf_counter
    found = compare(candidates, baseline=timed[0].name, rounds=plan.rounds, clock=clock) if timed else {}
    tell(1.0)
    return {arm.name: found[arm.name].seconds / tokens if arm.name in found else None for arm in arms}


def expected(name: str, before: Sequence[Seconds]) -> float:
    """Seconds that an arm will take at the next length, from what it took: it grows on as it grew, at least twofold.

    Example:
        >>> expected("softmax", [{"softmax": 1.0}, {"softmax": 4.0}])
        16.0
        >>> expected("softmax", [{"softmax": 9.0}, {"softmax": None}])
        inf
    """
    taken = [seconds[name] for seconds in before]
    if not taken:
        return 0.0
    last = taken[-1]
    if last is None:
        return float("inf")
    earlier = taken[-2] if len(taken) > 1 else None
    return last * max(2.0, last / earlier if earlier else 2.0)


def candidate(arm: Arm, work: Work, length: int, plan: ThroughputPlan, device: str) -> Candidate:
    """What is timed."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = Layers(arm, plan).to(device)
    x = torch.randn(1, length, plan.dim, generator=generator).to(device)
    done = _done(device)
    if work == "training":
        return _training(layers, x, done)
    return _prefill(layers, x, done) if work == "prefill" else _decoding(layers, x, plan.decoded, done)


def _training(layers: Layers, x: Tensor, done: Callable[[], None]) -> Candidate:
    leaves = [x.requires_grad_(), *layers.parameters()]

    def run() -> None:
        out, _ = layers(x, layers.unseen)
        torch.autograd.grad(out, leaves, out.detach())
        done()

    return run


def _prefill(layers: Layers, x: Tensor, done: Callable[[], None]) -> Candidate:
    @torch.no_grad()
    def run() -> None:
        layers(x, layers.unseen)
        done()

    return run


def _decoding(layers: Layers, x: Tensor, tokens: int, done: Callable[[], None]) -> Candidate:
    with torch.no_grad():
        _, states = layers(x, layers.unseen)
    token = x[:, -1:]

    @torch.no_grad()
    def run() -> None:
        # States go on from round to round, as in generation: to go back to the first would copy a cache each time.
        nonlocal states
        for _ in range(tokens):
            _, states = layers(token, states)
        done()

    return run


def _done(device: str) -> Callable[[], None]:
    """Wait until the device has done what it was told."""
    return torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
