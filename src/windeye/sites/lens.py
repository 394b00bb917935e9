"""What a residual stream says before its end, and which part of a model said it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.sites.anatomy import anatomy, run_streams
from windeye.sites.hooks import evaluating


def logit_lens(
    model: nn.Module, ids: Int[Tensor, "batch n"], places: Int[Tensor, "batch places"]
) -> Float[Tensor, "depths batch places vocab"]:
    """Logits of the stream before each block and behind the last one, as if it were the end: ``U norm(stream)``.

    Args:
        model: as of `windeye.sites.paths.path_patching`.
        ids: tokens.
        places: where to look, a row per sequence.

    Example:
        >>> from windeye.models import transformer
        >>> model, ids = transformer(2, 32, 4, vocab_size=50), torch.arange(6)[None]
        >>> seen = logit_lens(model, ids, torch.tensor([[5]]))
        >>> seen.shape, torch.allclose(seen[-1], model(ids)[:, 5:], atol=1e-5)
        (torch.Size([3, 1, 1, 50]), True)
    """
    parts = anatomy(model)
    with torch.no_grad(), evaluating(model):
        run = run_streams(parts, ids, places, places[:, -1])
        last = run.mid[-1] + run.mlp[-1]
        return parts.logits(torch.cat((run.pre, last[None])))


@dataclass(frozen=True, eq=False)
class Attribution:
    """The terms of a logit difference, which add up to it.

    Args:
        embedding: what stood in the stream before the first block.
        heads, mlps: what each wrote.
        biases: those of the attention outputs.
        rest: those of the last norm and of the head.
    """

    embedding: Float[Tensor, " batch"]
    heads: Float[Tensor, "layers heads batch"]
    mlps: Float[Tensor, "layers batch"]
    biases: Float[Tensor, "layers batch"]
    rest: Float[Tensor, " batch"]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """The logit difference."""
        return self.embedding + self.heads.sum((0, 1)) + self.mlps.sum(0) + self.biases.sum(0) + self.rest


def direct_attribution(
    model: nn.Module,
    ids: Int[Tensor, "batch n"],
    answers: Int[Tensor, "batch 2"],
    end: Int[Tensor, " batch"],
) -> Attribution:
    """Direct logit attribution: ``(U_right - U_wrong) . part / scale`` of every part, the last norm's scale held.

    Args:
        model: as of `windeye.sites.paths.path_patching`.
        ids: tokens.
        answers: right and wrong token.
        end: where each prompt's answer is read.

    Raises:
        ValueError: the last norm is none that becomes linear when its scale is held.

    Example:
        >>> from windeye.models import transformer
        >>> model, ids = transformer(2, 32, 4, vocab_size=50), torch.arange(6)[None]
        >>> found = direct_attribution(model, ids, torch.tensor([[7, 9]]), torch.tensor([5]))
        >>> logits = model(ids)[0, 5]
        >>> found.heads.shape, torch.allclose(found.total, logits[7] - logits[9], atol=1e-5)
        (torch.Size([2, 4, 1]), True)
    """
    parts = anatomy(model)
    with torch.no_grad(), evaluating(model):
        run = run_streams(parts, ids, end[:, None], end)
        linear, offset = _held(parts.final_norm, run.final)
        direction, rest = parts.direction(answers)

        def said(part: Tensor) -> Tensor:
            return (linear(part) * direction).sum(-1)

        heads = torch.stack(
            [torch.einsum("bhc,hcd->hbd", run.z[layer][:, 0], block.writes) for layer, block in enumerate(parts.blocks)]
        )
        nothing = run.final.new_zeros(run.final.shape[-1])
        biases = [nothing if block.write_bias is None else block.write_bias for block in parts.blocks]
        return Attribution(
            embedding=said(run.pre[0][:, 0]),
            heads=said(heads),
            mlps=said(run.mlp[:, :, 0]),
            biases=said(torch.stack(biases)[:, None].expand(-1, len(ids), -1)),
            rest=(offset * direction).sum(-1) + rest,
        )


def _held(norm: nn.Module, stream: Float[Tensor, "batch dim"]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A norm as a linear map, the scale of this stream held, and what it adds.

    Which kind it is follows from what it does to the stream and not from its name: with or without centring, with the
    gain, one plus the gain, or none.
    """
    whole = norm(stream)
    offset = getattr(norm, "bias", None)
    offset = torch.zeros_like(stream[0]) if offset is None else offset
    gain = getattr(norm, "weight", None)
    eps = next((float(value) for name in ("eps", "variance_epsilon") if (value := getattr(norm, name, None))), 0.0)
    for centred in (False, True):
        x = stream - stream.mean(-1, keepdim=True) if centred else stream
        for scale in (1.0, (x.square().mean(-1, keepdim=True) + eps).rsqrt()):
            for gains in (1.0,) if gain is None else (gain, 1.0 + gain):
                if torch.allclose(x * scale * gains + offset, whole, rtol=1e-4, atol=1e-5):
                    return _linear(centred, scale * gains), offset
    raise ValueError(
        f"the last norm, {type(norm).__name__}, is not linear with its scale held; layer and RMS norms are"
    )


def _linear(centred: bool, factor: Tensor | float) -> Callable[[Tensor], Tensor]:
    return lambda part: (part - part.mean(-1, keepdim=True) if centred else part) * factor
