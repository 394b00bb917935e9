"""Probes of frozen tokens: trained heads, a vote of neighbours, and where a probe's queries look."""

from __future__ import annotations

from statistics import median
from time import perf_counter, process_time
from typing import TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from windeye.data.sequences import derived_seed
from windeye.models.probing import ProbeHead, nearest_vote, overlap
from windeye.nn.pools import EfficientPool
from windeye.papers.efficient_probing.encoders import Tokens
from windeye.papers.efficient_probing.plan import CLASS, POOLS, Plan
from windeye.train import AdamW, Cosine

CLASSES = 10
NEIGHBOURS, TEMPERATURES = (5, 10, 20, 50, 100, 200), (0.07, 0.1, 0.2)
"""Of the published sweep; those that are best on the scenes that choose are taken."""


class Outcome(TypedDict):
    """Accuracies in percent; milliseconds of processor time of a training step; and of maps the share on the digit, the
    share of patches that the digit covers, and their overlap before and after training (0 where there are no maps)."""

    accuracy: float
    parameters: int
    milliseconds: float
    rate: float
    coverage: float
    covered: float
    untrained: float
    overlap: float
    seconds: float


def read(arm: str, tokens: Tokens) -> Tensor:
    """The tokens that an arm reads: the class token, or the patches."""
    return tokens.first if arm == CLASS else tokens.patches


def probe(arm: str, plan: Plan, seed: int, train: Tokens, check: Tokens, test: Tokens) -> Outcome:
    """Train an arm's head at every rate of the plan, and judge the one that names most scenes of ``check``."""
    began = perf_counter()
    best, head, times = (-1.0, 0.0), None, []
    for rate in plan.rates:
        found, time = trained(arm, plan, seed, rate, train)
        times.append(time)
        checked = accuracy(found, read(arm, check), check.digits)
        if head is None or checked > best[0]:
            best, head = (checked, rate), found
    assert head is not None
    outcome = Outcome(
        accuracy=accuracy(head, read(arm, test), test.digits),
        parameters=sum(p.numel() for p in head.parameters()),
        milliseconds=1000 * min(times),
        rate=best[1],
        coverage=0.0,
        covered=0.0,
        untrained=0.0,
        overlap=0.0,
        seconds=0.0,
    )
    if isinstance(head.pool, EfficientPool):
        with torch.no_grad():
            maps = head.pool.maps(test.patches).cpu()
            before = fresh(arm, plan, seed).to(test.patches.device).pool.maps(test.patches).cpu()
        outcome["coverage"], outcome["covered"] = coverage(maps, test.covered), test.covered.float().mean().item()
        outcome["untrained"], outcome["overlap"] = overlap(before), overlap(maps)
    outcome["seconds"] = perf_counter() - began
    return outcome


def fresh(arm: str, plan: Plan, seed: int) -> ProbeHead:
    """The head of an arm before training, the same for every rate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("efficient probing head", arm, seed))
        return ProbeHead(POOLS[arm](plan.dim), CLASSES)


def trained(arm: str, plan: Plan, seed: int, rate: float, train: Tokens) -> tuple[ProbeHead, float]:
    """A trained head, and the median of the seconds of processor time of its steps. Every arm sees the same batches."""
    x, digits = read(arm, train), train.digits
    head = fresh(arm, plan, seed).to(x.device)
    optimiser = AdamW(rate, weight_decay=0.0).of(head)
    course = Cosine(warm_up=max(1, plan.probe_steps // 10), final=0.01)
    random = torch.Generator().manual_seed(derived_seed("efficient probing batches", seed))
    times = []
    for step in range(plan.probe_steps):
        rows = torch.randint(len(digits), (plan.probe_batch,), generator=random).to(x.device)
        batch = x[rows]
        began = process_time()
        for group in optimiser.param_groups:
            group["lr"] = rate * course.share(step, plan.probe_steps)
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(batch), digits[rows]))
        optimiser.step()
        times.append(process_time() - began)
    return head.eval(), median(times)


@torch.no_grad()
def accuracy(head: ProbeHead, x: Float[Tensor, "number tokens dim"], digits: Int64[Tensor, " number"]) -> float:
    """Percent of scenes that a head names rightly."""
    found = torch.cat([head(part).argmax(-1) for part in torch.split(x, 500)])
    return 100 * (found == digits).float().mean().item()


def coverage(maps: Float[Tensor, "number maps patches"], covered: Bool[Tensor, "number patches"]) -> float:
    """Share of the attention of all maps that lies on covered patches.

    Example:
        >>> coverage(torch.tensor([[[0.5, 0.3, 0.2]]]), torch.tensor([[True, False, True]]))
        0.7
    """
    return round((maps * covered[:, None]).sum(-1).mean().item(), 6)


def neighbours(train: Tokens, check: Tokens, test: Tokens) -> float:
    """Percent of scenes named rightly by a vote of the scenes with the most similar mean tokens.

    A neighbour of cosine ``s`` votes with ``exp(s / T)``. Neighbours and ``T`` are those that are best on ``check``.
    """
    known = train.patches.mean(dim=1)

    def named(asked: Tokens, count: int, temperature: float) -> float:
        votes = nearest_vote(
            known, train.digits, asked.patches.mean(dim=1), neighbours=count, temperature=temperature, classes=CLASSES
        )
        return 100 * (votes.argmax(dim=1) == asked.digits).float().mean().item()

    settings = [(count, temperature) for count in NEIGHBOURS for temperature in TEMPERATURES]
    return named(test, *max(settings, key=lambda setting: named(check, *setting)))
