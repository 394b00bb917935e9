"""Associative memory: attention whose past is the weights of a network that learns while it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from windeye.kernels.associative import chunked
from windeye.kernels.associative.network import Activation
from windeye.kernels.associative.problem import FastWeights, Options, Reduction, check, shapes_of
from windeye.kernels.recurrence.problem import state_dtype


class MemoryDiverged(ArithmeticError):
    """The weights of a memory became NaN or infinite: its steps are too large for what it is shown."""


@overload
def associative_memory(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Sequence[Tensor],
    *,
    step_size: Tensor,
    momentum: Tensor | None = ...,
    forget: Tensor | None = ...,
    chunk_size: int = ...,
    activation: Activation = ...,
    loss_factor: float = ...,
    reduction: Reduction = ...,
    residual_gain: Tensor | None = ...,
    predict_decayed: bool = ...,
    max_grad_norm: float | None = ...,
    lengths: Tensor | None = ...,
    initial_state: FastWeights | None = ...,
    return_state: Literal[False] = ...,
    recompute: bool = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def associative_memory(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Sequence[Tensor],
    *,
    step_size: Tensor,
    momentum: Tensor | None = ...,
    forget: Tensor | None = ...,
    chunk_size: int = ...,
    activation: Activation = ...,
    loss_factor: float = ...,
    reduction: Reduction = ...,
    residual_gain: Tensor | None = ...,
    predict_decayed: bool = ...,
    max_grad_norm: float | None = ...,
    lengths: Tensor | None = ...,
    initial_state: FastWeights | None = ...,
    return_state: Literal[True],
    recompute: bool = ...,
    backend: str = ...,
) -> tuple[Tensor, FastWeights]: ...


def associative_memory(
    query: Float[Tensor, "batch tokens heads dim"],
    key: Float[Tensor, "batch tokens heads dim"],
    value: Float[Tensor, "batch tokens heads value_dim"],
    weights: Sequence[Float[Tensor, "heads inner outer"]],
    *,
    step_size: Float[Tensor, "batch tokens heads"],
    momentum: Float[Tensor, "batch tokens heads"] | None = None,
    forget: Float[Tensor, "batch tokens heads"] | None = None,
    chunk_size: int = 64,
    activation: Activation = "gelu",
    loss_factor: float = 1.0,
    reduction: Reduction = "sum",
    residual_gain: Float[Tensor, "heads dim"] | None = None,
    predict_decayed: bool = False,
    max_grad_norm: float | None = None,
    lengths: Int[Tensor, " batch"] | None = None,
    initial_state: FastWeights | None = None,
    return_state: bool = False,
    recompute: bool = False,
    backend: str = "auto",
) -> Float[Tensor, "batch tokens heads value_dim"] | tuple[Tensor, FastWeights]:
    """Learn ``key -> value`` at every token by a step of gradient descent, and read ``query`` from what was learned.

    Per head, with ``M(x) = f(... f(x W_1) ...) W_L`` and ``loss_t(W) = loss_factor / 2 |M(key_t) - value_t|^2``::

        S_t = momentum_t S_{t-1} - step_size_t dloss_t/dW (W')
        W_t = (1 - forget_t) W_{t-1} + S_t
        out_t = M(query_t; W_t)

    ``W'`` are the weights at the beginning of the chunk of ``chunk_size`` tokens that ``t`` stands in. The size of the
    chunk is therefore part of the function: 1 is the exact recurrence, larger ones take stale gradients and run faster.
    Within a chunk all is computed at once, by one masked product per layer; the weights of single tokens are never
    built. Time is linear in tokens.

    Args:
        query, key, value: [batch, tokens, heads, dim]; float32, bfloat16, float16 or float64.
        weights: the network before the first token, a matrix per layer and head; one layer is a linear memory.
        step_size: of each token; positive. momentum: share of the last step that is taken again, None for none.
        forget: share of the weights that is lost, None for none.
        chunk_size: see above.
        activation: between the layers: "gelu", "silu", "relu" or "tanh".
        loss_factor: see above; 2 is the loss without the half.
        reduction: "sum" as published, or "mean": gradients divided by ``chunk_size``, the scale at which a step size of
            1 stays stable when one key repeats.
        residual_gain: with it the network is ``x + normalised(M(x)) (1 + gain)``, normalised over ``dim``.
        predict_decayed: gradients at ``(1 - forget_t) W'``; with one layer, chunks of one token and no momentum this is
            the gated delta rule. The default is the published formula.
        max_grad_norm: longest gradient of a token, over all layers; longer ones are scaled down.
        lengths: right padding, the true tokens of each batch entry. Padded tokens change nothing.
        initial_state: what an earlier call returned, to go on from there; ``weights`` then only says the shapes.
        return_state: also return the memory after the last token, differentiable.
        recompute: keep only what chunks start with and compute the rest again in the backward pass; the C++ kernel
            always does.
        backend: "auto", "cpu" (C++; without residual_gain, predict_decayed and max_grad_norm) or "torch".

    A key that repeats within a chunk adds up stale gradients: with unit keys and ``loss_factor`` 1 the linear memory
    diverges above a step size of about ``2 (1 - momentum) / chunk_size``; the mean over chunks takes that factor away.

    Raises:
        MemoryDiverged: weights became NaN or infinite; names the batch entry and the head.
        ValueError, TypeError: shapes, dtypes or options do not fit; names the argument and the values.

    Source: titans spec; the form within chunks is derived there and equals the loop over tokens, see
    tests/kernels/test_associative.py.

    Example:
        >>> import windeye
        >>> key = torch.nn.functional.normalize(torch.randn(1, 200, 1, 8), dim=-1)
        >>> value = key.flip(-1)
        >>> step = torch.full((1, 200, 1), 0.5)
        >>> recalled = windeye.associative_memory(key, key, value, [torch.zeros(1, 8, 8)], step_size=step, chunk_size=1)
        >>> error = (recalled - value).norm(dim=-1)
        >>> bool(error[:, -20:].mean() < 0.1 * error[:, :20].mean())
        True
    """
    weights = list(weights) if isinstance(weights, Sequence) else weights
    gates = {"step_size": step_size, "momentum": momentum, "forget": forget}
    options = Options(
        chunk_size, activation, loss_factor, reduction, predict_decayed, max_grad_norm, recompute
    )  # fmt: skip
    check(query, key, value, weights, gates, residual_gain, lengths, initial_state, chunk_size)
    wide = state_dtype(query.dtype)
    with torch.autocast(query.device.type, enabled=False):
        state = initial_state or chunked.initial(weights, query.shape[0], wide)
        if query.shape[1] == 0:
            return (value, state) if return_state else value
        step = step_size.to(wide)
        out, state = chunked.attend(
            query.to(wide), key.to(wide), value.to(wide), shapes_of(weights),
            torch.ones_like(step) if forget is None else 1 - forget.to(wide),
            torch.zeros_like(step) if momentum is None else momentum.to(wide), step,
            None if residual_gain is None else residual_gain.to(wide), lengths, state, options, backend,
        )  # fmt: skip
    if not torch.compiler.is_compiling():
        _check_finite(state.weights)
    out = out.to(value.dtype)
    return (out, state) if return_state else out


def associative_recall(
    query: Float[Tensor, "batch tokens heads dim"],
    weights: Sequence[Float[Tensor, "heads inner outer"]],
    state: FastWeights | None = None,
    *,
    activation: Activation = "gelu",
    residual_gain: Float[Tensor, "heads dim"] | None = None,
) -> Float[Tensor, "batch tokens heads value_dim"]:
    """Read from an `associative_memory` without writing: every query from the weights that ``state`` holds.

    Args:
        query: what is looked up.
        weights: the network before its first token, of which only the shapes are read if a state is given.
        state: the memory; None is the one before the first token.
        activation, residual_gain: as they were in writing.

    Raises:
        ValueError, TypeError: shapes do not fit; names the argument and the values.

    Example:
        >>> query = torch.randn(2, 5, 3, 8)
        >>> associative_recall(query, [torch.zeros(3, 8, 4)]).shape
        torch.Size([2, 5, 3, 4])
    """
    value = query.new_empty(*query.shape[:-1], weights[-1].shape[-1])
    check(query, query, value, weights, {}, residual_gain, None, state, 2**62)
    wide = state_dtype(query.dtype)
    with torch.autocast(query.device.type, enabled=False):
        numbers = chunked.initial(weights, query.shape[0], wide).weights if state is None else state.weights
        gain = None if residual_gain is None else residual_gain.to(wide)
        return chunked.recall(query.to(wide), shapes_of(weights), numbers, gain, activation).to(query.dtype)


def _check_finite(weights: Float[Tensor, "batch heads numbers"]) -> None:
    finite = weights.detach().isfinite().all(-1)
    if not bool(finite.all()):
        batch, head = (~finite).nonzero()[0].tolist()
        raise MemoryDiverged(
            f"the memory of sequence {batch}, head {head} is no longer finite: its steps are too large, or its "
            f'inputs are not finite. Lower step_size or chunk_size, take reduction="mean", or set max_grad_norm'
        )
