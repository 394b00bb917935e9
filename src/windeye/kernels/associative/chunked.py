"""The memory over a sequence, cut into pieces that lie in one chunk each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.kernels.associative import cpu, plain
from windeye.kernels.associative.network import Network
from windeye.kernels.associative.pieces import Pieces
from windeye.kernels.associative.problem import FastWeights, Options, Work, pack, unpack


class Backend(NamedTuple):
    """A way to compute a call, and why it cannot."""

    attend: Callable[[Work, Options], tuple[Tensor, Tensor, Tensor, Tensor]]
    refusal: Callable[[Work, Options], str | None]


BACKENDS = {"cpu": Backend(cpu.attend, cpu.refusal), "torch": Backend(plain.attend, lambda _work, _options: None)}
"""Best first."""


def initial(weights: Sequence[Tensor], batch: int, dtype: torch.dtype) -> FastWeights:
    """A memory before its first token: the learned weights, the same for every sequence, and no momentum."""
    numbers = pack([weight.to(dtype).expand(batch, *weight.shape) for weight in weights])
    place = torch.zeros(batch, dtype=torch.int64, device=numbers.device)
    return FastWeights(numbers, numbers, torch.zeros_like(numbers), place)


def attend(
    query: Float[Tensor, "batch n heads dim"],
    key: Float[Tensor, "batch n heads dim"],
    value: Float[Tensor, "batch n heads value_dim"],
    shapes: list[tuple[int, int]],
    keep: Float[Tensor, "batch n heads"],
    momentum: Float[Tensor, "batch n heads"],
    step_size: Float[Tensor, "batch n heads"],
    gain: Float[Tensor, "heads dim"] | None,
    lengths: Int[Tensor, " batch"] | None,
    state: FastWeights,
    options: Options,
    backend: str,
) -> tuple[Float[Tensor, "batch n heads value_dim"], FastWeights]:
    """Read and write every token; everything is in the type of the state.

    Raises:
        ValueError: an unknown backend, or one that cannot do this call; says why.
    """
    batch, n, heads, _ = query.shape
    pieces = Pieces.of(state.place, lengths, n=n, period=options.chunk_size)
    query, key, value, keep, momentum, step_size = (
        _rows(pieces.split(t)) for t in (query, key, value, keep, momentum, step_size)
    )
    work = Work(
        query, key, value, keep, momentum, step_size,
        lengths=pieces.lengths.T.repeat_interleave(heads, dim=1),
        completes=pieces.completes.T.repeat_interleave(heads, dim=1),
        anchor=state.anchor.flatten(0, 1),
        weights=state.weights.flatten(0, 1),
        surge=state.momentum.flatten(0, 1),
        gain=None if gain is None else gain.repeat(batch, 1)[:, None],
        shapes=shapes,
    )  # fmt: skip
    out, *after = _chosen(work, options, backend).attend(work, options)
    anchor, weights, surge = (t.view_as(state.weights) for t in after)
    place = (state.place + pieces.lengths.sum(1)) % options.chunk_size
    joined = pieces.join(out.view(pieces.count, batch, heads, *out.shape[2:]).permute(1, 0, 3, 2, 4))
    return joined, FastWeights(anchor, weights, surge, place)


def _chosen(work: Work, options: Options, backend: str) -> Backend:
    if backend == "auto":
        return next(b for b in BACKENDS.values() if b.refusal(work, options) is None)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, got {backend!r}")
    reason = BACKENDS[backend].refusal(work, options)
    if reason is not None:
        raise ValueError(f'backend "{backend}" cannot do this: {reason}')
    return BACKENDS[backend]


def recall(
    query: Float[Tensor, "batch n heads dim"],
    shapes: list[tuple[int, int]],
    weights: Float[Tensor, "batch heads numbers"],
    gain: Float[Tensor, "heads dim"] | None,
    activation: str,
) -> Float[Tensor, "batch n heads value_dim"]:
    """Read every token from the same weights."""
    batch, _, heads, _ = query.shape
    network = Network(activation, 1.0, None if gain is None else gain.repeat(batch, 1)[:, None])  # type: ignore[arg-type]
    out = network.recall(query.transpose(1, 2).flatten(0, 1), unpack(weights.flatten(0, 1), shapes))
    return out.view(batch, heads, *out.shape[1:]).transpose(1, 2)


def _rows(pieces: Float[Tensor, "batch pieces width heads *rest"]) -> Float[Tensor, "pieces rows width *rest"]:
    """Piece by piece, with batch and heads as rows."""
    order = (1, 0, 3, 2, *range(4, pieces.dim()))
    return pieces.permute(order).flatten(1, 2)
