"""Masked autoencoders: what is hidden of an image is drawn from what is seen of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from windeye.models.vision.block import Block, StageSpec
from windeye.models.vision.entries import ConvSpec
from windeye.models.vision.vit import INIT_STD, VisionTransformer, reset_linear
from windeye.nn.mixers import FullSpec
from windeye.tokens import partition, waves


@dataclass(frozen=True)
class DecoderSpec:
    """The light decoder of a `MaskedAutoencoder`."""

    dim: int = 64
    depth: int = 1
    heads: int = 4
    ratio: float = 4.0


class MaskedAutoencoder(nn.Module):
    """The encoder sees the visible patches alone; a light decoder sees what came of them, and a learned token in every
    other place, and draws the pixels of all patches.

    Args:
        encoder: what is to be trained, and kept.
        decoder: sizes of what is thrown away afterwards.

    A head of the encoder takes no part; ``num_classes=0`` leaves it out.

    Source: efficient-probing spec, works (b).

    Example:
        >>> from windeye.models.vision import vit
        >>> model = MaskedAutoencoder(vit(32, 2, 4, patch=6, in_chans=1, num_classes=0))
        >>> drawn = model(torch.randn(2, 1, 48, 45), torch.tensor([[0, 9], [63, 4]]))
        >>> drawn.shape
        torch.Size([2, 64, 36])
    """

    def __init__(self, encoder: VisionTransformer, decoder: DecoderSpec = DecoderSpec()) -> None:
        super().__init__()
        self.encoder = encoder
        config = encoder.config
        stage = StageSpec(
            decoder.dim, decoder.heads, ConvSpec(), (FullSpec(),) * decoder.depth, decoder.ratio,
            norm_eps=config.norm_eps,
        )  # fmt: skip
        self.narrow = nn.Linear(config.dim, decoder.dim)
        self.hidden_token = nn.Parameter(torch.empty(1, 1, decoder.dim))
        self.blocks = nn.ModuleList(Block(stage, mixer, 0.0) for mixer in stage.mixers)
        self.final_norm = nn.LayerNorm(decoder.dim, config.norm_eps)
        self.pixels = nn.Linear(decoder.dim, config.patch**2 * config.in_chans)
        for part in (self.narrow, self.blocks, self.pixels):
            reset_linear(part)
        nn.init.normal_(self.hidden_token, std=INIT_STD)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimizer should not decay."""
        return {"hidden_token"}

    def forward(
        self, images: Float[Tensor, "batch in_chans height width"], visible: Int64[Tensor, "batch seen"]
    ) -> Float[Tensor, "batch patches pixels"]:
        """Pixels of every patch, as `patches` lays them out.

        Args:
            images: of any size.
            visible: numbers of the patches that are seen.
        """
        rows, columns = self.encoder.grid_of(images)
        seen = self.narrow(self.encoder.final_norm(self.encoder.tokens(images, visible)))
        first = int(self.encoder.config.class_token)
        canvas = self.hidden_token.to(seen.dtype).expand(len(images), rows * columns, -1)
        canvas = canvas.scatter(1, visible[..., None].expand(-1, -1, canvas.shape[-1]), seen[:, first:])
        canvas = canvas + waves(rows, columns, canvas.shape[-1], like=canvas).flatten(0, 1)
        x = torch.cat([seen[:, :first], canvas], dim=1)[:, None]
        for block in self.blocks:
            x = block(x)
        return self.pixels(self.final_norm(x[:, 0, first:]))


def patches(images: Float[Tensor, "batch channels height width"], size: int) -> Float[Tensor, "batch patches pixels"]:
    """The pixels of each patch, row by row, channels last; images are filled up with zeros to whole patches.

    Example:
        >>> patches(torch.arange(8.0).reshape(1, 1, 2, 4), 2)
        tensor([[[0., 1., 4., 5.],
                 [2., 3., 6., 7.]]])
    """
    return partition(images.permute(0, 2, 3, 1), (size, size)).flatten(2)
