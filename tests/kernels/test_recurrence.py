"""Every form of linear attention on every backend equals the double loop, forward and gradient."""

from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings

import windeye
from oracles.recurrence import Problem, gradients, inputs, problems, truth
from windeye.kernels.native import instruction_sets
from windeye.kernels.recurrence import cpu
from windeye.kernels.recurrence.problem import problem_of
from windeye.kernels.recurrence.reference import decay_between

native = pytest.mark.skipif(cpu.can_run(problem_of(*[torch.zeros(1, 1, 1, 1)] * 3, None, feature_map=None,
    normalize=False, scale=1.0, chunk_size=None)) is not None, reason="the C++ module is missing")  # fmt: skip
NATIVE = pytest.param(("cpu", "chunk"), marks=native, id="cpu-chunk")
FORMS = [
    NATIVE,
    pytest.param(("torch", "chunk"), id="torch-chunk"),
    pytest.param(("torch", "parallel"), id="torch-parallel"),
    pytest.param(("torch", "recurrent"), id="torch-recurrent"),
]
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


def run(data, form, **options):
    backend, name = form
    return windeye.linear_attention(
        data.query, data.key, data.value, log_decay=data.log_decay, initial_state=data.initial_state,
        return_state=True, form=name, backend=backend, **{**data.options, **options},
    )  # fmt: skip


def close(actual, expected, tolerance):
    """Relative to the largest value of the expected tensor."""
    assert actual.shape == expected.shape
    if expected.numel():
        size = expected.detach().abs().max().clamp(min=1)
        assert (actual.double() - expected.double()).abs().max() <= tolerance * size


def check(problem, form, expected_of=truth, tolerance=1e-10):
    data = inputs(problem)
    expected = expected_of(problem, data)
    expected = (*expected, *gradients(*expected, data))
    # Buffers that are not fully written would show as NaN.
    torch.use_deterministic_algorithms(True)
    try:
        actual = run(data, form)
        actual = (*actual, *gradients(*actual, data))
    finally:
        torch.use_deterministic_algorithms(False)
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs, tolerance)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_equals_the_double_loop_with_all_gradients(problem, form):
    check(problem, form)


@native
@given(problem=problems(most_tokens=14))
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_the_kernel_equals_the_double_loop_on_random_problems(problem):
    check(problem, ("cpu", "chunk"))


def parallel(_problem, data):
    return run(data, ("torch", "parallel"))


@pytest.mark.parametrize("form", [f for f in FORMS if f.values[0] != ("torch", "parallel")])
@given(problem=problems(most_tokens=70))
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_forms_are_equal_on_random_problems(problem, form):
    check(problem, form, expected_of=parallel)


@native
@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("problem", PROBLEMS[3::2], ids=str)
def test_every_instruction_set(problem, isa, monkeypatch):
    monkeypatch.setenv("WINDEYE_ISA", isa)
    check(problem, ("cpu", "chunk"), expected_of=parallel)
    single = inputs(problem, torch.float32, torch.float32)
    out, state = run(single, ("cpu", "chunk"))
    for ours, theirs in zip((out, state), parallel(problem, inputs(problem)), strict=True):
        close(ours, theirs, 3e-6)


def naive_error(data, dtype, expected):
    """What the quadratic form loses when every step of it is rounded to this type."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in (data.query, data.key, data.value)]
    q, k, v = (t.transpose(1, 2) for t in leaves)
    kept = 1.0
    if data.log_decay is not None:
        g = data.log_decay.expand(data.query.shape[:3]).transpose(1, 2)
        kept = decay_between(g).to(dtype)
    tokens = q.shape[2]
    out = ((q @ k.transpose(-1, -2)).tril() * kept @ v * 0.7).transpose(1, 2)
    assert out.shape[1] == tokens
    grads = torch.autograd.grad((out.double() * data.grad_out).sum(), leaves)
    return [(a.double() - b).abs().max() for a, b in zip((out, *grads), expected, strict=True)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("decay", ["none", "head", "token"])
@pytest.mark.parametrize("form", [NATIVE, ("torch", "chunk")])
def test_half_types_lose_at_most_twice_what_the_naive_form_loses(form, decay, dtype):
    problem = Problem(tokens=100, head_dim=16, value_dim=20, decay=decay)
    data = inputs(problem)
    out, _ = run(data, ("torch", "parallel"))
    expected = (out, *torch.autograd.grad((out * data.grad_out).sum(), [data.query, data.key, data.value]))
    allowed = naive_error(data, dtype, [t.detach() for t in expected])
    cast = inputs(problem, dtype, torch.float32)
    ours, state = run(cast, form)
    assert state.dtype == torch.float32
    grads = torch.autograd.grad((ours.double() * data.grad_out).sum(), [cast.query, cast.key, cast.value])
    for actual, truth_, limit in zip((ours, *grads), expected, allowed, strict=True):
        rounding = torch.finfo(dtype).eps * truth_.abs().max()
        assert (actual.double() - truth_).abs().max() <= 2 * limit + rounding


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", [0, 1, 7, 8, 9, 20, 21])
def test_a_sequence_may_be_cut_anywhere(form, at):
    problem = Problem(
        tokens=21, decay="token", state=True, chunk_size=8, feature_map="taylor2", normalize=True, head_dim=2
    )
    data = inputs(problem)
    whole = run(data, form)
    first = _part(data, slice(0, at), data.initial_state)
    head, between = run(first, form)
    tail, last = run(_part(data, slice(at, None), between), form)
    close(torch.cat([head, tail], dim=1), whole[0], 1e-10)
    close(last, whole[1], 1e-10)
    joined = gradients(torch.cat([head, tail], dim=1), last, data)
    for ours, theirs in zip(joined, gradients(*whole, data), strict=True):
        close(ours, theirs, 1e-10)


def _part(data, tokens, state):
    q, k, v, g = (t[:, tokens] for t in (data.query, data.key, data.value, data.log_decay))
    return type(data)(q, k, v, g, state, data.grad_out, data.grad_state, data.options)


@pytest.mark.parametrize("form", FORMS)
def test_decoding_token_by_token_is_one_call(form):
    data = inputs(Problem(tokens=9, decay="token", state=True))
    whole, after = run(data, form)
    state, outs = data.initial_state, []
    for i in range(9):
        out, state = run(_part(data, slice(i, i + 1), state), form)
        outs.append(out)
    close(torch.cat(outs, dim=1), whole, 1e-12)
    close(state, after, 1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_whatever_stands_in_the_padding_changes_nothing(form):
    problem = Problem(
        tokens=10, batch=2, decay="token", lengths=(6, 10), state=True, feature_map="taylor2", chunk_size=4
    )
    data = inputs(problem)
    clean = run(data, form)
    clean_grads = gradients(*clean, data)
    spoiled = [t.detach().clone() for t in (data.query, data.key, data.value)]
    for t in spoiled:
        t[0, 6:] = torch.nan
    decay = data.log_decay.detach().clone()
    decay[0, 6:] = -3.0
    leaves = [t.requires_grad_() for t in (*spoiled, decay, data.initial_state.detach().clone())]
    dirty = type(data)(*leaves, data.grad_out, data.grad_state, data.options)
    out, state = run(dirty, form)
    assert torch.equal(out, clean[0])
    assert torch.equal(state, clean[1])
    assert (out[0, 6:] == 0).all()
    loss = (out * data.grad_out).sum() + (state * data.grad_state).sum()
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), clean_grads, strict=True):
        close(ours, theirs, 1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_packed_sequences_equal_each_alone(form):
    bounds = (0, 5, 5, 14, 15)
    data = inputs(Problem(tokens=15, decay="token", state=True, bounds=bounds, chunk_size=4))
    out, state = run(data, form)
    for s, (a, b) in enumerate(pairwise(bounds)):
        alone = _part(data, slice(a, b), data.initial_state[s : s + 1])
        own, after = run(alone, form, cu_seqlens=None)
        close(out[:, a:b], own, 1e-12)
        close(state[s : s + 1], after, 1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_token_that_forgets_everything_sees_itself_only(form):
    q, k, v = torch.randn(3, 2, 40, 3, 8).unbind(0)
    alone = (q * k).sum(-1, keepdim=True) * v
    for rate in (1e4, torch.inf):
        log_decay = torch.full((3,), -rate)
        out = windeye.linear_attention(q, k, v, log_decay=log_decay, form=form[1], backend=form[0])
        assert torch.allclose(out, alone, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_reset_is_the_start_of_a_new_sequence(form):
    q, k, v = torch.randn(3, 1, 30, 2, 4, dtype=torch.float64).unbind(0)
    decay = -torch.rand(1, 30, 2, dtype=torch.float64)
    decay[:, 13] = -torch.inf
    options = {"form": form[1], "backend": form[0], "chunk_size": 8}
    out = windeye.linear_attention(q, k, v, log_decay=decay, **options)
    new = windeye.linear_attention(q[:, 13:], k[:, 13:], v[:, 13:], log_decay=decay[:, 13:], **options)
    assert torch.allclose(out[:, 13:], new, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_heads_with_their_own_decay_are_independent(form):
    q, k, v = torch.randn(3, 1, 50, 3, 8).unbind(0)
    decay = torch.tensor([0.0, -0.3, -30.0])
    options = {"form": form[1], "backend": form[0]}
    together = windeye.linear_attention(q, k, v, log_decay=decay, **options)
    for h in range(3):
        one = slice(h, h + 1)
        own = windeye.linear_attention(q[:, :, one], k[:, :, one], v[:, :, one], log_decay=decay[one], **options)
        assert torch.equal(together[:, :, one], own)
