"""What every causal sequence mixer is: tokens in, tokens out, and a state in which the past is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeVar, overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from windeye.memory import State
from windeye.nn.padding import layout_of

S = TypeVar("S")


class SequenceMixer(nn.Module, ABC):
    """A causal layer that mixes tokens. A subclass writes `mix` and `state_bytes`; padding is taken care of here.

    The contract, which tests/nn/mixer_kit.py checks for every registered mixer: no output depends on later tokens;
    padded tokens, on whatever side, change nothing and give zeros; a sequence cut in pieces with the state carried
    over gives the same numbers as the whole; a given state is left as it was.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check_count("dim", dim)

    @abstractmethod
    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], State]:
        """Outputs and the state after the first ``lengths`` tokens (None: all) of each sequence.

        Outputs after them may be anything. ``state`` None is the state before the first token.
        """

    @abstractmethod
    def state_bytes(self, n: int) -> int:
        """Memory that the past of one sequence of ``n`` tokens takes, the counter of its tokens left out."""

    @overload
    def forward(
        self, x: Tensor, *, padding: Tensor | None = ..., lengths: Tensor | None = ...,
        cu_seqlens: Tensor | None = ..., state: State | None = ..., return_state: Literal[False] = ...,
    ) -> Tensor: ...  # fmt: skip
    @overload
    def forward(
        self, x: Tensor, *, padding: Tensor | None = ..., lengths: Tensor | None = ...,
        cu_seqlens: Tensor | None = ..., state: State | None = ..., return_state: Literal[True],
    ) -> tuple[Tensor, State]: ...  # fmt: skip

    def forward(
        self,
        x: Float[Tensor, "batch n dim"],
        *,
        padding: Bool[Tensor, "batch n"] | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
        cu_seqlens: Int[Tensor, " bounds"] | None = None,
        state: State | None = None,
        return_state: bool = False,
    ) -> Float[Tensor, "batch n dim"] | tuple[Tensor, State]:
        """Mix a sequence, or the continuation of one.

        Args:
            x: tokens in order.
            padding: True where there is no token, on any side.
            lengths: padding on the right, as the number of true tokens; cheaper than ``padding``.
            cu_seqlens: documents packed one after the other into batch 1, as rising bounds ``0 .. n``; none sees
                another, and states have a row per document. Each is laid out as a row, so that time and memory are
                those of ``documents x longest`` tokens: pack documents of similar lengths.
            state: the past that these tokens continue; None if they are the first.
            return_state: also return the past including these tokens.

        Raises:
            ValueError, TypeError: shapes or types do not fit; names the argument and the values.
        """
        if x.dim() != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be [batch, tokens, dim {self.dim}], got shape {tuple(x.shape)}")
        layout = layout_of(x, padding, lengths, cu_seqlens)
        rows = layout.to_front(x)
        if state is not None and state.seen.shape[0] != rows.shape[0]:
            raise ValueError(f"state is of {state.seen.shape[0]} sequences but x has {rows.shape[0]}")
        out, state = self.mix(rows, layout.lengths, state)
        out = layout.back(out)
        return (out, state) if return_state else out

    def step(self, x: Float[Tensor, "batch dim"], state: State | None) -> tuple[Float[Tensor, "batch dim"], State]:
        """One more token of each sequence."""
        out, state = self(x[:, None], state=state, return_state=True)
        return out[:, 0], state

    @property
    def itemsize(self) -> int:
        """Bytes of a number of this layer."""
        return next(self.parameters()).element_size()


def positions(x: Tensor, state: State | None) -> Int[Tensor, "rows n"]:
    """Where in their sequences the tokens stand; one row for all if they all start at 0."""
    here = torch.arange(x.shape[1], device=x.device)[None]
    return here if state is None else here + state.seen[:, None].to(x.device)


def seen_after(x: Tensor, lengths: Tensor | None, past: State | None) -> Int[Tensor, " batch"]:
    """Tokens that each sequence has been through once those of ``x`` are in."""
    new = torch.full((x.shape[0],), x.shape[1], device=x.device) if lengths is None else lengths.to(x.device).long()
    return new if past is None else past.seen + new


def expect(state: State | None, kind: type[S]) -> S | None:
    """The state, if it is of the kind that a layer makes.

    Raises:
        TypeError: it is the state of another layer.
    """
    if state is not None and not isinstance(state, kind):
        raise TypeError(f"state must be a {kind.__name__}, got {type(state).__name__}")
    return state


def check_count(name: str, value: int) -> int:
    """A size, which must be a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def check_divides(heads: int, width: int, name: str) -> int:
    """The width of each head."""
    check_count("heads", heads)
    check_count(name, width)
    if width % heads:
        raise ValueError(f"{name} {width} must be a multiple of heads {heads}")
    return width // heads
