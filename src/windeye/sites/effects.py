"""What patching did to a logit difference, as shares of the change from the clean to the corrupted run."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Effects:
    """Logit differences under every patched head.

    Args:
        patched: of every prompt, by head.
        clean, corrupt: of the two runs.

    Raises:
        ValueError: the two runs have the same mean: there is no change of which effects would be shares.

    Example:
        >>> import torch
        >>> patched = torch.tensor([[[2.0, 1.0], [0.0, -2.0]]])
        >>> found = Effects(patched, clean=torch.tensor([3.0, 1.0]), corrupt=torch.tensor([-3.0, 1.0]))
        >>> [round(effect, 3) for effect in found.effect[0].tolist()], found.top(1)
        ([0.167, 1.0], ((0, 1),))
    """

    patched: Float[Tensor, "layers heads batch"]
    clean: Float[Tensor, " batch"]
    corrupt: Float[Tensor, " batch"]

    def __post_init__(self) -> None:
        if self.gap == 0:
            raise ValueError(
                "clean and corrupt have the same mean logit difference; effects would be shares of its change"
            )

    @property
    def gap(self) -> float:
        """How far the mean logit difference moves from the clean to the corrupted run."""
        return (self.corrupt.double().mean() - self.clean.double().mean()).item()

    @property
    def effect(self) -> Float[Tensor, "layers heads"]:
        """``(LD_patched - LD_clean) / (LD_corrupt - LD_clean)``, each LD a mean over prompts first."""
        return (self.patched.double().mean(-1) - self.clean.double().mean()) / self.gap

    def top(self, count: int) -> tuple[tuple[int, int], ...]:
        """The (layer, head) of largest effect in absolute value, the largest first."""
        heads = self.patched.shape[1]
        order = self.effect.abs().flatten().argsort(descending=True, stable=True)[:count].tolist()
        return tuple(divmod(place, heads) for place in order)
