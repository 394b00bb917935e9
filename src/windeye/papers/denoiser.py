"""A small full-attention denoiser of photographs, whose attention can be replaced wherever it is called.

Window methods for diffusion transformers are put into trained networks. This is such a network, small enough to be
trained on the spot: 32 x 32 crops as 16 x 16 tokens, four layers, rectified flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from windeye.report import Tell

SIDE, PATCH, GRID = 32, 2, 16
CHANNELS = 3 * PATCH * PATCH
WIDTH, LAYERS, HEADS, HEAD_DIM, CAPTION = 96, 4, 4, 24, 4
BATCH, RATE, DECAY, WARM_UP = 16, 1e-3, 0.01, 0.05
SHORTER, TRAINED = 256, 0.6
"""Pixels of a photograph's shorter side, and the share of its columns, from the left, that is trained on."""

ASSETS = ("china-and-flower", "astronaut", "coffee", "chelsea", "rocket", "brick", "grass", "gravel", "camera")

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values [batch, rows, columns, heads, head_dim] to outputs of the same shape."""


@dataclass(frozen=True)
class Photographs:
    """Left parts to train on and right parts to be tested on, [3, rows, columns] from -1 to 1, in the same order."""

    train: tuple[Tensor, ...]
    held_out: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.train)


def photographs(*, only_shipped: bool = False) -> Photographs:
    """Ten photographs of scikit-learn and scikit-image, fetched on first use, or only the one that ships with windeye.

    Raises:
        AssetUnavailable: one is not here and cannot be fetched.
        ImportError: Pillow is missing.
    """
    from windeye.data import load, photograph

    if only_shipped:
        return split([photograph(size=SHORTER)])
    images = []
    for name in ASSETS:
        found = load(name)
        images += list(found.values()) if isinstance(found, dict) else [found]
    return split(images)


def split(images: list[object]) -> Photographs:
    """Shrink each image, red, green, blue bytes, to `SHORTER` pixels along its shorter side, and cut its columns."""
    import numpy as np
    from PIL import Image

    train, held_out = [], []
    for pixels in images:
        image = Image.fromarray(np.asarray(pixels))
        scale = SHORTER / min(image.size)
        image = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.LANCZOS)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
        border = int(TRAINED * values.shape[2])
        train.append(values[:, :, :border].contiguous())
        held_out.append(values[:, :, border:].contiguous())
    return Photographs(tuple(train), tuple(held_out))


def crops(
    images: tuple[Tensor, ...], number: int, random: torch.Generator
) -> tuple[Float[Tensor, "b 3 32 32"], Int[Tensor, " b"]]:
    """Random crops, and which image each was taken from."""
    source = torch.randint(len(images), (number,), generator=random)
    corner = torch.rand(number, 2, generator=random)
    cut = []
    for index, (down, right) in zip(source.tolist(), corner.tolist(), strict=True):
        _, rows, columns = images[index].shape
        top, left = int(down * (rows - SIDE + 1)), int(right * (columns - SIDE + 1))
        cut.append(images[index][:, top : top + SIDE, left : left + SIDE])
    return torch.stack(cut), source


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Every token sees every token, by torch's fused attention."""
    return masked(None)(query, key, value)


def masked(mask: Bool[Tensor, "tokens tokens"] | None) -> Attention:
    """Each query sees the keys that its row of the mask allows, tokens in row-major order; None allows all."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (query, key, value))
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).reshape(query.shape)

    return attention


class Layer(nn.Module):
    """``x += g1 attend(m1 x); x += look(norm x, caption); x += g2 mlp(m2 x)``: adaLN sets m and g from the time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.before_caption = nn.LayerNorm(WIDTH)
        self.ask, self.tell, self.told = (nn.Linear(WIDTH, n * WIDTH) for n in (1, 2, 1))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH))

    def forward(
        self,
        tokens: Float[Tensor, "b 16 16 96"],
        time: Float[Tensor, "b 96"],
        caption: Float[Tensor, "b 4 96"],
        attention: Attention,
    ) -> Float[Tensor, "b 16 16 96"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(time)[:, None, None].chunk(6, dim=-1)
        query, key, value = _heads(self.qkv(self.norm(tokens) * (1 + scale1) + shift1), 3)
        seen = attention(rotate(query), rotate(key), value)
        tokens = tokens + gate1 * self.proj(seen.flatten(-2))
        tokens = tokens + self.told(self._look(self.before_caption(tokens), caption))
        return tokens + gate2 * self.mlp(self.norm(tokens) * (1 + scale2) + shift2)

    def _look(self, tokens: Tensor, caption: Tensor) -> Tensor:
        (query,) = _heads(self.ask(tokens).flatten(1, 2), 1)
        key, value = _heads(self.tell(caption), 2)
        q, k, v = (t.transpose(1, 2) for t in (query, key, value))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape)


def _heads(projected: Tensor, parts: int) -> tuple[Tensor, ...]:
    return projected.reshape(*projected.shape[:-1], parts, HEADS, HEAD_DIM).unbind(-3)


def rotate(tokens: Float[Tensor, "b 16 16 4 24"]) -> Float[Tensor, "b 16 16 4 24"]:
    """2-D rotary positions: half of the channels turn with the row, half with the column."""
    angles = _angles().to(tokens)[:, :, None]
    first, second = tokens.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def _angles() -> Float[Tensor, "16 16 12"]:
    place = torch.arange(GRID).float()
    speed = 100.0 ** (-torch.arange(HEAD_DIM // 4).float() / (HEAD_DIM // 4))
    turns = place[:, None] * speed
    return torch.cat((turns[:, None].expand(-1, GRID, -1), turns[None].expand(GRID, -1, -1)), dim=-1)


class Denoiser(nn.Module):
    """Predicts the velocity ``noise - image`` from ``(1 - t) image + t noise``, the time t and the source image.

    The attention of all layers is an argument of the call, so that a trained network runs with another one.

    Example:
        >>> model = Denoiser(sources=1)
        >>> noisy, time, source = torch.randn(2, 3, 32, 32), torch.rand(2), torch.zeros(2, dtype=torch.long)
        >>> model(noisy, time, source).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, sources: int) -> None:
        super().__init__()
        self.embed = nn.Linear(CHANNELS, WIDTH)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.captions = nn.Parameter(0.5 * torch.randn(sources, CAPTION, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.head = nn.Linear(WIDTH, CHANNELS)
        for last in (self.modulation, self.head):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        noisy: Float[Tensor, "b 3 32 32"],
        time: Float[Tensor, " b"],
        source: Int[Tensor, " b"],
        attention: Attention = dense,
    ) -> Float[Tensor, "b 3 32 32"]:
        moment = self.time(_waves(time))
        tokens = self.embed(patches(noisy))
        for layer in self.layers:
            tokens = layer(tokens, moment, self.captions[source], attention)
        shift, scale = self.modulation(moment)[:, None, None].chunk(2, dim=-1)
        return pixels(self.head(self.norm(tokens) * (1 + scale) + shift))


def patches(images: Float[Tensor, "b 3 32 32"]) -> Float[Tensor, "b 16 16 12"]:
    """One token per patch of 2 x 2 pixels."""
    cut = images.reshape(-1, 3, GRID, PATCH, GRID, PATCH)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3)


def pixels(tokens: Float[Tensor, "b 16 16 12"]) -> Float[Tensor, "b 3 32 32"]:
    """The image that `patches` cut."""
    cut = tokens.reshape(-1, GRID, GRID, 3, PATCH, PATCH)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIDE, SIDE)


def _waves(time: Float[Tensor, " b"]) -> Float[Tensor, "b 96"]:
    speed = 1000.0 ** (torch.arange(WIDTH // 2, device=time.device).float() / (WIDTH // 2))
    phase = time[:, None] * speed
    return torch.cat((phase.cos(), phase.sin()), dim=-1)


def train(images: Photographs, steps: int, seed: int, device: str, tell: Tell) -> tuple[Denoiser, list[float]]:
    """Train with full attention; the seed alone sets weights, crops, noise and times. Returns the loss of every step.

    Velocity loss, logit-normal times, AdamW with a short warm-up and a cosine to zero.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Denoiser(len(images)).to(device)
    random = torch.Generator().manual_seed(1000 + seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / steps))
    losses = []
    for step in range(steps):
        clean, source = crops(images.train, BATCH, random)
        noise = torch.randn(clean.shape, generator=random)
        time = torch.randn(BATCH, generator=random).sigmoid()
        optimiser.zero_grad(set_to_none=True)
        loss = errors(model, clean.to(device), noise.to(device), time.to(device), source.to(device)).mean()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        tell((step + 1) / steps)
    return model.eval(), losses


def _rate(done: float) -> float:
    """Share of the peak rate after a share ``done`` of all steps: linear up, cosine down."""
    return min(done / WARM_UP, 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))) + 1e-3


def errors(
    model: Denoiser,
    clean: Float[Tensor, "b 3 32 32"],
    noise: Float[Tensor, "b 3 32 32"],
    time: Float[Tensor, " b"],
    source: Int[Tensor, " b"],
    attention: Attention = dense,
) -> Float[Tensor, "b 16 16"]:
    """Mean squared error of the velocity, token by token."""
    share = time[:, None, None, None]
    found = model((1 - share) * clean + share * noise, time, source, attention)
    return patches((found - (noise - clean)).square()).mean(dim=-1)
