"""What a backbone costs per image: parameters, multiply-adds, pairs of tokens. Nothing is computed for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windeye.models.vision.backbone import HierarchicalBackbone
from windeye.models.vision.vit import VisionTransformer
from windeye.nn.mixers import GlobalDownSampling, Plan, TokenMixer
from windeye.nn.mixers.plan import multiply_adds, pairs


@dataclass
class Cost:
    """Per image. A multiply-add is what the papers of vision backbones count as a FLOP; norms, activations, softmax and
    sums are left out."""

    parameters: int = 0
    projections: int = 0
    """Multiply-adds of linear layers, over channels or positions, and of convolutions."""
    attention: int = 0
    """Multiply-adds of queries with keys and of weights with values."""
    pairs: int = 0
    """Pairs of query and key, summed over heads and blocks."""

    @property
    def multiply_adds(self) -> int:
        """Of everything that is counted."""
        return self.projections + self.attention


def cost(model: HierarchicalBackbone | VisionTransformer, size: tuple[int, int] | None = None) -> Cost:
    """The cost of a model on an image of ``size`` (height, width), default the one that it was made for.

    Counted from the plans of its mixers and the shapes that its layers would see.

    Example:
        >>> from windeye.models.vision import swin
        >>> found = cost(swin(96, (2, 2, 6, 2), (3, 6, 12, 24)))
        >>> f"{found.parameters / 1e6:.1f} M, {found.multiply_adds / 1e9:.1f} G"
        '28.3 M, 4.5 G'
    """
    height, width = size or model.config.img_size
    found = Cost(parameters=sum(p.numel() for p in model.parameters()))
    with torch.device("meta"):
        if isinstance(model, VisionTransformer):
            shadow: nn.Module = VisionTransformer(model.config).eval()
        else:
            shadow = HierarchicalBackbone(model.config).eval()
        for module in shadow.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.register_forward_hook(_counting_projections(found))
            elif isinstance(module, GlobalDownSampling):
                module.register_forward_hook(_counting_sums(found))
            elif isinstance(module, TokenMixer):
                # Nothing attends: the plans say how much it would be.
                module.outputs = _counting_pairs(found)  # type: ignore[method-assign, assignment]
        shadow(torch.empty(1, model.config.in_chans, height, width))
    return found


def _counting_projections(found: Cost) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        # Each number of the result is a sum over the weights of its channel; channels are the first axis of weights.
        found.projections += out.numel() * weight[0].numel()

    return hook


def _counting_sums(found: Cost) -> Callable[[GlobalDownSampling, tuple[Tensor, ...], Tensor], None]:
    def hook(module: GlobalDownSampling, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        # Every channel is mixed over all positions of the map that the weights are for.
        found.projections += out.shape[-1] * module.weight.numel()

    return hook


def _counting_pairs(found: Cost) -> Callable[[Tensor, tuple[Plan, ...]], Tensor]:
    def outputs(x: Tensor, plans: tuple[Plan, ...]) -> Tensor:
        for plan in plans:
            found.attention += multiply_adds(plan)
            found.pairs += pairs(plan) * plan.query.shape[-2]
        heads = sum(plan.query.shape[-2] for plan in plans)
        return x.new_empty(*x.shape[:3], heads, plans[0].value.shape[-1])

    return outputs
