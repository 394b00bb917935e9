"""A frozen encoder and the head that is trained on its tokens."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from windeye.models.probing.encoder import FrozenEncoder, Inputs
from windeye.models.probing.head import ProbeHead
from windeye.nn.pools import TokenPool


class Probe(nn.Module):
    """Logits of a head on the tokens of a frozen backbone: ``classifier(norm(pool(tokens)))``.

    Training it trains the head alone: the backbone has no gradient, stays in evaluation mode, and its statistics do not
    move. A head trained on tokens that were kept is the same as one trained through the probe.

    Args:
        backbone: what gives tokens; see `FrozenEncoder`.
        pool: of as many channels as the tokens.
        classes: how many.
        encoder: settings of `FrozenEncoder`: keep, leading, final_norm, stage, pad_token_id.

    Example:
        >>> import torch
        >>> from windeye.models.vision import swin
        >>> from windeye.nn.pools import EfficientPool
        >>> probe = Probe(swin(16, (1, 1), (2, 2), num_classes=0), EfficientPool(32, queries=8), classes=5)
        >>> images = torch.randn(2, 3, 32, 32)
        >>> probe(images).shape, probe.maps(images).shape
        (torch.Size([2, 5]), torch.Size([2, 8, 4, 4]))
        >>> sum(p.numel() for p in probe.parameters() if p.requires_grad) == 32 * 8 + 32 * 32 + 32 * 5 + 5
        True
    """

    def __init__(self, backbone: nn.Module, pool: TokenPool, classes: int, **encoder: Any) -> None:
        super().__init__()
        if pool.kind == "class_token":
            encoder = {"keep": "first"} | encoder
        self.encoder = FrozenEncoder(backbone, **encoder)
        self.head = ProbeHead(pool, classes)

    def forward(
        self, inputs: Inputs, padding: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Logits; arguments as of `FrozenEncoder`."""
        return self.head(*self.tokens(inputs, padding))

    def maps(
        self, inputs: Inputs, padding: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch maps *grid"]:
        """Where each query or head of the pool looks.

        Raises:
            ValueError: the pool does not weigh tokens.
        """
        return self.head.pool.maps(*self.tokens(inputs, padding))

    def tokens(
        self, inputs: Inputs, padding: Bool[Tensor, "batch tokens"] | None = None
    ) -> tuple[Float[Tensor, "batch *grid dim"], Bool[Tensor, "batch tokens"] | None]:
        """What the head reads, in the type of its weights."""
        x, padding = self.encoder(inputs, padding)
        return x.to(self.head.classifier.weight.dtype), padding
