"""One small network per arm and seed, trained to name both digits, then tested on scans that it never saw."""

from __future__ import annotations

import math
import time
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windeye.data.sequences import derived_seed
from windeye.papers.maformer.arms import network
from windeye.papers.maformer.scenes import scenes
from windeye.papers.scene_plan import ScenePlan
from windeye.report import Tell
from windeye.train import AdamW, Cosine, fit


class Outcome(TypedDict):
    """Shares of held-out scenes, what training ended with, and the size of the network."""

    joint: float
    large: float
    small: float
    loss: float
    parameters: int
    seconds: float


def train(arm: str, plan: ScenePlan, seed: int, device: str, tell: Tell) -> Outcome:
    """All arms of a seed see the same scenes in the same order."""
    began = time.perf_counter()
    torch.manual_seed(derived_seed("maformer", arm, seed))
    model = network(arm, plan).to(device)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(derived_seed("maformer scenes", seed, step))
        return scenes(plan.batch, random)

    rows = fit(
        model,
        batches,
        steps=plan.steps,
        optimiser=AdamW(rate=plan.rate, betas=(0.9, 0.99), weight_decay=0.05),
        schedule=Cosine(warm_up=max(1, plan.steps // 10)),
        objective=both,
        progress=tell,
    )
    recent = [row["loss"] for row in rows[-max(1, plan.steps // 10) :]]
    large, small = right(model, plan, seed, device)
    return Outcome(
        joint=(large & small).double().mean().item(),
        large=large.double().mean().item(),
        small=small.double().mean().item(),
        loss=math.fsum(recent) / len(recent),
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=time.perf_counter() - began,
    )


def both(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the large and of the small digit, summed."""
    logits = model(images).unflatten(-1, (2, -1))
    return F.cross_entropy(logits[:, 0], labels[:, 0]) + F.cross_entropy(logits[:, 1], labels[:, 1])


@torch.no_grad()
def right(model: nn.Module, plan: ScenePlan, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """For every held-out scene whether the large digit is named rightly, and whether the small one is."""
    random = torch.Generator().manual_seed(derived_seed("maformer held out", seed))
    images, labels = scenes(plan.held_out, random, held_out=True)
    model.eval()
    found = [model(part.to(device)).unflatten(-1, (2, -1)).argmax(-1).cpu() for part in torch.split(images, 100)]
    hits = torch.cat(found) == labels
    return hits[:, 0], hits[:, 1]
