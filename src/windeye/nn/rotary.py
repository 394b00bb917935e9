"""Positions as rotations: of coordinates against each other, or of each coordinate with a learned angle."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.kernels.recurrence.problem import state_dtype


def rotate(
    x: Float[Tensor, "batch n heads head_dim"], positions: Int[Tensor, "rows n"], base: float = 10000.0
) -> Float[Tensor, "batch n heads head_dim"]:
    """Rotary embedding over the whole head: coordinate ``c`` turns with ``c + head_dim / 2`` (halves, not neighbours).

    ``(x_c, x_c') -> (x_c cos a - x_c' sin a, x_c sin a + x_c' cos a)`` with ``a = position base^(-2 c / head_dim)``.

    Raises:
        ValueError: ``head_dim`` is odd.

    Example:
        >>> rotate(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[0]])).flatten()
        tensor([1., 0.])
    """
    half, odd = divmod(x.shape[-1], 2)
    if odd:
        raise ValueError(f"rotary positions need an even head_dim, got {x.shape[-1]}")
    wide = state_dtype(x.dtype)  # angles of far positions need the bits
    rates = base ** (-torch.arange(half, dtype=wide, device=x.device) / half)
    angle = (positions[..., None].to(wide) * rates)[:, :, None]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), dim=-1)


class LearnedRotary(nn.Module):
    """LRPE: ``[x cos(theta p), x sin(theta p)]`` at position ``p``, so that a product of two depends on their distance.

    ``<q_t, k_s> = sum_c q_c k_c cos(theta_c (t - s))``; twice as many features come out. ``theta`` is learned, an angle
    per head and coordinate, [heads, 1, head_dim] as in checkpoints of TransNormerLLM; it starts as
    ``10000^(-2 j / (heads head_dim))`` with ``j`` counted over all heads.

    Example:
        >>> lrpe = LearnedRotary(heads=2, head_dim=3)
        >>> lrpe(torch.randn(1, 5, 2, 3), torch.arange(5)[None]).shape
        torch.Size([1, 5, 2, 6])
    """

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.empty(heads, 1, head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        total = self.theta.numel()
        angles = 10000.0 ** (-2.0 / total * torch.arange(total, dtype=torch.float64))
        with torch.no_grad():
            self.theta.copy_(angles.view_as(self.theta))

    def forward(
        self, x: Float[Tensor, "batch n heads head_dim"], positions: Int[Tensor, "rows n"]
    ) -> Float[Tensor, "batch n heads features"]:
        wide = state_dtype(self.theta.dtype)
        angle = positions[..., None, None].to(wide) * self.theta[:, 0].to(wide)
        return torch.cat((x * angle.cos().to(x.dtype), x * angle.sin().to(x.dtype)), dim=-1)
