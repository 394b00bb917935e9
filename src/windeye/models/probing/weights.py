"""Heads under official names: what each pool's tensors are called there, in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from windeye.models.checkpoints import read_checkpoint
from windeye.models.probing.head import ProbeHead
from windeye.models.vision.names import both
from windeye.models.weights import LoadReport, Rule, WeightMap

PREFIX = "head."
Rules = dict[str, str | tuple[str, ...] | Rule]
UNLEARNED = "0.norm.beta"
"""A buffer of zeros in CoCa's files, where other norms have a bias."""


def _reshaped(name: str, before: tuple[int, ...] = (), after: tuple[int, ...] = ()) -> Rule:
    """One tensor with axes of length one around ours."""

    def theirs(tensor: Tensor) -> tuple[Tensor]:
        return (tensor.reshape(*before, *tensor.shape, *after),)

    return Rule((name,), lambda parts, shape: parts[0].reshape(shape), theirs)


def _feed_forward(ours: str, theirs: str) -> Rules:
    return {**both({f"{ours}.{part}": f"{theirs}.{part}" for part in ("fc1", "fc2")})}


def _statistics(ours: str, theirs: str) -> Rules:
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}


RULES: dict[str, Rules] = {
    "ep": {"pool.queries": _reshaped("0.cls_token", before=(1,)), "pool.value.weight": "0.v.weight"},
    "abmilp": {
        "pool.attention.qkv.weight": "0.self_attn.qkv.weight",
        **both(
            {
                "pool.attention.proj": "0.self_attn.proj",
                "pool.hidden": "0.attention_predictor.0",
                "pool.score": "0.attention_predictor.2",
            }
        ),
    },
    "simpool": {
        **both({"pool.norm": "0.norm_patches"}),
        "pool.query.weight": "0.wq.weight",
        "pool.key.weight": "0.wk.weight",
    },
    "esimpool": {**both({"pool.norm": "0.norm_patches"})},
    "clip": {
        "pool.positions": "0.pos_embed",
        **both({"pool.qkv": "0.qkv", "pool.proj": "0.proj", "pool.norm": "0.norm"}),
    },
    "siglip": {
        "pool.latent": _reshaped("0.latent", before=(1,)),
        **both({"pool.query": "0.q", "pool.kv": "0.kv", "pool.proj": "0.proj"}),
        **_feed_forward("pool.feed_forward", "0.mlp"),
    },
    "aim": {
        "pool.query": _reshaped("0.cls_token", before=(1,)),
        "pool.key.weight": "0.k.weight",
        "pool.value.weight": "0.v.weight",
        **_statistics("pool.norm", "0.bn"),
    },
    "coca": {
        "pool.queries": "0.img_queries",
        "pool.norm.weight": "0.norm.gamma",
        "pool.query.weight": "0.to_q.weight",
        "pool.kv.weight": "0.to_kv.weight",
        "pool.proj.weight": "0.to_out.weight",
    },
    "cait": {
        "pool.token": _reshaped("0.cls_token", before=(1,)),
        "pool.scale1": "0.blocks_token_only.0.gamma_1",
        "pool.scale2": "0.blocks_token_only.0.gamma_2",
        **both({"pool.norm1": "0.blocks_token_only.0.norm1"}),
        **{
            f"pool.qkv.{part}": tuple(f"0.blocks_token_only.0.attn.{name}.{part}" for name in "qkv")
            for part in ("weight", "bias")
        },
        **both({"pool.proj": "0.blocks_token_only.0.attn.proj", "pool.norm2": "0.blocks_token_only.0.norm2"}),
        **_feed_forward("pool.feed_forward", "0.blocks_token_only.0.mlp"),
        **both({"pool.norm": "0.norm"}),
    },
    "cae": {
        "pool.token": _reshaped("0.query_token", before=(1,)),
        **both(
            {
                "pool.norm_q": "0.norm1_q",
                "pool.norm_k": "0.norm1_k",
                "pool.norm_v": "0.norm1_v",
                "pool.unused_norm": "0.norm2_cross",
            }
        ),
        "pool.query.weight": "0.cross_attn.q.weight",
        "pool.key.weight": "0.cross_attn.k.weight",
        "pool.value.weight": "0.cross_attn.v.weight",
        **both({"pool.proj": "0.cross_attn.proj"}),
    },
    "jepa": {
        "pool.token": _reshaped("0.query_tokens", before=(1,)),
        **both(
            {
                "pool.norm1": "0.cross_attention_block.norm1",
                "pool.query": "0.cross_attention_block.xattn.q",
                "pool.kv": "0.cross_attention_block.xattn.kv",
                "pool.proj": "0.cross_attention_block.xattn.proj",
                "pool.norm2": "0.cross_attention_block.norm2",
            }
        ),
        **_feed_forward("pool.feed_forward", "0.cross_attention_block.mlp"),
    },
    "dinovit": {
        **both({"pool.norm1": "0.dino_block.norm1"}),
        "pool.attention.qkv.weight": "0.dino_block.attn.qkv.weight",
        **both({"pool.attention.proj": "0.dino_block.attn.proj", "pool.norm2": "0.dino_block.norm2"}),
        **_feed_forward("pool.feed_forward", "0.dino_block.mlp"),
    },
    "cbam": {
        "pool.shrink.weight": _reshaped("0.channel.fc1.weight", after=(1, 1)),
        "pool.grow.weight": _reshaped("0.channel.fc2.weight", after=(1, 1)),
        "pool.conv.weight": "0.spatial.conv.conv.weight",
        **both({"pool.norm": "0.spatial.conv.bn"}),
        **_statistics("pool.norm", "0.spatial.conv.bn"),
    },
    "dolg": {
        "pool.proj.weight": _reshaped("0.conv1.weight", after=(1, 1)),
        "pool.proj.bias": "0.conv1.bias",
        **both({"pool.norm": "0.bn"}),
        **_statistics("pool.norm", "0.bn"),
        "pool.score.weight": _reshaped("0.conv2.weight", after=(1, 1)),
        "pool.score.bias": "0.conv2.bias",
    },
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
    rules = {**RULES.get(kind, {}), **_statistics("norm", norm), **both({"classifier": classifier})}
    if kind != "coca":
        return WeightMap(f"{kind} head", rules, prefix=PREFIX)

    def regenerated(model: ProbeHead) -> dict[str, Tensor]:
        return {UNLEARNED: torch.zeros_like(model.state_dict()["pool.norm.weight"])}

    return WeightMap(f"{kind} head", rules, prefix=PREFIX, dropped=re.escape(UNLEARNED), regenerated=regenerated)


def load_head(head: ProbeHead, checkpoint: Mapping[str, Tensor] | str | Path) -> LoadReport:
    """Fill a head from official weights, or a file of them: those of a whole model, whose other tensors are left alone,
    or of a head.

    Raises:
        ValueError: names or shapes do not fit, or a tensor holds NaN; says which.
    """
    if isinstance(checkpoint, str | Path):
        checkpoint = read_checkpoint(checkpoint)
    own = {name: tensor for name, tensor in checkpoint.items() if name.startswith(PREFIX)} or dict(checkpoint)
    broken = [name for name, tensor in own.items() if tensor.is_floating_point() and tensor.isnan().any()]
    if broken:
        raise ValueError(f"the checkpoint holds NaN in {', '.join(broken)}")
    return head_map(head).load(head, own)


def export_head(head: ProbeHead) -> dict[str, Tensor]:
    """A head's tensors under official names, ``head.`` in front."""
    with torch.no_grad():
        return {PREFIX + name: tensor for name, tensor in head_map(head).export(head).items()}
