"""What every mixer of maps is: projections, plans of attention, and what is done with the heads' outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.nn.mixer import check_divides
from windeye.nn.mixers.plan import Plan, attended, dense, positions, row
from windeye.tokens import crop


class TokenMixer(nn.Module, ABC):
    """Mixes the tokens of a map: [batch, height, width, dim] in and out, of any height and width. (The rare mixer that
    changes the width says so in its arguments.)

    A subclass writes `plans`, and `finish` where an output projection is not all that follows. Padding happens inside.
    No parameter and no stored buffer depends on the size of the map, but for a mixer of learned sums over positions: it
    says in ``size`` which map they are for, and makes maps of other sizes to that one, or refuses them by name.
    A mixer whose branches have norms of their own declares ``normalizes = True``: a block then hands it the trunk as it
    is, and adds the result to it as ever.
    A mixer whose attention is one call over a pattern declares ``attention_site = True``: sessions of `windeye.sites`
    then see it, with the tokens of the map that it pads to.

    The contract, which tests/nn/mixers checks for every registered mixer: the heads' outputs are
    ``to_dense(x) @ positions(x)`` and equal a loop over queries; batch entries are independent.
    """

    proj: nn.Module
    normalizes: ClassVar[bool] = False
    size: tuple[int, int] | None = None

    def __init__(self, dim: int, heads: int, *, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.head_dim = check_divides(heads, dim, "dim")
        self.attn_drop = check_drop("attn_drop", attn_drop)
        self.proj_drop = nn.Dropout(check_drop("proj_drop", proj_drop))

    @abstractmethod
    def plans(self, x: Float[Tensor, "batch height width dim"]) -> tuple[Plan, ...]:
        """The attention over this map. Several plans stand for ranges of heads, in order."""

    def finish(
        self, out: Float[Tensor, "batch height width heads head_dim"], x: Tensor, plans: tuple[Plan, ...]
    ) -> Float[Tensor, "batch height width out_dim"]:
        """The result from the heads' outputs: ``proj`` over all heads, unless a subclass has more to do."""
        del x, plans
        return self.proj_drop(self.proj(out.flatten(-2)))

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width out_dim"]:
        """
        Raises:
            ValueError: wrong number of axes or channels.
        """
        plans = self._checked(x)
        return self.finish(self.outputs(x, plans), x, plans)

    def attention(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width heads width"]:
        """The heads' outputs, before whatever `finish` does."""
        return self.outputs(x, self._checked(x))

    def to_dense(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch heads queries positions"]:
        """Every head as a matrix from positions to queries, quadratic in memory; row-major.

        Positions are the tokens of the map, padded on the right and bottom where the mixer pads and shows it; or those
        of a smaller map, where keys are made of several tokens by more than an average.
        """
        _, height, width, _ = x.shape
        plans = self._checked(x)
        maps = [torch.unflatten(dense(plan), 2, plan.query.shape[1:3])[:, :, :height, :width] for plan in plans]
        return torch.cat(maps, dim=1).flatten(2, 3)

    def positions(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch positions heads width"]:
        """Projected values at the positions of `to_dense`."""
        return torch.cat([positions(plan) for plan in self._checked(x)], dim=2)

    def look(self, x: Float[Tensor, "batch height width dim"], at: tuple[int, int]) -> Float[Tensor, "batch heads *kv"]:
        """The row of `to_dense` of the query in row and column ``at``, as a map, in memory linear in the tokens."""
        return torch.cat([row(plan, *at) for plan in self._checked(x)], dim=1)

    def span(self, height: int, width: int) -> tuple[float, float]:
        """Rows and columns of tokens that a position of `to_dense` stands for on a map of this size; more than one for
        mixers whose positions are a smaller map."""
        del height, width
        return 1.0, 1.0

    def head_kinds(self) -> tuple[str, ...]:
        """What each head is, where heads are of several kinds; else nothing."""
        return ()

    def outputs(self, x: Tensor, plans: tuple[Plan, ...]) -> Float[Tensor, "batch height width heads head_dim"]:
        """The heads' outputs of these plans, cropped to the map."""
        grid = (x.shape[1], x.shape[2])
        dropout_p = self.attn_drop if self.training else 0.0
        layer = self if getattr(self, "attention_site", False) else None
        parts = [crop(attended(plan, dropout_p=dropout_p, layer=layer), grid) for plan in plans]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)

    def _checked(self, x: Tensor) -> tuple[Plan, ...]:
        if x.dim() != 4 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be [batch, height, width, dim {self.dim}], got shape {tuple(x.shape)}")
        return self.plans(x)


def check_drop(name: str, value: float) -> float:
    """A probability of dropping."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return float(value)
