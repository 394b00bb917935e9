"""What is measured of trained heads: time of a step, maps, and the vote of neighbours beside them."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor

from windeye.compare.probing.arms import Heads
from windeye.compare.probing.page import look
from windeye.compare.probing.pictures import Pictures, Sets
from windeye.compare.probing.tokens import Source
from windeye.models.probing import evenness, nearest_vote, overlap
from windeye.report import Picture

NEIGHBOURS, TEMPERATURES = (5, 10, 20, 50, 100, 200), (0.07, 0.1, 0.2)
"""What the study sweeps."""
TIMED = 7
"""Steps of each head whose median is reported, after one that is not."""
EVALUATED = 256
"""Images at once."""
SHOWN = 6
"""Images on the page."""


def times(heads: Heads, source: Source, labels: Tensor, batch: int) -> dict[str, float]:
    """Seconds of forward and backward pass of each head on tokens that are there; heads take turns."""
    rows = list(range(min(batch, len(labels))))
    tokens, targets = source(rows, None), labels[rows]
    seconds: dict[str, list[float]] = {arm.name: [] for arm in heads.arms}
    targets = targets.to(tokens.device)
    state = {name: tensor.clone() for name, tensor in heads.state_dict().items()}
    heads.train()
    for _ in range(TIMED + 1):
        for arm, head in heads.items():
            began = _now(tokens.device)
            loss = torch.nn.functional.cross_entropy(head(arm.read(tokens, heads.leading)), targets)
            torch.autograd.backward(loss)
            seconds[arm.name].append(_now(tokens.device) - began)
    heads.load_state_dict(state)  # batch norms have moved
    heads.zero_grad(set_to_none=True)
    return {name: statistics.median(own[1:]) for name, own in seconds.items()}


@torch.no_grad()
def maps(heads: Heads, source: Source, count: int) -> dict[str, dict[str, float]]:
    """How alike and how wide the maps of each pool are, on the first test images; none of pools without."""
    found = {}
    tokens = source(list(range(min(count, EVALUATED))), None)
    for arm, head in heads.items():
        if head.pool.has_maps:
            own = head.eval().pool.maps(arm.read(tokens, heads.leading))
            found[arm.name] = {"maps": own.shape[1], "overlap": overlap(own), "evenness": evenness(own)}
    return found


@torch.no_grad()
def looks(heads: Heads, source: Source, test: Pictures) -> list[Picture]:
    """Images that lie evenly among those of the test, and where each pool with several maps looks."""
    numbers = torch.linspace(0, len(test) - 1, min(SHOWN, len(test))).long().tolist()
    tokens, images, pictures = source(numbers, None), test.read(numbers, None), []
    for arm, head in heads.items():
        if not head.pool.has_maps:
            continue
        own = head.eval().pool.maps(arm.read(tokens, heads.leading)).flatten(2)
        own = own[:, :, heads.leading if arm.keep == "all" else 0 :].cpu()
        grid = tuple(tokens.shape[1:3]) if tokens.dim() == 4 else _square(own.shape[2])
        if own.shape[1] > 1 and grid is not None:
            pictures.append(look(arm.name, images, torch.unflatten(own, 2, grid)))
    return pictures


def _square(count: int) -> tuple[int, int] | None:
    side = round(count**0.5)
    return (side, side) if side * side == count else None


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def nearest(sources: list[Source], sets: Sets, labels: Tensor, leading: int) -> dict[str, Any]:
    """The vote of the nearest mean tokens: at the usual setting, and the best of the study's sweep."""
    counts = (len(labels), len(sets.test))
    known, asked = (
        torch.cat([
            source(rows.tolist(), None)[:, leading:].flatten(1, -2).mean(dim=1)
            for rows in torch.split(torch.arange(count), EVALUATED)
        ])
        for source, count in zip(sources, counts, strict=True)
    )  # fmt: skip
    targets, own = sets.test.labels.to(asked.device), labels.to(known.device)
    found = {}
    for neighbours in NEIGHBOURS:
        for temperature in TEMPERATURES:
            votes = nearest_vote(
                known, own, asked, neighbours=neighbours, temperature=temperature, classes=len(sets.classes)
            )
            share = 100 * (votes.argmax(dim=1) == targets).double().mean().item()
            found[f"{neighbours} neighbours, temperature {temperature}"] = share
    usual = found["20 neighbours, temperature 0.07"]
    best = max(found, key=lambda setting: found[setting])
    return {"accuracy": usual, "best": found[best], "best_setting": best, "sweep": found}
