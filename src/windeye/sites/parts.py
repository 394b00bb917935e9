"""Where the parts of a model are: its attention calls in order, and the modules around each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

ATTENTION = ("self_attn", "attn", "attention", "self_attention", "mixer")
BEFORE_ATTENTION = ("input_layernorm", "ln_1", "mixer_norm")
FEED_FORWARD = ("mlp", "feed_forward", "ffn", "channel_mixer")
BEFORE_FEED_FORWARD = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "channel_norm")
"""Names of a block's parts in known architectures; the inputs of its norms are the residual stream."""
FINAL_NORM = ("norm", "ln_f", "final_layernorm", "final_layer_norm")
EMBEDDING = ("embed_tokens", "wte", "embedding", "word_embeddings")


@dataclass(frozen=True)
class Layer:
    """One attention call of a forward pass. Parts that a model lacks, or that are not known, are None."""

    host: nn.Module
    """The module that calls attention."""
    block: nn.Module | None = None
    mixer: nn.Module | None = None
    """The module whose output is added to the residual stream."""
    norm: nn.Module | None = None
    """The module that reads the residual stream before attention."""
    feed_forward: nn.Module | None = None
    middle: nn.Module | None = None
    """The module that reads the residual stream between attention and feed-forward."""


@dataclass(frozen=True)
class Parts:
    """The parts of a model. Layers that share their weights are listed as often as they run."""

    root: nn.Module
    layers: tuple[Layer, ...]
    stack: nn.Module
    """The module that holds the list of blocks; the root where none does."""
    heads: int | None = None
    embedding: nn.Module | None = None
    final_norm: nn.Module | None = None
    head: nn.Module | None = None
    """The map to logits; None where it is the embedding."""

    def chosen(self, layers: Iterable[int] | None, name: str = "layers") -> tuple[int, ...]:
        """The numbers of some layers, or of all.

        Raises:
            IndexError: there is no such layer; says which there are.
        """
        count = len(self.layers)
        numbers = tuple(range(count)) if layers is None else tuple(layers)
        for layer in numbers:
            if not 0 <= layer < count:
                raise IndexError(f"{name} names layer {layer}; the model has layers 0 to {count - 1}")
        return numbers

    def calls_of(self, module: nn.Module) -> list[int]:
        """The layers that a host is, in the order in which it runs."""
        return [number for number, layer in enumerate(self.layers) if layer.host is module]


KNOWN: WeakKeyDictionary[nn.Module, Parts] = WeakKeyDictionary()
"""Of models whose attention was made reachable from outside."""


def parts_of(model: nn.Module) -> Parts:
    """The parts of a model whose attention calls come through `windeye.sites`.

    Raises:
        ValueError: no attention of this model can be reached.
    """
    if (known := KNOWN.get(model)) is not None:
        return known
    hosts = [name for name, module in model.named_modules() if getattr(module, "attention_site", False)]
    if not hosts:
        raise ValueError(
            f"no attention of {type(model).__name__} can be reached: it has no layer of windeye that computes softmax "
            "attention. A model of transformers is made reachable by windeye.hf.attach(model)"
        )
    return assemble(model, hosts)


def assemble(model: nn.Module, hosts: Sequence[str], heads: int | None = None) -> Parts:
    """The parts of a model from the names of the modules that call attention, as often and in the order in which they
    run; ``heads`` are the query heads of a layer."""
    layers = tuple(_layer(model, name) for name in hosts)
    if heads is None:
        heads = getattr(layers[0].host, "heads", None)
    stack = _stack(model, hosts[0])
    return Parts(model, layers, stack, heads, _first(model, EMBEDDING), child(stack, FINAL_NORM), _output_of(model))


def _layer(model: nn.Module, name: str) -> Layer:
    host = model.get_submodule(name)
    path = name.split(".")
    # The innermost numbered ancestor is the block: blocks stand in lists.
    depth = next((d for d in range(len(path), 0, -1) if path[d - 1].isdigit()), 0)
    if depth == 0:
        return Layer(host)
    block = model.get_submodule(".".join(path[:depth]))
    within = path[depth] if len(path) > depth else ""
    mixer = getattr(block, within) if within in ATTENTION and len(path) == depth + 1 else None
    return Layer(
        host, block, mixer,
        norm=child(block, BEFORE_ATTENTION),
        feed_forward=child(block, FEED_FORWARD),
        middle=child(block, BEFORE_FEED_FORWARD),
    )  # fmt: skip


def child(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    """The part of a module that has the first of some names that is there."""
    found = (getattr(module, name, None) for name in names)
    return next((part for part in found if isinstance(part, nn.Module)), None)


def _first(model: nn.Module, names: Sequence[str]) -> nn.Module | None:
    by_name = {name.rsplit(".", 1)[-1]: module for name, module in reversed(list(model.named_modules())) if name}
    return next((by_name[name] for name in names if name in by_name), None)


def _stack(model: nn.Module, host: str) -> nn.Module:
    path = host.split(".")
    depth = next((d for d in range(len(path)) if path[d].isdigit()), 0)
    return model.get_submodule(".".join(path[: max(0, depth - 1)]))


def _output_of(model: nn.Module) -> nn.Module | None:
    head = getattr(model, "lm_head", None) or getattr(model, "head", None)
    return head if isinstance(head, nn.Module) else None
