"""A model for the length of a run: looked at and changed at its modules, without dropout, and given back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Hooks:
    """Changes at modules for the length of a run; a change that returns None only looks."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def before(self, module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> None:
        """Look at, or replace, the first input of a module."""

        def hook(_: nn.Module, args: tuple[Any, ...]) -> Any:
            found = change(args[0])
            return None if found is None else (found, *args[1:])

        self._handles.append(module.register_forward_pre_hook(hook))

    def after(self, module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> None:
        """Look at, or replace, the output of a module."""
        self._handles.append(module.register_forward_hook(lambda _module, _args, out: change(out)))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


@contextmanager
def hooked() -> Iterator[Hooks]:
    """Hooks that are gone afterwards, however it ends."""
    hooks = Hooks()
    try:
        yield hooks
    finally:
        hooks.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout; the mode is given back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
