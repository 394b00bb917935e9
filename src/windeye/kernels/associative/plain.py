"""The memory in torch's operations: any device, every option, differentiable like anything else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from windeye.kernels.associative.coefficients import Coefficients, coefficients
from windeye.kernels.associative.network import Network, updated
from windeye.kernels.associative.problem import Options, Work, pack, unpack


def attend(work: Work, options: Options) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs [pieces, rows, width, value_dim]; anchor, weights and momentum [rows, numbers] after the last piece."""
    network = Network(options.activation, options.factor, work.gain, options.max_grad_norm)
    live = torch.arange(work.query.shape[2], device=work.query.device) < work.lengths[..., None]
    by = coefficients(work.keep, work.momentum, work.step_size, live)
    decayed = work.keep[..., None] if options.predict_decayed else None

    def piece(p: int, *layers: Tensor) -> tuple[Tensor, ...]:
        anchor, weights, surge = _thirds(layers)
        own = Coefficients(*(t[p] for t in by))
        written = network.write(work.key[p], work.value[p], anchor, None if decayed is None else decayed[p])
        out = network.read(work.query[p], written, own, weights, surge)
        weights, surge = updated(weights, surge, written, own)
        return (out, *weights, *surge)

    outs = []
    anchor, weights, surge = (unpack(t, work.shapes) for t in (work.anchor, work.weights, work.surge))
    completing = work.completes.sum(1).tolist()
    for p, count in enumerate(completing):
        if options.recompute and torch.is_grad_enabled():
            out, *after = checkpoint(piece, p, *anchor, *weights, *surge, use_reentrant=False)
        else:
            out, *after = piece(p, *anchor, *weights, *surge)
        weights, surge = after[: len(work.shapes)], after[len(work.shapes) :]
        if count == work.completes.shape[1]:
            anchor = weights
        elif count:
            rows = work.completes[p][:, None, None]
            anchor = [torch.where(rows, new, old) for new, old in zip(weights, anchor, strict=True)]
        outs.append(out)
    return torch.stack(outs), pack(anchor), pack(weights), pack(surge)


def _thirds(layers: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    depth = len(layers) // 3
    return layers[:depth], layers[depth : 2 * depth], layers[2 * depth :]
