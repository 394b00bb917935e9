"""Published decay rates of linear attention. A rate is positive; ``log_decay = -rate`` and a token that is ``t`` steps
old counts ``exp(-rate t)``. Rates are numbers, on the CPU whatever the default device is: a model that is built on the
meta device has them too.

Example:
    >>> import windeye
    >>> windeye.decay.retnet_rates(1).exp().item()
    1.03225806...
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Convention = Literal["code", "minimax", "paper", "fla", "xmixers"]


def alibi_slopes(heads: int) -> Float[Tensor, " heads"]:
    """Slopes of ALiBi, float64: ``2^(-8 h / heads)`` for ``h = 1 .. heads``.

    Where ``heads`` is no power of two, the slopes of the power of two below it come first and every second slope of
    twice that power (first, third, ...) fills up.

    Raises:
        ValueError: ``heads`` is below 1.

    Example:
        >>> alibi_slopes(4).tolist()
        [0.25, 0.0625, 0.015625, 0.00390625]
    """
    _check_at_least_one("heads", heads)
    whole = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * h / whole) for h in range(1, whole + 1)]
    slopes += [2 ** (-8 * h / (2 * whole)) for h in range(1, 2 * (heads - whole) + 1, 2)]
    return torch.tensor(slopes, dtype=torch.float64, device="cpu")


def tnl_rates(heads: int, layer: int, layers: int, convention: Convention = "code") -> Float[Tensor, " heads"]:
    """Decay rates of TransNormerLLM for one layer (counted from 0) of a model of ``layers``, float64.

    Five conventions are in use; with ``a`` the ALiBi slopes and ``h`` the head counted from 0:

    - "code": ``a_h (1 - layer / (layers - 1) + 1e-5)``, of the released TransNormerLLM weights
    - "minimax": ``a_h (1 - layer / (layers - 1 + 1e-5) + 1e-5)``, of MiniMax-01
    - "paper": ``8 (h + 1) / heads (1 - layer / layers)``, equation 10 of the paper
    - "fla": ``8 h / heads (1 - layer / layers)``; head 0 never forgets. That library also scales queries by
      ``head_dim ** -0.5``
    - "xmixers": ``(1 - layer / (layers - 1) + 1e-5) / w_h`` with windows ``w_h`` geometric from 2 to 256

    A model of one layer has the factor 1 where the formula divides by zero.

    Raises:
        ValueError: an unknown convention, or a layer outside of the model.

    Example:
        >>> tnl_rates(2, layer=0, layers=4, convention="paper").tolist()
        [4.0, 8.0]
    """
    _check_at_least_one("heads", heads)
    _check_at_least_one("layers", layers)
    if not 0 <= layer < layers:
        raise ValueError(f"layer must be in [0, {layers}), got {layer}")
    if convention not in get_args(Convention):
        raise ValueError(f"convention must be one of {', '.join(get_args(Convention))}, got {convention!r}")
    head = torch.arange(heads, dtype=torch.float64, device="cpu")
    if convention in ("paper", "fla"):
        return 8 / heads * (head + (convention == "paper")) * (1 - layer / layers)
    if convention == "minimax":
        return alibi_slopes(heads) * (1 - layer / (layers - 1 + 1e-5) + 1e-5)
    depth = 1.0 if layers == 1 else 1 - layer / (layers - 1) + 1e-5
    if convention == "xmixers":
        windows = torch.logspace(1, 8, heads, base=2, dtype=torch.float64, device="cpu")
        return depth / windows
    return alibi_slopes(heads) * depth


def retnet_rates(heads: int) -> Float[Tensor, " heads"]:
    """Decay rates of RetNet, float64: ``-log(1 - 2^(-5 - h))`` for heads ``h`` counted from 0.

    Raises:
        ValueError: ``heads`` is below 1.

    Example:
        >>> torch.exp(-retnet_rates(2)).tolist()
        [0.96875, 0.984375]
    """
    _check_at_least_one("heads", heads)
    return -torch.log1p(-(2.0 ** (-5 - torch.arange(heads, dtype=torch.float64, device="cpu"))))


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
