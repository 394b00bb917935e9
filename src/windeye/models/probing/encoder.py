"""Frozen encoders: tokens of any backbone, which nothing changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal, Self, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.models.vision.backbone import HierarchicalBackbone
from windeye.models.vision.vit import VisionTransformer

Keep = Literal["patches", "all", "first"]
Inputs = Tensor | Mapping[str, Tensor]

LEADING = {
    "vit": 1, "deit": 2, "beit": 1, "data2vec-vision": 1, "dinov2": 1, "dinov2_with_registers": 1, "dinov3_vit": 1,
    "clip_vision_model": 1, "ijepa": 0, "siglip_vision_model": 0, "siglip2_vision_model": 0, "bert": 0,
}  # fmt: skip
"""Tokens before the patches, by the kind of a model of transformers; registers come on top, other kinds have none."""


class FrozenEncoder(nn.Module):
    """What probes read: the tokens of a backbone that stays in evaluation mode and gets no gradient, whatever is done
    with the probe.

    ``backbone`` is one of

    - a `HierarchicalBackbone`: the map after a stage, [batch, height, width, dim];
    - a `VisionTransformer`: its class token, if it has one, and its patches;
    - a model of transformers: its last hidden state;
    - any module with ``forward_features``, as models of timm have it, or any module at all, that gives
      [batch, tokens, dim] or [batch, height, width, dim], alone or first in a tuple.

    Its parameters stop requiring gradients.

    Args:
        backbone: see above.
        keep: "patches" leaves out the tokens that stand before them, "all" keeps these as tokens like any other (as the
            study does for encoders that were trained through a class token), "first" keeps the first token alone.
        leading: how many tokens stand before the patches; default what is known of the backbone, else none.
        final_norm: whether the tokens go through the backbone's last norm. Default as published: without for our
            backbones, and what there is for others, which must not be told.
        stage: of a hierarchical backbone, negative counts from the end.
        pad_token_id: of text: inputs that are this are padding.

    Raises:
        ValueError, TypeError: settings that the backbone does not have.

    Example:
        >>> from windeye.models.vision import swin
        >>> encoder = FrozenEncoder(swin(16, (1, 1), (2, 2), num_classes=0))
        >>> tokens, padding = encoder(torch.randn(2, 3, 32, 32))
        >>> tokens.shape, padding, any(p.requires_grad for p in encoder.parameters())
        (torch.Size([2, 4, 4, 32]), None, False)
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        keep: Keep = "patches",
        leading: int | None = None,
        final_norm: bool | None = None,
        stage: int | None = None,
        pad_token_id: int | None = None,
    ) -> None:
        super().__init__()
        if keep not in get_args(Keep):
            raise ValueError(f"keep must be one of {', '.join(get_args(Keep))}, got {keep!r}")
        ours = isinstance(backbone, HierarchicalBackbone | VisionTransformer)
        if final_norm is not None and not ours:
            raise ValueError(f"final_norm is for backbones of windeye; {type(backbone).__name__} decides itself")
        if stage is not None:
            if not isinstance(backbone, HierarchicalBackbone):
                raise ValueError(f"stage is for hierarchical backbones, not for {type(backbone).__name__}")
            count = len(backbone.stages)
            if not -count <= stage < count:
                raise ValueError(f"stage must be in [-{count}, {count}), got {stage}")
            if final_norm and stage % count != count - 1:
                raise ValueError(f"final_norm is that of the last stage, {count - 1}, got stage {stage}")
        if isinstance(backbone, HierarchicalBackbone) and keep == "first":
            raise ValueError(
                'keep="first" is for tokens in a row; the map of a hierarchical backbone has no first token'
            )
        self.backbone = backbone.requires_grad_(False)
        self.keep, self.stage, self.pad_token_id = keep, stage, pad_token_id
        self.leading = _leading(backbone) if leading is None else leading
        self.final_norm = bool(final_norm)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """The backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.train(False)
        return self

    @torch.no_grad()
    def forward(
        self, inputs: Inputs, padding: Bool[Tensor, "batch tokens"] | None = None
    ) -> tuple[Float[Tensor, "batch *grid dim"], Bool[Tensor, "batch tokens"] | None]:
        """Tokens, and which of them are padding.

        Args:
            inputs: images, ids of text, or a mapping of what a model of transformers takes; its ``attention_mask``
                says what is padding.
            padding: True where an input token is none.

        Raises:
            TypeError: the backbone gives no tensor.
            ValueError: what it gives has no tokens, or nothing is left beside the tokens before the patches.
        """
        if isinstance(inputs, Mapping):
            mask = inputs.get("attention_mask")
            padding = padding if mask is None else mask == 0
            found = self.backbone(**inputs)
        else:
            if self.pad_token_id is not None and padding is None:
                padding = inputs == self.pad_token_id
            found = self._of(inputs, padding)
        return self._kept(_tensor_of(found, self.backbone), padding)

    def _of(self, inputs: Tensor, padding: Tensor | None) -> Any:
        backbone = self.backbone
        if isinstance(backbone, HierarchicalBackbone):
            if self.final_norm:
                return backbone.forward_features(inputs)
            index = len(backbone.stages) - 1 if self.stage is None else self.stage % len(backbone.stages)
            return next(islice(backbone.maps(inputs), index, None))
        if isinstance(backbone, VisionTransformer):
            return backbone.forward_features(inputs) if self.final_norm else backbone.tokens(inputs)
        if padding is not None:
            return backbone(inputs, attention_mask=(~padding).long())
        features = getattr(backbone, "forward_features", backbone)
        return features(inputs)

    def _kept(self, x: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor | None]:
        name = type(self.backbone).__name__
        if x.dim() not in (3, 4):
            raise ValueError(
                f"{name} must give [batch, tokens, dim] or [batch, height, width, dim], got shape {tuple(x.shape)}"
            )
        if padding is not None and padding.shape != x.shape[:-1]:
            raise ValueError(f"padding is {tuple(padding.shape)}, but {name} gives tokens {tuple(x.shape[:-1])}")
        if self.keep == "all" or (self.keep == "patches" and not self.leading):
            return x, padding
        if x.dim() == 4:
            raise ValueError(f"{name} gives a map, {tuple(x.shape)}, in which no token stands before the others")
        first, last = (0, 1) if self.keep == "first" else (self.leading, x.shape[1])
        if first >= last:
            raise ValueError(f"{name} gives {x.shape[1]} tokens, of which {self.leading} stand before the patches")
        return x[:, first:last], None if padding is None else padding[:, first:last]


def _tensor_of(found: Any, backbone: nn.Module) -> Tensor:
    """Tokens in what a backbone returned."""
    found = getattr(found, "last_hidden_state", found)
    found = found[0] if isinstance(found, tuple | list) and found else found
    if not isinstance(found, Tensor):
        raise TypeError(f"{type(backbone).__name__} must give a tensor of tokens, got {type(found).__name__}")
    return found


def _leading(backbone: nn.Module) -> int:
    """Tokens before the patches, as far as it is known."""
    if isinstance(backbone, VisionTransformer):
        return int(backbone.config.class_token)
    of_timm: Any = getattr(backbone, "num_prefix_tokens", None)
    if of_timm is not None:
        return int(of_timm)
    config = getattr(backbone, "config", None)
    known = LEADING.get(getattr(config, "model_type", ""), 0)
    return known + int(getattr(config, "num_register_tokens", 0) or 0) if known else 0
