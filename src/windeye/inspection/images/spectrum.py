"""How a map's amplitude falls with frequency."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def spectrum(
    x: Float[Tensor, "height width channels"],
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Mean logarithm of the amplitude over rings of equal frequency.

    ``mean over channels and frequencies f with |f| in the ring of ln |F(f)| / sqrt(height width)``, where ``F`` is the
    Fourier transform of a channel. Rings are as wide as the longer side resolves, from the mean (frequency 0) to 0.5
    cycles per token, which is one token up, one down; corners of higher frequency are left out.

    Returns:
        The mean frequency of each ring, in cycles per token, and its mean log amplitude. Rings without frequencies are
        left out; amplitudes below 1e-12 count as 1e-12.

    Example:
        >>> point = torch.zeros(8, 8, 1)
        >>> point[3, 3] = 8.0  # all frequencies alike
        >>> at, heights = spectrum(point)
        >>> at.round(2).tolist(), np.allclose(heights, 0)
        ([0.0, 0.15, 0.27, 0.38, 0.46], True)
    """
    height, width, _ = x.shape
    amplitude = torch.fft.fft2(x.double(), dim=(0, 1)).abs().clamp(min=1e-12) / (height * width) ** 0.5
    level = amplitude.log().mean(dim=-1).flatten()
    down, across = (torch.fft.fftfreq(n, dtype=torch.float64, device=x.device) for n in (height, width))
    radius = torch.hypot(down[:, None], across[None]).flatten()
    ring = (radius * max(height, width)).round().long()
    inside = radius <= 0.5 + 1e-9
    ring, level, radius = ring[inside], level[inside], radius[inside]
    count = ring.bincount()
    there = count > 0
    means = [
        torch.zeros(len(count), dtype=torch.float64, device=x.device).index_add(0, ring, v) for v in (radius, level)
    ]
    at, heights = (values[there] / count[there] for values in means)
    return at.cpu().numpy(), heights.cpu().numpy()
