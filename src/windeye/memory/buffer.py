"""Tokens that grow at their end without being copied each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Shaped
from torch import Tensor


@dataclass
class Buffer:
    """Memory with free places behind the tokens that it holds, and the view of them that was handed out last.

    Only that view is continued in place: writing behind it changes no token that anyone sees. Whoever continues an
    older one, or something made from it, gets a copy with as many free places as tokens, so that ``n`` steps copy
    fewer than ``2 n`` tokens in all.
    """

    places: Shaped[Tensor, "batch capacity *rest"]
    view: Shaped[Tensor, "batch n *rest"]

    @classmethod
    def append(
        cls, buffer: Self | None, held: Shaped[Tensor, "batch n *rest"], new: Shaped[Tensor, "batch new *rest"]
    ) -> Self:
        """Hold ``held`` followed by ``new``: in ``buffer``, if ``held`` is its view and it has room."""
        n, end = held.shape[1], held.shape[1] + new.shape[1]
        if buffer is None or buffer.view is not held or end > buffer.places.shape[1] or not buffer._writable:
            places = held.new_empty(held.shape[0], 2 * end, *held.shape[2:])
            places[:, :n] = held
            buffer = cls(places, held)
        buffer.places[:, n:end] = new
        buffer.view = buffer.places[:, :end]
        return buffer

    @property
    def _writable(self) -> bool:
        return torch.is_inference_mode_enabled() or not self.places.is_inference()


def may_append(held: Shaped[Tensor, "batch n *rest"], new: Shaped[Tensor, "batch new *rest"]) -> bool:
    """Whether tokens may be written behind others: not under a graph, which must find what it saved."""
    return (
        held.shape[1] > 0
        and held.dtype == new.dtype
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
