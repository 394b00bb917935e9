"""What a kernel must survive: NaN in strange places, rows that see nothing, empty tensors, many threads."""

import pytest
import torch

import windeye
from windeye import Documents, Full, Neighborhood, Sliding
from windeye.kernels.native import instruction_sets

native = pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
BACKENDS = [pytest.param("cpu", marks=native), "reference"]
both = pytest.mark.parametrize("backend", BACKENDS)


def tensors(*grid, heads=2, dim=8, dtype=torch.float32):
    return [torch.randn(1, *grid, heads, dim, dtype=dtype) for _ in range(3)]


@both
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("pattern", "grid"), [(Neighborhood(3), (9, 7)), (Full(), (37,)), (Sliding(5), (40,))])
def test_a_poisoned_query_stays_in_its_own_row(backend, poison, pattern, grid):
    q, k, v = tensors(*grid)
    clean = windeye.attend(q, k, v, pattern, backend=backend)
    victim = tuple(n // 2 for n in grid)
    q[(0, *victim, 0)] = poison
    out = windeye.attend(q, k, v, pattern, backend=backend)
    others = torch.ones(out.shape[:-1], dtype=torch.bool)
    others[(0, *victim, 0)] = False
    assert torch.allclose(out[others], clean[others], atol=1e-6)
    assert out[(0, *victim, 0)].isnan().any() or not torch.isnan(torch.tensor(poison))


@pytest.mark.parametrize(
    ("backend", "part"),
    [
        pytest.param("cpu", 1, marks=native, id="cpu-key"),
        pytest.param("cpu", 2, marks=native, id="cpu-value"),
        pytest.param("reference", 1, id="reference-key"),  # its dense product spreads a poisoned value, as documented
    ],
)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_poisoned_key_or_value_reaches_only_those_who_see_it(backend, part, poison):
    pattern, grid = Neighborhood(3), (9, 7)
    qkv = tensors(*grid)
    clean = windeye.attend(*qkv, pattern, backend=backend)
    qkv[part][0, 4, 3] = poison
    out = windeye.attend(*qkv, pattern, backend=backend)
    unseen = ~pattern.bind(grid).mask()[:, 4 * 7 + 3].reshape(grid)
    assert torch.allclose(out[0][unseen], clean[0][unseen], atol=1e-6)
    assert not torch.isfinite(out[0][~unseen]).all()


@both
@pytest.mark.parametrize("part", [1, 2], ids=["key", "value"])
def test_padded_keys_may_hold_anything(backend, part):
    qkv = tensors(12)
    hidden = torch.zeros(1, 12, dtype=torch.bool)
    hidden[0, 5:] = True
    clean = windeye.attend(*qkv, Sliding(4), key_padding=hidden, backend=backend)
    qkv[part][0, 5:] = float("nan")
    assert torch.equal(windeye.attend(*qkv, Sliding(4), key_padding=hidden, backend=backend), clean)
    assert not clean.isnan().any()


@both
def test_rows_that_see_nothing_are_zero_with_minus_infinity(backend):
    q, k, v = tensors(6)
    k, v = k[:, :2], v[:, :2]
    for t in (q, k, v):
        t.requires_grad_()
    out, lse = windeye.attend(q, k, v, windeye.Causal(), backend=backend, return_lse=True)
    assert torch.equal(out[:, :4], torch.zeros_like(out[:, :4]))
    assert torch.isneginf(lse[:, :4]).all()
    assert torch.isfinite(lse[:, 4:]).all()
    grads = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(torch.isfinite(g).all() for g in grads)
    assert torch.equal(grads[0][:, :4], torch.zeros_like(grads[0][:, :4]))


@both
@pytest.mark.parametrize("grid", [(0,), (0, 4), (3, 0, 2)])
def test_empty_grids(backend, grid):
    q, k, v = (t.requires_grad_() for t in tensors(*grid))
    out, lse = windeye.attend(q, k, v, Full(), backend=backend, return_lse=True)
    assert out.shape == q.shape
    assert lse.shape == q.shape[:-1]
    out.sum().backward()
    assert q.grad.shape == q.shape


@both
def test_empty_batch_and_no_keys(backend):
    q, k, v = (torch.randn(0, 5, 2, 4) for _ in range(3))
    assert windeye.attend(q, k, v, Sliding(2), backend=backend).shape == (0, 5, 2, 4)
    q = torch.randn(1, 5, 2, 4)
    none = torch.randn(1, 0, 2, 4)
    out, lse = windeye.attend(q, none, none, backend=backend, return_lse=True)
    assert torch.equal(out, torch.zeros_like(q))
    assert torch.isneginf(lse).all()


@both
def test_documents_do_not_leak(backend):
    q, k, v = tensors(10)
    packed = windeye.attend(q, k, v, Documents((4, 6)), backend=backend)
    alone = [windeye.attend(q[:, s], k[:, s], v[:, s], backend=backend) for s in (slice(0, 4), slice(4, 10))]
    assert torch.allclose(packed, torch.cat(alone, dim=1), atol=1e-6)


@both
def test_huge_logits_stay_finite(backend):
    q, k, v = tensors(20)
    out, lse = windeye.attend(100 * q, 100 * k, v, Sliding(6), backend=backend, return_lse=True)
    assert torch.isfinite(out).all()
    assert torch.isfinite(lse).all()


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_same_bits_on_every_run_and_with_any_number_of_threads(dtype):
    pattern, grid = Neighborhood(5, dilation=2), (19, 23)
    q, k, v = (t.requires_grad_() for t in tensors(*grid, heads=3, dim=24, dtype=dtype))
    bias = torch.randn(3, 9, 9, dtype=dtype, requires_grad=True)

    def run():
        out, lse = windeye.attend(q, k, v, pattern, bias=bias, backend="cpu", return_lse=True)
        return (out, lse, *torch.autograd.grad((out.float().sin().sum() + lse.sum()), (q, k, v, bias)))

    first = run()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@native
def test_threads_do_not_break_a_fork():
    """torch's own parallel operations hang in a fork of a process that has used its threads; ours must not."""
    import multiprocessing

    torch.set_num_threads(2)
    _before_a_fork[:] = tensors(2048, heads=4, dim=64)  # enough work that a second thread is taken
    expected = _in_a_fork()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_in_a_fork).get(timeout=60) == expected


_before_a_fork: list[torch.Tensor] = []


def _in_a_fork():
    out = windeye.attend(*_before_a_fork, Sliding(64), backend="cpu")
    return out[0, ::100, 1, 3].tolist()


@both
def test_scale_zero_is_a_scale(backend):
    q, k, v = tensors(8)
    out = windeye.attend(q, k, v, Sliding(3, is_causal=False), scale=0.0, backend=backend)
    assert torch.allclose(out[0, 3], v[0, 2:5].mean(dim=0), atol=1e-6)


@both
def test_a_window_of_one_returns_the_value(backend):
    q, k, v = tensors(5, 6)
    assert torch.allclose(windeye.attend(q, k, v, Neighborhood(1), backend=backend), v)


@both
def test_splitting_batch_and_heads_changes_nothing(backend):
    q, k, v = (torch.randn(3, 9, 8, 4, 8) for _ in range(3))
    whole = windeye.attend(q, k, v, Neighborhood(3), backend=backend)
    for b in range(3):
        for h in range(4):
            part = (slice(b, b + 1), slice(None), slice(None), slice(h, h + 1))
            assert torch.allclose(
                windeye.attend(q[part], k[part], v[part], Neighborhood(3), backend=backend), whole[part]
            )


@both
def test_interior_translation_equivariance(backend):
    q, k, v = tensors(16)
    moved = [t.roll(3, dims=1) for t in (q, k, v)]
    out = windeye.attend(q, k, v, Neighborhood(5), backend=backend)
    shifted = windeye.attend(*moved, Neighborhood(5), backend=backend)
    assert torch.allclose(shifted[:, 5:14], out[:, 2:11], atol=1e-6)
