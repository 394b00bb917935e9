"""How far apart two distributions are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def log_histogram(
    values: npt.ArrayLike, low: float = -3.0, high: float = -1.0, bins: int = 100
) -> npt.NDArray[np.int64]:
    """Counts of ``log10(value)`` in equal bins; zeros have no logarithm and are left out.

    What lies outside goes to the first or the last bin, so that the counts add up to the positive values.

    Raises:
        ValueError: a value is negative or no number.

    Example:
        >>> log_histogram([0.0, 0.002, 0.05, 0.7], bins=2).tolist()
        [1, 2]
    """
    found = np.asarray(values, dtype=np.float64).ravel()
    if not (found >= 0).all():
        raise ValueError(f"values must not be negative or NaN, got {found[~(found >= 0)][0]}")
    logs = np.clip(np.log10(found[found > 0]), low, high)
    return np.histogram(logs, bins=bins, range=(low, high))[0]


def jensen_shannon(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """The Jensen–Shannon divergence of two histograms over the same bins, in nats, from 0 to ln 2.

    ``(KL(p || m) + KL(q || m)) / 2`` with ``m = (p + q) / 2``; its root is scipy's ``jensenshannon``.

    Args:
        first, second: counts or probabilities, not all zero; each is divided by its sum.

    Raises:
        ValueError: other numbers of bins, a negative count, or nothing counted.

    Example:
        >>> round(jensen_shannon([1, 0], [0, 3]), 6), jensen_shannon([1, 3], [2, 6])
        (0.693147, 0.0)
    """
    counts = [np.asarray(histogram, dtype=np.float64).ravel() for histogram in (first, second)]
    if counts[0].shape != counts[1].shape:
        raise ValueError(f"both need the same bins, got {counts[0].size} and {counts[1].size}")
    for name, found in zip(("first", "second"), counts, strict=True):
        if not (found >= 0).all() or not found.sum() > 0:
            raise ValueError(f"{name} must be counts that are not negative and not all zero")
    p, q = (found / found.sum() for found in counts)
    m = (p + q) / 2
    return float((_relative_entropy(p, m) + _relative_entropy(q, m)) / 2)


def _relative_entropy(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def kolmogorov_smirnov(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """The largest gap between the empirical distribution functions of two samples, from 0 to 1.

    Raises:
        ValueError: a sample is empty.

    Example:
        >>> kolmogorov_smirnov([1, 2, 3, 4], [3, 4, 5, 6])
        0.5
    """
    samples = [np.sort(np.asarray(sample, dtype=np.float64).ravel()) for sample in (first, second)]
    if not all(sample.size for sample in samples):
        raise ValueError(f"samples must not be empty, got {samples[0].size} and {samples[1].size} values")
    at = np.concatenate(samples)
    shares = [np.searchsorted(sample, at, side="right") / sample.size for sample in samples]
    return float(np.abs(shares[0] - shares[1]).max())
