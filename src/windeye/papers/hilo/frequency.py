"""How much of a map's energy is in its fine detail."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def high_share(x: Float[Tensor, "batch height width channels"]) -> float:
    """Energy at frequencies of more than a quarter of a cycle per token on either axis, half of Nyquist, over all but
    the mean's; 0 for maps that are constant.

    ``sum_{|f_y| or |f_x| > 1/4} |F|^2 / sum_{f != 0} |F|^2`` of the Fourier transform of every channel.

    Example:
        >>> stripes = torch.tensor([1.0, -1.0]).repeat(4).reshape(1, 1, 8, 1).expand(1, 8, 8, 1)
        >>> high_share(stripes), high_share(torch.ones(1, 8, 8, 1))
        (1.0, 0.0)
    """
    energy = torch.fft.fft2(x.double(), dim=(1, 2)).abs().square().sum(dim=(0, 3))
    axes = [torch.fft.fftfreq(n, dtype=torch.float64, device=x.device).abs() > 0.25 for n in energy.shape]
    energy[0, 0] = 0.0
    total = energy.sum().item()
    return energy[axes[0][:, None] | axes[1][None]].sum().item() / total if total else 0.0
