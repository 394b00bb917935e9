"""A decoder taken apart into what adds to its residual stream and what reads it.

    mid = pre + sum_h z_h W_O^h + b_O       pre of the next block = mid + MLP(norm(mid))       logits = U norm(stream)

Layers are those of `windeye.sites.parts`, with the maps in and out of each head. What was found is checked against the
model's own numbers in every run: what does not add up is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from windeye.sites.hooks import hooked
from windeye.sites.parts import Layer, Parts, assemble, child
from windeye.sites.replay import Body, OwnBody, TransformersBody

Input = Literal["q", "k", "v"]
FUSED = ("qkv_proj", "c_attn")
"""Names of one map to queries, keys and values, in this order."""
SEPARATE: tuple[tuple[Input, str], ...] = (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"))
OUT = ("out_proj", "c_proj", "o_proj")


@dataclass(frozen=True)
class Projection:
    """Which output channels of which linear map are the queries, keys or values of a layer."""

    module: nn.Module
    start: int
    heads: int
    head_dim: int

    def of(self, out: Float[Tensor, "*batch channels"]) -> Float[Tensor, "*batch heads head_dim"]:
        """The heads in an output of the module, as a view."""
        channels = out[..., self.start : self.start + self.heads * self.head_dim]
        return channels.view(*out.shape[:-1], self.heads, self.head_dim)


@dataclass(frozen=True)
class Block:
    """A layer with the maps of its attention: queries, keys and values from the normed stream, and ``out`` into it."""

    layer: Layer
    inputs: dict[Input, Projection]
    out: nn.Module

    @property
    def norm(self) -> nn.Module:
        """What attention reads the stream through."""
        assert self.layer.norm is not None
        return self.layer.norm

    @property
    def mlp(self) -> tuple[nn.Module, nn.Module] | None:
        """What the MLP reads the stream through, and the MLP; or it has none."""
        norm, mlp = self.layer.middle, self.layer.feed_forward
        return None if norm is None or mlp is None else (norm, mlp)

    @property
    def heads(self) -> int:
        return self.inputs["q"].heads

    @property
    def writes(self) -> Float[Tensor, "heads head_dim dim"]:
        """``W_O`` of each head."""
        rows = _rows_in(self.out)
        return rows.reshape(self.heads, -1, rows.shape[1])

    @property
    def write_bias(self) -> Float[Tensor, " dim"] | None:
        bias = getattr(self.out, "bias", None)
        return bias if isinstance(bias, Tensor) else None

    def moved(self, mid: Tensor) -> Tensor:
        """What the MLP adds to a stream."""
        if self.mlp is None:
            return torch.zeros_like(mid)
        norm, mlp = self.mlp
        moved: Tensor = mlp(norm(mid))
        return moved


@dataclass(frozen=True)
class Anatomy:
    """``body`` is the model without its head."""

    body: Body
    blocks: tuple[Block, ...]
    final_norm: nn.Module
    unembedding: Float[Tensor, "vocab dim"]
    unembedding_bias: Float[Tensor, " vocab"] | None

    @property
    def heads(self) -> int:
        return self.blocks[0].heads

    def logits(self, stream: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of a stream, as if it were the last one."""
        return F.linear(self.final_norm(stream), self.unembedding, self.unembedding_bias)

    def difference(
        self, stream: Float[Tensor, "*senders batch dim"], answers: Int[Tensor, "batch 2"]
    ) -> Float[Tensor, "*senders batch"]:
        """``logit(answers[:, 0]) - logit(answers[:, 1])`` of a last stream."""
        direction, offset = self.direction(answers)
        return (self.final_norm(stream) * direction).sum(-1) + offset

    def direction(self, answers: Int[Tensor, "batch 2"]) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """What of the normed stream is the logit difference, and what the head's bias adds to it."""
        right, wrong = answers.unbind(1)
        direction = self.unembedding[right] - self.unembedding[wrong]
        if self.unembedding_bias is None:
            return direction, direction.new_zeros(len(answers))
        return direction, self.unembedding_bias[right] - self.unembedding_bias[wrong]


def anatomy(model: nn.Module) -> Anatomy:
    """Take a decoder apart: one of this library, GPT-2, or Llama and its relatives.

    Raises:
        ValueError: its layout is not known, or its head does more than one linear map; says what is missing.

    Example:
        >>> from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
        >>> parts = anatomy(DecoderLM(DecoderConfig(50, 32, (AttentionSpec(4),) * 3, glu_dim=64)))
        >>> len(parts.blocks), parts.heads, parts.blocks[0].writes.shape
        (3, 4, torch.Size([4, 8, 32]))
    """
    hosts = [name for name, module in model.named_modules() if _known(module) and name]
    if not hosts:
        raise ValueError(
            f"{type(model).__name__} has no attention between known maps: into heads by {', '.join(FUSED)} or "
            f"{', '.join(name for _, name in SEPARATE)}, out of them by {', '.join(OUT)}"
        )
    parts = assemble(model, hosts)
    blocks = tuple(_block(layer, number) for number, layer in enumerate(parts.layers))
    if len(counts := {block.heads for block in blocks}) > 1:
        raise ValueError(f"layers must have as many heads each, got {sorted(counts)}")
    head = parts.head or parts.embedding
    weight, norm = getattr(head, "weight", None), parts.final_norm
    if norm is None or not isinstance(weight, Tensor):
        raise ValueError(f"{type(model).__name__} has no norm and map to logits behind its blocks that are known")
    bias = getattr(head, "bias", None)
    return Anatomy(_body(parts), blocks, norm, weight, bias if isinstance(bias, Tensor) else None)


def _known(module: nn.Module) -> bool:
    into = any(hasattr(module, name) for name in FUSED) or all(hasattr(module, name) for _, name in SEPARATE)
    # Our own mixers say themselves whether they compute softmax attention.
    into = into and getattr(module, "attention_site", not hasattr(module, "mix"))
    return into and any(hasattr(module, name) for name in OUT) and isinstance(getattr(module, "head_dim", None), int)


def _block(layer: Layer, number: int) -> Block:
    host: Any = layer.host
    out: Any = child(host, OUT)
    if layer.norm is None or (layer.feed_forward is None) != (layer.middle is None):
        raise ValueError(f"layer {number}, {type(layer.block).__name__}, has no known norms before attention and MLP")
    head_dim = host.head_dim
    heads = len(_rows_in(out)) // head_dim
    fused = child(host, FUSED)
    if fused is not None:
        channels = _rows_in(fused).shape[1]
        kv_heads = (channels // head_dim - heads) // 2
        inputs: dict[Input, Projection] = {
            "q": Projection(fused, 0, heads, head_dim),
            "k": Projection(fused, heads * head_dim, kv_heads, head_dim),
            "v": Projection(fused, (heads + kv_heads) * head_dim, kv_heads, head_dim),
        }
    else:
        maps = {name: getattr(host, attribute) for name, attribute in SEPARATE}
        inputs = {
            name: Projection(module, 0, _rows_in(module).shape[1] // head_dim, head_dim)
            for name, module in maps.items()
        }
    return Block(layer, inputs, out)


def _rows_in(linear: nn.Module) -> Float[Tensor, "channels_in channels_out"]:
    """A weight with a row per input channel. A Linear keeps it the other way round, GPT-2's Conv1D so."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight.t() if isinstance(linear, nn.Linear) else weight


def _body(parts: Parts) -> Body:
    return OwnBody(parts.root) if hasattr(parts.root, "hidden") else TransformersBody(parts.stack)


@dataclass(frozen=True)
class Streams:
    """What a run left at some places of each prompt."""

    pre: Float[Tensor, "layers batch places dim"]
    mid: Float[Tensor, "layers batch places dim"]
    z: Float[Tensor, "layers batch places heads head_dim"]
    mlp: Float[Tensor, "layers batch places dim"]
    """Zero where blocks have none."""
    final: Float[Tensor, "batch dim"]
    """The stream before the last norm, at each prompt's end."""


def run_streams(
    parts: Anatomy, ids: Int[Tensor, "batch n"], places: Int[Tensor, "batch places"], end: Int[Tensor, " batch"]
) -> Streams:
    """One forward pass; only the asked places are kept.

    Raises:
        ValueError: what blocks write does not add up to the stream; names the layer.
    """
    rows = torch.arange(len(ids), device=ids.device)
    pick = rows[:, None], places
    seen: dict[str, list[Tensor]] = {"pre": [], "mid": [], "z": [], "mlp": []}
    final: list[Tensor] = []

    def keep(name: str) -> Callable[[Tensor], None]:
        return lambda x: seen[name].append(x[pick])

    with hooked() as hooks:
        for block in parts.blocks:
            hooks.before(block.norm, keep("pre"))
            hooks.before(block.out, keep("z"))
            if block.mlp is not None:
                norm, mlp = block.mlp
                hooks.before(norm, keep("mid"))
                hooks.after(mlp, keep("mlp"))
        hooks.before(parts.final_norm, final.append)
        parts.body(ids)
    pre, last = seen["pre"], final[0]
    if not seen["mlp"]:
        seen["mid"], seen["mlp"] = [*pre[1:], last[pick]], [torch.zeros_like(x) for x in pre]
    if {len(found) for found in seen.values()} != {len(parts.blocks)}:
        counts = ", ".join(f"{name} {len(found)}" for name, found in seen.items())
        raise ValueError(f"each part of the {len(parts.blocks)} blocks must run once in a pass, got {counts}")
    tensors = {name: torch.stack(found) for name, found in seen.items()}
    tensors["z"] = tensors["z"].reshape(*tensors["z"].shape[:3], parts.heads, -1)
    streams = Streams(**tensors, final=last[rows, end])
    _check_sums(parts, streams, last[pick])
    return streams


def _check_sums(parts: Anatomy, run: Streams, last: Tensor) -> None:
    for layer, block in enumerate(parts.blocks):
        written = torch.einsum("bphc,hcd->bpd", run.z[layer], block.writes)
        if block.write_bias is not None:
            written = written + block.write_bias
        after = run.pre[layer + 1] if layer + 1 < len(run.pre) else last
        for found, expected, who in (
            (run.pre[layer] + written, run.mid[layer], "heads"),
            (run.mid[layer] + run.mlp[layer], after, "MLP"),
        ):
            off = (found - expected).abs().max().item()
            if not off <= 300 * torch.finfo(found.dtype).eps * max(1.0, expected.abs().max().item()):
                raise ValueError(
                    f"layer {layer}: the stream and what its {who} write do not add up to the stream behind, off by "
                    f"{off:.3g}; with scaled or parallel branches there is no plain residual stream"
                )
