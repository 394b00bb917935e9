"""The Triton kernels equal the double loop, forward and every gradient: on a GPU, or in Triton's interpreter.

The measure is the ratio of the root mean squares of error and truth, or an absolute floor.
"""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings

import windeye
from oracles.recurrence import Problem, gradients, inputs, problems, truth
from windeye.kernels.recurrence import operator, triton
from windeye.kernels.recurrence.problem import problem_of

pytest.importorskip("triton")
# The interpreter of Triton 3.6 turns arrays of one element into numbers, which NumPy is about to refuse.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOOR = 1e-7
BOUNDS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
PROBLEMS = [
    Problem(tokens=1),
    Problem(tokens=0, state=True),
    Problem(tokens=9, batch=2, decay="head", state=True),
    Problem(tokens=17, decay="token", heads=4, kv_heads=2, state=True, chunk_size=8, layout="permuted"),
    Problem(tokens=16, decay="wild", heads=3, kv_heads=1, chunk_size=16, layout="sliced"),
    Problem(tokens=33, head_dim=17, value_dim=33, heads=1, kv_heads=1, decay="token"),
    Problem(tokens=20, decay="token", bounds=(0, 7, 7, 8, 20), state=True, chunk_size=4),
    Problem(tokens=11, batch=3, decay="wild", lengths=(11, 0, 5), state=True, chunk_size=4),
    Problem(tokens=13, feature_map="taylor2", normalize=True, head_dim=3, chunk_size=5),
    Problem(tokens=12, feature_map="taylor2", normalize=True, head_dim=2, decay="token", state=True, batch=2),
    Problem(tokens=12, feature_map="taylor2", decay="head", lengths=(4, 12), batch=2, heads=4, kv_heads=2),
    Problem(tokens=10, feature_map="taylor2", normalize=True, bounds=(0, 4, 10), state=True, decay="wild"),
]
SEVERAL_TILES = [
    Problem(tokens=70, heads=1, kv_heads=1, head_dim=80, value_dim=70, decay="head", state=True, chunk_size=32),
    Problem(tokens=50, heads=1, kv_heads=1, head_dim=130, value_dim=65, decay="token", state=True, chunk_size=20),
    Problem(tokens=40, heads=1, kv_heads=1, head_dim=12, value_dim=66, decay="token", state=True, chunk_size=16,
            feature_map="taylor2", normalize=True),
]  # fmt: skip


def run(data, backend="triton", form="chunk", **options):
    leaves = (data.query, data.key, data.value, data.log_decay, data.initial_state)
    q, k, v, g, s = (None if t is None else t.to(DEVICE) for t in leaves)
    out, state = windeye.linear_attention(
        q, k, v, log_decay=g, initial_state=s, return_state=True, backend=backend, form=form,
        **{**data.options, **options},
    )  # fmt: skip
    return out.cpu(), state.cpu()


def ratio(actual, expected):
    """Error over truth, root mean squares; 0 where the error is below the floor."""
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    error, size = (t.detach().double().square().mean().sqrt().item() for t in (actual.double() - expected, expected))
    return 0.0 if error < FLOOR else error / size


def check(problem, dtype, expected_of=truth):
    exact = inputs(problem)
    expected = expected_of(problem, exact)
    expected = (*expected, *gradients(*expected, exact))
    data = inputs(problem, dtype, torch.float32)
    # Buffers that are not fully written would show as NaN.
    torch.use_deterministic_algorithms(True)
    try:
        actual = run(data)
        actual = (*actual, *gradients(*actual, data))
    finally:
        torch.use_deterministic_algorithms(False)
    assert actual[0].dtype == dtype
    assert actual[1].dtype == torch.float32
    worst = max(ratio(ours, theirs) for ours, theirs in zip(actual, expected, strict=True))
    assert worst < BOUNDS[dtype]


def parallel(_problem, data):
    return run(data, "torch", "parallel")


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_equals_the_double_loop_with_all_gradients(problem, dtype):
    check(problem, dtype)


@pytest.mark.parametrize("problem", SEVERAL_TILES, ids=str)
def test_dims_and_features_of_several_tiles(problem):
    check(problem, torch.float32, expected_of=parallel)


@given(problem=problems(most_tokens=20))
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_equals_the_quadratic_form_on_random_problems(problem):
    if problem.chunk_size in (None, 1, 5):
        problem = replace(problem, chunk_size=7)
    check(problem, torch.float32, expected_of=parallel)


def test_a_sequence_may_be_cut_anywhere():
    data = inputs(
        Problem(tokens=21, decay="token", state=True, chunk_size=8, heads=1, kv_heads=1), torch.float32, torch.float32
    )
    whole, last = run(data)
    for at in (0, 7, 8, 9, 21):
        first, second = (
            type(data)(*(None if t is None else t[:, part] for t in (data.query, data.key, data.value, data.log_decay)),
                       state, None, None, data.options)
            for part, state in ((slice(0, at), data.initial_state), (slice(at, None), None))
        )  # fmt: skip
        out, state = run(first)
        rest, end = run(replace(second, initial_state=state))
        assert torch.allclose(torch.cat([out, rest], 1), whole, atol=1e-5)
        assert torch.allclose(end, last, atol=1e-5)


def test_padded_tokens_change_nothing_whatever_they_hold():
    data = inputs(
        Problem(tokens=12, lengths=(5,), decay="token", feature_map="taylor2", normalize=True, head_dim=2),
        torch.float32,
        torch.float32,
    )
    clean = run(data)
    spoiled = [t.detach().clone() for t in (data.query, data.key, data.value)]
    for t in spoiled:
        t[:, 5:] = torch.nan
    dirty = run(replace(data, query=spoiled[0], key=spoiled[1], value=spoiled[2]))
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1], dirty[1])
    assert (clean[0][:, 5:] == 0).all()


def test_packed_sequences_equal_each_alone():
    bounds = (0, 5, 5, 14, 15)
    data = inputs(
        Problem(tokens=15, decay="token", state=True, bounds=bounds, chunk_size=4), torch.float32, torch.float32
    )
    out, state = run(data)
    for s, (a, b) in enumerate(pairwise(bounds)):
        part = (t[:, a:b] for t in (data.query, data.key, data.value, data.log_decay))
        own, after = run(replace(data, **dict(zip(("query", "key", "value", "log_decay"), part, strict=True)),
                                 initial_state=data.initial_state[s : s + 1]), cu_seqlens=None)  # fmt: skip
        assert torch.allclose(out[:, a:b], own, atol=1e-6)
        assert torch.allclose(state[s : s + 1], after, atol=1e-6)


@pytest.mark.parametrize("rate", [1e4, torch.inf])
def test_a_token_that_forgets_everything_sees_itself_only(rate):
    q, k, v = torch.randn(3, 1, 20, 2, 8, device=DEVICE).unbind(0)
    alone = (q * k).sum(-1, keepdim=True) * v
    for shape in ((2,), (1, 20, 2)):
        out = windeye.linear_attention(q, k, v, log_decay=torch.full(shape, -rate, device=DEVICE), backend="triton")
        assert torch.allclose(out, alone, atol=1e-5)


def test_a_reset_clears_what_was_nan():
    q, k, v = torch.randn(3, 1, 40, 1, 4, device=DEVICE).unbind(0)
    k = k.clone()
    k[0, 3] = torch.nan
    decay = torch.zeros(1, 40, 1, device=DEVICE)
    decay[0, 20] = -torch.inf
    out = windeye.linear_attention(q, k, v, log_decay=decay, backend="triton", chunk_size=16)
    assert torch.isfinite(out[0, 32:]).all()


def test_a_gradient_may_come_through_the_state_alone():
    data = inputs(Problem(tokens=10, decay="head", state=True, chunk_size=4), torch.float32, torch.float32)
    exact = inputs(Problem(tokens=10, decay="head", state=True))
    ours = torch.autograd.grad((run(data)[1] * data.grad_state).sum(), data.leaves()[1:])
    theirs = torch.autograd.grad((parallel(None, exact)[1] * exact.grad_state).sum(), exact.leaves()[1:])
    assert max(ratio(a, b) for a, b in zip(ours, theirs, strict=True)) < BOUNDS[torch.float32]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_into_one_graph_forward_and_backward():
    torch.compiler.reset()
    data = inputs(Problem(tokens=6, decay="token", state=True, chunk_size=4), torch.float32, torch.float32)
    leaves = [t.detach().to(DEVICE).requires_grad_() for t in data.leaves()]

    def step(q, k, v, g, s):
        return windeye.linear_attention(q * 2, k, v, log_decay=g, initial_state=s, backend="triton").sin()

    ours = torch.compile(step, fullgraph=True, backend="aot_eager")(*leaves)
    plain = step(*leaves)
    assert torch.equal(ours, plain)
    for a, b in zip(torch.autograd.grad(ours.sum(), leaves), torch.autograd.grad(plain.sum(), leaves), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_operator_contract():
    data = inputs(
        Problem(tokens=5, feature_map="taylor2", normalize=True, decay="token", head_dim=2),
        torch.float32,
        torch.float32,
    )
    leaves = [t.detach().to(DEVICE).requires_grad_() for t in data.leaves()]
    args = (*leaves, None, None, None, "taylor2", True, 0.7, None, True, "triton")
    torch.library.opcheck(operator.linear_attention, args)


def problem(device="cpu", head_dim=8, dtype=torch.float32, feature_map=None):
    x = torch.empty(1, 4, 2, head_dim, dtype=dtype, device="meta")
    facts = problem_of(x, x, x, None, feature_map=feature_map, normalize=False, scale=1.0, chunk_size=None)
    return replace(facts, device=torch.device(device))


def test_reasons(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "it runs on CUDA, the tensors are on cpu" in triton.can_run(problem())
    assert "TRITON_INTERPRET=1" in triton.can_run(problem())
    assert triton.can_run(problem("cuda")) is None
    assert triton.can_run(problem("cuda", dtype=torch.float64)) == "it has no float64"
    assert "up to 64 coordinates, got head_dim 65" in triton.can_run(problem("cuda", 65, feature_map="taylor2"))
    assert triton.can_run(problem("cuda", 300)) is None
    monkeypatch.setattr(triton, "_INSTALLED", False)
    assert triton.can_run(problem("cuda")) == "the package triton is not installed"


def test_importing_windeye_and_running_on_a_cpu_does_not_load_triton():
    code = """
import sys, torch, windeye
sys.modules["triton"] = None
q = torch.randn(1, 9, 2, 8, requires_grad=True)
windeye.linear_attention(q, q, q).sum().backward()
print([m for m in sys.modules if m.startswith("windeye.kernels.recurrence.triton.")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
