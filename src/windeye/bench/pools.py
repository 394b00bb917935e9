"""The pools suite: a training step of each pool on frozen tokens, forward and backward, in time, memory and parameters.

"as published" is the arithmetic of the published code: keys and values of all tokens, torch's fused attention where its
heads have keys of their own. What is ours folds them into the query and the output (see `windeye.nn.pools.reading`), so
that efficient probing is measured against cross-attention that is as well off as itself, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.bench.table import milliseconds, ratio
from windeye.bench.timing import Candidate, can_measure_memory, compare, peak_extra_bytes
from windeye.nn.pools import (
    AbmilpPool,
    AveragePool,
    CrossAttentionPool,
    EfficientPool,
    JepaPool,
    SiglipPool,
    SimPool,
    TokenPool,
)

MOST_SECONDS = 240.0
QUERIES, HEADS = 32, 12
EP = "efficient probing, 32 queries"


@dataclass(frozen=True)
class Case:
    """Tokens of one batch."""

    batch: int
    tokens: int
    dim: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.batch} x {self.tokens} x {self.dim}" + (f" on {self.device}" if self.device != "cpu" else "")


CASES = (Case(256, 196, 768), Case(256, 196, 768, "cuda"))
QUICK = (Case(4, 49, 96),)
POOLS: dict[str, Callable[[int], TokenPool]] = {
    EP: partial(EfficientPool, queries=QUERIES),
    "mean": AveragePool,
    "SimPool": SimPool,
    "cross-attention, 12 heads, K and V": partial(CrossAttentionPool, heads=HEADS, out_proj=False),
    "cross-attention, 12 heads, K, V and out": partial(CrossAttentionPool, heads=HEADS),
    "attentive pooler (V-JEPA), 12 heads": partial(JepaPool, heads=HEADS),
    "attention pool with MLP (SigLIP), 8 heads": SiglipPool,
    "AbMILP with self-attention": AbmilpPool,
}
COLUMNS = (
    "tokens, pool", "parameters", "ms as published", "over our EP", "ms ours", "over our EP", "MB as published",
    "MB ours",
)  # fmt: skip


def parts(*, quick: bool = False) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The suite as named parts. ``quick`` measures small batches in three rounds: to see that it works."""
    for case in QUICK if quick else CASES:
        if case.device == "cuda" and not torch.cuda.is_available():
            continue
        yield f"time {case.name}", partial(times, case, 3 if quick else 7)
        if case.device == "cuda" or can_measure_memory():
            yield f"memory {case.name}", partial(memory, case)


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row per batch and pool."""
    table: list[tuple[str, ...]] = []
    for case in (*CASES, *QUICK):
        timed, kept = (result["parts"].get(f"{what} {case.name}") for what in ("time", "memory"))
        for name in POOLS if timed else ():
            ours, theirs = timed["timings"][name], timed["timings"].get(f"{name}, as published")
            peaks = [kept.get(place) for place in (f"{name}, as published", name)] if kept else [None, None]
            table.append(
                (
                    f"{case.name}, {name}",
                    f"{timed['parameters'][name]:,}",
                    milliseconds(theirs["seconds"]) if theirs else "",
                    ratio(1 / theirs["speedup"]) if theirs else "",
                    milliseconds(ours["seconds"]),
                    ratio(1 / ours["speedup"]),
                    *("" if peak is None else f"{peak / 2**20:.0f}" for peak in peaks),
                )
            )
    return table


def published(pool: TokenPool) -> Callable[[Tensor], Tensor] | None:
    """The arithmetic of the published code with a pool's weights; None where ours is the same.

    Example:
        >>> pool, x = EfficientPool(24, queries=4), torch.randn(2, 5, 24)
        >>> torch.allclose(published(pool)(x), pool(x), atol=1e-6)
        True
    """
    if isinstance(pool, EfficientPool):
        return partial(_values_first, pool)
    if isinstance(pool, CrossAttentionPool):
        return partial(_cross_attention, pool)
    if isinstance(pool, JepaPool):
        return partial(_jepa, pool)
    if isinstance(pool, SiglipPool):
        return partial(_siglip, pool)
    if isinstance(pool, SimPool):
        return partial(_simpool, pool)
    return None


def _values_first(pool: EfficientPool, x: Tensor) -> Tensor:
    maps = (pool.queries * pool.dim**-0.5 @ x.transpose(1, 2)).softmax(dim=2)
    values = pool.value(x).unflatten(2, (pool.queries.shape[0], -1)).transpose(1, 2)
    return (maps[:, :, None] @ values).flatten(1)


def _fused(query: Tensor, kv: Tensor, heads: int) -> Tensor:
    """One query [1, dim] over the keys and values [batch, tokens, 2 dim] of all tokens."""
    asked = torch.unflatten(query.expand(kv.shape[0], 1, -1), 2, (heads, -1)).transpose(1, 2)
    key, value = (torch.unflatten(t, 2, (heads, -1)).transpose(1, 2) for t in kv.chunk(2, dim=2))
    return F.scaled_dot_product_attention(asked, key, value).flatten(1)


def _cross_attention(pool: CrossAttentionPool, x: Tensor) -> Tensor:
    query = pool.query if pool.query_proj is None else pool.query_proj(pool.query)
    out = _fused(query, pool.kv_proj(x), pool.heads)
    return out if pool.out_proj is None else pool.out_proj(out)


def _jepa(pool: JepaPool, x: Tensor) -> Tensor:
    z = pool.token + pool.proj(_fused(pool.query(pool.token), pool.kv(pool.norm1(x)), pool.heads))
    return z + pool.feed_forward(pool.norm2(z))


def _siglip(pool: SiglipPool, x: Tensor) -> Tensor:
    z = pool.proj(_fused(pool.query(pool.latent), pool.kv(x), pool.heads))
    return z + pool.feed_forward(z)


def _simpool(pool: SimPool, x: Tensor) -> Tensor:
    normed = pool.norm(x)
    query = pool.query(x.mean(dim=1, keepdim=True))
    return ((query @ pool.key(normed).transpose(1, 2) * pool.dim**-0.5).softmax(dim=2) @ normed)[:, 0]


def step(pool: TokenPool, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Forward and backward of the pool's own weights; the tokens are those of a frozen encoder. Gives the output."""
    out = run(x)
    if out.requires_grad:
        torch.autograd.backward(out.square().mean())
        pool.zero_grad(set_to_none=True)
    if x.is_cuda:
        torch.cuda.synchronize()
    return out.detach()


def candidates(case: Case) -> tuple[dict[str, TokenPool], dict[str, Candidate], Tensor]:
    """Pools, their training steps by name, and the tokens."""
    torch.manual_seed(0)
    x = torch.randn(case.batch, case.tokens, case.dim, device=case.device)
    pools = {name: build(case.dim).to(case.device) for name, build in POOLS.items()}
    steps: dict[str, Candidate] = {}
    for name, pool in pools.items():
        steps[name] = partial(step, pool, pool, x)
        if (theirs := published(pool)) is not None:
            steps[f"{name}, as published"] = partial(step, pool, theirs, x)
    return pools, steps, x


def times(case: Case, rounds: int) -> dict[str, Any]:
    """Seconds of a step of every candidate, in turn; speed-ups are against our efficient probing."""
    pools, steps, _ = candidates(case)
    timings = compare(steps, baseline=EP, rounds=rounds, most_seconds=MOST_SECONDS)
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "parameters": {name: sum(p.numel() for p in pool.parameters()) for name, pool in pools.items()},
    }


def memory(case: Case) -> dict[str, int]:
    """Peak bytes that a step adds to what tokens and weights take."""
    _, steps, x = candidates(case)
    if x.is_cuda:
        return {name: _on_gpu(run) for name, run in steps.items()}
    return {name: peak_extra_bytes(_ALONE.format(case=case, name=name)) for name in steps}


def _on_gpu(run: Candidate) -> int:
    run()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


_ALONE = """
import torch
torch.set_num_threads(1)
from windeye.bench.pools import Case, candidates
small = candidates(Case(2, 49, 96))[1][{name!r}]
small()
_, steps, _ = candidates({case!r})
run = steps[{name!r}]
"""
