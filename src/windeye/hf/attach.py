"""Models of transformers, made reachable: watched, steered, given another attention pattern, and put back again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from windeye.hf.dispatch import HOSTS, PREFIX, PREVIOUS, Attention, reaches, register
from windeye.hf.pattern import attend_pattern, padding_before, relation_of_pattern
from windeye.hf.visibility import VisibilityCache
from windeye.kernels.statistics.relation import Relation
from windeye.ops.statistics import Stats
from windeye.patterns import Pattern
from windeye.sites import AttentionCall, Edit, Recording, Steering, Watch, attention, record, steer, watch
from windeye.sites.call import LISTENERS
from windeye.sites.parts import KNOWN, Parts, assemble
from windeye.sites.session import tokens_cached

register()


class Handle:
    """A model that was made reachable by `attach`. Use `windeye.sites` on the model, or these shortcuts; `undo` puts
    the model back. As a context manager it undoes itself at the end."""

    def __init__(
        self, model: PreTrainedModel, hosts: Sequence[str], pattern: Pattern | Mapping[int, Pattern] | None
    ) -> None:
        self.model = model
        self.parts: Parts = assemble(model, hosts, _heads(model, hosts))
        self.pattern = pattern
        self._past = 0
        self._pads: list[int] | None = None
        self._masks = VisibilityCache()
        self._hooks: list[RemovableHandle] = []
        self._before: list[tuple[Any, str]] = []
        self._install(model, hosts)

    def watch(
        self, stats: Stats, layers: Sequence[int] | None = None, *, rows: Bool[Tensor, "batch tokens"] | None = None
    ) -> Watch:
        """`windeye.sites.watch` of this model."""
        return watch(self.model, stats, layers, rows=rows)

    def steer(self, edits: Sequence[Edit]) -> Steering:
        """`windeye.sites.steer` of this model."""
        return steer(self.model, edits)

    def record(self, sites: Sequence[str], layers: Sequence[int] | None = None) -> Recording:
        """`windeye.sites.record` of this model."""
        return record(self.model, sites, layers)

    def undo(self) -> None:
        """Put the model back as it was; a second time does nothing."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for config, name in self._before:
            config._attn_implementation_internal = name
        self._before.clear()
        for layer in self.parts.layers:
            HOSTS.pop(layer.host, None)
        KNOWN.pop(self.model, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def attend(
        self, module: nn.Module, own: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
        *, masked_only: bool, **options: Any,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Answer a call of one of the model's modules: see `windeye.hf.dispatch`."""
        pattern = self._pattern_of(module)
        if not LISTENERS and pattern is None:
            return own(module, query, key, value, mask, **options)
        queries, keys = query.shape[2], key.shape[2]
        scale = options.get("scaling") or getattr(module, "scaling", None) or query.shape[3] ** -0.5
        causal = options.get("is_causal")
        causal = (getattr(module, "is_causal", True) if causal is None else causal) and not masked_only
        # A cache may be longer than what has passed (static), or shorter (sliding).
        offset = self._past if keys >= self._past + queries else keys - queries
        seen = self._masks.of(mask, queries, keys, causal=causal, offset=offset, device=query.device)
        start = self._past - offset
        if pattern is not None and (self._pads is None or len(self._pads) != query.shape[0]):
            # Later passes of a generation do not see the padding any more where a cache has dropped it.
            self._pads = padding_before(seen.relation, query.shape[0])
        pads = self._pads or []
        weights: list[Any] = [None]

        def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (t.transpose(1, 2) for t in (query, key, value))
            if pattern is not None:
                return attend_pattern(
                    pattern, query, key, value, seen.relation, pads, start, causal=causal, scale=scale
                )
            if q.shape[3] != module_width:  # channels were added: implementations may take their scale from the width
                return _fused(q, k, v, mask, causal=causal, scale=scale)
            out, weights[0] = own(module, q, k, v, mask, **options)
            return out

        def relation() -> Relation:
            if pattern is None:
                return seen.relation
            return relation_of_pattern(pattern, seen.relation, pads, start, causal=causal)

        module_width = query.shape[3]
        terms = [term for term in (options.get("position_bias"), seen.bias) if term is not None]
        bias = sum(terms[1:], terms[0]) if terms else None
        call = AttentionCall(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale, relation, run,
            options.get("softcap"), options.get("s_aux"), bias, start,
            # Wider calls go to torch's attention, which knows neither of these.
            takes_channels=all(options.get(name) is None for name in ("softcap", "s_aux", "position_bias")),
        )  # fmt: skip
        return attention(module, call), weights[0]

    def _pattern_of(self, module: nn.Module) -> Pattern | None:
        if not isinstance(self.pattern, Mapping):
            return self.pattern
        return next((self.pattern[layer] for layer in self.parts.calls_of(module) if layer in self.pattern), None)

    def _install(self, model: PreTrainedModel, hosts: Sequence[str]) -> None:
        modules = {name: model.get_submodule(name) for name in hosts}
        for config in {id(m.config): m.config for m in modules.values()}.values():
            self._before.append((config, config._attn_implementation))
            config._attn_implementation_internal = PREFIX + config._attn_implementation
        HOSTS.update(dict.fromkeys(modules.values(), self))
        KNOWN[model] = self.parts
        self._hooks = [_body(model, hosts).register_forward_pre_hook(self._begin, with_kwargs=True)]

    def _begin(self, _module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        self._past = tokens_cached(kwargs)
        if self._past == 0:
            self._pads = None
        self._masks.clear()


def attach(
    model: PreTrainedModel, pattern: Pattern | Mapping[int, Pattern] | None = None, *, part: str | None = None
) -> Handle:
    """Make the attention of a model of transformers reachable, without touching its code.

    Our name goes into transformers' registries of attention and of masks, and the model's configuration names it.
    Until somebody watches or steers, the model computes what it did, bit for bit. Forward passes and ``generate`` work
    as before: batches padded on either side, beams, dynamic, static and sliding caches.

    Args:
        model: with ``attn_implementation`` "sdpa" or "eager", of a family that finds its attention in the registry.
        pattern: another pattern for all layers, or for some: what a query sees is what it saw before *and* what the
            pattern shows, counted from the first token that is not padding. Causal models stay causal.
        part: which attention, where a model has several kinds (the vision and the text half, encoder and decoder), as
            the beginning of the modules' names; default the causal one.

    Raises:
        TypeError, ValueError: the model's attention cannot be reached, is attached already, or ``part`` names none of
            its parts; lists what there is.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        ...                      num_attention_heads=4, num_key_value_heads=2)
        >>> model = LlamaForCausalLM(config).eval()
        >>> handle = attach(model)
        >>> with handle.watch(["entropy"]) as seen:
        ...     out = model.generate(torch.arange(5)[None], max_new_tokens=3, do_sample=False, pad_token_id=0)
        >>> seen["entropy"].shape
        torch.Size([2, 1, 7, 4])
        >>> handle.undo()
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a model of transformers, got {type(model).__name__}")
    if model in KNOWN:
        raise ValueError(f"this {type(model).__name__} is attached already; undo() its handle first")
    if isinstance(pattern, Mapping):
        if not all(isinstance(p, Pattern) for p in pattern.values()):
            raise TypeError(f"pattern must map layers to windeye.Pattern, got {pattern!r}")
    elif pattern is not None and not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be a windeye.Pattern such as Sliding(256) | Sinks(4), got {pattern!r}")
    hosts = _hosts(model, part)
    for name in hosts:
        config = model.get_submodule(name).config
        if config._attn_implementation not in PREVIOUS:
            raise ValueError(
                f'{name} computes attention with "{config._attn_implementation}"; attach stands in for '
                f"{' and '.join(PREVIOUS)}: call model.set_attn_implementation first"
            )
    if isinstance(pattern, Mapping) and (wrong := [n for n in pattern if not 0 <= n < len(hosts)]):
        raise IndexError(f"pattern names layer {wrong[0]}; the model has layers 0 to {len(hosts) - 1}")
    return Handle(model, hosts, pattern)


def _hosts(model: PreTrainedModel, part: str | None) -> list[str]:
    """Names of the modules that call attention, as often as each runs."""
    names = [name for name, module in model.named_modules() if reaches(module)]
    if not names:
        raise ValueError(
            f"the attention of {type(model).__name__} cannot be reached: none of its modules looks it up in the "
            "registry of transformers. Newer versions do so in more families"
        )
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(".".join("*" if step.isdigit() else step for step in name.split(".")), []).append(name)
    if part is not None:
        chosen = [kind for kind in kinds if kind.startswith(part)]
    else:
        chosen = [kind for kind in kinds if _is_causal(model.get_submodule(kinds[kind][0]))] or list(kinds)
        chosen = [kind for kind in chosen if "encoder_attn" not in kind and "crossattention" not in kind] or chosen
    if len(chosen) != 1:
        asked = "" if part is None else f" that begin with {part!r}"
        raise ValueError(
            f"{type(model).__name__} has {len(chosen)} kinds of attention{asked}; choose one by part: "
            f"{', '.join(kinds)}"
        )
    return _in_order(model, kinds[chosen[0]])


def _is_causal(module: nn.Module) -> bool:
    return bool(getattr(module, "is_causal", False))


def _in_order(model: PreTrainedModel, names: list[str]) -> list[str]:
    """The modules in the order in which they run; groups of layers that share weights run several times."""
    config = model.get_submodule(names[0]).config
    layers = getattr(config, "num_hidden_layers", len(names))
    groups = getattr(config, "num_hidden_groups", None)
    if groups is None or layers == len(names):
        return names
    inner = len(names) // groups
    order = [layer * groups // layers for layer in range(layers)]
    return [name for group in order for name in names[group * inner : (group + 1) * inner]]


def _heads(model: PreTrainedModel, hosts: Sequence[str]) -> int | None:
    config = model.get_submodule(hosts[0]).config
    heads = getattr(config, "num_attention_heads", None)
    return heads if isinstance(heads, int) else None


def _body(model: nn.Module, hosts: Sequence[str]) -> nn.Module:
    """The module that runs the blocks and is given the cache."""
    path = hosts[0].split(".")
    depth = next((d for d in range(len(path)) if path[d].isdigit()), 1)
    return model.get_submodule(".".join(path[: depth - 1]))


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool, scale: float) -> Tensor:
    """Torch's attention with the model's mask, heads last but one."""
    queries = query.shape[2]
    plain = mask is None and causal and queries > 1
    if plain:
        key, value = key[:, :, :queries], value[:, :, :queries]
    if mask is not None:
        mask = mask[..., : key.shape[2]]
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=plain, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2)
