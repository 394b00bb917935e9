"""The unfused operators: against official numbers, against loops, and against attention over the same windows."""

from itertools import product
from math import prod

import pytest
import torch

import windeye
from golden import load
from oracles.windows import neighborhood
from windeye.compat.natten import functional

EXACT = {"rtol": 1e-10, "atol": 1e-10}
QK = {1: functional.na1d_qk, 2: functional.na2d_qk, 3: functional.na3d_qk}
AV = {1: functional.na1d_av, 2: functional.na2d_av, 3: functional.na3d_av}


@pytest.mark.parametrize("case", ["na1d_w5_rpb", "na2d_w3_d2_rpb"])
def test_equal_the_official_operators_with_all_gradients(case):
    meta, numbers = load("fna", case)
    q, k, v, rpb = leaves = [numbers[f"input.{name}"].requires_grad_() for name in ("q", "k", "v", "rpb")]
    rank = len(meta["grid"])
    logits = QK[rank](q * q.shape[-1] ** -0.5, k, meta["window"], meta["dilation"], rpb=rpb)
    out = AV[rank](logits.softmax(-1), v, meta["window"], meta["dilation"])
    torch.testing.assert_close(logits, numbers["output.logits"], **EXACT)
    torch.testing.assert_close(out, numbers["output.out"], **EXACT)
    gradients = torch.autograd.grad((out * numbers["cotangent.out"]).sum(), leaves)
    for name, gradient in zip(("q", "k", "v", "rpb"), gradients, strict=True):
        torch.testing.assert_close(gradient, numbers[f"grad_input.{name}"], **EXACT)


CASES = [
    ((9,), (4,), (2,), (True,), 2),
    ((7,), (3,), (1,), (False,), 0),
    ((6, 5), (3, 2), (2, 1), (True, False), 3),
    ((5, 4), (2, 4), (1, 1), (True, True), 1),
    ((3, 4, 3), (2, 2, 3), (1, 2, 1), (False, True, True), 2),
]


def places(grid, window, dilation, causal):
    """For each query its window in row-major order; None where a causal axis has no key in that place."""
    rows = []
    for query in product(*map(range, grid)):
        axes = []
        for at, length, size, step, flag in zip(query, grid, window, dilation, causal, strict=True):
            keys = sorted(neighborhood(at, length, size, dilation=step, causal=flag))
            axes.append(keys + [None] * (size - len(keys)))
        rows.append([None if None in key else key for key in product(*axes)])
    return rows


@pytest.mark.parametrize(("grid", "window", "dilation", "causal", "extra"), CASES, ids=str)
def test_logits_and_weighted_values_are_loops_over_the_window(grid, window, dilation, causal, extra):
    q, k = torch.randn(2, 1, 2, *grid, 4, dtype=torch.float64).unbind(0)
    v = torch.randn(1, 2, *grid, 3, dtype=torch.float64)
    far_k, far_v = torch.randn(1, 2, extra, 4, dtype=torch.float64), torch.randn(1, 2, extra, 3, dtype=torch.float64)
    weights = torch.randn(1, 2, *grid, prod(window) + extra, dtype=torch.float64)
    rank = len(grid)
    logits = QK[rank](q, k, window, dilation, additional_keys=far_k, is_causal=causal)
    out = AV[rank](weights, v, window, dilation, additional_values=far_v, is_causal=causal)
    queries = list(product(*map(range, grid)))
    for head, (query, row) in product(range(2), zip(queries, places(grid, window, dilation, causal), strict=True)):
        at = (0, head, *query)
        true_out = sum(weights[at][len(row) + n] * far_v[0, head, n] for n in range(extra)) + torch.zeros(3).double()
        for n, key in enumerate(row):
            if key is None:
                assert logits[at][n] == -torch.inf
            else:
                torch.testing.assert_close(logits[at][n], q[at] @ k[(0, head, *key)], **EXACT)
                true_out = true_out + weights[at][n] * v[(0, head, *key)]
        torch.testing.assert_close(logits[at][len(row) :], far_k[0, head] @ q[at], **EXACT)
        torch.testing.assert_close(out[at], true_out, **EXACT)


@pytest.mark.parametrize(("grid", "window", "dilation", "causal", "extra"), CASES, ids=str)
def test_the_two_operators_around_a_softmax_are_attention(grid, window, dilation, causal, extra):
    q, k, v = leaves = [torch.randn(2, *grid, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    far = [torch.randn(2, extra, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    rank = len(grid)
    logits = QK[rank](q.movedim(-2, 1) * 0.5, k.movedim(-2, 1), window, dilation, far[0].transpose(1, 2), causal)
    out = AV[rank](logits.softmax(-1), v.movedim(-2, 1), window, dilation, far[1].transpose(1, 2), causal)
    pattern = windeye.Neighborhood(window, dilation=dilation, is_causal=causal)
    truth = windeye.attend(q, k, v, pattern, extra_kv=far)
    torch.testing.assert_close(out.movedim(1, -2), truth, **EXACT)
    pull = torch.randn_like(truth)
    ours = torch.autograd.grad((out.movedim(1, -2) * pull).sum(), leaves + far)
    for one, other in zip(ours, torch.autograd.grad((truth * pull).sum(), leaves + far), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_second_derivatives_exist():
    q, k = (torch.randn(1, 1, 4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradgradcheck(lambda q, k: functional.na1d_qk(q, k, 3, is_causal=True).softmax(-1), (q, k))


def test_a_nan_weight_of_a_key_that_is_not_seen_changes_nothing():
    value = torch.randn(1, 1, 5, 3)
    weights = functional.na1d_qk(value, value, 3, is_causal=True).softmax(-1)
    poisoned = weights.clone()
    poisoned[0, 0, 0, 1:] = torch.nan
    assert torch.equal(
        functional.na1d_av(poisoned, value, 3, is_causal=True), functional.na1d_av(weights, value, 3, is_causal=True)
    )


T = torch.zeros(1, 2, 5, 6, 4)
ERRORS = [
    (lambda: functional.na1d_qk(T, T, 3), ValueError, r"query must be \[batch, heads, 1 token axes"),
    (lambda: functional.na2d_qk(T, T[:, :1], 3), ValueError, r"key must have the shape of query, \(1, 2, 5, 6, 4\)"),
    (lambda: functional.na2d_qk(T, T, 1), ValueError, r"kernel_size must be integers of at least 2, got 1 on axis 0"),
    (lambda: functional.na2d_qk(T, T, 3, 2), ValueError, r"needs 6 keys but axis 0 has 5"),
    (lambda: functional.na2d_qk(T, T, 3, rpb=torch.zeros(2, 5, 3)), ValueError, r"rpb must be \(2, 5, 5\)"),
    (lambda: functional.na2d_qk(T, T, 3, is_causal=True, rpb=torch.zeros(2, 5, 5)), NotImplementedError,
     r"rpb has no causal form"),
    (lambda: functional.na2d_qk(T, T, 3, additional_keys=torch.zeros(1, 2, 3, 5)), ValueError,
     r"additional_keys must be \[batch 1, heads 2, extra, head_dim 4\], got shape \(1, 2, 3, 5\)"),
    (lambda: functional.na2d_av(T[..., :3], T, 3), ValueError, r"attn must be \(1, 2, 5, 6, 9\), 9 weights"),
    (lambda: functional.na2d_av(torch.zeros(1, 2, 5, 6, 9), T, 3, additional_values=T[:, :, 0, :1]), ValueError,
     r"9 weights of the window and 1 of additional tokens, got \(1, 2, 5, 6, 9\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), ERRORS, ids=[words for *_, words in ERRORS])
def test_wrong_calls_are_refused_by_name(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize(
    ("rank", "older", "window", "dilation"),
    [(1, (5, 2), 5, 2), (2, (3, 2), 3, 2), (3, (2, 3, 1, 2), (2, 3, 3), (1, 2, 2))],
)
def test_older_names_are_the_same_operators(rank, older, window, dilation):
    grid = (10, 9, 8)[:rank]
    q, k, v = torch.randn(3, 1, 2, *grid, 4).unbind(0)
    sizes = (window,) * rank if isinstance(window, int) else window
    rpb = torch.randn(2, *[2 * size - 1 for size in sizes])
    logits = getattr(functional, f"natten{rank}dqkrpb")(q, k, rpb, *older)
    assert torch.equal(logits, QK[rank](q, k, window, dilation, rpb=rpb))
    out = getattr(functional, f"natten{rank}dav")(logits.softmax(-1), v, *older)
    assert torch.equal(out, AV[rank](logits.softmax(-1), v, window, dilation))
    assert torch.equal(getattr(functional, f"natten{rank}dqkrpb")(q, k, None, *older), QK[rank](q, k, window, dilation))
