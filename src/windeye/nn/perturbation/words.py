"""Perturbations of word embeddings, the baselines: Word AT is `Adversarial` on embeddings; Word iAT moves to words."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from windeye.nn.perturbation.rules import Rule, given, only, to_radius


@dataclass(frozen=True, eq=False)
class WordDirections(Rule):
    """A step that is told as words: ``r_t = sum_k b_tk d_tk``, ``d_tk = (w_k - x_t) / |w_k - x_t|`` (Word iAT).

    The coefficients are ``b = radius g / |g|`` with ``g_tk = u_t . d_tk``, the norm over all tokens and words of an
    example; the length of the step is not the radius. Embeddings that are a word themselves have no direction to it.
    Time and memory are those of ``tokens x words`` numbers: directions are never built.

    Args:
        radius: length of the coefficients.
        words: the vectors that steps may lead to, [words, dim]: the table of embeddings, or some of it.

    Source: attention-perturbation spec, after Sato et al. (2018). Equal to automatic differentiation by the
    coefficients, see tests/nn/test_perturbation.py.

    Example:
        >>> words = torch.eye(3)
        >>> rule = WordDirections(1.0, words)
        >>> step = rule.step(words[None, :1], torch.tensor([[[0.0, 1.0, 0.0]]]))
        >>> step.shape, step.argmax().item()  # towards the second word
        (torch.Size([1, 1, 3]), 1)
    """

    words: Float[Tensor, "words dim"] = field(repr=False)

    def step(
        self,
        scores: Float[Tensor, "batch n dim"],
        gradient: Float[Tensor, "batch n dim"] | None,
        movable: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch n dim"]:
        """See `Rule.step`; ``scores`` are the embeddings."""
        places, words = scores.detach(), self.words.detach()
        steepest = only(given(gradient), movable)
        distance = torch.cdist(places, words.expand(places.shape[0], -1, -1))
        inverse = torch.where(distance > 0, 1 / distance, 0)
        along = inverse * (steepest @ words.T - (steepest * places).sum(-1, keepdim=True))
        pulls = to_radius(along, self.radius) * inverse
        return only(pulls @ words - pulls.sum(-1, keepdim=True) * places, movable)


def frequency_normalised(
    table: Float[Tensor, "words dim"], counts: Float[Tensor, " words"]
) -> Float[Tensor, "words dim"]:
    """Embeddings with mean 0 and variance 1 in every channel, each word counted as often as it occurs.

    Without it a model escapes a perturbation of its embeddings by growing them. Differentiable.

    Raises:
        ValueError: counts of another length, negative, or all zero.

    Source: attention-perturbation spec, after Miyato et al. (2017).

    Example:
        >>> frequency_normalised(torch.tensor([[0.0], [2.0], [100.0]]), torch.tensor([1.0, 1.0, 0.0]))[:2].flatten()
        tensor([-1.,  1.])
    """
    if counts.shape != table.shape[:1]:
        raise ValueError(f"counts must be one per word [{table.shape[0]}], got shape {tuple(counts.shape)}")
    if bool((counts < 0).any()) or not bool(counts.sum() > 0):
        raise ValueError("counts must not be negative and not all zero")
    share = (counts / counts.sum()).to(table)[:, None]
    centred = table - (share * table).sum(0)
    variance = (share * centred.square()).sum(0)
    return centred / variance.clamp(min=torch.finfo(table.dtype).tiny).sqrt()
