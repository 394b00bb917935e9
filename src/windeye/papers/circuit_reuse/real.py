"""A pretrained model on both tasks: its logit differences, which heads matter for which, and the repair."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.data.tasks import IOI, ColoredObjects, ContrastBatch, colored_objects, ioi, single_tokens, tokenize
from windeye.papers.circuit_reuse.plan import Real
from windeye.report import Tell
from windeye.sites.patching import patched_logits, uniform_rows
from windeye.sites.paths import Receivers, path_patching

Heads = list[tuple[int, int]]


class Task(TypedDict):
    """One task. Effects are by layer and head."""

    difference: float
    corrupt: float
    positive: float
    accuracy: float
    logits: list[list[float]]
    frozen: list[list[float]]
    movers: Heads
    queries: list[list[float]]


class Reading(TypedDict):
    """Both tasks, what they share, and the repair of Colored Objects by heads that IOI named.

    ``accuracy`` and ``among``, that among the scene's colours, are of the model as it is, with all heads edited, with
    the inhibitors alone, with the head that speaks against the answer alone, and with random heads.
    """

    ioi: Task
    colored_objects: Task
    shared: dict[str, int]
    of: int
    heads: int
    p_value: float
    spearman: float
    spearman_p: float
    edited: Heads
    accuracy: list[float]
    among: list[float]
    seconds: float


def read(plan: Real, tell: Tell) -> Reading:
    """Run both tasks on the model, with the vocabulary that it has.

    Raises:
        AssetUnavailable: the model is not on this machine and could not be fetched.
        ImportError: without transformers; names the extra.
    """
    from windeye.hf.pretrained import load

    began = time.process_time()
    model, tokenizer = load(plan.model)
    names, things = (single_tokens(words, tokenizer) for words in (ioi.NAMES, colored_objects.OBJECTS))
    drawn = ColoredObjects(things).sample(plan.prompts, seed=0)
    batches = {
        "ioi": tokenize([p.contrast() for p in IOI("mixed", names).sample(plan.prompts, seed=0)], tokenizer),
        "colored_objects": tokenize([p.contrast() for p in drawn], tokenizer),
    }
    found: dict[str, Task] = {}
    for number, (name, batch) in enumerate(batches.items()):
        found[name] = task(model, batch, plan)
        tell((1 + number) / 3)
    one, other = (found[name] for name in batches)
    stages = {
        stage: [important(torch.tensor(t[stage]), plan.share) for t in (one, other)] for stage in ("logits", "queries")
    }
    shared = {stage: len(a & b) for stage, (a, b) in stages.items()}
    size, heads = len(stages["logits"][0]), torch.tensor(one["logits"]).numel()
    rho, rho_p = spearman(torch.tensor(one["logits"]), torch.tensor(other["logits"]), plan.permutations)
    edited = suspects(one, plan.inhibitors)
    colours = torch.tensor([[_one(tokenizer, f" {c.capitalize()}") for c in p.scene.colours] for p in drawn])
    wrong = torch.tensor([p.wrong for p in drawn])
    generator = torch.Generator().manual_seed(0)
    # Random heads of the same layers.
    at_random: list[Heads] = [
        [(layer, int(torch.randint(len(one["logits"][0]), (), generator=generator))) for layer, _ in edited]
        for _ in range(plan.draws)
    ]
    sets = [[], edited, edited[:-1], edited[-1:], *at_random]
    accuracy, among = repaired(model, batches["colored_objects"], colours, wrong, sets)
    tell(1.0)
    return Reading(
        ioi=one,
        colored_objects=other,
        shared=shared,
        of=size,
        heads=heads,
        p_value=by_chance(sum(shared.values()), size, heads, plan.permutations),
        spearman=rho,
        spearman_p=rho_p,
        edited=edited,
        accuracy=accuracy,
        among=among,
        seconds=time.process_time() - began,
    )


def task(model: Any, batch: ContrastBatch, plan: Real) -> Task:
    """Logit differences, effects on the logits, and effects on the queries of the heads that carry most."""
    free, frozen = (path_patching(model, batch, mlps=mlps) for mlps in ("free", "frozen"))
    effect = free.effect
    order = effect.flatten().argsort(descending=True)[: plan.movers].tolist()
    movers = [divmod(place, effect.shape[1]) for place in order]
    fewer = batch.rows(slice(0, plan.fewer))
    queries = path_patching(model, fewer, mlps="free", receivers=Receivers("q", tuple(movers)))
    nothing = free.patched.new_zeros(len(free.patched), len(batch), 1, effect.shape[1], 1)
    named = patched_logits(model, batch, [[]], nothing)[0].argmax(-1)
    return Task(
        difference=free.clean.mean().item(),
        corrupt=free.corrupt.mean().item(),
        positive=_share(free.clean > 0),
        accuracy=_share(named == batch.answers[:, 0]),
        logits=effect.tolist(),
        frozen=frozen.effect.tolist(),
        movers=movers,
        queries=queries.effect.tolist(),
    )


def repaired(
    model: nn.Module,
    batch: ContrastBatch,
    colours: Int[Tensor, "batch 3"],
    wrong: Int[Tensor, "batch 2"],
    sets: Sequence[Heads],
) -> tuple[list[float], list[float]]:
    """Accuracy, and that among the scene's colours, with the last token of some heads made to attend to the wrong
    colours, evenly.

    Args:
        batch: Colored Objects.
        colours: tokens of the answers that the scene's things would have.
        wrong: which two of the three are wrong.
        sets: of heads that are edited together.
    """
    stand = torch.stack([batch.places[f"colour{i}"] for i in range(3)], dim=1)
    logits = patched_logits(model, batch, sets, uniform_rows(model, batch.clean, stand.gather(1, wrong)))
    right = batch.answers[:, 0]
    best = logits.gather(2, colours.expand(len(sets), -1, -1)).argmax(-1)
    named = colours[torch.arange(len(right)), best]
    accuracy, among = ((said == right).double().mean(dim=1).tolist() for said in (logits.argmax(-1), named))
    return accuracy, among


def suspects(found: Task, inhibitors: int) -> Heads:
    """The largest senders into the movers' queries, and the head that speaks against the answer most."""
    queries, logits = torch.tensor(found["queries"]), torch.tensor(found["logits"])
    heads = logits.shape[1]
    against = divmod(int(logits.argmin()), heads)
    order = queries.abs().flatten().argsort(descending=True).tolist()
    senders = [head for head in (divmod(place, heads) for place in order) if head != against]
    return [*senders[:inhibitors], against]


def important(effect: Float[Tensor, "layers heads"], share: float) -> set[int]:
    """The heads of largest effect in absolute value, as places in the flattened table.

    Example:
        >>> important(torch.tensor([[0.1, -0.9], [0.5, 0.0]]), share=0.5)
        {1, 2}
    """
    count = -(-int(effect.numel() * share * 1000) // 1000)
    return set(effect.abs().flatten().argsort(descending=True)[: max(count, 1)].tolist())


def by_chance(shared: int, size: int, heads: int, draws: int) -> float:
    """How often two stages of random sets of ``size`` heads each share at least so many.

    Example:
        >>> by_chance(0, 3, 100, 100), by_chance(6, 3, 3, 100)
        (1.0, 1.0)
    """
    generator = torch.Generator().manual_seed(0)
    found = sum(
        (torch.rand(draws, heads, generator=generator).topk(size, dim=1).indices < size).sum(dim=1) for _ in range(2)
    )
    assert isinstance(found, Tensor)
    return (found >= shared).double().mean().item()


def spearman(a: Tensor, b: Tensor, permutations: int) -> tuple[float, float]:
    """Rank correlation of two tables, and how often it is as large when heads are permuted.

    Example:
        >>> spearman(torch.tensor([1.0, 2.0, 3.0, 9.0, 7.0]), torch.tensor([2.0, 3.0, 4.0, 8.0, 5.0]), 10)[0]
        1.0
    """
    one, other = (x.flatten().double().argsort().argsort().double() for x in (a, b))
    one, other = ((x - x.mean()) / (x - x.mean()).norm() for x in (one, other))
    rho = round((one @ other).item(), 12)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(permutations, len(one), generator=generator).argsort(dim=1)
    return rho, _share(other[order] @ one >= rho)


def _share(hits: Tensor) -> float:
    return hits.double().mean().item()


def _one(tokenizer: Any, word: str) -> int:
    (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
    return int(token)
