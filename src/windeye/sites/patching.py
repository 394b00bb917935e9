"""Activation patching and what stands in for it: one head's output is replaced and everything behind it recomputes.

What a head does by all routes together, where `windeye.sites.paths` tells one route from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.data.tasks import ContrastBatch
from windeye.sites.anatomy import Anatomy, Projection, anatomy, run_streams
from windeye.sites.effects import Effects
from windeye.sites.hooks import evaluating, hooked
from windeye.sites.replay import Replay

By = Literal["corrupt", "zero", "mean"]


def activation_patching(
    model: nn.Module,
    prompts: ContrastBatch,
    *,
    by: By | Float[Tensor, "layers batch places heads head_dim"] = "corrupt",
    places: Int[Tensor, "batch places"] | str = "end",
    chunk: int = 32,
) -> Effects:
    """Replace each head's output at some places, one head at a time, and let everything behind it recompute.

    Args:
        model: as of `windeye.sites.paths.path_patching`.
        prompts: clean and corrupted tokens.
        by: what the output is replaced by: that of the "corrupt" run, "zero", its "mean" over the clean prompts, or
            given numbers.
        places: the "end" of each prompt, "all", a name among ``prompts.places``, or one row of positions per prompt.
        chunk: how many heads share one forward pass.

    Raises:
        ValueError: as `path_patching`, and an unknown ``by``.

    Example:
        >>> from windeye.models import transformer
        >>> clean, corrupt = torch.randint(50, (2, 8, 12))
        >>> prompts = ContrastBatch(clean, corrupt, answers=torch.tensor([[7, 9]] * 8))
        >>> activation_patching(transformer(2, 32, 4, vocab_size=50), prompts).effect.shape
        torch.Size([2, 4])
    """
    if isinstance(by, str) and by not in ("corrupt", "zero", "mean"):
        raise ValueError(f'by must be "corrupt", "zero" or "mean", got {by!r}')
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    parts, at = anatomy(model), prompts.at(places)
    with torch.no_grad(), evaluating(model):
        clean, corrupt = (run_streams(parts, ids, at, prompts.end) for ids in (prompts.clean, prompts.corrupt))
        before, after = (parts.difference(run.final, prompts.answers) for run in (clean, corrupt))
        z = by if isinstance(by, Tensor) else _instead(by, clean.z, corrupt.z)
        if z.shape != clean.z.shape:
            raise ValueError(f"by must be of shape {tuple(clean.z.shape)} here, got {tuple(z.shape)}")
        replay = Replay(parts.body, prompts.clean, int(at.min()))
        rows = [
            _run(parts, prompts, at, z[layer][:, :, heads], layer, heads, replay)
            for layer in range(len(parts.blocks))
            for heads in torch.split(torch.arange(parts.heads), chunk)
        ]
    return Effects(torch.cat(rows).reshape(len(parts.blocks), parts.heads, -1), before, after)


def _instead(by: By, clean: Tensor, corrupt: Tensor) -> Tensor:
    if by == "corrupt":
        return corrupt
    return torch.zeros_like(clean) if by == "zero" else clean.mean(1, keepdim=True).expand_as(clean)


def _run(
    parts: Anatomy, prompts: ContrastBatch, at: Tensor, z: Tensor, layer: int, heads: Tensor, replay: Replay
) -> Tensor:
    """Logit differences [heads, batch] with one head replaced in each copy of the prompts."""
    copies, batch = len(heads), len(prompts)
    first = torch.arange(batch, device=at.device)[:, None]
    final: list[Tensor] = []

    def replace(x: Tensor) -> Tensor:
        x = x.clone()
        by_head = x.view(copies, batch, x.shape[1], parts.heads, -1)
        for copy, head in enumerate(heads.tolist()):
            by_head[copy, first, at - replay.start, head] = z[:, :, copy]
        return x

    with hooked() as hooks:
        hooks.before(parts.blocks[layer].out, replace)
        hooks.before(parts.final_norm, final.append)
        replay(copies)
    rows = torch.arange(copies * batch, device=at.device)
    last = final[0][rows, prompts.end.repeat(copies) - replay.start]
    return parts.difference(last.reshape(copies, batch, -1), prompts.answers)


def patched_logits(
    model: nn.Module,
    prompts: ContrastBatch,
    sets: Sequence[Sequence[tuple[int, int]]],
    z: Float[Tensor, "layers batch 1 heads head_dim"],
) -> Float[Tensor, "sets batch vocab"]:
    """Logits at each prompt's end with the outputs of several heads replaced there, all heads of a set together.

    Args:
        sets: of (layer, head); an empty one leaves the clean run.
        z: their outputs; those of other heads are not read.

    Raises:
        IndexError: a head that does not exist; names layer and head.

    Example:
        >>> from windeye.models import transformer
        >>> clean, corrupt = torch.randint(50, (2, 8, 12))
        >>> prompts = ContrastBatch(clean, corrupt, answers=torch.tensor([[7, 9]] * 8))
        >>> z = torch.zeros(2, 8, 1, 4, 8)
        >>> patched_logits(transformer(2, 32, 4, vocab_size=50), prompts, [[], [(0, 3), (1, 2)]], z).shape
        torch.Size([2, 8, 50])
    """
    parts, copies, batch = anatomy(model), len(sets), len(prompts)
    for layer, head in {head for chosen in sets for head in chosen}:
        if not (0 <= layer < len(parts.blocks) and 0 <= head < parts.heads):
            there = f"layers are 0 to {len(parts.blocks) - 1}, heads 0 to {parts.heads - 1}"
            raise IndexError(f"layer {layer}, head {head}: {there}")
    final: list[Tensor] = []
    rows, start = torch.arange(batch, device=prompts.end.device), int(prompts.end.min())
    here = prompts.end - start

    def replace(layer: int, x: Tensor) -> Tensor:
        x = x.clone()
        by_head = x.view(copies, batch, x.shape[1], parts.heads, -1)
        for copy, chosen in enumerate(sets):
            heads = [head for at, head in chosen if at == layer]
            by_head[copy, rows[:, None], here[:, None], heads] = z[layer][:, 0, heads]
        return x

    with torch.no_grad(), evaluating(model):
        replay = Replay(parts.body, prompts.clean, start)
        with hooked() as hooks:
            for layer, block in enumerate(parts.blocks):
                hooks.before(block.out, partial(replace, layer))
            hooks.before(parts.final_norm, final.append)
            replay(copies)
        last = final[0].reshape(copies, batch, *final[0].shape[1:])[:, rows, here]
        return parts.logits(last)


def uniform_rows(
    model: nn.Module, ids: Int[Tensor, "batch n"], keys: Int[Tensor, "batch keys"]
) -> Float[Tensor, "layers batch 1 heads head_dim"]:
    """Outputs of all heads as if a row of their attention were even over some keys and zero elsewhere: the mean of
    their values, which needs no map.

    Args:
        ids: tokens.
        keys: positions per sequence, as many in each.

    Source: circuit-reuse spec; equal to `windeye.sites.SetAttention` of such a row, see the tests.

    Example:
        >>> from windeye.models import transformer
        >>> uniform_rows(transformer(2, 32, 4, vocab_size=50), torch.arange(6)[None], torch.tensor([[1, 3]])).shape
        torch.Size([2, 1, 1, 4, 8])
    """
    parts = anatomy(model)
    pick = torch.arange(len(ids), device=ids.device)[:, None], keys
    found: list[Tensor] = []

    def note(projection: Projection, out: Tensor) -> None:
        mean = projection.of(out[pick]).mean(1)
        # Query heads that share values stand side by side.
        found.append(mean.repeat_interleave(parts.heads // projection.heads, dim=1)[:, None])

    with torch.no_grad(), evaluating(model), hooked() as hooks:
        for block in parts.blocks:
            values = block.inputs["v"]
            hooks.after(values.module, partial(note, values))
        parts.body(ids)
    return torch.stack(found)


def attribution_patching(
    model: nn.Module, prompts: ContrastBatch, *, places: Int[Tensor, "batch places"] | str = "end"
) -> Effects:
    """The first-order guess at `activation_patching`: ``LD + dLD/dz . (z' - z)``, all heads from one backward pass.

    Good where the change of a head is small; saturated norms and softmaxes are where it fails.

    Example:
        >>> from windeye.models import transformer
        >>> clean, corrupt = torch.randint(50, (2, 8, 12))
        >>> prompts = ContrastBatch(clean, corrupt, answers=torch.tensor([[7, 9]] * 8))
        >>> attribution_patching(transformer(2, 32, 4, vocab_size=50), prompts).effect.shape
        torch.Size([2, 4])
    """
    parts, at = anatomy(model), prompts.at(places)
    pick = torch.arange(len(prompts), device=at.device)[:, None], at
    with evaluating(model):
        with torch.no_grad():
            clean, corrupt = (run_streams(parts, ids, at, prompts.end) for ids in (prompts.clean, prompts.corrupt))
            before, after = (parts.difference(run.final, prompts.answers) for run in (clean, corrupt))
        # Added and not put in their place, so that slopes go through the heads behind as well.
        zeros = [torch.zeros_like(layer).flatten(-2).requires_grad_() for layer in clean.z]
        final: list[Tensor] = []
        with torch.enable_grad():
            with hooked() as hooks:
                for block, leaf in zip(parts.blocks, zeros, strict=True):
                    hooks.before(block.out, partial(_add, pick=pick, values=leaf))
                hooks.before(parts.final_norm, final.append)
                parts.body(prompts.clean)
            last = final[0][torch.arange(len(prompts), device=at.device), prompts.end]
            slopes = torch.autograd.grad(parts.difference(last, prompts.answers).sum(), zeros)
    moved = corrupt.z - clean.z
    shares = torch.stack(slopes).reshape(moved.shape).mul(moved).sum((2, 4)).movedim(2, 1)
    return Effects(before + shares, before, after)


def _add(x: Tensor, pick: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    return x.index_put(pick, values, accumulate=True)
