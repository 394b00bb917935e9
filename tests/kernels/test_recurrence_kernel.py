"""What only the native kernel has to show: long sequences, threads, memory, NaN, and torch's own tools."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import windeye
from oracles.recurrence import Problem, gradients, inputs
from windeye.bench.timing import can_measure_memory, peak_extra_bytes
from windeye.kernels.native import instruction_sets
from windeye.kernels.recurrence import operator

pytestmark = [
    pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ROBUST = [
    Problem(tokens=6, decay="token", state=True, batch=2, chunk_size=4),
    Problem(tokens=5, decay="head", heads=2, kv_heads=1, bounds=(0, 2, 5), state=True),
    Problem(tokens=5, feature_map="taylor2", normalize=True, decay="token", head_dim=2, lengths=(4,)),
]


def attend(data, **options):
    return windeye.linear_attention(
        data.query, data.key, data.value, log_decay=data.log_decay, initial_state=data.initial_state, return_state=True,
        **{"backend": "cpu", **data.options, **options},
    )  # fmt: skip


@pytest.mark.parametrize("problem", ROBUST, ids=str)
def test_gradcheck(problem):
    data = inputs(problem)

    def run(*leaves):
        rest = iter(leaves)
        again = [
            None if t is None else next(rest)
            for t in (data.query, data.key, data.value, data.log_decay, data.initial_state)
        ]
        return attend(type(data)(*again, data.grad_out, data.grad_state, data.options))

    assert torch.autograd.gradcheck(run, data.leaves())


THREADED = [
    Problem(tokens=700, heads=3, kv_heads=3, head_dim=16, value_dim=16, decay="token", state=True),
    Problem(tokens=5000, heads=1, kv_heads=1, decay="token", state=True, chunk_size=16),
    Problem(tokens=1030, heads=3, kv_heads=1, decay="head", chunk_size=16),
    Problem(tokens=900, heads=1, kv_heads=1, bounds=(0, 300, 300, 900), state=True, decay="wild", chunk_size=16),
    Problem(
        tokens=600, heads=1, kv_heads=1, feature_map="taylor2", normalize=True, lengths=(590,), chunk_size=16,
        decay="token",
    ),
]  # fmt: skip


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("problem", THREADED, ids=str)
def test_the_bits_do_not_depend_on_threads(problem, threads):
    """With more threads than heads the chunks of one head run in parallel; with fewer, a thread takes several heads."""
    data = inputs(problem, torch.float32, torch.float32)
    alone = attend(data)
    alone = (*alone, *gradients(*alone, data))
    torch.set_num_threads(threads)
    many = attend(data)
    many = (*many, *gradients(*many, data))
    assert all(torch.equal(a, b) for a, b in zip(alone, many, strict=True))


@pytest.mark.parametrize("problem", THREADED[1:], ids=str)
def test_chunks_in_parallel_equal_the_chunked_form_in_torch(problem):
    data = inputs(problem)
    torch.set_num_threads(3)
    ours = attend(data)
    expected = attend(data, backend="torch", form="chunk")
    ours, expected = ((*both, *gradients(*both, data)) for both in (ours, expected))
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() <= 1e-10 * b.abs().max().clamp(min=1)


def test_a_long_slow_decay_stays_exact():
    torch.manual_seed(1)
    tokens = 131072
    q, k, v = torch.rand(3, 1, tokens, 1, 4).unbind(0)
    decay = torch.tensor([-1e-7])
    out = windeye.linear_attention(q, k, v, log_decay=decay, backend="cpu")
    exact = windeye.linear_attention(q.double(), k.double(), v.double(), log_decay=decay.double(), backend="cpu")
    assert (out - exact).norm() / exact.norm() < 1e-4
    last = torch.exp(-1e-7 * torch.arange(tokens - 1, -1, -1, dtype=torch.float64))
    whole = ((last[:, None] * (k[0, :, 0].double() @ q[0, -1, 0].double())[:, None]) * v[0, :, 0].double()).sum(0)
    assert torch.allclose(exact[0, -1, 0], whole, rtol=1e-10)


@pytest.mark.parametrize("rate", [0.0, 1e-7, 1e-3, 0.5, 20.0])
def test_one_decay_for_all_tokens_equals_the_same_decay_at_every_token(rate):
    q, k, v = torch.rand(3, 1, 2000, 2, 8).unbind(0)
    decay = torch.full((2,), -rate)
    exact = windeye.linear_attention(q.double(), k.double(), v.double(), log_decay=decay.double(), backend="cpu")
    for each in (decay, decay.expand(1, 2000, 2)):
        out = windeye.linear_attention(q, k, v, log_decay=each, backend="cpu")
        assert (out - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_a_nan_stays_in_its_sequence_and_head():
    q, k, v = torch.randn(3, 1, 60, 2, 8).unbind(0)
    k = k.clone()
    k[0, 25, 0, 3] = torch.nan
    bounds = torch.tensor([0, 20, 40, 60])
    out = windeye.linear_attention(q, k, v, cu_seqlens=bounds, backend="cpu")
    spoiled = torch.isnan(out).any(-1)[0]
    assert spoiled[25:40, 0].all()
    assert not spoiled[:, 1].any()
    assert not spoiled[:20].any()
    assert not spoiled[40:].any()


def test_a_reset_clears_what_was_nan():
    q, k, v = torch.randn(3, 1, 96, 1, 8).unbind(0)
    k = k.clone()
    k[0, 10] = torch.nan
    decay = torch.zeros(1, 96, 1)
    decay[0, 40] = -torch.inf
    out = windeye.linear_attention(q, k, v, log_decay=decay, backend="cpu", chunk_size=32)
    assert torch.isfinite(out[0, 64:]).all()


@pytest.mark.skipif(not can_measure_memory(), reason="this system does not reset a process's peak memory")
def test_memory_does_not_grow_with_the_tokens():
    code = """
import torch, windeye
def inputs(n):
    return [torch.randn(1, n, 1, 64, requires_grad=True) for _ in range(3)]
def step(tensors):
    out = windeye.linear_attention(*tensors)
    return (out, *torch.autograd.grad(out, tensors, torch.ones(()).expand(out.shape)))
step(inputs(64))
tensors = inputs({tokens})
def run():
    return step(tensors)
"""
    few, many = (peak_extra_bytes(code.format(tokens=n)) for n in (8192, 65536))
    assert many < few + (2 << 20)  # the weights alone would be 16 GiB


def test_second_derivatives_are_refused_with_the_way_out_which_works():
    q, k, v = (torch.randn(1, 5, 1, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    (grad,) = torch.autograd.grad(windeye.linear_attention(q, k, v, backend="cpu").sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match='backend="torch"'):
        grad.sum().backward()
    for form in ("chunk", "parallel", "recurrent"):
        assert torch.autograd.gradgradcheck(
            lambda *t, form=form: windeye.linear_attention(*t, backend="torch", form=form, chunk_size=2), (q, k, v)
        )


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("problem", [ROBUST[0], ROBUST[2]], ids=str)
def test_compiles_into_one_graph_forward_and_backward(problem, backend):
    torch.compiler.reset()
    data = inputs(problem, torch.float32, torch.float32)

    def step(q, k, v, g, s):
        out, state = windeye.linear_attention(
            q * 2, k, v, log_decay=g, initial_state=s, return_state=True, backend=backend, **data.options
        )
        return out.sin(), state

    leaves = (data.query, data.key, data.value, data.log_decay, data.initial_state)
    ours = torch.compile(step, fullgraph=True, backend="aot_eager")(*leaves)
    plain = step(*leaves)
    for a, b in zip((*ours, *gradients(*ours, data)), (*plain, *gradients(*plain, data)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_packed_sequences_compile_and_are_checked_when_the_graph_runs():
    torch.compiler.reset()
    q = torch.randn(1, 12, 2, 4)

    def step(q, bounds):
        return windeye.linear_attention(q, q, q, cu_seqlens=bounds, backend="cpu")

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    bounds = torch.tensor([0, 5, 12])
    assert torch.equal(compiled(q, bounds), step(q, bounds))
    with pytest.raises(ValueError, match=r"cu_seqlens must rise from 0 to the number of tokens 12, got \[0, 5, 11\]"):
        compiled(q, torch.tensor([0, 5, 11]))


@pytest.mark.parametrize("problem", ROBUST, ids=str)
def test_operator_contract(problem):
    data = inputs(problem, torch.float32, torch.float32)
    o = data.options
    args = (
        data.query, data.key, data.value, data.log_decay, data.initial_state, o["cu_seqlens"], o["lengths"],
        o["feature_map"], o["normalize"], 0.7, o["chunk_size"], True, "cpu",
    )  # fmt: skip
    torch.library.opcheck(operator.linear_attention, args)


def test_fake_tensors_have_the_right_shapes_and_compute_nothing():
    with FakeTensorMode():
        q = torch.empty(2, 1 << 20, 8, 16)
        v = torch.empty(2, 1 << 20, 2, 64)
        out, state = windeye.linear_attention(
            q, q[:, :, :2], v, feature_map="taylor2", normalize=True, return_state=True
        )
    assert out.shape == (2, 1 << 20, 8, 64)
    assert state.shape == (2, 8, 153, 65)
    assert state.dtype == torch.float32


def test_vmap_is_refused_with_the_way_out():
    q = torch.randn(3, 1, 6, 2, 8)
    with pytest.raises(RuntimeError, match="batch axis"):
        torch.vmap(lambda x: windeye.linear_attention(x, x, x, backend="cpu"))(q)


def test_gradients_come_to_the_inputs_that_want_them():
    q, k, v = (torch.randn(1, 40, 2, 8) for _ in range(3))
    k.requires_grad_()
    (alone,) = torch.autograd.grad(windeye.linear_attention(q, k, v).square().sum(), k)
    q.requires_grad_(), v.requires_grad_()
    together = torch.autograd.grad(windeye.linear_attention(q, k, v).square().sum(), (q, k, v))
    assert torch.equal(alone, together[1])


def test_a_gradient_may_come_through_the_state_alone():
    data = inputs(Problem(tokens=40, decay="head", state=True))
    for backend in ("cpu", "torch"):
        _, state = windeye.linear_attention(
            data.query, data.key, data.value, log_decay=data.log_decay, initial_state=data.initial_state,
            return_state=True, backend=backend,
        )  # fmt: skip
        grads = torch.autograd.grad((state * data.grad_state).sum(), data.leaves()[1:])
        if backend == "cpu":
            ours = grads
    for a, b in zip(ours, grads, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
