"""The one function that models of transformers call in place of their attention, under a name of their registries."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PREFIX = "windeye_"
PREVIOUS = ("sdpa", "eager")
"""Implementations that we stand in for: masks are made as theirs are, and the attention is theirs unless somebody
edits or another pattern is asked for."""

Attention = Callable[..., tuple[Tensor, Any]]


class Host(Protocol):
    """What answers the calls of a module."""

    def attend(
        self, module: nn.Module, own: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
        *, masked_only: bool, **options: Any,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """``own`` is the attention that the module would call; ``masked_only`` if it hides nothing without a mask."""
        ...


HOSTS: WeakKeyDictionary[nn.Module, Host] = WeakKeyDictionary()
"""Modules that were made reachable, and who answers for them."""


def register() -> None:
    """Enter our names into the registry of attention and into that of masks. A name that only the first one knew would
    lose causality without a word: the mask would be None."""
    for name in PREVIOUS:
        AttentionInterface.register(PREFIX + name, _function(name))
        AttentionMaskInterface.register(PREFIX + name, ALL_MASK_ATTENTION_FUNCTIONS[name])


def reaches(module: nn.Module) -> bool:
    """Whether the module finds its attention in the registry."""
    forward = inspect.unwrap(type(module).forward)
    return "ALL_ATTENTION_FUNCTIONS" in getattr(forward, "__code__", reaches.__code__).co_names


def own_attention(module: nn.Module, name: str) -> Attention:
    """What the module would call under the name of an implementation. "eager" is not in the registry: every file of
    models has its own."""
    if name == "eager":
        found: Attention = sys.modules[type(module).__module__].__dict__["eager_attention_forward"]
        return found
    function: Attention = ALL_ATTENTION_FUNCTIONS[name]
    return function


def _function(name: str) -> Attention:
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *args: Any,
        **options: Any,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        own = own_attention(module, name)
        host = HOSTS.get(module)
        if host is None:
            return own(module, query, key, value, attention_mask, *args, **options)
        if args:  # gradient checkpointing passes what comes after the mask by place
            options = dict(zip(("dropout", "scaling", "is_causal"), args, strict=False)) | options
        return host.attend(module, own, query, key, value, attention_mask, masked_only=name == "eager", **options)

    return torch.compiler.disable(attention)  # type: ignore[no-untyped-call]
