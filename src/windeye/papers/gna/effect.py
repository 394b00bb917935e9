"""What windows cost a network that was trained without them."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import windeye
from windeye.papers import denoiser
from windeye.papers.denoiser import GRID, Attention, Denoiser, Photographs
from windeye.papers.gna.plan import Plan
from windeye.report import Tell

TIMES = (0.2, 0.4, 0.6, 0.8, 0.95)
CLEAN, NOISY = TIMES[:3], 0.8
"""Noise levels t of which the rule speaks: up to 0.6, and 0.8."""

STRIDES = {8: (1, 2, 4, 8), 6: (1, 2, 3, 6), 4: (1,)}
SIZE = 8
"""The window at 75% sparsity, to which the gates of the effect apply."""
SHUFFLED, RANDOM = f"W={SIZE} s=1, tokens shuffled", f"{SIZE * SIZE} random keys"


class Outcome(TypedDict):
    """What one trained network leaves behind: for each arm and t the squared error of every token, row-major."""

    errors: dict[str, list[list[float]]]
    last: float
    seconds: float


def arm(size: int, stride: int) -> str:
    return f"W={size} s={stride}"


def attentions(seed: int, device: str = "cpu") -> dict[str, Attention]:
    """The arms by name: dense, every window and stride, and two controls that see as many keys as W=8.

    Shuffled: the windows of stride 1 after all tokens changed places, so sparsity stays and locality goes. Random: each
    query sees itself and others drawn without replacement, alike in all layers and heads.
    """
    windows = {
        arm(size, stride): partial(windeye.attend, pattern=windeye.Neighborhood(size, stride=stride))
        for size, strides in STRIDES.items()
        for stride in strides
    }
    random = torch.Generator().manual_seed(3000 + seed)
    controls = {
        SHUFFLED: denoiser.masked(shuffled_keys(random).to(device)),
        RANDOM: denoiser.masked(random_keys(random).to(device)),
    }
    return {"dense": denoiser.dense, **windows, **controls}


def shuffled_keys(random: torch.Generator) -> Bool[Tensor, "256 256"]:
    place = torch.randperm(GRID * GRID, generator=random)
    return windeye.Neighborhood(SIZE).bind((GRID, GRID)).mask()[place][:, place]


def random_keys(random: torch.Generator) -> Bool[Tensor, "256 256"]:
    rank = torch.rand(GRID * GRID, GRID * GRID, generator=random).fill_diagonal_(-1)
    chosen = rank.argsort(dim=1)[:, : SIZE * SIZE]
    return torch.zeros(rank.shape, dtype=torch.bool).scatter_(1, chosen, torch.ones(chosen.shape, dtype=torch.bool))


def train_and_replace(images: Photographs, plan: Plan, seed: int, device: str, tell: Tell) -> Outcome:
    """Train with full attention, then measure every arm on parts of the photographs that were not trained on."""
    began = time.perf_counter()
    model, losses = denoiser.train(images, plan.steps, seed, device, lambda share: tell(0.75 * share))
    errors = replace(model, images, plan.crops, seed, device, lambda share: tell(0.75 + 0.25 * share))
    recent = losses[-100:]
    return Outcome(errors=errors, last=math.fsum(recent) / len(recent), seconds=time.perf_counter() - began)


@torch.no_grad()
def replace(
    model: Denoiser, images: Photographs, number: int, seed: int, device: str, tell: Tell
) -> dict[str, list[list[float]]]:
    """Held-out squared errors per token, for each arm and t; all arms see the same crops and the same noise."""
    random = torch.Generator().manual_seed(2000 + seed)
    clean, source = denoiser.crops(images.held_out, number, random)
    noise = torch.randn(clean.shape, generator=random)
    clean, noise, source = clean.to(device), noise.to(device), source.to(device)
    arms = attentions(seed, device)
    found: dict[str, list[list[float]]] = {name: [] for name in arms}
    for done, t in enumerate(TIMES):
        for name, attention in arms.items():
            tokens = denoiser.errors(model, clean, noise, torch.full_like(clean[:, 0, 0, 0], t), source, attention)
            found[name].append([float(f"{error:.6g}") for error in tokens.double().mean(dim=0).flatten().tolist()])
        tell((done + 1) / len(TIMES))
    return found


def next_to_borders(size: int) -> Bool[Tensor, "16 16"]:
    """Tokens that touch an inner border of the blocks of this size.

    Example:
        >>> next_to_borders(8)[0].nonzero().flatten().tolist(), next_to_borders(6)[0].nonzero().flatten().tolist()
        ([7, 8], [5, 6, 11, 12])
    """
    place = torch.arange(GRID)
    touches = ((place % size == 0) & (place > 0)) | ((place % size == size - 1) & (place < GRID - 1))
    return touches[:, None] | touches[None]


def cost(outcome: Outcome, name: str, where: Bool[Tensor, "16 16"] | None = None) -> Float[Tensor, " times"]:
    """Relative increase of an arm's loss over dense in percent, for each t, over all tokens or some."""
    of, dense = (torch.tensor(outcome["errors"][key], dtype=torch.float64) for key in (name, "dense"))
    if where is not None:
        of, dense = of[:, where.flatten()], dense[:, where.flatten()]
    return 100 * (of.mean(dim=1) / dense.mean(dim=1) - 1)
