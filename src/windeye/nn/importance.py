"""Which words a prediction hangs on, by its gradient, and whether attention weights agree with that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

Kind = Literal["grad_times_input", "grad_l1"]
Measure = Literal["kendall", "pearson"]


def gradient_importance(
    output: Callable[[Tensor], Tensor], words: Float[Tensor, "batch n dim"], kind: Kind = "grad_times_input"
) -> Float[Tensor, "batch n"]:
    """How much each word moves the output, as shares that sum to 1.

    "grad_times_input" is ``|sum_d w_td dy/dw_td|``, what the gradient with respect to a one-hot word is at that word;
    "grad_l1" is ``sum_d |dy/dw_td|``.

    Whether attention itself counts is up to ``output``: the study that this follows cuts the graph at the attention
    weights, so that only values count (``through_attention=False`` of `windeye.models.AttentiveClassifier.answer`).

    Args:
        output: from embeddings to one number per entry of the batch, or a column of them; entries must not see each
            other.
        words: embeddings.
        kind: one of the two.

    Raises:
        ValueError: an unknown kind, an output of another shape, or one that does not depend on the words.

    Source: attention-perturbation spec.

    Example:
        >>> words = torch.tensor([[[1.0, 1.0], [2.0, -1.0]]])
        >>> output = lambda w: (w * torch.tensor([3.0, 1.0])).sum((1, 2))
        >>> gradient_importance(output, words), gradient_importance(output, words, "grad_l1")
        (tensor([[0.4444, 0.5556]]), tensor([[0.5000, 0.5000]]))
    """
    if kind not in ("grad_times_input", "grad_l1"):
        raise ValueError(f'kind must be "grad_times_input" or "grad_l1", got {kind!r}')
    with torch.enable_grad():
        leaf = words.detach().requires_grad_()
        found = output(leaf)
        if found.numel() != len(words):
            raise ValueError(f"output must give one number per entry of {len(words)}, got shape {tuple(found.shape)}")
        (gradient,) = torch.autograd.grad(found.sum(), leaf, allow_unused=True) if found.requires_grad else (None,)
    if gradient is None:
        raise ValueError("output does not depend on the words that it was called with")
    raw = (gradient * words).sum(-1).abs() if kind == "grad_times_input" else gradient.abs().sum(-1)
    return raw / raw.sum(-1, keepdim=True).clamp(min=torch.finfo(raw.dtype).tiny)


def agreement(
    weights: Float[Tensor, "batch n"],
    importance: Float[Tensor, "batch n"],
    real: Bool[Tensor, "batch n"],
    measure: Measure = "kendall",
) -> Float64[Tensor, " batch"]:
    """Correlation of attention weights and importance over the real words of each text.

    NaN where there is none: fewer than two words, or either side constant (uniform attention has no order).

    Args:
        weights: attention.
        importance: e.g. of `gradient_importance`.
        real: True for the words that count; leave out boundary tokens, too.
        measure: Kendall's tau-b of the order, or Pearson's correlation of the values.

    Raises:
        ValueError: shapes differ, no text at all, or an unknown measure.

    Example:
        >>> weights, real = torch.tensor([[0.1, 0.2, 0.7, 0.0]]), torch.tensor([[True, True, True, False]])
        >>> agreement(weights, torch.tensor([[0.1, 0.6, 0.3, 9.0]]), real).item()
        0.3333333333333333
    """
    if not weights.shape == importance.shape == real.shape or not len(weights):
        raise ValueError(
            f"weights, importance and real must be of one shape and not empty, got {tuple(weights.shape)}, "
            f"{tuple(importance.shape)}, {tuple(real.shape)}"
        )
    if measure not in ("kendall", "pearson"):
        raise ValueError(f'measure must be "kendall" or "pearson", got {measure!r}')
    correlate = _kendall if measure == "kendall" else _pearson
    texts = zip(weights.detach().double(), importance.detach().double(), real, strict=True)
    return torch.stack([correlate(a[mask], b[mask]) for a, b, mask in texts]).cpu()


def _kendall(a: Float64[Tensor, " words"], b: Float64[Tensor, " words"]) -> Float64[Tensor, ""]:
    """Pairs in the same order minus pairs in the other, over the geometric mean of pairs that are not tied."""
    order_a, order_b = (torch.sign(side[:, None] - side) for side in (a, b))
    return (order_a * order_b).sum() / (order_a.square().sum() * order_b.square().sum()).sqrt()


def _pearson(a: Float64[Tensor, " words"], b: Float64[Tensor, " words"]) -> Float64[Tensor, ""]:
    # Around the first word instead of the mean, a side that is constant is exactly zero.
    a, b = (side - side[:1] for side in (a, b))
    a, b = (torch.where(side.any(), side - side.mean(), 0) for side in (a, b))
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()
