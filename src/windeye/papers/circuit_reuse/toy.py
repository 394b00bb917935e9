"""A small decoder that looks up keys: which heads carry the answer, who tells them where to look, and what edits do."""

from __future__ import annotations

import copy
import time
from functools import partial
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.compare.training import Point, check_seed, trained
from windeye.data.sequences import Fresh, Sequences, derived_seed
from windeye.data.tasks import ContrastBatch
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
from windeye.ops import DistanceMass
from windeye.papers.circuit_reuse.plan import Toy
from windeye.report import Tell
from windeye.sites import Scale, Where, steer, watch
from windeye.sites.patching import activation_patching, attribution_patching, patched_logits, uniform_rows
from windeye.sites.paths import Receivers, path_patching
from windeye.train import score

EDITED, DRAWS = 4, 20
"""Heads that a repair edits, and how often random ones are drawn instead."""

Table = list[list[float]]
"""A number per layer and head."""


class Circuit(TypedDict):
    """What path patching finds in the trained model.

    ``previous`` is each head's attention from values to the token before; ``answering`` the layer whose heads carry the
    answer; ``keys_free`` and ``keys_frozen`` the effects on the keys of these heads; ``without`` the accuracy with the
    head that attends most to the token before set to zero, and ``other`` the mean of that of the other heads below.
    """

    difference: float
    corrupt: float
    logits: Table
    by_all_routes: Table
    first_order: Table
    previous: Table
    answering: int
    keys_free: Table
    keys_frozen: Table
    without: float
    other: float


class Repair(TypedDict):
    """What overwriting rows does to the half-trained model.

    ``direct`` and ``change`` are of the logit difference, by head; the rest are accuracies on prompts on which no head
    was chosen.
    """

    direct: Table
    change: Table
    plain: float
    edited: float
    random: float


class Outcome(TypedDict):
    """What one seed leaves behind."""

    accuracy: float
    steps: int
    attempts: int
    half: float
    circuit: Circuit
    repair: Repair
    seconds: float


def learn(plan: Toy, seed: int, device: str, tell: Tell) -> Outcome:
    """Train a decoder until it looks up keys, and take it apart.

    Some weights lead to a model that guesses which values are left in a list; training then begins again.

    Raises:
        ValueError: a seed below 0.
    """
    check_seed(seed)
    began = time.process_time()
    held_out = plan.task.sample(plan.held_out, seed=seed, split="test")
    for attempt in range(plan.attempts):
        share = partial(_share, tell, attempt, plan.attempts)
        model, half, points, reached = _trained(plan, derived_seed(seed, attempt), held_out, device, share)
        if points[-1]["score"] >= plan.enough:
            break
    tell(1.0)
    prompts = plan.task.contrasts(plan.prompts, seed=seed)
    return Outcome(
        accuracy=points[-1]["score"],
        steps=points[-1]["step"],
        attempts=attempt + 1,
        half=reached,
        circuit=circuit(model, prompts),
        repair=repair(half, prompts, seed),
        seconds=time.process_time() - began,
    )


def _trained(
    plan: Toy, seed: int, held_out: Sequences, device: str, tell: Tell
) -> tuple[DecoderLM, DecoderLM, list[Point], float]:
    """The trained model, a copy from when it had learned half of it, evaluations, and the accuracy of the copy."""
    torch.manual_seed(seed)
    mixers = (AttentionSpec(plan.heads),) * plan.layers
    config = DecoderConfig(plan.task.vocabulary, plan.dim, mixers, glu_dim=plan.glu_dim, init_std=plan.init_std)
    model = DecoderLM(config).to(device)
    halves: list[tuple[DecoderLM, float]] = []

    def accuracy(module: nn.Module) -> float:
        found = score(module, [held_out])["accuracy"]
        if found >= plan.half and not halves:
            halves.append((copy.deepcopy(model).eval(), found))
        return found

    points, _ = trained(
        model, Fresh(plan.task.sample, plan.batch_size, seed=seed), steps=plan.steps, every=plan.every, rate=plan.rate,
        enough=plan.enough, tell=tell, score=accuracy,
    )  # fmt: skip
    half, reached = halves[0] if halves else (model, points[-1]["score"])
    return model, half, points, reached


def _share(tell: Tell, attempt: int, attempts: int, share: float) -> None:
    tell((attempt + share) / attempts)


def circuit(model: DecoderLM, prompts: ContrastBatch) -> Circuit:
    """Which heads carry the answer, and which head tells their keys what stands before each value."""
    to_logits = path_patching(model, prompts, mlps="free")
    by_all = activation_patching(model, prompts)
    layer = answering(by_all.effect)
    keys = Receivers("k", tuple((layer, head) for head in range(by_all.effect.shape[1])))
    free, frozen = (
        path_patching(model, prompts, mlps=mlps, receivers=keys, places="all").effect for mlps in ("free", "frozen")
    )
    attended = previous_token(model, prompts.clean)
    first = int(attended[: max(layer, 1)].flatten().argmax())
    below = [divmod(place, attended.shape[1]) for place in range(max(layer, 1) * attended.shape[1])]
    without = [ablated(model, prompts, head) for head in below]
    return Circuit(
        difference=to_logits.clean.mean().item(),
        corrupt=to_logits.corrupt.mean().item(),
        logits=to_logits.effect.tolist(),
        by_all_routes=by_all.effect.tolist(),
        first_order=attribution_patching(model, prompts).effect.tolist(),
        previous=attended.tolist(),
        answering=layer,
        keys_free=free.tolist(),
        keys_frozen=frozen.tolist(),
        without=without.pop(first),
        other=sum(without) / len(without),
    )


def answering(effect: Float[Tensor, "layers heads"]) -> int:
    """The layer above the first whose heads together carry most of the answer; heads of the first have no senders.

    Example:
        >>> answering(torch.tensor([[0.9, 0.0], [0.2, -0.9], [0.1, 0.2]]))
        2
    """
    return 1 + int(effect[1:].clamp(min=0).sum(dim=1).argmax())


def previous_token(model: DecoderLM, ids: Int[Tensor, "batch n"]) -> Float[Tensor, "layers heads"]:
    """How much each head's queries at values attend to the token before, which is the value's key."""
    with torch.no_grad(), watch(model, {"previous": DistanceMass(1, 1)}) as seen:
        model(ids)
    return seen["previous"][:, :, 1::2].mean(dim=(1, 2))


def ablated(model: DecoderLM, prompts: ContrastBatch, head: tuple[int, int]) -> float:
    """Accuracy with one head's outputs set to zero at all tokens."""
    with torch.no_grad(), steer(model, [Scale("z", 0.0, where=Where(heads={head[0]: (head[1],)}))]):
        logits = model(prompts.clean)[:, -1]
    return (logits.argmax(-1) == prompts.answers[:, 0]).double().mean().item()


def repair(model: DecoderLM, prompts: ContrastBatch, seed: int) -> Repair:
    """Let the last token of one head after the other attend to the wrong values of the list, evenly; then of the few
    heads that this helped most together, chosen on one half of the prompts and judged on the other."""
    z = uniform_rows(model, prompts.clean, wrong_values(prompts))
    by_all = activation_patching(model, prompts, by=z)
    direct = path_patching(model, prompts, mlps="frozen", by=z)
    moved = by_all.patched - by_all.clean
    half = len(prompts) // 2
    judged, heads = prompts.rows(slice(half, None)), moved.shape[1]

    order = moved[..., :half].mean(-1).flatten().argsort(descending=True)[:EDITED].tolist()
    generator = torch.Generator().manual_seed(derived_seed("random heads", seed))
    drawn = [torch.randperm(moved.shape[0] * heads, generator=generator)[:EDITED].tolist() for _ in range(DRAWS)]
    sets = [[divmod(place, heads) for place in places] for places in ([], order, *drawn)]
    named = patched_logits(model, judged, sets, z[:, half:]).argmax(-1)
    plain, edited, *at_random = (named == judged.answers[:, 0]).double().mean(dim=1).tolist()
    return Repair(
        direct=(direct.patched - direct.clean).mean(-1).tolist(),
        change=moved.mean(-1).tolist(),
        plain=plain,
        edited=edited,
        random=sum(at_random) / DRAWS,
    )


def wrong_values(prompts: ContrastBatch) -> Int[Tensor, "batch wrong"]:
    """Where in each clean list the values stand that are not the answer.

    Example:
        >>> clean = torch.tensor([[0, 5, 1, 6, 2, 7, 1]])
        >>> wrong_values(ContrastBatch(clean, clean, torch.tensor([[6, 5]]))).tolist()
        [[1, 5]]
    """
    places = torch.arange(1, prompts.clean.shape[1], 2)
    wrong = prompts.clean[:, 1::2] != prompts.answers[:, :1]
    return places.expand(len(prompts), -1)[wrong].reshape(len(prompts), -1)
