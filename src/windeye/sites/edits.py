"""What may be changed at a site: frozen descriptions that know nothing of any model, and what each does to a call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from windeye.sites.call import AttentionCall, RowEdit
from windeye.sites.places import Keys, Where
from windeye.sites.record import Recording
from windeye.sites.session import CALL_SITES, MODEL_SITES, SITES

Value = float | Tensor | tuple[float, ...]
"""A number, one per channel, or a tensor that broadcasts over what is edited."""


@dataclass(frozen=True)
class Edit(ABC):
    """A change at some place. Edits are applied in the order in which they are given."""

    where: Where = field(default_factory=Where, kw_only=True)

    kind: ClassVar[str]
    """Its name in JSON."""

    def check(self) -> None:  # noqa: B027 - most are right by construction
        """Refuse what cannot be meant."""


Change = Callable[[Float[Tensor, "batch heads rows keys"]], Tensor]
"""From logits to logits, ``-inf`` where a key is not seen."""


@dataclass(frozen=True)
class ScoreChange(Edit):
    """A change of the logits before the softmax."""

    @abstractmethod
    def change(self, call: AttentionCall) -> Change:
        """What happens to the logits of one call."""

    def additive(self, call: AttentionCall) -> Float[Tensor, "batch keys"] | None:
        """What is added to the logits of each key, where the change is no more than that."""
        del call
        return None

    def changes_nothing(self, call: AttentionCall) -> bool:
        """Whether logits stay what they are: then the model's own pass runs, and not a bit changes."""
        del call
        return False

    def on(self, call: AttentionCall, layer: int) -> RowEdit | None:
        """The change in one call; None where it touches no query there."""
        batch, _, heads, _ = call.shape
        chosen = self.where.heads_of(layer, heads)
        rows = self.where.rows_of(call.query_positions(), batch)
        if not bool(rows.any()) or not chosen or self.changes_nothing(call):
            return None
        of_heads = torch.zeros(heads, dtype=torch.bool, device=rows.device)
        of_heads[list(chosen)] = True
        change, sums = self.change(call), self.additive(call)

        def apply(logits: Tensor, at: slice) -> Tensor:
            return torch.where(rows[:, None, at, None] & of_heads[:, None, None], change(logits), logits)

        factors = None if sums is None else ((rows[:, :, None] & of_heads).to(call.query.dtype), sums)
        return RowEdit(apply, rows.any(dim=0), chosen, factors)


def _columns(keys: Keys, call: AttentionCall) -> Bool[Tensor, "batch 1 1 keys"]:
    return keys.mask(call.key_positions(), call.query.shape[0])[:, None, None]


@dataclass(frozen=True)
class KeyBias(ScoreChange):
    """``logit + amount`` for some keys. With ``amount = log a`` the weights of these keys are multiplied by ``a`` and
    the row is brought back to 1.

    Example:
        >>> KeyBias(-2.3, Keys.span(0, 4, outside=True), where=Where(rows="last")).amount
        -2.3
    """

    amount: float
    keys: Keys
    kind = "key_bias"

    def change(self, call: AttentionCall) -> Change:
        columns = _columns(self.keys, call)
        return lambda logits: torch.where(columns, logits + self.amount, logits)

    def additive(self, call: AttentionCall) -> Float[Tensor, "batch keys"]:
        return _columns(self.keys, call)[:, 0, 0].to(call.query.dtype) * self.amount

    def changes_nothing(self, call: AttentionCall) -> bool:
        return self.amount == 0 or not bool(_columns(self.keys, call).any())


@dataclass(frozen=True)
class ScoreBoost(ScoreChange):
    """``logit + factor |logit|`` for some keys: more by as much as the logit is far from zero."""

    factor: float
    keys: Keys
    kind = "score_boost"

    def change(self, call: AttentionCall) -> Change:
        columns = _columns(self.keys, call)

        def boosted(logits: Tensor) -> Tensor:
            return torch.where(columns & (logits > -torch.inf), logits + self.factor * logits.abs(), logits)

        return boosted

    def changes_nothing(self, call: AttentionCall) -> bool:
        return self.factor == 0 or not bool(_columns(self.keys, call).any())


@dataclass(frozen=True)
class Hide(ScoreChange):
    """Some keys are not seen. A query that sees nothing any more gives zeros."""

    keys: Keys
    kind = "hide"

    def change(self, call: AttentionCall) -> Change:
        columns = _columns(self.keys, call)
        return lambda logits: logits.masked_fill(columns, -torch.inf)

    def changes_nothing(self, call: AttentionCall) -> bool:
        return not bool(_columns(self.keys, call).any())


@dataclass(frozen=True)
class SetAttention(ScoreChange):
    """The row of weights is replaced: ``weights[position]``, brought to the sum 1, and zero elsewhere, whatever the
    query could see before. Positions that a cache has dropped take no part.

    Source: circuit-reuse spec, "The repair": half the weight on each of two tokens.
    """

    weights: Mapping[int, float]
    kind = "set_attention"

    def check(self) -> None:
        if not self.weights or min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0:
            raise ValueError(f"weights must not be negative and must have a positive sum, got {dict(self.weights)}")

    def change(self, call: AttentionCall) -> Change:
        positions = call.key_positions().expand(call.query.shape[0], -1)
        row = torch.zeros(positions.shape, dtype=torch.float64, device=positions.device)
        for position, weight in self.weights.items():
            row[positions == position] = weight
        if bool((row.sum(dim=-1) == 0).any()):
            raise ValueError(
                f"set_attention names the positions {sorted(self.weights)}, of which none is among the keys at hand, "
                f"{int(positions.min())} to {int(positions.max())}"
            )
        logs = row.log()[:, None, None]
        return lambda logits: logs.to(logits.dtype).expand_as(logits)


@dataclass(frozen=True)
class Rescore(ScoreChange):
    """Any function of the logits [batch, heads, rows, keys], which are ``-inf`` where a key is not seen. It is the one
    edit that JSON does not hold."""

    function: Change
    kind = "rescore"

    def change(self, call: AttentionCall) -> Change:
        del call
        return self.function


@dataclass(frozen=True)
class TensorChange(Edit):
    """A change of the tensor at a site."""

    site: str

    def check(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"there is no site {self.site!r}; sites are {', '.join(SITES)}")
        if self.where.heads is not None and self.site not in CALL_SITES:
            raise ValueError(f"site {self.site!r} has no heads; heads can be named at {', '.join(CALL_SITES)}")
        if self.where.layers is not None and self.site in MODEL_SITES:
            raise ValueError(f"site {self.site!r} is the model's, not a layer's; leave layers None")

    @property
    def replaces(self) -> bool:
        """Whether nothing of what was there is left."""
        return False

    @abstractmethod
    def instead(self, tensor: Tensor, layer: int, rows: slice) -> Tensor:
        """What to put in place of the tensor, whose tokens are those at ``rows`` of all that passed."""

    def on(self, tensor: Tensor, layer: int, touched: Bool[Tensor, "batch rows"], rows: slice) -> Tensor:
        """The tensor with its touched tokens, and heads, changed."""
        where = touched[:, :, None]
        if self.site in CALL_SITES:
            chosen = self.where.heads_of(layer, tensor.shape[2])
            if max(chosen, default=0) >= tensor.shape[2]:
                raise IndexError(
                    f"{self.kind} names head {max(chosen)} at {self.site!r} of layer {layer}, "
                    f"which has heads 0 to {tensor.shape[2] - 1}"
                )
            heads = torch.zeros(tensor.shape[2], dtype=torch.bool, device=tensor.device)
            heads[list(chosen)] = True
            where = where[..., None] & heads[:, None]
        return torch.where(where, self.instead(tensor, layer, rows).to(tensor.dtype), tensor)


@dataclass(frozen=True)
class Scale(TensorChange):
    """``factor x``. At "z" it is a gain of heads before the output projection; with 0 they are ablated.

    Example:
        >>> Scale("z", 0.0, where=Where(heads={3: (1, 2)})).factor
        0.0
    """

    factor: Value
    kind = "scale"

    def instead(self, tensor: Tensor, layer: int, rows: slice) -> Tensor:
        del layer, rows
        return tensor * _like(self.factor, tensor)


@dataclass(frozen=True)
class Add(TensorChange):
    """``x + value``: a steering vector, for instance."""

    value: Value
    kind = "add"

    def instead(self, tensor: Tensor, layer: int, rows: slice) -> Tensor:
        del layer, rows
        return tensor + _like(self.value, tensor)


@dataclass(frozen=True)
class Set(TensorChange):
    """``value`` instead of x."""

    value: Value
    kind = "set"

    @property
    def replaces(self) -> bool:
        return True

    def instead(self, tensor: Tensor, layer: int, rows: slice) -> Tensor:
        del layer, rows
        return _like(self.value, tensor).expand_as(tensor)


@dataclass(frozen=True)
class Patch(TensorChange):
    """What another run had at the same place: activation patching, or with ``mean`` mean ablation.

    Args:
        recording: of that run, with this site.
        mean: None; or the mean over the recording's "tokens", or its "batch and tokens".
    """

    recording: Recording
    mean: Literal["tokens", "batch and tokens"] | None = None
    kind = "patch"

    @property
    def replaces(self) -> bool:
        return True

    def check(self) -> None:
        super().check()
        if self.site not in self.recording.sites:
            raise ValueError(f"the recording has no site {self.site!r}; it has {', '.join(self.recording.sites)}")
        if self.mean not in (None, "tokens", "batch and tokens"):
            raise ValueError(f'mean must be None, "tokens" or "batch and tokens", got {self.mean!r}')

    def instead(self, tensor: Tensor, layer: int, rows: slice) -> Tensor:
        other = self.recording[self.site] if self.site in MODEL_SITES else self.recording[self.site, layer]
        if self.mean is not None:
            axes = (1,) if self.mean == "tokens" else (0, 1)
            other = other.mean(dim=axes, keepdim=True)
        else:
            if other.shape[1] < rows.stop:
                raise ValueError(
                    f"the recording has {other.shape[1]} tokens at {self.site!r}, the run is at token {rows.stop - 1}"
                )
            other = other[:, rows]
        if other.shape[0] not in (1, tensor.shape[0]) or other.shape[2:] != tensor.shape[2:]:
            raise ValueError(
                f"the recording has {tuple(other.shape)} at {self.site!r} of layer {layer}, the run has "
                f"{tuple(tensor.shape)}"
            )
        return other.to(tensor.device).expand_as(tensor)


def _like(value: Value, tensor: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)


KINDS: dict[str, type[Edit]] = {
    kind.kind: kind for kind in (KeyBias, ScoreBoost, Hide, SetAttention, Scale, Add, Set, Patch)
}
"""Edits that JSON holds, by name."""
