"""Heads under official names: what each pool's tensors are called there, in both directions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from windeye.models.probing.head import ProbeHead
from windeye.models.weights import LoadReport, Rule, WeightMap

PREFIX = "head."


def _reshaped(name: str, before: tuple[int, ...] = (), after: tuple[int, ...] = ()) -> Rule:
    """One tensor with axes of length one around ours."""

    def theirs(tensor: Tensor) -> tuple[Tensor]:
        return (tensor.reshape(*before, *tensor.shape, *after),)

    return Rule((name,), lambda parts, shape: parts[0].reshape(shape), theirs)


def _linear(ours: str, theirs: str, *, bias: bool = True) -> dict[str, str | tuple[str, ...] | Rule]:
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in (("weight", "bias") if bias else ("weight",))}


_ATTENTION = {
    "pool.attention.qkv.weight": "0.self_attn.qkv.weight",
    **_linear("pool.attention.proj", "0.self_attn.proj"),
}
RULES: dict[str, dict[str, str | tuple[str, ...] | Rule]] = {
    "ep": {"pool.queries": _reshaped("0.cls_token", before=(1,)), "pool.value.weight": "0.v.weight"},
    "abmilp": {
        **_ATTENTION,
        **_linear("pool.hidden", "0.attention_predictor.0"),
        **_linear("pool.score", "0.attention_predictor.2"),
    },
    "simpool": {
        **_linear("pool.norm", "0.norm_patches"),
        "pool.query.weight": "0.wq.weight",
        "pool.key.weight": "0.wk.weight",
    },
    "esimpool": _linear("pool.norm", "0.norm_patches"),
}
"""For each pool of the published comparison, our names and the official ones behind ``head.``."""


def head_map(head: ProbeHead) -> WeightMap:
    """The official names of a head's tensors; pools without tensors have a norm and a classifier alone.

    Raises:
        ValueError: the pool is not one of the published comparison.

    Example:
        >>> from windeye.nn.pools import EfficientPool
        >>> names = head_map(ProbeHead(EfficientPool(8, queries=2), classes=3))
        >>> names.official("pool.queries"), names.official("classifier.weight")
        (('0.cls_token',), ('2.weight',))
    """
    kind = head.pool.kind
    plain = not head.pool.state_dict()
    if kind not in RULES and not plain:
        raise ValueError(f"pool {kind!r} has no official names; these have: {', '.join(RULES)}")
    norm, classifier = ("0", "1") if plain else ("1", "2")
    rules: dict[str, str | tuple[str, ...] | Rule] = {
        **RULES.get(kind, {}),
        **{f"norm.{name}": f"{norm}.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")},
        **_linear("classifier", classifier),
    }
    return WeightMap(f"{kind} head", rules, prefix=PREFIX)


def load_head(head: ProbeHead, checkpoint: Mapping[str, Tensor]) -> LoadReport:
    """Fill a head from official weights: those of a whole model, whose other tensors are left alone, or of a head.

    Raises:
        ValueError: names or shapes do not fit, or a tensor holds NaN; says which.
    """
    own = {name: tensor for name, tensor in checkpoint.items() if name.startswith(PREFIX)} or dict(checkpoint)
    broken = [name for name, tensor in own.items() if tensor.is_floating_point() and tensor.isnan().any()]
    if broken:
        raise ValueError(f"the checkpoint holds NaN in {', '.join(broken)}")
    return head_map(head).load(head, own)


def export_head(head: ProbeHead) -> dict[str, Tensor]:
    """A head's tensors under official names, ``head.`` in front."""
    with torch.no_grad():
        return {PREFIX + name: tensor for name, tensor in head_map(head).export(head).items()}
