"""The tensors of one call, which backends and kernels hand on as one."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Operands(NamedTuple):
    """What a call computes with; `Problem` says what is to be computed."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None = None
    key_padding: torch.Tensor | None = None
    seed: torch.Tensor | None = None
    """Of the dropout: one int64, on any device."""


class Gradients(NamedTuple):
    """Of each operand that is differentiable, None where the operand is."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None = None
