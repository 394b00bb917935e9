"""Path patching: how much of a head's influence goes straight to one receiver, all other heads held fixed.

Two runs are compared, a clean prompt and a corrupted one of as many tokens. For a sender, a head, and a receiver:

1. run the clean prompt with the sender's output taken from the corrupted run and every other head's held at its clean
   value, and note what arrives at the receiver;
2. run the clean prompt again with only the receiver's input replaced by that, everything else free.

    effect = (LD_patched - LD_clean) / (LD_corrupt - LD_clean)      LD = logit(right) - logit(wrong), means over prompts

0 is no effect, 1 a full flip. With all heads held, what a sender changes stays at its own place in the sequence: the
residual stream there moves by ``(z' - z) W_O``, and MLPs that recompute move it further. So the first pass needs no
forward at all, and where the logits receive no second one either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.data.tasks import ContrastBatch
from windeye.sites.anatomy import Anatomy, Input, Projection, Streams, anatomy, run_streams
from windeye.sites.effects import Effects
from windeye.sites.hooks import evaluating, hooked
from windeye.sites.replay import Replay

Mlps = Literal["free", "frozen"]
Route = Literal["closed", "two-pass"]
Sender = tuple[int, int]
"""Layer and head."""

LOGITS = -1
"""Stands for the head where receivers are listed by layer."""


@dataclass(frozen=True)
class Receivers:
    """Queries, keys or values of some heads, patched together; keys and values are counted by key-value heads.

    Example:
        >>> Receivers("q", ((12, 3), (13, 4))).layers
        (12, 13)
    """

    input: Input
    heads: tuple[tuple[int, int], ...]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for layer, _ in self.heads}))

    def of(self, layer: int) -> list[int]:
        """Its heads in a layer."""
        return [head for at, head in self.heads if at == layer]

    def check(self, parts: Anatomy) -> None:
        """Refuse heads that the model does not have.

        Raises:
            IndexError: names layer and head, and what there is. ValueError: no heads, or an unknown input.
        """
        if self.input not in ("q", "k", "v"):
            raise ValueError(f'input must be "q", "k" or "v", got {self.input!r}')
        if not self.heads:
            raise ValueError("receivers must name at least one head")
        for layer, head in self.heads:
            if not 0 <= layer < len(parts.blocks):
                raise IndexError(f"receiver layer {layer}, head {head}: layers are 0 to {len(parts.blocks) - 1}")
            most = parts.blocks[layer].inputs[self.input].heads
            if not 0 <= head < most:
                raise IndexError(f"receiver layer {layer}, head {head}: {self.input} heads are 0 to {most - 1}")


@dataclass(frozen=True, eq=False)
class PathEffects(Effects):
    """Effects of all heads on one receiver; none for heads that cannot reach it, and for the receivers themselves.

    Args:
        receivers: whose input was patched.
        mlps: whether MLPs between sender and receiver recomputed; part of what an effect means.
    """

    receivers: Receivers | Literal["logits"]
    mlps: Mlps


def path_patching(
    model: nn.Module,
    prompts: ContrastBatch,
    *,
    mlps: Mlps,
    receivers: Receivers | Literal["logits"] = "logits",
    places: Int[Tensor, "batch places"] | str = "end",
    senders: Sequence[Sender] | None = None,
    by: Float[Tensor, "layers batch places heads head_dim"] | None = None,
    route: Route = "closed",
    chunk: int = 32,
) -> PathEffects:
    """The effect of every head, sending to one receiver.

    Args:
        model: a decoder of this library with `windeye.nn.CausalAttention` in all layers, a GPT-2, or a Llama or one of
            its relatives, as transformers builds them.
        prompts: clean and corrupted tokens, the two answers, and where each prompt ends.
        mlps: "free" lets MLPs between sender and receiver recompute, "frozen" holds them at their clean values. The two
            mean different things: a route through an MLP is no direct path.
        receivers: the logits at each prompt's end, or queries, keys or values of heads.
        places: at which tokens senders and receivers are patched: the "end" of each prompt, "all", a name among
            ``prompts.places``, or one row of positions per prompt.
        senders: heads that are tried; default all that can reach the receiver.
        by: what a sender sends instead; default its output in the corrupted run.
        route: "closed" computes what arrives at the receiver and runs on from the first patched token, "two-pass" runs
            the model twice per sender: the same numbers, as a reference.
        chunk: how many senders share one forward pass; more is faster and takes more memory.

    Raises:
        ValueError: the model's layout is not known or its parts do not add up; logits with other places than the end,
            from which alone a held network reaches them; clean and corrupt do not differ in their logit difference.
        IndexError: a receiver that does not exist; names layer and head.

    Source: circuit-reuse spec; equal to the official implementation, see tests/sites/test_paths.py.

    Example:
        >>> from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
        >>> model = DecoderLM(DecoderConfig(50, 32, (AttentionSpec(4),) * 3, glu_dim=64))
        >>> clean, corrupt = torch.randint(50, (2, 8, 12))
        >>> prompts = ContrastBatch(clean, corrupt, answers=torch.tensor([[7, 9]] * 8))
        >>> path_patching(model, prompts, mlps="free").effect.shape
        torch.Size([3, 4])
    """
    if mlps not in ("free", "frozen"):
        raise ValueError(f'mlps must be "free" or "frozen", got {mlps!r}')
    if route not in ("closed", "two-pass"):
        raise ValueError(f'route must be "closed" or "two-pass", got {route!r}')
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    parts = anatomy(model)
    if receivers == "logits":
        if not (isinstance(places, str) and places == "end"):
            raise ValueError(
                'where logits receive, places must be "end": held heads carry nothing there from elsewhere'
            )
    else:
        receivers.check(parts)
    at = prompts.at(places)
    tried = _tried(parts, receivers, senders)
    before, after = (at.new_empty(len(prompts), dtype=parts.unembedding.dtype) for _ in range(2))
    patched = before.new_empty(len(parts.blocks), parts.heads, len(prompts))
    with torch.no_grad(), evaluating(model):
        for rows in _groups(at, route):
            some, here = prompts.rows(rows), at[rows]
            clean, corrupt = (run_streams(parts, ids, here, some.end) for ids in (some.clean, some.corrupt))
            before[rows], after[rows] = (parts.difference(run.final, some.answers) for run in (clean, corrupt))
            sent = corrupt.z if by is None else by[:, rows]
            if sent.shape != clean.z.shape:
                raise ValueError(f"by must be [layers, batch, places, heads, head_dim], got {tuple(sent.shape)}")
            # Before the first patched place a patched run is the clean one.
            skipped = int(here.min()) if route == "closed" and receivers != "logits" else 0
            replay = Replay(parts.body, some.clean, skipped)
            sweep = _Sweep(parts, some, here, clean, sent, receivers, mlps, chunk, replay)
            patched[..., rows] = sweep.run(tried, route)
    return PathEffects(patched, before, after, receivers, mlps)


def _tried(parts: Anatomy, receivers: Receivers | Literal["logits"], senders: Sequence[Sender] | None) -> list[Sender]:
    """Heads up to the lowest receiver's layer, without the receivers themselves; of these the ones that are asked for.

    Raises:
        IndexError: a sender that does not exist.
    """
    last, skipped = len(parts.blocks) - 1, set[Sender]()
    if receivers != "logits":
        last = receivers.layers[0]
        for layer, head in receivers.heads:
            # Query heads that share the keys or values of a receiver.
            share = parts.heads // parts.blocks[layer].inputs[receivers.input].heads
            skipped |= {(layer, head * share + i) for i in range(share)}
    for layer, head in senders or ():
        if not (0 <= layer < len(parts.blocks) and 0 <= head < parts.heads):
            there = f"layers are 0 to {len(parts.blocks) - 1}, heads 0 to {parts.heads - 1}"
            raise IndexError(f"sender layer {layer}, head {head}: {there}")
    every = ((layer, head) for layer in range(last + 1) for head in range(parts.heads))
    return [sender for sender in every if sender not in skipped and (senders is None or sender in senders)]


def _groups(at: Int[Tensor, "batch places"], route: Route) -> list[Tensor]:
    """Prompts that share their first patched place, so that none runs from an earlier one; the reference runs all."""
    if route == "two-pass":
        return [torch.arange(len(at), device=at.device)]
    first = at.amin(dim=1)
    return [(first == place).nonzero()[:, 0] for place in torch.unique(first)]


@dataclass(frozen=True)
class _Sweep:
    """One sweep over all senders."""

    parts: Anatomy
    prompts: ContrastBatch
    at: Int[Tensor, "batch places"]
    clean: Streams
    sent: Float[Tensor, "layers batch places heads head_dim"]
    receivers: Receivers | Literal["logits"]
    mlps: Mlps
    chunk: int
    replay: Replay

    def run(self, every: list[Sender], route: Route) -> Float[Tensor, "layers heads batch"]:
        """The logit differences; those of heads that are no senders are the clean ones."""
        before = self.parts.difference(self.clean.final, self.prompts.answers)
        found = before.expand(len(self.parts.blocks), self.parts.heads, -1).clone()
        arrivals = self._computed(every) if route == "closed" else None
        for start in range(0, len(every), self.chunk):
            senders = every[start : start + self.chunk]
            got = (
                self._observed(senders)
                if arrivals is None
                else {key: x[start : start + self.chunk] for key, x in arrivals.items()}
            )
            if self.receivers == "logits" and route == "closed":
                rows = self.parts.difference(got[LOGITS], self.prompts.answers)
            else:
                rows = self._second_pass(got, len(senders))
            layers, heads = zip(*senders, strict=True)
            found[list(layers), list(heads)] = rows
        return found

    def _computed(self, senders: Sequence[Sender]) -> dict[int, Tensor]:
        """What arrives at each receiver, from the streams of the two runs."""
        wanted = torch.tensor([layer * self.parts.heads + head for layer, head in senders], dtype=torch.int64)
        if self.receivers == "logits":
            *_, (_, shift) = self._shifts()
            return {LOGITS: self.clean.final + shift[wanted, :, 0]}
        arrived = {}
        for layer, shift in self._shifts():
            if layer in self.receivers.layers:
                block = self.parts.blocks[layer]
                rows = wanted[wanted < len(shift)]
                got = [
                    self._read(layer, block.norm(self.clean.pre[layer] + shift[some]))
                    for some in torch.split(rows, self.chunk)
                ]
                # What is not below the receiver does not reach it.
                unmoved = self._read(layer, block.norm(self.clean.pre[layer]))
                rest = unmoved.expand(len(wanted) - len(rows), *unmoved.shape)
                arrived[layer] = torch.cat((*got, rest))
            if layer == self.receivers.layers[-1]:
                break
        return arrived

    def _shifts(self) -> Iterator[tuple[int, Float[Tensor, "senders batch places dim"]]]:
        """Layer by layer, and at last for the head: how far the heads below, in order, move the stream before it."""
        shift = self.clean.pre.new_zeros(0, *self.clean.pre.shape[1:])
        for layer, block in enumerate(self.parts.blocks):
            yield layer, shift
            moved = self.sent[layer] - self.clean.z[layer]
            shift = torch.cat((shift, torch.einsum("bphc,hcd->hbpd", moved, block.writes)))
            if self.mlps == "free":
                for rows in torch.split(shift, self.chunk):
                    rows += block.moved(self.clean.mid[layer] + rows) - self.clean.mlp[layer]
        yield len(self.parts.blocks), shift

    def _read(self, layer: int, normed: Tensor) -> Float[Tensor, "*batch receivers head_dim"]:
        projection, heads = self._inputs(layer)
        return projection.of(projection.module(normed))[..., heads, :]

    def _observed(self, senders: Sequence[Sender]) -> dict[int, Tensor]:
        """What arrives at each receiver in a run with the senders corrupted and all else held."""
        got: dict[int, Tensor] = {}
        copies, pick = len(senders), self._pick(len(senders))

        def note(layer: int, out: Tensor) -> None:
            projection, heads = self._inputs(layer)
            got[layer] = _by_copy(projection.of(out[pick])[..., heads, :], copies)

        with hooked() as hooks:
            for layer, block in enumerate(self.parts.blocks):
                held = self.clean.z[layer].expand(copies, -1, -1, -1, -1).clone()
                for copy, (at, head) in enumerate(senders):
                    if at == layer:
                        held[copy, :, :, head] = self.sent[layer][:, :, head]
                hooks.before(block.out, partial(_put, pick=pick, values=held.flatten(0, 1).flatten(-2)))
                if self.mlps == "frozen" and block.mlp is not None:
                    frozen = self.clean.mlp[layer].repeat(copies, 1, 1)
                    hooks.after(block.mlp[1], partial(_put, pick=pick, values=frozen))
            if self.receivers == "logits":
                return {LOGITS: self._final(copies)}
            for layer in self.receivers.layers:
                hooks.after(self._inputs(layer)[0].module, partial(note, layer))
            self._final(copies)
        return got

    def _second_pass(self, arrived: dict[int, Tensor], copies: int) -> Float[Tensor, "copies batch"]:
        """Run with what the receivers get replaced and all else free."""
        pick = self._pick(copies)

        def write(layer: int, out: Tensor) -> Tensor:
            projection, heads = self._inputs(layer)
            out = out.clone()
            rows, at = (index[..., None] for index in pick)
            projection.of(out)[rows, at, torch.tensor(heads, device=at.device)] = arrived[layer].flatten(0, 1)
            return out

        with hooked() as hooks:
            for layer, values in arrived.items():
                if layer == LOGITS:
                    # The only place that is patched is the end.
                    hooks.before(self.parts.final_norm, partial(_put, pick=pick, values=values.flatten(0, 1)[:, None]))
                else:
                    hooks.after(self._inputs(layer)[0].module, partial(write, layer))
            final = self._final(copies)
        return self.parts.difference(final, self.prompts.answers)

    def _inputs(self, layer: int) -> tuple[Projection, list[int]]:
        """What the receivers of a layer read with, and which of its heads they are."""
        assert isinstance(self.receivers, Receivers)
        return self.parts.blocks[layer].inputs[self.receivers.input], self.receivers.of(layer)

    def _final(self, copies: int) -> Float[Tensor, "copies batch dim"]:
        """The stream at each prompt's end, from a run of so many copies of the clean prompts."""
        seen: list[Tensor] = []
        with hooked() as hooks:
            hooks.before(self.parts.final_norm, seen.append)
            self.replay(copies)
        rows = torch.arange(len(seen[0]), device=seen[0].device)
        return _by_copy(seen[0][rows, self.prompts.end.repeat(copies) - self.replay.start], copies)

    def _pick(self, copies: int) -> tuple[Tensor, Tensor]:
        at = self.at.repeat(copies, 1) - self.replay.start
        return torch.arange(len(at), device=at.device)[:, None], at


def _put(x: Tensor, pick: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    return x.index_put(pick, values)


def _by_copy(x: Float[Tensor, "rows *rest"], copies: int) -> Float[Tensor, "copies batch *rest"]:
    return x.reshape(copies, -1, *x.shape[1:])
