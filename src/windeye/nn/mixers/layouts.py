"""Mixers in networks that lay their tokens out otherwise."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixers.mixer import TokenMixer


class ChannelsFirst(nn.Module):
    """A mixer for maps [batch, dim, height, width], made by `as_nchw`."""

    def __init__(self, mixer: TokenMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch out_dim height width"]:
        return self.mixer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Flattened(nn.Module):
    """A mixer for sequences [batch, height x width, dim] of a map's tokens, row by row, made by `as_sequence`."""

    def __init__(self, mixer: TokenMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Float[Tensor, "batch n dim"], height: int, width: int) -> Float[Tensor, "batch n out_dim"]:
        """
        Raises:
            ValueError: the sequence is not as long as the map has tokens.
        """
        if x.shape[1] != height * width:
            raise ValueError(f"x has {x.shape[1]} tokens but a map of {height} x {width} has {height * width}")
        return self.mixer(x.reshape(x.shape[0], height, width, -1)).flatten(1, 2)


def as_nchw(mixer: TokenMixer) -> ChannelsFirst:
    """The mixer as a layer among convolutions, without residual and norm.

    Example:
        >>> import torch
        >>> from windeye.nn.mixers import WindowMixer
        >>> as_nchw(WindowMixer(32, heads=4))(torch.randn(2, 32, 20, 12)).shape
        torch.Size([2, 32, 20, 12])
    """
    return ChannelsFirst(mixer)


def as_sequence(mixer: TokenMixer) -> Flattened:
    """The mixer as a layer over sequences of tokens and the size of their map.

    Example:
        >>> import torch
        >>> from windeye.nn.mixers import WindowMixer
        >>> as_sequence(WindowMixer(32, heads=4))(torch.randn(2, 240, 32), 20, 12).shape
        torch.Size([2, 240, 32])
    """
    return Flattened(mixer)
