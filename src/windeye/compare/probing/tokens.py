"""Tokens of a frozen encoder: kept in a file, or made whenever they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from windeye.compare.probing.pictures import Pictures, Scaling, scaled
from windeye.models.probing import FrozenEncoder

PIECE = 128
"""Images that go through the encoder at once."""


class Source(Protocol):
    """Tokens by the numbers of images."""

    def __call__(self, numbers: list[int], seed: int | None) -> Float[Tensor, "batch *grid dim"]: ...


class Reader:
    """Images through the encoder."""

    def __init__(
        self, encoder: FrozenEncoder, pictures: Pictures, channels: int, scaling: Scaling, precision: str
    ) -> None:
        self.encoder, self.pictures = encoder, pictures
        self.channels, self.scaling, self.precision = channels, scaling, precision

    def __call__(self, numbers: list[int], seed: int | None) -> Float[Tensor, "batch *grid dim"]:
        device = next(self.encoder.backbone.parameters()).device
        found = []
        for begin in range(0, len(numbers), PIECE):
            images = scaled(
                self.pictures.read(numbers[begin : begin + PIECE], seed).to(device), self.channels, self.scaling
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                found.append(self.encoder(images)[0].float())
        return torch.cat(found)


class Kept:
    """Tokens in a file of single precision, [n, *grid, dim]. A file that was begun is gone on with.

    Args:
        path: of the file; what is done of it is noted beside it.
        reader: makes the tokens.
        tell: called with the share that is done.
    """

    def __init__(self, path: Path, reader: Reader, tell: Callable[[float], None]) -> None:
        count, note = len(reader.pictures), path.with_suffix(".json")
        shape = (count, *reader([0], None).shape[1:])
        done = 0
        if path.exists() and note.exists():
            done = json.loads(note.read_text())["done"]
            self.values = np.load(path, mmap_mode="r+")
            if self.values.shape != shape:
                raise ValueError(f"{path} holds tokens {self.values.shape}, the encoder gives {shape}; remove it")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        while done < count:
            tell(done / count)
            numbers = list(range(done, min(count, done + PIECE)))
            self.values[numbers] = reader(numbers, None).cpu().numpy()
            done = numbers[-1] + 1
            if done == count or done % (16 * PIECE) == 0:
                self.values.flush()
                note.write_text(json.dumps({"done": done}))
        self.device = next(reader.encoder.backbone.parameters()).device

    def __call__(self, numbers: list[int], seed: int | None) -> Float[Tensor, "batch *grid dim"]:
        del seed
        return torch.from_numpy(self.values[numbers]).to(self.device)
