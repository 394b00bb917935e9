"""Handwritten digits, as scikit-learn brings them."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Scans = tuple[Float[Tensor, "scans 8 8"], Int64[Tensor, " scans"]]
TRAINED = 1297
"""How many scans experiments train on."""


def scanned_digits() -> Scans:
    """The 1797 scans from 0 to 1 and what they are, in their own order.

    Raises:
        ImportError: without scikit-learn; names the extra.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("handwritten digits need scikit-learn: pip install 'windeye[experiments]'") from error
    found = load_digits()
    return torch.from_numpy(found.images).float() / 16, torch.from_numpy(found.target).long()


@lru_cache(maxsize=1)
def mixed_digits() -> Scans:
    """The same in an order that a fixed seed gives; read once, not to be changed in place.

    Raises:
        ImportError: without scikit-learn; names the extra.
    """
    scans, values = scanned_digits()
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    return scans[order], values[order]


def divided(scans: Scans) -> tuple[Scans, Scans]:
    """The first 1297 to train on and the other 500 to test with; in their own order other people wrote the latter.

    Example:
        >>> known, new = divided((torch.zeros(1797, 8, 8), torch.arange(1797)))
        >>> len(known[1]), new[1][0]
        (1297, tensor(1297))
    """
    images, values = scans
    return (images[:TRAINED], values[:TRAINED]), (images[TRAINED:], values[TRAINED:])
