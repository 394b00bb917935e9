"""A forward pass that ends where nothing more is wanted of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from windeye.sites.parts import parts_of


class _Reached(Exception):
    """The layer is done; who raised it catches it."""


@contextmanager
def until(model: nn.Module, layer: int) -> Iterator[None]:
    """Inside, a pass of the model ends behind a layer, and the ``with`` with it: layers above cost nothing, and there
    is no output. What watches or records the layers below has seen them.

    Args:
        model: one whose attention can be reached, see `windeye.sites.watch`.
        layer: the last one that runs, from 0. Where layers share weights, the block is counted.

    Raises:
        IndexError: the model has no such layer. ValueError: its blocks are not known.

    Example:
        >>> import torch
        >>> from windeye.models import transformer
        >>> from windeye.sites import watch
        >>> model = transformer(layers=3, dim=32, heads=4, vocab_size=50)
        >>> with watch(model, "entropy", layers=[1]) as seen, until(model, 1):
        ...     logits = model(torch.arange(6)[None])
        >>> seen["entropy"].shape, "logits" in globals()
        (torch.Size([1, 1, 6, 4]), False)
    """
    layers = parts_of(model).layers
    if not 0 <= layer < len(layers):
        raise IndexError(f"layer must be in 0 .. {len(layers) - 1}, got {layer}")
    block = layers[layer].block
    if block is None:
        raise ValueError(f"the block of layer {layer} of {type(model).__name__} is not known")
    left = sum(other.block is block for other in layers[: layer + 1])
    reached = _Reached()

    def stop(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise reached

    handle = block.register_forward_hook(stop)
    try:
        yield
    except _Reached as done:
        if done is not reached:
            raise
    finally:
        handle.remove()
