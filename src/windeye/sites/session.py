"""What is open on a model for a while: hooks at its sites, which are gone when the session ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from windeye.kernels.statistics.scores import Scores
from windeye.sites.call import LISTENERS, AttentionCall, RowEdit
from windeye.sites.parts import Parts, parts_of

CALL_SITES = ("q", "k", "v", "z")
"""Tensors of an attention call: queries, keys (positions are in them), values, and outputs of heads before their
projection; [batch, tokens, heads, dim]."""

STREAM_SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
"""Tensors around it: [batch, tokens, dim]."""

MODEL_SITES = ("embed", "logits")
"""Tensors of the whole model."""

SITES = CALL_SITES + STREAM_SITES + MODEL_SITES


class Session:
    """Opens hooks on a model with ``with``. Sessions may be nested and opened again; one that is open already stays
    open once, until its outermost ``with`` ends."""

    def __init__(self, model: nn.Module) -> None:
        self.parts: Parts = parts_of(model)
        self._depth = 0
        self._handles: list[RemovableHandle] = []
        self._turn: dict[tuple[nn.Module, str], int] = {}

    # What a kind of session does; by default nothing.

    def stream_sites(self) -> Iterable[tuple[str, int]]:
        """Sites outside of attention calls that `at` wants to see, with their layers (0 for the model's own)."""
        return ()

    def at(self, site: str, layer: int, tensor: Tensor) -> Tensor:
        """The tensor at a site, edited or not."""
        del site, layer
        return tensor

    def before(self, layer: int, call: AttentionCall) -> AttentionCall:
        """The call, with other queries, keys or values or as it is."""
        del layer
        return call

    def edits(self, layer: int, call: AttentionCall) -> Sequence[RowEdit]:
        """What to do to the logits."""
        del layer, call
        return ()

    def output(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor:
        """The outputs of the heads, edited or not."""
        del layer, call
        return out

    def see(self, layer: int, call: AttentionCall, scores: Scores) -> None:
        """Look at a call when all edits are done."""

    def begin(self, past: int | Tensor) -> None:
        """A forward pass begins, behind so many tokens of each sequence."""

    # How it is done.

    def layer_of(self, module: nn.Module) -> int | None:
        """The layer that this attention call is: a module that runs several times is several layers."""
        return self._next(module, "call", self.parts.calls_of(module))

    def __enter__(self) -> Self:
        self._depth += 1
        if self._depth == 1:
            try:
                self._install()
            except BaseException:
                self._remove()
                self._depth = 0
                raise
            LISTENERS.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            LISTENERS.remove(self)
            self._remove()

    def _install(self) -> None:
        def start(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            self._turn.clear()
            self.begin(tokens_before(kwargs))

        self._handles.append(self.parts.root.register_forward_pre_hook(start, with_kwargs=True))
        installed: set[tuple[nn.Module, str]] = set()
        for site, layer in sorted(self.stream_sites(), key=lambda place: (place[0], place[1])):
            module, kind = place_of(self.parts, site, layer)
            if (module, site) not in installed:
                installed.add((module, site))
                self._handles.append(self._hook(site, module, kind))

    def _hook(self, site: str, module: nn.Module, kind: str) -> RemovableHandle:
        layers = [number for number in range(len(self.parts.layers)) if _is_at(self.parts, site, number, module)]
        layers = layers if site in STREAM_SITES else [0]

        def edit(tensor: Tensor) -> Tensor:
            layer = self._next(module, site, layers)
            assert layer is not None
            return self.at(site, layer, tensor)

        if kind == "input":
            hook = lambda _module, args, kwargs: _input(edit, args, kwargs)  # noqa: E731
            return module.register_forward_pre_hook(hook, with_kwargs=True)
        return module.register_forward_hook(lambda _m, _args, out: _output(edit, out))

    def _next(self, module: nn.Module, what: str, layers: Sequence[int]) -> int | None:
        if not layers:
            return None
        turn = self._turn.get((module, what), 0)
        self._turn[module, what] = turn + 1
        return layers[turn % len(layers)]

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def place_of(parts: Parts, site: str, layer: int) -> tuple[nn.Module, str]:
    """The module that has a site, and whether it is its "input" or "output".

    Raises:
        ValueError: the model has no such site; lists those that it has.
    """
    module, kind = _place(parts, site, layer)
    if module is None:
        found = [name for name in STREAM_SITES + MODEL_SITES if _place(parts, name, layer)[0] is not None]
        there = ", ".join((*CALL_SITES, *found))
        raise ValueError(f"{type(parts.root).__name__} has no site {site!r} in layer {layer}; it has {there}")
    return module, kind


def _place(parts: Parts, site: str, layer: int) -> tuple[nn.Module | None, str]:
    if site == "embed":
        return parts.embedding, "output"
    if site == "logits":
        return parts.root, "output"
    here = parts.layers[layer]
    return {
        "resid_pre": (here.block, "input"),
        "attn_out": (here.mixer, "output"),
        "resid_mid": (here.middle, "input"),
        "mlp_out": (here.feed_forward, "output"),
        "resid_post": (here.block, "output"),
    }.get(site, (None, ""))


def _is_at(parts: Parts, site: str, layer: int, module: nn.Module) -> bool:
    return site in STREAM_SITES and _place(parts, site, layer)[0] is module


def _input(edit: Callable[[Tensor], Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first tensor that a module is given, edited: hidden states come first, by place or by name."""
    if args:
        return (edit(args[0]), *args[1:]), kwargs
    name = next(name for name, value in kwargs.items() if isinstance(value, Tensor))
    return args, {**kwargs, name: edit(kwargs[name])}


def _output(edit: Callable[[Tensor], Tensor], out: Any) -> Any:
    """What a module gives, its tensor edited: alone, first of a tuple, or the logits of an output of transformers."""
    if isinstance(out, Tensor):
        return edit(out)
    if isinstance(out, tuple):
        return (edit(out[0]), *out[1:])
    if is_dataclass(out) and hasattr(out, "logits"):
        out.logits = edit(out.logits)
        return out
    if is_dataclass(out) and hasattr(out, "last_hidden_state"):
        out.last_hidden_state = edit(out.last_hidden_state)
        return out
    raise TypeError(f"there is no tensor to edit in what the module gives, {type(out).__name__}")


def tokens_before(kwargs: dict[str, Any]) -> int | Tensor:
    """Tokens that a pass continues, from the state of one of our models or the cache of transformers."""
    if (state := kwargs.get("state")) is not None:
        seen: Tensor = state.seen
        return seen
    return tokens_cached(kwargs)


def tokens_cached(kwargs: dict[str, Any]) -> int:
    """Tokens in the cache of transformers that a pass is given, under either of its names."""
    cache = kwargs.get("cache") if kwargs.get("cache") is not None else kwargs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0
