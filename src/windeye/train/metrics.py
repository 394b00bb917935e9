"""Accuracy and perplexity over judged positions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from windeye.data.sequences import IGNORED
from windeye.sites.hooks import evaluating
from windeye.train.extra import required


def logits_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The logits in what a model returned, which are all of it or come first.

    Raises:
        TypeError: the model returned something else.
    """
    logits = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(logits, Tensor):
        raise TypeError(f"the model must return logits or (logits, ...), got {type(logits).__name__}")
    return logits


def token_loss(
    logits: Float[Tensor, "*places vocabulary"], targets: Int[Tensor, "*places"], reduction: str = "mean"
) -> Tensor:
    """Cross-entropy in nats over the positions whose target is not `IGNORED`, in float32 or better.

    Raises:
        ValueError: targets do not fit the logits.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets must have the shape of the logits without their last axis, {tuple(logits.shape[:-1])}, "
            f"got {tuple(targets.shape)}"
        )
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(exact.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction=reduction)


@torch.no_grad()
def score(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Accuracy and perplexity of a model over batches of (tokens, targets); every judged position counts the same.

    ``perplexity = exp(mean of -log p(target))``. The mean of the losses is taken and not torchmetrics' own perplexity,
    which takes the logarithm of a softmax and is infinite where a target's probability underflows.

    Args:
        model: returns logits or (logits, ...); set to evaluation mode meanwhile.
        batches: pairs on any device, with at least one judged position among them.

    Raises:
        ValueError: nothing is judged. ImportError: without torchmetrics; names the extra.

    Example:
        >>> echo = nn.Embedding.from_pretrained(50 * torch.eye(4))
        >>> score(echo, [(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, -100]]))])
        {'accuracy': 1.0, 'perplexity': 1.0}
    """
    torchmetrics = required("torchmetrics")
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    # By default the metric drops NaN with a warning; a broken model must not score well on what is left.
    accuracy, loss = (
        torchmetrics.MeanMetric(nan_strategy="disable").to(device).set_dtype(torch.float64) for _ in range(2)
    )
    judged = 0
    with evaluating(model):
        for tokens, targets in batches:
            logits, targets = logits_of(model(tokens.to(device))), targets.to(device)
            kept = targets != IGNORED
            count = int(kept.sum())
            if count == 0:
                continue
            judged += count
            losses = token_loss(logits, targets, reduction="none").double()
            loss.update(losses[kept.flatten()])
            accuracy.update((logits.argmax(dim=-1) == targets)[kept].double())
    if judged == 0:
        raise ValueError(f"batches have no judged position: every target is {IGNORED}, or there is none")
    mean = float(loss.compute())
    return {"accuracy": float(accuracy.compute()), "perplexity": float(torch.tensor(mean, dtype=torch.float64).exp())}
