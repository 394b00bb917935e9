"""Perturbing attention inside a model: chosen layers, heads and queries of ours or, attached, of transformers'."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.perturbation.loss import Loss
from windeye.sites import Rescore, Where, steer


def loss_inside(model: nn.Module, where: Where, loss: Callable[[], Tensor]) -> Loss:
    """A loss as a function of what is added to the scores at some places of a model.

    Begin at zeros ``[batch, heads, 1, keys]`` (1 for heads: all move alike) with ``requires_grad``; the queries that
    ``where`` names get the same row. For a classifier that reads one token, name that token's query alone. The loss is
    one forward pass of the model each time, so training takes two of them. Score differences mean nothing here, for the
    scores themselves stay inside: rules are `Random` and `Adversarial`.

    Args:
        model: one of ours, or one of transformers after `windeye.hf.attach`.
        where: layers, heads and queries.
        loss: runs the model and gives one number.

    Raises:
        ValueError, IndexError: when it is called, where there are no such layers or heads, or another shape is added.

    Example:
        >>> import torch
        >>> from windeye.models import transformer
        >>> from windeye.nn.perturbation import Adversarial, PerturbedLoss
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> ids, label = torch.randint(50, (3, 6)), torch.tensor([1, 2, 3])
        >>> def loss():
        ...     return torch.nn.functional.cross_entropy(model(ids)[:, -1], label)
        >>> moved = loss_inside(model, Where(layers=(1,), heads=(0, 2), rows="last"), loss)
        >>> zeros = torch.zeros(3, 4, 1, 6, requires_grad=True)
        >>> terms = PerturbedLoss(Adversarial(1.0))(moved, zeros)
        >>> terms.step[:, :, 0].norm(dim=-1).gt(0)[0]  # heads 1 and 3 have no gradient
        tensor([ True, False,  True, False])
    """

    def moved(added: Float[Tensor, "batch heads 1 keys"]) -> Tensor:
        def add(logits: Tensor) -> Tensor:
            batch, heads, _, keys = logits.shape
            if added.shape not in ((batch, heads, 1, keys), (batch, 1, 1, keys)):
                raise ValueError(
                    f"what is added must be [batch {batch}, heads {heads} or 1, 1, keys {keys}], "
                    f"got shape {tuple(added.shape)}"
                )
            return logits + added

        with steer(model, [Rescore(add, where=where)]):
            return loss()

    return moved
