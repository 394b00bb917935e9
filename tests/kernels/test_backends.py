"""Every backend equals the oracle, forward and gradient."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch.nn.functional import scaled_dot_product_attention

import windeye
from oracles.problems import PROBLEMS, gradients, inputs, problems, truth
from windeye import Neighborhood
from windeye.kernels.native import LARGE, instruction_sets

NATIVE = pytest.param("cpu", marks=pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing"))
BACKENDS = [NATIVE, "reference"]
by_name = pytest.mark.parametrize("problem", PROBLEMS, ids=str)


def attend(problem, data, backend):
    return windeye.attend(
        data.query, data.key, data.value, problem.pattern, scale=data.scale, bias=data.bias, key_padding=data.hidden,
        backend=backend, return_lse=True,
    )  # fmt: skip


def close(actual, expected, tolerance):
    """Relative to the largest value, and the same infinities."""
    actual, expected = actual.double(), expected.double()
    finite = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(actual), finite)
    assert torch.equal(actual[~finite], expected[~finite])
    if finite.any():
        size = expected[finite].abs().max().clamp(min=1)
        assert (actual[finite] - expected[finite]).abs().max() <= tolerance * size


def check(problem, backend, dtype, tolerance):
    data = inputs(problem)
    expected = truth(problem, data)
    expected_grads = gradients(*expected, data)
    cast = data.cast(dtype)
    # Buffers that are not fully written would show as NaN.
    torch.use_deterministic_algorithms(True)
    try:
        actual = attend(problem, cast, backend)
        grads = gradients(*actual, cast)
    finally:
        torch.use_deterministic_algorithms(False)
    close(actual[0], expected[0], tolerance)
    close(actual[1], expected[1], tolerance)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        close(ours, theirs, 4 * tolerance)


@by_name
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_oracle_in_float64(problem, backend):
    check(problem, backend, torch.float64, 1e-12)


@by_name
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_oracle_in_float32(problem, backend):
    check(problem, backend, torch.float32, 3e-6)


@pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
def test_large_tensors_on_several_threads_equal_the_reference():
    """Large enough for outputs on huge pages, two strips of tiles, and threads that share the work."""
    torch.set_num_threads(2)
    pattern, shape = Neighborhood((5, 7)), (1, 24, 128, 2, 128)
    exact = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    cast = [t.detach().float().requires_grad_() for t in exact]
    assert cast[0].nbytes >= LARGE
    found = []
    for leaves, backend in ((cast, "cpu"), (exact, "reference")):
        out = windeye.attend(*leaves, pattern, backend=backend)
        found.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    for actual, expected in zip(*found, strict=True):
        close(actual, expected, 3e-6)


@pytest.mark.parametrize("backend", [NATIVE])
@given(problem=problems())
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_problems(problem, backend):
    check(problem, backend, torch.float64, 1e-12)


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("problem", PROBLEMS[::3], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_instruction_set(problem, isa, dtype, monkeypatch):
    monkeypatch.setenv("WINDEYE_ISA", isa)
    check(problem, "cpu", dtype, {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2}[dtype])


def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv("WINDEYE_ISA", "mmx")
    q = torch.zeros(1, 4, 1, 8)
    with pytest.raises(ValueError, match="mmx"):
        windeye.attend(q, q, q, backend="cpu")


def dense_error(data, mask, dtype, truth_out, truth_grads):
    """What torch's own dense attention loses in this type, out and gradients."""
    group = data.query.shape[-2] // data.key.shape[-2]
    leaves = [t.detach().to(dtype).requires_grad_() for t in (data.query, data.key, data.value)]
    q, k, v = (t.flatten(1, -3).transpose(1, 2) for t in leaves)
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=data.scale).transpose(1, 2)
    out = out.reshape(truth_out.shape)
    grads = torch.autograd.grad((out.double() * data.grad_out).sum(), leaves)
    return [(a.double() - b).abs().max() for a, b in zip((out, *grads), (truth_out, *truth_grads), strict=True)]


GOLDEN = [p for p in PROBLEMS if p.bias is None and not p.padding and p.layout != "expanded"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("problem", GOLDEN, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_types_lose_at_most_twice_what_dense_attention_loses(problem, dtype, backend):
    data = inputs(problem)
    out, _ = truth(problem, data)
    grads = torch.autograd.grad((out * data.grad_out).sum(), data.leaves())
    bound = problem.pattern.bind(problem.grid, problem.grid_kv)
    allowed = dense_error(data, bound.mask(), dtype, out.detach(), grads)
    cast = data.cast(dtype)
    ours, _ = attend(problem, cast, backend)
    ours_grads = torch.autograd.grad((ours.double() * data.grad_out).sum(), cast.leaves())
    unit = torch.finfo(dtype).eps
    for actual, expected, limit in zip((ours, *ours_grads), (out, *grads), allowed, strict=True):
        rounding = unit * expected.abs().max().clamp(min=1e-3)  # one rounding of the largest value is nobody's fault
        assert (actual.double() - expected).abs().max() <= 2 * limit + rounding


@pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
@pytest.mark.parametrize("problem", PROBLEMS[::2], ids=str)
def test_gradcheck(problem):
    data = inputs(problem)
    leaves = data.leaves()
    if sum(t.numel() for t in leaves) > 2500 or problem.layout == "expanded":
        pytest.skip("numerical differentiation takes long on large inputs, and overlapping memory has no place for it")

    def run(query, key, value, bias=None):
        out, lse = windeye.attend(
            query, key, value, problem.pattern, scale=0.4, bias=bias, key_padding=data.hidden, backend="cpu",
            return_lse=True,
        )  # fmt: skip
        return out, lse.masked_fill(torch.isinf(lse), 0.0)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_the_reference_has_second_derivatives():
    q, k, v = (torch.randn(1, 5, 1, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def run(*qkv):
        return windeye.attend(*qkv, windeye.Neighborhood(3), backend="reference")

    assert torch.autograd.gradgradcheck(run, (q, k, v))


@pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
def test_second_derivatives_of_the_kernel_are_refused_with_the_way_out():
    q, k, v = (torch.randn(1, 5, 1, 2, requires_grad=True) for _ in range(3))
    (grad,) = torch.autograd.grad(windeye.attend(q, k, v, backend="cpu").sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="reference"):
        grad.sum().backward()
