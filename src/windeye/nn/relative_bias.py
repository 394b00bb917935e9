"""A logit for every offset between a query and a key of a window."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

BIAS_STD = 0.02
"""Spread of fresh tables: truncated normal, as Swin (vision notes), NAT and DiNAT (fna spec) were trained."""


def relative_bias(heads: int, sides: Sequence[int]) -> nn.Parameter:
    """A fresh table [heads, 2 side - 1 per axis], which `windeye.attend` takes as ``bias``.

    Example:
        >>> relative_bias(4, (7, 3)).shape
        torch.Size([4, 13, 5])
    """
    table = nn.Parameter(torch.empty(heads, *(2 * side - 1 for side in sides)))
    nn.init.trunc_normal_(table, std=BIAS_STD)
    return table
