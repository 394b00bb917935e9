"""The memory over a sequence: chunk by chunk, each read and written as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from windeye.kernels.associative.coefficients import Coefficients, coefficients
from windeye.kernels.associative.network import Network, updated
from windeye.kernels.associative.pieces import Pieces
from windeye.kernels.associative.problem import FastWeights, Options


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
) -> tuple[Float[Tensor, "batch n heads value_dim"], FastWeights]:
    """Read and write every token; everything is in the type of the state."""
    batch, n, heads, _ = query.shape
    pieces = Pieces.of(state.place, lengths, n=n, period=options.chunk_size)
    factor = options.loss_factor / (options.chunk_size if options.reduction == "mean" else 1)
    network = Network(
        options.activation,
        factor,
        None if gain is None else gain.expand(batch, *gain.shape).reshape(batch * heads, 1, -1),
        options.max_grad_norm,
    )
    q, k, v = (_rows(pieces.split(t)) for t in (query, key, value))
    live = pieces.live.transpose(0, 1)[:, :, None].expand(-1, -1, heads, -1).flatten(1, 2)
    keep, momentum, step_size = (_rows(pieces.split(gate)) for gate in (keep, momentum, step_size))
    by = coefficients(keep, momentum, step_size, live)
    decayed = keep[..., None] if options.predict_decayed else None

    def piece(p: int, *layers: Tensor) -> tuple[Tensor, ...]:
        anchor, weights, surge = _thirds(layers)
        own = Coefficients(*(t[p] for t in by))
        written = network.write(k[p], v[p], anchor, None if decayed is None else decayed[p])
        out = network.read(q[p], written, own, weights, surge)
        weights, surge = updated(weights, surge, written, own)
        return (out, *weights, *surge)

    outs = []
    anchor, weights, surge = (unpack(t.flatten(0, 1), shapes) for t in state[:3])
    for p, completing in enumerate(pieces.completing):
        if options.recompute and torch.is_grad_enabled():
            out, *after = checkpoint(piece, p, *anchor, *weights, *surge, use_reentrant=False)
        else:
            out, *after = piece(p, *anchor, *weights, *surge)
        weights, surge = after[: len(shapes)], after[len(shapes) :]
        if completing == "all":
            anchor = weights
        elif completing == "some":
            rows = pieces.completes[:, p].repeat_interleave(heads)[:, None, None]
            anchor = [torch.where(rows, new, old) for new, old in zip(weights, anchor, strict=True)]
        outs.append(out.view(batch, heads, *out.shape[1:]).transpose(1, 2))
    place = (state.place + pieces.lengths.sum(1)) % options.chunk_size
    anchored, weighted, surged = (pack(t).view_as(state.weights) for t in (anchor, weights, surge))
    return pieces.join(torch.stack(outs, dim=1)), FastWeights(anchored, weighted, surged, place)


def _thirds(layers: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    depth = len(layers) // 3
    return layers[:depth], layers[depth : 2 * depth], layers[2 * depth :]


def recall(
    query: Float[Tensor, "batch n heads dim"],
    shapes: list[tuple[int, int]],
    weights: Float[Tensor, "batch heads numbers"],
    gain: Float[Tensor, "heads dim"] | None,
    activation: str,
) -> Float[Tensor, "batch n heads value_dim"]:
    """Read every token from the same weights."""
    batch, _, heads, _ = query.shape
    network = Network(activation, 1.0, None if gain is None else gain[:, None].repeat(batch, 1, 1))  # type: ignore[arg-type]
    out = network.recall(query.transpose(1, 2).flatten(0, 1), unpack(weights.flatten(0, 1), shapes))
    return out.view(batch, heads, *out.shape[1:]).transpose(1, 2)


def pack(weights: Sequence[Float[Tensor, "*rows inner outer"]]) -> Float[Tensor, "*rows numbers"]:
    """The matrices of all layers in one row."""
    return torch.cat([weight.flatten(-2) for weight in weights], dim=-1)


def unpack(numbers: Float[Tensor, "*rows numbers"], shapes: list[tuple[int, int]]) -> list[Tensor]:
    """The matrices of all layers, as views."""
    parts = torch.split(numbers, [inner * outer for inner, outer in shapes], dim=-1)
    return [part.reshape(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def _rows(pieces: Float[Tensor, "batch pieces width heads *rest"]) -> Float[Tensor, "pieces rows width *rest"]:
    """Piece by piece, with batch and heads as rows."""
    order = (1, 0, 3, 2, *range(4, pieces.dim()))
    return pieces.permute(order).flatten(1, 2)
