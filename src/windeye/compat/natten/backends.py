"""NATTEN's backend names, and what windeye makes of them.

| name | windeye |
|---|---|
| None | "auto": the fastest backend that can run |
| "flex-fna", "flex-fmha" | "flex": FlexAttention, or the reason why it cannot run |
| "cutlass-fna", "hopper-fna", "blackwell-fna" and their "-fmha" | refused: each names a CUDA kernel |

windeye contains none of those CUDA kernels. Pass None: where the natten package is installed, "auto" calls it, and it
picks its own kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from windeye.kernels.softmax import flex
from windeye.kernels.softmax.problem import problem_of
from windeye.ops import attend
from windeye.patterns import Pattern

FNA_BACKENDS = ("cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna")
FMHA_BACKENDS = ("cutlass-fmha", "hopper-fmha", "blackwell-fmha", "flex-fmha")


def attend_on(
    backend: str | None,
    known: tuple[str, ...],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern,
    *,
    scale: float | None,
    return_lse: bool,
    extra_kv: tuple[Tensor, Tensor] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`windeye.attend` on what NATTEN's backend name means.

    Raises:
        NotImplementedError: the name is not one of ``known``, or windeye cannot honour it here; says why.
    """
    needs_lse = return_lse or extra_kv is not None
    name = _windeye_backend(backend, known, query, key, value, pattern, needs_lse=needs_lse)
    if return_lse:
        return attend(query, key, value, pattern, scale=scale, extra_kv=extra_kv, backend=name, return_lse=True)
    return attend(query, key, value, pattern, scale=scale, extra_kv=extra_kv, backend=name)


def _windeye_backend(
    backend: str | None,
    known: tuple[str, ...],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern,
    *,
    needs_lse: bool,
) -> str:
    if backend is None:
        return "auto"
    if backend not in known:
        raise NotImplementedError(f"backend must be None or one of {known}, got {backend!r}")
    if not backend.startswith("flex-"):
        raise NotImplementedError(
            f'backend "{backend}" names a CUDA kernel that windeye does not contain; pass backend=None, which takes '
            f"the fastest kernel that can run here"
        )
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    problem = problem_of(pattern, query, key, value, scale=1.0, needs_grad=needs_grad, needs_lse=needs_lse)
    reason = flex.can_run(problem)
    if reason is not None:
        raise NotImplementedError(f'backend "{backend}" cannot run this call: {reason}')
    return flex.name
