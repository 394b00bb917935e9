"""The next token from its logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Filters apply in the order of the fields.

    Example:
        >>> Sampling().choose(torch.tensor([[0.0, 3.0, 2.0]]))
        tensor([1])
    """

    temperature: float = 0.0
    """Logits are divided by it; 0 takes the likeliest token."""
    top_k: int | None = None
    """Only the likeliest ``top_k``."""
    top_p: float | None = None
    """Only the likeliest whose probabilities reach ``top_p`` together; always at least one."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")

    def choose(
        self, logits: Float[Tensor, "batch vocab"], generator: torch.Generator | None = None
    ) -> Int[Tensor, " batch"]:
        """One token per row."""
        if self.temperature == 0.0:
            return logits.argmax(dim=-1)
        return torch.multinomial(self.probabilities(logits), 1, generator=generator)[:, 0]

    def probabilities(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """What is drawn from, for a temperature above 0."""
        logits = logits.float() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(dim=-1)
        if self.top_p is not None:
            falling, order = probabilities.sort(dim=-1, descending=True, stable=True)
            reached = falling.cumsum(dim=-1) - falling >= self.top_p  # the mass before a token
            falling = falling.masked_fill(reached, 0.0)
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, falling)
        return probabilities / probabilities.sum(dim=-1, keepdim=True)
