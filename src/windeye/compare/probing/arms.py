"""What is compared: pools and the tokens that each of them reads; all heads are trained in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from windeye.data.sequences import derived_seed
from windeye.models.probing import ProbeHead
from windeye.nn.pools import POOLS, create_pool

KEEP = ("patches", "all")


@dataclass(frozen=True)
class Arm:
    """A pool, and whether it reads the tokens before the patches, too."""

    name: str
    kind: str
    settings: dict[str, Any]
    keep: str = "patches"

    def read(self, tokens: Float[Tensor, "batch *grid dim"], leading: int) -> Float[Tensor, "batch *grid dim"]:
        """Of all tokens those that the pool reads."""
        if self.kind == "class_token":
            return tokens[:, :1]
        return tokens[:, leading:] if leading and self.keep == "patches" else tokens

    def head(self, dim: int, classes: int, count: int, seed: int) -> ProbeHead:
        """A fresh head for ``count`` tokens; equal seeds are equal weights, whatever else is trained beside it."""
        settings = {"tokens": count} | self.settings if self.kind == "clip" else self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed("probe", self.name, seed))
            return ProbeHead(create_pool(self.kind, dim, **settings), classes)


def arm_of(words: str) -> Arm:
    """A pool from its words: a name, and settings behind a colon.

    Raises:
        ValueError: an unknown pool, or settings that are none.

    Example:
        >>> arm_of("ep:queries=8,keep=all")
        Arm(name='ep:queries=8,keep=all', kind='ep', settings={'queries': 8}, keep='all')
    """
    kind, _, rest = words.partition(":")
    if kind not in POOLS:
        raise ValueError(f"unknown pool {kind!r}; known are {', '.join(POOLS)}")
    try:
        settings = settings_of(filter(None, rest.split(",")))
    except ValueError as error:
        raise ValueError(f"settings of a pool are name=value, such as ep:queries=8, {error} in {words!r}") from None
    keep = settings.pop("keep", KEEP[0])
    if keep not in KEEP:
        raise ValueError(f"keep must be one of {', '.join(KEEP)}, got {keep!r} in {words!r}")
    return Arm(words, kind, settings, keep)


def settings_of(words: Iterable[str]) -> dict[str, Any]:
    """Values by name, as JSON where they are, else as text.

    Raises:
        ValueError: a word is not ``name=value``.

    Example:
        >>> settings_of(["queries=8", "keep=all"])
        {'queries': 8, 'keep': 'all'}
    """
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"got {word!r}")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


class Heads(nn.Module):
    """Heads of all arms on the same tokens: [arms, batch, classes] from [batch, tokens, dim].

    No head changes what another one learns: the objective is the sum of their losses, and nothing is shared.
    """

    def __init__(self, arms: Sequence[Arm], heads: Sequence[ProbeHead], leading: int) -> None:
        super().__init__()
        self.arms, self.leading = tuple(arms), leading
        self.heads = nn.ModuleList(heads)

    def items(self) -> Iterator[tuple[Arm, ProbeHead]]:
        """Every arm with its head."""
        for arm, head in zip(self.arms, self.heads, strict=True):
            assert isinstance(head, ProbeHead)
            yield arm, head

    def forward(self, tokens: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "arms batch classes"]:
        return torch.stack([head(arm.read(tokens, self.leading)) for arm, head in self.items()])


def losses(heads: nn.Module, tokens: Tensor, labels: Int64[Tensor, " batch"]) -> Float[Tensor, ""]:
    """The sum of the cross-entropies of all heads."""
    logits = heads(tokens).float()
    return torch.stack([F.cross_entropy(own, labels) for own in logits]).sum()
