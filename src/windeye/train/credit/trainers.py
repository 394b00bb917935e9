"""Where the factors go in the trainers that people use; none of them is needed here.

Each function takes what a trainer holds after it has computed, normalised and clipped its advantages, and the factors
of one of the rules over the same tokens. Advantages of padding stay as they are.

Source: preplan-anchor spec, "Plug-in points", and the trainers' public interfaces of 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol, TypeVar

from jaxtyping import Bool, Float, Int
from torch import Tensor

from windeye.train.credit.rules import Sign, credited


class Experience(Protocol):
    """What OpenRLHF hands from its experience maker to its trainer, as far as it is read here."""

    advantages: Tensor
    action_mask: Tensor


class Batched(Protocol):
    """What ROLL passes between its workers, as far as it is read here."""

    batch: MutableMapping[str, Tensor]


E = TypeVar("E", bound=Experience)
D = TypeVar("D", bound=Batched)


def for_trl(
    output: Mapping[str, Any], gamma: Float[Tensor, "batch tokens"], *, sign: Sign = "both", renormalise: bool = False
) -> dict[str, Any]:
    """TRL: what ``_generate_and_score_completions`` returns, with ``advantages`` [batch] become [batch, tokens].

    Subclass ``GRPOTrainer``, override that method, and pass its result through; its loss takes either shape. ``gamma``
    and ``completion_mask`` are over the completion.

    Raises:
        KeyError: the output has no advantages or no completion mask. ValueError: as `windeye.train.credit.credited`.

    Example:
        >>> import torch
        >>> output = {"advantages": torch.tensor([2.0]), "completion_mask": torch.tensor([[1, 1, 0]])}
        >>> for_trl(output, torch.tensor([[1.0, 1.5, 1.0]]))["advantages"]
        tensor([[2., 3., 2.]])
    """
    response = output["completion_mask"].bool()
    return {**output, "advantages": credited(output["advantages"], gamma, response, sign=sign, renormalise=renormalise)}


def for_verl(
    estimated: tuple[Float[Tensor, "batch tokens"], Float[Tensor, "batch tokens"]],
    gamma: Float[Tensor, "batch tokens"],
    response_mask: Bool[Tensor, "batch tokens"] | Int[Tensor, "batch tokens"] | Float[Tensor, "batch tokens"],
    *,
    sign: Sign = "both",
    renormalise: bool = False,
) -> tuple[Float[Tensor, "batch tokens"], Float[Tensor, "batch tokens"]]:
    """verl: what a registered advantage estimator returns, (advantages, returns); returns stay as they are.

    Raises:
        ValueError: as `windeye.train.credit.credited`.

    Example:
        >>> import torch
        >>> two = torch.tensor([[2.0, 2.0, 0.0]])
        >>> for_verl((two, two), torch.tensor([[1.0, 1.5, 1.0]]), torch.tensor([[1, 1, 0]]))[0]
        tensor([[2., 3., 0.]])
    """
    advantages, returns = estimated
    return credited(advantages, gamma, response_mask.bool(), sign=sign, renormalise=renormalise), returns


def for_openrlhf(
    experience: E, gamma: Float[Tensor, "batch actions"], *, sign: Sign = "both", renormalise: bool = False
) -> E:
    """OpenRLHF: the same experience with other ``advantages`` [batch, actions].

    Wrap ``compute_advantages_and_returns``. Action ``i`` of a sequence writes token ``i + 1``: ``gamma`` lies as the
    action mask does, over written tokens.

    Raises:
        ValueError: as `windeye.train.credit.credited`.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> made = SimpleNamespace(advantages=torch.tensor([[2.0, 2.0]]), action_mask=torch.tensor([[False, True]]))
        >>> for_openrlhf(made, torch.tensor([[1.5, 1.5]])).advantages
        tensor([[2., 3.]])
    """
    response = experience.action_mask.bool()
    experience.advantages = credited(experience.advantages, gamma, response, sign=sign, renormalise=renormalise)
    return experience


def for_roll(data: D, gamma: Float[Tensor, "batch tokens"], *, sign: Sign = "both", renormalise: bool = False) -> D:
    """ROLL: ``data.batch["advantages"]`` after ``compute_advantage``, which has whitened and clipped them.

    ``gamma`` and ``response_mask`` are over the whole sequence of prompt and response; advantages lack its first token,
    which nobody writes.

    Raises:
        KeyError: the batch has no advantages or no response mask. ValueError: as `windeye.train.credit.credited`.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> batch = {"advantages": torch.tensor([[0.0, 2.0]]), "response_mask": torch.tensor([[0, 0, 1]])}
        >>> for_roll(SimpleNamespace(batch=batch), torch.tensor([[1.0, 1.0, 1.5]])).batch["advantages"]
        tensor([[0., 3.]])
    """
    response = data.batch["response_mask"][:, 1:].bool()
    data.batch["advantages"] = credited(
        data.batch["advantages"], gamma[:, 1:], response, sign=sign, renormalise=renormalise
    )
    return data
