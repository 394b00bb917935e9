"""Amplitude over frequency, against sums over frequencies one by one."""

import math

import numpy as np
import pytest
import torch

from windeye.inspection.images import spectrum


@pytest.mark.parametrize("size", [(8, 8), (7, 12), (1, 9), (5, 5), (1, 1)])
def test_rings_are_means_over_frequencies_that_are_summed_by_hand(size):
    x = torch.randn(*size, 3, dtype=torch.float64)
    height, width = size
    rings: dict[int, list[tuple[float, float]]] = {}
    for p in range(height):
        for q in range(width):
            down = (p if 2 * p < height else p - height) / height
            across = (q if 2 * q < width else q - width) / width
            radius = math.hypot(down, across)
            if radius > 0.5 + 1e-9:
                continue
            wave = [
                [np.exp(-2j * np.pi * (p * i / height + q * j / width)) for j in range(width)] for i in range(height)
            ]
            sums = np.einsum("hw,hwc->c", np.array(wave), x.numpy())
            level = float(np.log(np.maximum(np.abs(sums), 1e-12) / math.sqrt(height * width)).mean())
            rings.setdefault(round(radius * max(size)), []).append((radius, level))
    at, heights = spectrum(x)
    expected = [np.mean(rings[ring], axis=0) for ring in sorted(rings)]
    np.testing.assert_allclose(np.stack((at, heights), axis=1), expected, atol=1e-9)


def test_smooth_maps_fall_and_noise_does_not():
    noise = torch.randn(32, 32, 8)
    smooth = torch.nn.functional.avg_pool2d(noise.permute(2, 0, 1)[None], 5, 1, 2)[0].permute(1, 2, 0)
    at, rough = spectrum(noise)
    _, soft = spectrum(smooth)
    assert abs(rough[-3:].mean() - rough[1:4].mean()) < 0.5
    assert soft[1:4].mean() - soft[-3:].mean() > 2
    assert at[0] == 0
    assert at[-1] <= 0.5
