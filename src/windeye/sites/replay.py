"""A decoder's blocks, run over whole prompts or from a token on, with what lies before read once."""

from __future__ import annotations

import copy
from inspect import signature
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Body(Protocol):
    """A model without its head."""

    def __call__(self, ids: Int[Tensor, "batch n"], past: Any = None) -> Float[Tensor, "batch n dim"]:
        """What the head reads; a past is used up."""
        ...

    def read(self, ids: Int[Tensor, "batch n"]) -> Any:
        """The past after these tokens."""
        ...

    def chosen(self, past: Any, rows: Int[Tensor, " rows"]) -> Any:
        """A past of some sequences, in their order; the given one stays as it is."""
        ...


class OwnBody:
    """A decoder of this library."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, ids: Tensor, past: Any = None) -> Tensor:
        hidden: Tensor = self.model.hidden(ids, state=past)[0]
        return hidden

    def read(self, ids: Tensor) -> Any:
        return self.model.hidden(ids)[1]

    def chosen(self, past: Any, rows: Tensor) -> Any:
        return past.select(rows)


class TransformersBody:
    """The base model of a decoder of transformers."""

    def __init__(self, base: nn.Module) -> None:
        self.base = base
        # Newer releases of transformers call it by another name.
        self.name = "cache" if "cache" in signature(base.forward).parameters else "past_key_values"

    def __call__(self, ids: Tensor, past: Any = None) -> Tensor:
        given = {} if past is None else {self.name: past}
        hidden: Tensor = self.base(input_ids=ids, use_cache=past is not None, **given).last_hidden_state
        return hidden

    def read(self, ids: Tensor) -> Any:
        return getattr(self.base(input_ids=ids, use_cache=True), self.name)

    def chosen(self, past: Any, rows: Tensor) -> Any:
        past = copy.deepcopy(past)
        past.batch_select_indices(rows)
        return past


class Replay:
    """Runs of several copies of the same prompts; tokens before ``start`` are read once and hold for all copies.

    Exact for changes at or behind ``start``, which no token before it sees.
    """

    def __init__(self, body: Body, ids: Int[Tensor, "batch n"], start: int = 0) -> None:
        self.body, self.ids, self.start = body, ids, start
        self._past = body.read(ids[:, :start]) if start else None

    def __call__(self, copies: int) -> None:
        """Run the tokens from ``start`` on of so many copies, one batch behind the other; hooks see what happens."""
        rows = torch.arange(len(self.ids), device=self.ids.device).repeat(copies)
        past = None if self._past is None else self.body.chosen(self._past, rows)
        self.body(self.ids[rows, self.start :], past)
