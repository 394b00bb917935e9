"""A map read between its tokens, and made to another size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from windeye.tokens.sizes import always


def sample(
    x: Float[Tensor, "batch height width heads width_of_head"], at: Float[Tensor, "batch heads *places 2"]
) -> Float[Tensor, "batch *places heads width_of_head"]:
    """Bilinear values of every head's map at places of its own; zero outside of the map.

    Args:
        x: maps, heads last but one.
        at: places as (x, y) in units in which the first and the last column or row lie at -1 and 1 (an axis of one
            token lies at -1, as a limit of no spacing).

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 1.0, 4.0]).reshape(1, 1, 3, 1, 1)
        >>> sample(x, torch.tensor([[[[0.5, -1.0], [1.0, -1.0]]]])).flatten()
        tensor([2.5000, 4.0000])
    """
    batch, _, _, heads, _ = x.shape
    places = at.shape[2:-1]
    # Places in half precision would be off by a fraction of a token.
    kind = torch.promote_types(x.dtype, torch.float32)
    maps = x.permute(0, 3, 4, 1, 2).flatten(0, 1).to(kind)
    grid = at.reshape(batch * heads, 1, -1, 2).to(kind)
    values = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    values = values.reshape(batch, heads, x.shape[-1], *places).to(x.dtype)
    return values.movedim(1, -1).movedim(1, -1)


def resize(
    x: Float[Tensor, "batch height width dim"], size: tuple[int, int], *, antialias: bool = False
) -> Float[Tensor, "batch rows columns dim"]:
    """The map made to another size bilinearly; the rims of the first and the last token stay the rims of the map.

    Args:
        x: a map, channels last.
        size: rows and columns of the result.
        antialias: whether, where the map gets smaller, every token counts, and not only those next to a place.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 1.0, 4.0, 9.0]).reshape(1, 1, 4, 1)
        >>> resize(x, (1, 2)).flatten(), resize(x, (1, 2), antialias=True).flatten()
        (tensor([0.5000, 6.5000]), tensor([1.0000, 5.7143]))
    """
    if all(always(new == old) for new, old in zip(size, x.shape[1:3], strict=True)):
        return x
    if not antialias:
        maps = x.permute(0, 3, 1, 2)
        return F.interpolate(maps, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    # By products of axes: torch's own antialiased maps of one column are wrong where channels come first (2.13).
    kind = torch.promote_types(x.dtype, torch.float32)
    down, across = (_tents(few, many, x.device, kind) for few, many in zip(size, x.shape[1:3], strict=True))
    return torch.einsum("ay,bx,nyxc->nabc", down, across, x.to(kind)).to(x.dtype)


def _tents(few: int, many: int, device: torch.device, kind: torch.dtype) -> Float[Tensor, "few many"]:
    """How much of each token is in what is read at ``few`` places: tents as wide as their distance, at least two."""
    places = (torch.arange(few, device=device, dtype=kind) + 0.5) * (many / few) - 0.5
    distance = (places[:, None] - torch.arange(many, device=device, dtype=kind)).abs()
    weights = (1 - distance / max(many / few, 1.0)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
