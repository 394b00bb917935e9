"""The pictures of the page on `windeye look`: a small backbone of many kinds of attention, trained to tell where in a
photograph a crop is from."""

from __future__ import annotations

import argparse
import base64
import io
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from windeye.data import photograph
from windeye.data.images.scaling import scaled
from windeye.inspection.images import look
from windeye.inspection.images.figures import PICTURES, overview
from windeye.models import create
from windeye.models.vision import (
    BackboneConfig,
    ConvSpec,
    HierarchicalBackbone,
    MergeSpec,
    StageSpec,
    load_backbone,
    save_backbone,
)
from windeye.nn.mixers import BiLevelRoutingSpec, FullSpec, HiLoSpec, VSASpec
from windeye.report import Picture
from windeye.train import AdamW, fit

SIDE, BATCH, SEED = 96, 16, 0
SHARES = (0.35, 1.0)
"""Sides of crops, in sides of the photograph."""
STAGES = (
    StageSpec(32, 2, ConvSpec(), (VSASpec(6), VSASpec(6)), ratio=2.0, position=3),
    StageSpec(64, 4, MergeSpec(), (BiLevelRoutingSpec(4, keep=3), HiLoSpec(2, 0.5)), ratio=2.0, position=3),
    StageSpec(96, 4, MergeSpec(), (FullSpec(),), ratio=2.0, position=3),
)
IMAGES = Path("docs") / "images"
QUERY = (130, 220)
SHOWN = {
    "query": (1, 1), "rectangles": (0, 1), "routes": (1, 0), "outputs": (1, 1), "spectra": (1, 1), "layers": (1, 1)
}  # fmt: skip
"""Pictures of the page, and the stage and block that each is of."""


class Crops:
    """Square crops of a photograph, brighter or darker; and where their middles and how large their sides are, between
    -1 and 1."""

    def __init__(self) -> None:
        pixels = torch.from_numpy(photograph()).permute(2, 0, 1)[None].float() / 255
        self.photo = scaled(pixels, "imagenet")

    def __call__(self, step: int) -> tuple[Float[Tensor, "batch 3 side side"], Float[Tensor, "batch 3"]]:
        random = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        drawn = torch.rand(BATCH, 4, generator=random)
        side = SHARES[0] + (SHARES[1] - SHARES[0]) * drawn[:, 0]
        middle = (2 * drawn[:, 1:3] - 1) * (1 - side[:, None])
        theta = torch.zeros(BATCH, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = side
        theta[:, :, 2] = middle
        grid = F.affine_grid(theta, [BATCH, 3, SIDE, SIDE], align_corners=False)
        photo = F.avg_pool2d(self.photo, 2)  # crops are smaller than what they show
        images = F.grid_sample(photo.expand(BATCH, -1, -1, -1), grid, align_corners=False, padding_mode="border")
        scaled = (side - SHARES[0]) / (SHARES[1] - SHARES[0]) * 2 - 1
        return images * (0.8 + 0.4 * drawn[:, 3]).reshape(-1, 1, 1, 1), torch.cat([middle, scaled[:, None]], dim=1)


def squared_error(model: nn.Module, images: Tensor, places: Tensor) -> Tensor:
    """The objective."""
    return F.mse_loss(model(images), places)


def trained(path: Path, steps: int) -> HierarchicalBackbone:
    """The backbone of a file, made first if it is not there."""
    if not path.exists():
        torch.manual_seed(SEED)
        model = HierarchicalBackbone(BackboneConfig(STAGES, 3, 3, img_size=(SIDE, SIDE)))
        rows = fit(model, Crops(), steps=steps, optimiser=AdamW(rate=2e-3), objective=squared_error)
        print("squared error, last 50 steps:", sum(row["loss"] for row in rows[-50:]) / 50)
        save_backbone(model, path)
    found = load_backbone(path)
    assert isinstance(found, HierarchicalBackbone)
    return found.eval()


def write(root: Path, path: Path, steps: int) -> None:
    """Train if need be, and write the pictures."""
    model = trained(path, steps)
    for name, (stage, block) in SHOWN.items():
        seen = look(model, "astronaut", QUERY, stage=stage, block=block, name=path.stem)
        picture = PICTURES[name](seen)
        assert picture is not None
        _save(root / IMAGES / f"look-{name}", picture)
    torch.manual_seed(SEED)
    untrained = create("dinat_tiny").eval()
    _save(root / IMAGES / "look-dinat", overview(look(untrained, "astronaut", QUERY)))


def _save(path: Path, picture: Picture) -> None:
    """256 colours are enough for a page, in a third of the bytes."""
    if picture.content.startswith("<svg"):
        path.with_suffix(".svg").write_text(picture.content)
        return
    from PIL import Image

    pixels = Image.open(io.BytesIO(base64.b64decode(picture.content.split(",", 1)[1])))
    pixels.convert("RGB").quantize(256).save(path.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--weights", type=Path, default=Path("runs/look/places.safetensors"))
    words.add_argument("--steps", type=int, default=3000)
    given = words.parse_args()
    torch.set_num_threads(1)
    write(Path(), given.weights, given.steps)
