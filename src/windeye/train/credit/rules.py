"""Which tokens of a response carry the credit: rules that turn two signals of attention into factors of advantages.

Suffixes: B responses of a batch, T tokens of a sequence; ``response`` says which tokens the policy wrote.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Sign = Literal["both", "positive", "negative"]
SIGNS: tuple[Sign, ...] = ("both", "positive", "negative")

Signal = Float[Tensor, "batch tokens"]
Tokens = Bool[Tensor, "batch tokens"]


def local_chunk(waad: Signal, response: Tokens, *, share: float = 0.4, amplification: float = 1.5) -> Signal:
    """Credit where the local heads change how far back they look: borders of chunks.

    ``gamma_t = 1 + (amplification - 1) [t among the top share of Delta]``, ``Delta_t = |WAAD_t - WAAD_(t+1)|``.

    Args:
        waad: windowed average attention distance of every token, in tokens.
        response: True at the tokens that the policy wrote; others get factor 1 and play no part.
        share: of each response's tokens, ``ceil(share n)`` are chosen, of equal ones the earlier.
        amplification: factor of the chosen tokens, at least 1.

    Returns:
        Factors without gradient, in the type of the signal.

    Raises:
        ValueError: an empty response, sizes that differ, a signal that is not finite, a share outside (0, 1], an
            amplification below 1; names the argument and the values.

    Source: preplan-anchor spec (5a).

    Example:
        >>> waad = torch.tensor([[1.0, 1.0, 9.0, 2.0, 2.0]])
        >>> local_chunk(waad, torch.ones(1, 5, dtype=torch.bool))
        tensor([[1.0000, 1.5000, 1.5000, 1.0000, 1.0000]])
    """
    return boosted(top(jumps(waad, response), response, share), amplification, waad.dtype)


def global_anchor(fai: Signal, response: Tokens, *, share: float = 0.4, amplification: float = 1.5) -> Signal:
    """Credit at the tokens that later tokens come back to.

    ``gamma_t = 1 + (amplification - 1) [t among the top share of FAI]``. Arguments, result and errors as
    `local_chunk`; ``fai`` is future attention influence, a weight in [0, 1].

    Source: preplan-anchor spec (5b).

    Example:
        >>> global_anchor(torch.tensor([[0.1, 0.3, 0.2, 0.0]]), torch.ones(1, 4, dtype=torch.bool), share=0.5)
        tensor([[1.0000, 1.5000, 1.5000, 1.0000]])
    """
    return boosted(top(fai, response, share), amplification, fai.dtype)


def coupled_rhythm(
    waad: Signal,
    fai: Signal,
    response: Tokens,
    *,
    share: float = 0.4,
    amplification: float = 1.5,
    reach: int = 3,
    transfer: float = 0.5,
    waad_threshold: float | None = None,
    jump_threshold: float | None = None,
) -> Signal:
    """Credit of anchors, part of which goes back to the token that introduced them.

    An anchor ``t`` (top share of FAI) is *locally dominated* when ``WAAD_t <= waad_threshold`` and the largest
    ``Delta_u`` of the ``reach`` tokens before it is at least ``jump_threshold``: it was written from its neighbours
    right after a plan. The token of that largest jump is its *introducer*; with ``a = amplification - 1``

    ``gamma_t = 1 + a [anchor, not dominated] + (1 - transfer) a [dominated] + transfer a [an introducer]``.

    The terms add, and an introducer of several anchors counts once.

    Args:
        waad, fai, response, share, amplification: as in `local_chunk` and `global_anchor`.
        reach: tokens before an anchor among which its introducer is looked for; the paper names 1, 2 and 3.
        transfer: share of a dominated anchor's credit that goes to its introducer, the paper's alpha.
        waad_threshold, jump_threshold: None takes the median of WAAD and of Delta over each response, the mean of the
            two middle values where the number is even.

    Raises:
        ValueError: as `local_chunk`; a ``reach`` below 1, a ``transfer`` outside [0, 1].

    Source: preplan-anchor spec (5c). The paper gives no numbers for thresholds and transfer, nor the rule for the
    introducer: medians, one half and "the largest jump, of equal ones the latest" are ours.

    Example:
        >>> waad = torch.tensor([[1.0, 8.0, 1.0, 1.0, 1.0]])
        >>> fai = torch.tensor([[0.0, 0.0, 0.5, 0.0, 0.0]])
        >>> coupled_rhythm(waad, fai, torch.ones(1, 5, dtype=torch.bool), share=0.2)
        tensor([[1.0000, 1.2500, 1.2500, 1.0000, 1.0000]])
    """
    if reach < 1:
        raise ValueError(f"reach must be at least 1 token, got {reach}")
    if not 0 <= transfer <= 1:
        raise ValueError(f"transfer must be in [0, 1], got {transfer}")
    gain = _gain(amplification)
    delta = jumps(waad, response)
    anchor = top(fai, response, share)
    calm = waad <= _threshold(waad, response, waad_threshold)
    largest, where = _largest_before(delta, response, reach)
    dominated = anchor & calm & (largest >= _threshold(delta, response, jump_threshold))
    introducer = torch.zeros_like(anchor)
    rows, _ = dominated.nonzero(as_tuple=True)
    introducer[rows, where[dominated]] = True
    weight = (anchor & ~dominated).to(waad.dtype)
    weight += (1 - transfer) * dominated.to(waad.dtype) + transfer * introducer.to(waad.dtype)
    return 1 + gain * weight


def credited(
    advantages: Float[Tensor, " batch"] | Float[Tensor, "batch tokens"],
    gamma: Signal,
    response: Tokens,
    *,
    sign: Sign = "both",
    renormalise: bool = False,
) -> Signal:
    """Advantages of every token, multiplied by ``gamma`` on the response and as they were elsewhere.

    Args:
        advantages: one number per response, as group-relative rewards give it, or one per token. Normalise and clip
            before: whitening afterwards would divide the credit out again.
        gamma: factors from one of the rules.
        response: True at the tokens that the policy wrote.
        sign: multiply all advantages, or only those of this sign. The paper's first version boosts positive ones only;
            its later version boosts both and finds that better.
        renormalise: divide ``gamma`` by its mean over each response first, so that credit moves and does not grow.

    Raises:
        ValueError: sizes do not fit, an empty response, an unknown sign.

    Example:
        >>> gamma = torch.tensor([[1.0, 1.5, 1.0]])
        >>> credited(torch.tensor([-2.0]), gamma, torch.tensor([[True, True, False]]))
        tensor([[-2., -3., -2.]])
    """
    if sign not in SIGNS:
        raise ValueError(f"sign must be one of {', '.join(SIGNS)}, got {sign!r}")
    _check("gamma", gamma, response)
    every = advantages[:, None].expand_as(gamma) if advantages.dim() == 1 else advantages
    if every.shape != gamma.shape:
        raise ValueError(
            f"advantages must be [batch] or [batch, tokens] as gamma {tuple(gamma.shape)}, "
            f"got {tuple(advantages.shape)}"
        )
    if renormalise:
        mean = gamma.masked_fill(~response, 0.0).sum(dim=1, keepdim=True) / response.sum(dim=1, keepdim=True)
        gamma = gamma / mean
    scaled = response & (every > 0 if sign == "positive" else every < 0 if sign == "negative" else response)
    return torch.where(scaled, every * gamma.to(every.dtype), every)


def jumps(waad: Signal, response: Tokens) -> Signal:
    """``Delta_t = |WAAD_t - WAAD_(t+1)|``; 0 where the next token is not part of the response, and outside of it."""
    _check("waad", waad, response)
    follows = response & torch.cat((response[:, 1:], response.new_zeros(len(response), 1)), dim=1)
    return torch.where(follows, (waad - waad.roll(-1, dims=1)).abs(), 0.0)


def top(signal: Signal, response: Tokens, share: float) -> Tokens:
    """The ``ceil(share n)`` of the ``n`` response tokens in which a signal is largest; of equal ones the earlier.

    Differs from: selection by quantile, which takes all of equal values and so more than the share.

    Example:
        >>> top(torch.tensor([[0.0, 0.0, 0.0, 5.0, 9.0]]), torch.tensor([[True] * 4 + [False]]), 0.5)
        tensor([[ True, False, False,  True, False]])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    _check("signal", signal, response)
    # 0.2 * 15 is a little above 3 in floating point.
    counts = [math.ceil(round(share * n, 9)) for n in response.sum(dim=1).tolist()]
    order = signal.masked_fill(~response, -torch.inf).argsort(dim=1, descending=True, stable=True)
    place = torch.arange(signal.shape[1], device=signal.device)
    first = place < torch.tensor(counts, device=signal.device)[:, None]
    return torch.zeros_like(response).scatter(1, order, first)


def boosted(chosen: Tokens, amplification: float = 1.5, dtype: torch.dtype = torch.float32) -> Signal:
    """``amplification`` at the chosen tokens and 1 at the others."""
    return 1 + _gain(amplification) * chosen.to(dtype)


def _gain(amplification: float) -> float:
    if not 1 <= amplification < math.inf:
        raise ValueError(f"amplification must be finite and at least 1, got {amplification}")
    return amplification - 1


def _threshold(signal: Tensor, response: Tensor, given: float | None) -> Tensor | float:
    """The given number, or each response's median as the mean of the two middle values."""
    if given is not None:
        return given
    inside = signal.detach().masked_fill(~response, torch.inf).sort(dim=1).values
    last = response.sum(dim=1, keepdim=True) - 1
    return (inside.gather(1, last // 2) + inside.gather(1, (last + 1) // 2)) / 2


def _largest_before(delta: Tensor, response: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """The largest of the ``reach`` numbers before each token, and where it is; of equal ones the latest."""
    inside = delta.masked_fill(~response, -torch.inf)
    here = torch.arange(delta.shape[1], device=delta.device)
    largest = torch.full_like(delta, -torch.inf)
    where = here.expand_as(delta).clone()
    for back in range(1, min(reach, delta.shape[1] - 1) + 1):
        before = torch.cat((torch.full_like(inside[:, :back], -torch.inf), inside[:, :-back]), dim=1)
        better = before > largest
        largest = torch.where(better, before, largest)
        where = torch.where(better, here - back, where)
    return largest, where


def _check(name: str, signal: Tensor, response: Tensor) -> None:
    if signal.shape != response.shape or signal.dim() != 2:
        raise ValueError(
            f"{name} and response must both be [batch, tokens], got {tuple(signal.shape)} and {tuple(response.shape)}"
        )
    empty = (~response.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"response must have a token in every row, it has none in rows {empty}")
    if not bool(signal.masked_fill(~response, 0.0).isfinite().all()):
        raise ValueError(f"{name} must be finite on the response, it has NaN or infinite values")
