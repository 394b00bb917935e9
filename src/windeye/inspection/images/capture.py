"""The mixers of a backbone, each with the map that comes into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.models.vision import HierarchicalBackbone, VisionTransformer
from windeye.nn.mixers import TokenMixer
from windeye.sites.hooks import evaluating, hooked

ENTRY = "entry"
"""What the attention inside a stage's entry is called instead of a block's number."""


@dataclass(frozen=True)
class Layer:
    """A mixer's place in a backbone, counted from 0.

    Example:
        >>> str(Layer(2, 5)), str(Layer(0, ENTRY)), str(Layer(1, 0, "window"))
        ('2.5', '0.entry', '1.0 window')
    """

    stage: int
    block: int | str
    branch: str = ""
    """Its name inside the mixer that it is a part of."""

    def __str__(self) -> str:
        return f"{self.stage}.{self.block}" + (f" {self.branch}" if self.branch else "")


See = Callable[[Layer, TokenMixer, Tensor], None]
"""Told of a mixer and the map [batch, height, width, dim] that comes into it, just before it runs; of vision
transformers the map is one row, [batch, 1, tokens, dim]."""


def mixers_of(model: HierarchicalBackbone | VisionTransformer) -> dict[Layer, TokenMixer]:
    """Every mixer by its place, one that is made of others before them; blocks without attention are left out.

    Example:
        >>> from windeye.models.vision import swin
        >>> [str(layer) for layer in mixers_of(swin(16, (1, 2), (2, 2)))]
        ['0.0', '1.0', '1.1']
    """
    if isinstance(model, VisionTransformer):
        stages: list[list[tuple[int | str, nn.Module]]] = [[*enumerate(model.blocks.children())]]
    else:
        stages = [
            [(ENTRY, entry), *enumerate(blocks.children())]
            for entry, blocks in zip(model.entries, model.stages, strict=True)
        ]
    found: dict[Layer, TokenMixer] = {}
    for stage, parts in enumerate(stages):
        for block, module in parts:
            mixers = [(name, part) for name, part in module.named_modules() if isinstance(part, TokenMixer)]
            for name, mixer in mixers:
                outer = next((own for own, _ in mixers if name.startswith(f"{own}.")), None)
                found[Layer(stage, block, "" if outer is None else name.removeprefix(f"{outer}."))] = mixer
    return found


@torch.no_grad()
def capture(
    model: HierarchicalBackbone | VisionTransformer, images: Float[Tensor, "batch in_chans height width"], see: See
) -> Tensor:
    """Run a model in evaluation mode and tell ``see`` of what comes into every mixer, once each. Nothing is kept, so
    that memory is that of one pass. Returns the model's logits.

    Example:
        >>> from windeye.models.vision import swin
        >>> model, sizes = swin(16, (1, 1), (2, 2), window=4, num_classes=3), []
        >>> capture(model, torch.randn(1, 3, 30, 40), lambda layer, _, x: sizes.append((str(layer), *x.shape))).shape
        torch.Size([1, 3])
        >>> sizes
        [('0.0', 1, 8, 10, 16), ('1.0', 1, 4, 5, 32)]
    """
    told: set[Layer] = set()

    def tell(layer: Layer, mixer: TokenMixer, x: Tensor) -> None:
        # A part runs once more whenever the mixer around it is asked for its plans.
        if layer not in told:
            told.add(layer)
            see(layer, mixer, x)

    with hooked() as hooks, evaluating(model):
        for layer, mixer in mixers_of(model).items():
            hooks.before(mixer, partial(tell, layer, mixer))
        return model(images)
