"""The public functions: merging, extra keys, explanations, shapes."""

import beartype
import pytest
import torch
from jaxtyping import jaxtyped

import windeye
from windeye import Causal, Full, Neighborhood, Sinks, Sliding
from windeye.kernels import native as native_module
from windeye.kernels.native import instruction_sets

native = pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")


def tensors(*grid, batch=2, heads=4, kv_heads=2, dim=8, value_dim=6):
    return (
        torch.randn(batch, *grid, heads, dim, dtype=torch.float64, requires_grad=True),
        torch.randn(batch, *grid, kv_heads, dim, dtype=torch.float64, requires_grad=True),
        torch.randn(batch, *grid, kv_heads, value_dim, dtype=torch.float64, requires_grad=True),
    )


def dense(query, key, value, mask, scale):
    """One softmax over every key that the mask allows; flat tokens."""
    group = query.shape[2] // key.shape[2]
    key, value = key.repeat_interleave(group, 2), value.repeat_interleave(group, 2)
    logits = (scale * torch.einsum("bqhd,bkhd->bhqk", query, key)).masked_fill(~mask, -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), value), logits.logsumexp(-1).transpose(1, 2)


def test_branches_over_disjoint_keys_merge_into_one_softmax():
    q, k, v = tensors(12)
    parts = [slice(0, 3), slice(3, 4), slice(4, 12)]
    branches = [windeye.attend(q, k[:, p], v[:, p], return_lse=True) for p in parts]
    out, lse = windeye.merge(*branches)
    expected, expected_lse = windeye.attend(q, k, v, return_lse=True)
    assert torch.allclose(out, expected)
    assert torch.allclose(lse, expected_lse)
    ours = torch.autograd.grad(out.sin().sum() + lse.sum(), (q, k, v))
    theirs = torch.autograd.grad(expected.sin().sum() + expected_lse.sum(), (q, k, v))
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_branch_that_saw_nothing_weighs_nothing():
    q, k, v = tensors(6)
    nothing = windeye.attend(q, k[:, :0], v[:, :0], return_lse=True)
    something = windeye.attend(q, k, v, Sliding(2), return_lse=True)
    for merged in (windeye.merge(nothing, something), windeye.merge(something, nothing)):
        assert torch.equal(merged[0], something[0])
        assert torch.equal(merged[1], something[1])
    out, lse = windeye.merge(nothing, nothing)
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.isneginf(lse).all()
    grads = torch.autograd.grad(windeye.merge(nothing, something)[0].sum(), (q, k, v))
    assert all(torch.isfinite(g).all() for g in grads)


def test_merging_keeps_the_type_of_the_first_branch():
    out = torch.randn(3, 4).bfloat16()
    merged, lse = windeye.merge((out, torch.zeros(3)), (out, torch.zeros(3)))
    assert merged.dtype == torch.bfloat16
    assert lse.dtype == torch.float32


@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=native), "reference"])
@pytest.mark.parametrize(("pattern", "grid"), [(Neighborhood(3, stride=2), (6, 5)), (Sliding(4), (9,))])
def test_extra_keys_are_one_softmax_with_the_pattern(backend, pattern, grid):
    q, k, v = tensors(*grid)
    extra_k = torch.randn(2, 7, 2, 8, dtype=torch.float64, requires_grad=True)
    extra_v = torch.randn(2, 7, 2, 6, dtype=torch.float64, requires_grad=True)
    out, lse = windeye.attend(q, k, v, pattern, extra_kv=(extra_k, extra_v), backend=backend, return_lse=True)
    flat = [t.flatten(1, -3) for t in (q, k, v)]
    mask = torch.cat([pattern.bind(grid).mask(), torch.ones(flat[0].shape[1], 7, dtype=torch.bool)], dim=1)
    expected, expected_lse = dense(
        flat[0], torch.cat([flat[1], extra_k], 1), torch.cat([flat[2], extra_v], 1), mask, 8**-0.5
    )
    assert torch.allclose(out.flatten(1, -3), expected)
    assert torch.allclose(lse.flatten(1, -2), expected_lse)
    leaves = (q, k, v, extra_k, extra_v)
    ours = torch.autograd.grad(out.sin().sum(), leaves)
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_full_attention_is_torchs():
    q, k, v = (torch.randn(2, 33, 4, 16, requires_grad=True) for _ in range(3))
    ours = windeye.attend(q, k, v)
    heads_first = [t.transpose(1, 2) for t in (q, k, v)]
    theirs = torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)
    assert torch.allclose(ours, theirs, atol=1e-5)
    causal = torch.nn.functional.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2)
    assert torch.allclose(windeye.attend(q, k, v, Causal()), causal, atol=1e-5)


def test_grouped_heads_are_repeated_heads():
    q, k, v = tensors(5, 5)
    repeated = windeye.attend(q, k.repeat_interleave(2, -2), v.repeat_interleave(2, -2), Neighborhood(3))
    assert torch.allclose(windeye.attend(q, k, v, Neighborhood(3)), repeated)


def test_dilated_attention_is_independent_attention_on_each_class():
    q, k, v = tensors(9, 8)
    out = windeye.attend(q, k, v, Neighborhood(3, dilation=(3, 2)))
    for a in range(3):
        for b in range(2):
            part = (slice(None), slice(a, None, 3), slice(b, None, 2))
            assert torch.allclose(windeye.attend(q[part], k[part], v[part], Neighborhood(3)), out[part])


def test_a_window_of_one_column_is_attention_in_each_column():
    q, k, v = tensors(7, 3)
    out = windeye.attend(q, k, v, Neighborhood((5, 1)))
    for column in range(3):
        alone = windeye.attend(q[:, :, column], k[:, :, column], v[:, :, column], Neighborhood(5))
        assert torch.allclose(out[:, :, column], alone)


def test_a_third_axis_of_one_is_two_dimensional():
    q, k, v = tensors(1, 6, 5)
    out = windeye.attend(q, k, v, Neighborhood((1, 3, 3)))
    assert torch.allclose(out[:, 0], windeye.attend(q[:, 0], k[:, 0], v[:, 0], Neighborhood(3)))


@pytest.mark.parametrize("grid", [(6,), (3, 4), (2, 3, 4)])
def test_shapes_are_as_the_signature_says(grid):
    checked = jaxtyped(typechecker=beartype.beartype)(windeye.attend)
    q, k, v = tensors(*grid)
    offsets = torch.randn(4, *[3] * len(grid), dtype=torch.float64)
    hidden = torch.zeros(2, *grid, dtype=torch.bool)
    out = checked(q, k, v, Neighborhood(2), bias=offsets, key_padding=hidden)
    assert out.shape == (*q.shape[:-1], 6)


@native
def test_explain_on_a_window():
    q = torch.zeros(1, 64, 64, 8, 64)
    e = windeye.explain(q, q, q, Neighborhood(16, stride=8))
    assert (e.backend, e.pairs, e.flop_bound, e.predicted_speedup) == ("cpu", 4096 * 256, 16.0, 16.0)
    assert e.flops == 2 * 8 * 4096 * 256 * 128
    text = str(e)
    assert "FLOP bound 16.0x" in text
    assert "not natten: it runs on CUDA" in text


def test_explain_names_why_a_backend_cannot_run(monkeypatch):
    monkeypatch.setattr(native_module, "cpu", None)
    monkeypatch.setattr(native_module, "missing", "the compiled module is missing")
    q = torch.zeros(1, 9, 2, 8, requires_grad=True)
    e = windeye.explain(q, q, q, Sliding(3) | Sinks(1))
    assert e.backend == "reference"
    assert "the compiled module is missing" in e.refusals["cpu"]
    assert e.predicted_speedup is None
    with pytest.raises(ValueError, match="compiled module is missing"):
        windeye.attend(q, q, q, backend="cpu")
    assert windeye.attend(q, q, q, Full()).shape == q.shape


def test_autocast_computes_in_the_type_it_is_given():
    q, k, v = (torch.randn(1, 12, 2, 8) for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = windeye.attend(q, k, v, Sliding(3))
    assert torch.equal(out, windeye.attend(q, k, v, Sliding(3)))
