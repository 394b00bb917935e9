"""One small network per arm and seed, trained to name the digits of scenes, then measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.bench.timing import compare
from windeye.data.sequences import IGNORED, derived_seed
from windeye.models.vision import BackboneConfig, ConvSpec, HierarchicalBackbone, StageSpec
from windeye.nn.mixers import FullMixer, HiLoMixer, TokenMixer
from windeye.papers.hilo import scenes
from windeye.papers.hilo.frequency import high_share
from windeye.papers.hilo.plan import ARMS, SPLIT, hilo
from windeye.papers.scene_plan import ScenePlan
from windeye.report import Tell
from windeye.train import AdamW, Cosine, fit

MEAN, SPREAD = 0.12, 0.3
"""Of the pixels of scenes, noise included; networks read what is left without them."""


class Outcome(TypedDict):
    """What one trained network leaves behind. Shares are [layer][kind], high heads first."""

    accuracy: float
    loss: float
    parameters: int
    shares: list[list[float]]
    seconds: float


class Speeds(TypedDict):
    """Scenes per second of every arm, untrained, and what each of them takes over full attention."""

    scenes: dict[str, float]
    seconds: float


class Namer(nn.Module):
    """One stage at the resolution of patches, and the digit of every token."""

    def __init__(self, arm: str, plan: ScenePlan) -> None:
        super().__init__()
        stage = StageSpec(plan.dim, plan.heads, ConvSpec(), (ARMS[arm],) * plan.blocks, depthwise=True)
        self.backbone = HierarchicalBackbone(BackboneConfig((stage,), in_chans=1, num_classes=0, init_std=None))
        self.head = nn.Linear(plan.dim, 10)

    def forward(self, images: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch rows columns 10"]:
        return self.head(self.backbone.forward_features((images - MEAN) / SPREAD))


def train(arm: str, plan: ScenePlan, seed: int, device: str, tell: Tell) -> Outcome:
    """All arms of a seed see the same scenes in the same order."""
    began = time.perf_counter()
    torch.manual_seed(derived_seed("hilo", arm, seed))
    model = Namer(arm, plan).to(device)
    random = torch.Generator().manual_seed(derived_seed("hilo scenes", seed))
    rows = fit(
        model,
        lambda _step: scenes.scenes(plan.batch, random),  # one after the other: nothing is resumed within a training
        steps=plan.steps,
        optimiser=AdamW(rate=plan.rate, weight_decay=0.05),
        schedule=Cosine(warm_up=max(1, plan.steps // 10)),
        objective=named,
        progress=tell,
    )
    recent = [row["loss"] for row in rows[-max(1, plan.steps // 10) :]]
    return Outcome(
        accuracy=accuracy(model, plan, seed, device),
        loss=math.fsum(recent) / len(recent),
        parameters=sum(p.numel() for p in model.parameters()),
        shares=shares(model, scenes.photographs().to(device)),
        seconds=time.perf_counter() - began,
    )


def named(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the tokens that a digit covers."""
    return F.cross_entropy(model(images).flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def accuracy(model: Namer, plan: ScenePlan, seed: int, device: str) -> float:
    """Share of covered tokens of held-out scenes, made of held-out digits, that are named rightly."""
    images, labels = scenes.scenes(
        plan.held_out, torch.Generator().manual_seed(derived_seed("hilo held out", seed)), held_out=True
    )
    model.eval()
    found = torch.cat([model(part.to(device)).argmax(-1).cpu() for part in torch.split(images, 32)])
    return (found == labels)[labels != IGNORED].double().mean().item()


@torch.no_grad()
def shares(model: Namer, images: Tensor) -> list[list[float]]:
    """For every layer the share of energy above half of Nyquist in the outputs of its high and of its low heads.

    Heads of full attention are alike; they are split as a control, the first half called high.
    """
    found: list[list[float]] = []

    def look(mixer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(mixer, TokenMixer)
        out = mixer.attention(inputs[0])
        high = mixer.high if isinstance(mixer, HiLoMixer) else mixer.heads // 2
        found.append([high_share(part.flatten(-2)) for part in (out[..., :high, :], out[..., high:, :])])

    model.eval()
    both = (
        module
        for module in model.modules()
        if isinstance(module, FullMixer) or (isinstance(module, HiLoMixer) and module.high and module.low)
    )
    handles = [mixer.register_forward_pre_hook(look) for mixer in both]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def speeds(plan: ScenePlan) -> Speeds:
    """A forward pass of each arm in turn, on the CPU, on images as large as the squares of photographs."""
    began = time.perf_counter()
    models = {arm: Namer(arm, plan).eval() for arm in ARMS}
    images = torch.randn(plan.batch, 1, scenes.SQUARE, scenes.SQUARE)

    def forward(model: Namer) -> Callable[[], object]:
        return lambda: model(images)

    with torch.inference_mode():
        timings = compare({arm: forward(model) for arm, model in models.items()}, baseline=hilo(SPLIT[-1]),
                          rounds=plan.rounds)  # fmt: skip
    per_second = plan.batch / timings[hilo(SPLIT[-1])].seconds
    return Speeds(
        scenes={arm: per_second * timing.speedup for arm, timing in timings.items()},
        seconds=time.perf_counter() - began,
    )
