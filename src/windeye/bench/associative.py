"""The associative suite: memories that learn while they read, against their other forms and against dense attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

import windeye
from windeye.bench.table import ratio
from windeye.bench.timing import Candidate, compare

HEADS, DIM, EXPANSION = 8, 64, 4
KERNEL, TORCH, PER_TOKEN, DENSE = "kernel", "torch form", "weights per token", "causal SDPA"
COLUMNS = (
    "forward + backward", "kernel, ms", "tokens/s", "over the torch form", "over weights per token", "over causal SDPA",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call: 8 heads of 64, hidden layers four times as wide."""

    tokens: int
    chunk: int = 64
    depth: int = 2
    peer: bool = False
    """Whether the form that builds the weights of every token takes part: its memory is the limit."""

    @property
    def name(self) -> str:
        """
        Example:
            >>> Case(4096).name
            '4096 tokens, chunks of 64, 2 layers'
        """
        return f"{self.tokens} tokens, chunks of {self.chunk}, {self.depth} layer{'s' * (self.depth > 1)}"


CASES = (
    Case(256, peer=True),
    Case(256, chunk=16, peer=True),
    Case(1024),
    Case(4096),
    Case(16384),
    Case(4096, chunk=16),
    *(Case(4096, depth=depth) for depth in (1, 3, 4)),
)


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts; ``quick`` measures three rounds of short sequences: to see it works."""
    cases = [replace(case, tokens=min(case.tokens, 96)) for case in CASES[:2]] if quick else CASES
    for case in cases:
        yield case.name, partial(_measure, case, 3 if quick else 7)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line per case."""
    table = []
    for name, part in result["parts"].items():
        timings = part["timings"]
        own = timings[KERNEL]
        over = (
            ratio(own["speedup"] / timings[peer]["speedup"]) if peer in timings else ""
            for peer in (TORCH, PER_TOKEN, DENSE)
        )
        table.append((name, f"{1000 * own['seconds']:.1f}", f"{part['tokens'] / own['seconds']:,.0f}", *over))
    return table


def _measure(case: Case, rounds: int) -> dict[str, Any]:
    inputs = Inputs(case)
    candidates: dict[str, Candidate] = {
        DENSE: partial(inputs.trained, inputs.dense),
        KERNEL: partial(inputs.trained, partial(inputs.memory, backend="cpu")),
        TORCH: partial(inputs.trained, partial(inputs.memory, backend="torch")),
    }
    if case.peer:
        candidates[PER_TOKEN] = partial(inputs.trained, inputs.per_token)
    timings = compare(candidates, baseline=DENSE, rounds=rounds)
    return {"tokens": case.tokens, "timings": {name: asdict(timing) for name, timing in timings.items()}}


class Inputs:
    """Random tokens and gates of one case, and the forms that take them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        generator = torch.Generator().manual_seed(case.tokens)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        shape = (1, case.tokens, HEADS)
        self.query, key, self.value = (random(*shape, DIM) for _ in range(3))
        self.key = F.normalize(key, dim=-1)
        widths = [DIM, *[EXPANSION * DIM] * (case.depth - 1), DIM]
        self.weights = [random(HEADS, i, o) * i**-0.5 for i, o in pairwise(widths)]
        self.step_size, self.momentum = random(*shape).sigmoid() / case.chunk, random(*shape).sigmoid()
        self.forget = 0.01 * random(*shape).sigmoid()
        gates = [self.step_size, self.momentum, self.forget]
        self.leaves = [self.query, self.key, self.value, *self.weights, *gates]
        for leaf in self.leaves:
            leaf.requires_grad_()

    def trained(self, form: Callable[[], Tensor]) -> None:
        """One forward and backward pass."""
        for leaf in self.leaves:
            leaf.grad = None
        torch.autograd.backward(form().sum())

    def memory(self, backend: str) -> Tensor:
        """Our memory."""
        return windeye.associative_memory(
            self.query, self.key, self.value, self.weights, step_size=self.step_size, momentum=self.momentum,
            forget=self.forget, chunk_size=self.case.chunk, backend=backend,
        )  # fmt: skip

    def dense(self) -> Tensor:
        """torch's fused causal attention, heads first, as it likes them best."""
        query, key, value = (t.transpose(1, 2) for t in (self.query, self.key, self.value))
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    def per_token(self) -> Tensor:
        """The same numbers as `memory` in the way of function transforms: a gradient per token, then the weights of
        every token one after the other."""
        gradients = vmap(vmap(grad(_loss), in_dims=(None, 0, 0)))
        weights = list(self.weights)
        surge = [torch.zeros_like(weight) for weight in weights]
        query, key, value = (t[0].transpose(0, 1) for t in (self.query, self.key, self.value))
        gates = (self.momentum, 1 - self.forget, self.step_size)
        outs = []
        for begin in range(0, self.case.tokens, self.case.chunk):
            now = slice(begin, begin + self.case.chunk)
            found = gradients(weights, key[:, now], value[:, now])
            for i, t in enumerate(range(begin, min(begin + self.case.chunk, self.case.tokens))):
                eta, alpha, theta = (gate[0, t, :, None, None] for gate in gates)
                surge = [eta * s - theta * g[:, i] for s, g in zip(surge, found, strict=True)]
                weights = [alpha * w + s for w, s in zip(weights, surge, strict=True)]
                outs.append(vmap(_network)(weights, query[:, t]))
        return torch.stack(outs)[None]


def _network(weights: list[Tensor], x: Tensor) -> Tensor:
    for weight in weights[:-1]:
        x = F.gelu(x @ weight)
    return x @ weights[-1]


def _loss(weights: list[Tensor], key: Tensor, value: Tensor) -> Tensor:
    return (_network(weights, key) - value).square().sum() / 2
