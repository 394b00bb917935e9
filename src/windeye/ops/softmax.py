"""Softmax attention: attend, merge, explain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from windeye.kernels.softmax import registry
from windeye.kernels.softmax.merge import merge_branches
from windeye.kernels.softmax.operands import Operands
from windeye.kernels.softmax.problem import (
    check_bias,
    check_extra,
    check_key_bias,
    check_key_padding,
    check_pattern,
    check_tensors,
    problem_of,
)
from windeye.patterns import Full, Pattern

_EVERYTHING = Full()


@overload
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern = ...,
    *,
    scale: float | None = ...,
    bias: Tensor | None = ...,
    key_padding: Tensor | None = ...,
    extra_kv: tuple[Tensor, Tensor] | None = ...,
    dropout_p: float = ...,
    backend: str = ...,
    return_lse: Literal[False] = ...,
) -> Tensor: ...
@overload
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern = ...,
    *,
    scale: float | None = ...,
    bias: Tensor | None = ...,
    key_padding: Tensor | None = ...,
    extra_kv: tuple[Tensor, Tensor] | None = ...,
    dropout_p: float = ...,
    backend: str = ...,
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def attend(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid_kv kv_heads head_dim"],
    value: Float[Tensor, "batch *grid_kv kv_heads value_dim"],
    pattern: Pattern = _EVERYTHING,
    *,
    scale: float | None = None,
    bias: Float[Tensor, "heads *offsets"] | Float[Tensor, "batch bias_heads keys"] | None = None,
    key_padding: Bool[Tensor, batch * grid_kv] | None = None,
    extra_kv: tuple[Float[Tensor, "batch extra kv_heads head_dim"], Float[Tensor, "batch extra kv_heads value_dim"]]
    | None = None,
    dropout_p: float = 0.0,
    backend: str = "auto",
    return_lse: bool = False,
) -> Float[Tensor, "batch *grid heads value_dim"] | tuple[Tensor, Tensor]:
    """Softmax attention in which ``pattern`` says who sees whom.

    ``out_q = sum_k softmax_k(scale <query_q, key_k> + bias) value_k`` over the keys ``k`` that query ``q`` sees.

    Args:
        query: tokens keep their grid, heads come last but one. Any strides; float32, bfloat16, float16 or float64.
        key, value: on the same grid or another one. ``kv_heads`` divides ``heads``: query head ``h`` reads key head
            ``h // (heads // kv_heads)``.
        pattern: a `windeye.Pattern`; default everything.
        scale: factor of the logits, default ``head_dim ** -0.5``. Zero is a scale like any other.
        bias: relative position table, one odd number ``2 r + 1`` of offsets per grid axis. Entry
            ``(key - query) / dilation + r`` is added to the scaled logit. For NAT and DiNAT ``r = kernel_size - 1``.
            With `Expiry`, `Allowed` and `Routed` it is a number per key, [batch, heads, keys], with as many heads as
            key, or more up to those of query, such as the score that decided how long a key lives.
        key_padding: True hides a key from every query.
        extra_kv: keys and values that every query sees besides its pattern (text tokens, registers), in one softmax;
            bias and padding do not apply to them.
        dropout_p: probability of dropping an attention weight, the rest is scaled up. Follows ``torch.manual_seed``.
        backend: "auto", or one of "cpu", "natten", "sdpa", "gather", "flex", "triton", "reference"; see `explain`.
        return_lse: also return the log-sum-exp of each row's logits, [batch, *grid, heads], float32 (float64 for
            float64), differentiable.

    Returns:
        ``out``, or ``(out, lse)``. A row that sees nothing is zero with ``lse = -inf``.

    Raises:
        ValueError, TypeError: shapes, dtypes, devices, pattern or options do not fit; names the argument and values.

    Example:
        >>> import torch, windeye
        >>> q = k = v = torch.randn(2, 16, 16, 4, 32)
        >>> windeye.attend(q, k, v, windeye.Neighborhood(7, stride=2)).shape
        torch.Size([2, 16, 16, 4, 32])
    """
    check_tensors(query, key, value)
    if not isinstance(pattern, Pattern):
        raise TypeError(f"pattern must be a windeye.Pattern such as Neighborhood(7), got {pattern!r}")
    if scale is None:
        scale = query.shape[-1] ** -0.5
    _check_number("scale", scale)
    _check_number("dropout_p", dropout_p)
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p must be in [0, 1), got {dropout_p}")
    check_pattern(pattern, query, key)
    if bias is not None:
        (check_key_bias if pattern.tables else check_bias)(bias, query, key)
    if key_padding is not None:
        check_key_padding(key_padding, key)

    extra = None if extra_kv is None else check_extra(extra_kv, key, value)

    operands = Operands(query, key, value, bias, key_padding, _seed(dropout_p))
    leaves = (query, key, value, bias, *(extra or ()))
    problem = problem_of(
        pattern, query, key, value, scale=float(scale), dropout_p=float(dropout_p), has_bias=bias is not None,
        has_key_padding=key_padding is not None,
        needs_grad=torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in leaves),
        needs_lse=return_lse or extra is not None,
    )  # fmt: skip
    chosen = registry.choose(problem, backend)
    if extra is None:
        out, lse = chosen.attend(problem, operands)
    elif chosen.JOINS_EXTRA and extra[0].shape[1] > 0:
        extra_key, extra_value = extra
        out, lse = chosen.attend(
            problem, operands._replace(extra_key=extra_key, extra_value=extra_value, extra_seed=_seed(dropout_p))
        )
    else:
        first = chosen.attend(problem, operands)
        out, lse = merge_branches((first, _second(query, *extra, scale, dropout_p, backend)))
    return (out, lse) if return_lse else out


def _seed(dropout_p: float) -> Tensor | None:
    return torch.randint(2**31, (), dtype=torch.int64) if dropout_p > 0.0 else None


def _second(
    query: Tensor, extra_key: Tensor, extra_value: Tensor, scale: float, dropout_p: float, backend: str
) -> tuple[Tensor, Tensor]:
    """The branch of the keys that every query sees."""
    flat = query.flatten(1, -3)
    out, lse = attend(flat, extra_key, extra_value, scale=scale, dropout_p=dropout_p, backend=backend, return_lse=True)
    return out.reshape(*query.shape[:-1], extra_value.shape[-1]), lse.reshape(query.shape[:-1])


def merge(*branches: tuple[Float[Tensor, "*rows dim"], Float[Tensor, "*rows"]]) -> tuple[Tensor, Tensor]:
    """One softmax over the union of disjoint key sets, from ``(out, lse)`` of each.

    ``lse = log sum_i exp(lse_i)`` and ``out = sum_i exp(lse_i - lse) out_i``, in float32 or wider; differentiable. The
    result has the dtype of the first branch. Rows that saw nothing anywhere stay zero with ``lse = -inf``.

    Raises:
        ValueError, TypeError: no branch, or branches whose shapes differ.

    Example:
        >>> import torch, windeye
        >>> q, k, v = torch.randn(3, 1, 8, 2, 4).unbind(0)
        >>> near = windeye.attend(q, k[:, :5], v[:, :5], return_lse=True)
        >>> far = windeye.attend(q, k[:, 5:], v[:, 5:], return_lse=True)
        >>> torch.allclose(windeye.merge(near, far)[0], windeye.attend(q, k, v), atol=1e-6)
        True
    """
    if not branches:
        raise ValueError("merge needs at least one (out, lse) branch, got none")
    for index, branch in enumerate(branches):
        if not isinstance(branch, tuple | list) or len(branch) != 2 or not all(isinstance(t, Tensor) for t in branch):
            raise TypeError(f"branch {index} must be a pair of tensors (out, lse), got {type(branch).__name__}")
        out, lse = branch
        if out.shape[:-1] != lse.shape:
            raise ValueError(
                f"branch {index} has out {tuple(out.shape)} and lse {tuple(lse.shape)}; lse lacks the last axis only"
            )
        if out.shape != branches[0][0].shape:
            raise ValueError(
                f"branch {index} has out {tuple(out.shape)} but branch 0 has {tuple(branches[0][0].shape)}"
            )
    return merge_branches(branches)


@dataclass(frozen=True)
class Explanation:
    """What a call would do: printed as a short text, or read field by field."""

    pattern: str
    grid: tuple[int, ...]
    grid_kv: tuple[int, ...]
    backend: str
    refusals: dict[str, str | None]
    pairs: int
    density: float
    flops: int
    visited_pairs: int | None
    """Pairs that the cpu kernel computes, whole lane groups counted; None where another backend runs."""
    relations: int = 1
    """Relations that the pairs add up: one, or batch x heads of a pattern that depends on data."""

    @property
    def flop_bound(self) -> float:
        """Dense FLOPs over the pattern's FLOPs: no exact kernel can gain more."""
        return 1 / self.density if self.density else math.inf

    @property
    def predicted_speedup(self) -> float | None:
        """Dense pairs over the pairs that the kernel visits: what is left of the bound at equal efficiency."""
        dense = self.relations * math.prod(self.grid) * math.prod(self.grid_kv)
        return dense / self.visited_pairs if self.visited_pairs else None

    def __str__(self) -> str:
        lines = [
            f"{self.pattern} on {'x'.join(map(str, self.grid))} queries and {'x'.join(map(str, self.grid_kv))} keys",
            f"pairs {self.pairs:,} ({self.density:.2%} of all), forward {self.flops / 1e9:.3f} GFLOP, "
            f"FLOP bound {self.flop_bound:.1f}x over dense",
        ]
        if self.predicted_speedup is not None:
            lines.append(
                f"the kernel visits {self.visited_pairs:,} pairs: predicted {self.predicted_speedup:.1f}x over dense"
            )
        lines.append(f"backend {self.backend}")
        lines += [f"  not {name}: {reason}" for name, reason in self.refusals.items() if reason is not None]
        return "\n".join(lines)


def explain(
    query: Float[Tensor, "batch *grid heads head_dim"],
    key: Float[Tensor, "batch *grid_kv kv_heads head_dim"],
    value: Float[Tensor, "batch *grid_kv kv_heads value_dim"],
    pattern: Pattern = _EVERYTHING,
    *,
    bias: Tensor | None = None,
    key_padding: Tensor | None = None,
    dropout_p: float = 0.0,
    return_lse: bool = False,
) -> Explanation:
    """Which backend `attend` would take and why not the others, with pairs, FLOPs and the predicted gain.

    Example:
        >>> import torch, windeye
        >>> q = torch.zeros(1, 64, 64, 8, 64)
        >>> e = windeye.explain(q, q, q, windeye.Neighborhood(16, stride=8))
        >>> e.pairs, e.flop_bound
        (1048576, 16.0)
    """
    check_tensors(query, key, value)
    check_pattern(pattern, query, key)
    problem = problem_of(
        pattern, query, key, value, scale=1.0, dropout_p=dropout_p, has_bias=bias is not None,
        has_key_padding=key_padding is not None, needs_grad=query.requires_grad, needs_lse=return_lse,
    )  # fmt: skip
    bound = problem.bound
    chosen = registry.choose(problem).name
    visited = None
    if chosen == "cpu":
        from windeye.kernels.softmax.cpu import visited_pairs

        visited = visited_pairs(bound, problem.dtype)
    return Explanation(
        pattern=repr(pattern),
        grid=problem.grid,
        grid_kv=problem.grid_kv,
        backend=chosen,
        refusals=registry.refusals(problem),
        pairs=bound.pairs(),
        density=bound.density(),
        flops=bound.flops(problem.heads, problem.head_dim, problem.value_dim, problem.batch),
        visited_pairs=visited,
        relations=bound.relations,
    )


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not -math.inf < value < math.inf:  # not math.isfinite, which a graph with a symbolic number cannot hold
        raise ValueError(f"{name} must be finite, got {value}")
