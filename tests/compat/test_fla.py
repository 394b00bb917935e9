"""fla's operators: names, parameters and defaults of fla-core 0.6.0, and numbers of plain loops over tokens."""

import inspect
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from windeye.compat.fla import ops

REQUIRED = inspect.Parameter.empty
QKV = [("q", REQUIRED), ("k", REQUIRED), ("v", REQUIRED)]
LAYER = [("layer_idx", REQUIRED), ("num_layers", REQUIRED)]
GATES = [("g", None), ("g_gamma", None)]
SCALE = [("scale", None)]
STATES = [("initial_state", None), ("output_final_state", False)]
PACKED = [("cu_seqlens", None)]
PACKED_CPU = [("cu_seqlens_cpu", None)]
REVERSE, V_FIRST, MORE = [("reverse", False)], [("state_v_first", False)], [("kwargs", REQUIRED)]
SIGNATURES = {
    "chunk_simple_gla": QKV + GATES + SCALE + STATES + V_FIRST + PACKED + PACKED_CPU + MORE,
    "fused_chunk_simple_gla": QKV + GATES + SCALE + STATES + PACKED,
    "fused_recurrent_simple_gla": QKV + GATES + SCALE + STATES + REVERSE + V_FIRST + PACKED + MORE,
    "parallel_simple_gla": [*QKV, ("g", None), *SCALE, ("output_attentions", False), *PACKED, *PACKED_CPU],
    "chunk_retention": QKV + SCALE + STATES + PACKED + MORE,
    "fused_chunk_retention": QKV + SCALE + STATES + PACKED,
    "fused_recurrent_retention": QKV + SCALE + STATES + REVERSE + V_FIRST + PACKED + MORE,
    "parallel_retention": [*QKV, *SCALE, ("output_attentions", False), *PACKED],
    "chunk_lightning_attn": QKV + LAYER + SCALE + STATES + PACKED + MORE,
    "fused_recurrent_lightning_attn": QKV + LAYER + SCALE + STATES + REVERSE + PACKED,
    "chunk_linear_attn": [*QKV, *SCALE, *STATES, ("normalize", True), *PACKED],
    "fused_chunk_linear_attn": [*QKV, *SCALE, *STATES, ("normalize", True), *PACKED],
    "fused_recurrent_linear_attn": [*QKV, *SCALE, *STATES, *REVERSE, ("normalize", False), *PACKED],
    "parallel_based": [*QKV, *SCALE, ("use_norm", True)],
    "fused_chunk_based": [*QKV, *SCALE, ("use_norm", True)],
}
B, T, H, K, V = 2, 23, 3, 8, 5


def test_every_operator_is_listed():
    assert set(ops.__all__) == set(SIGNATURES)


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_and_defaults(name):
    parameters = inspect.signature(getattr(ops, name)).parameters.values()
    assert [(p.name, p.default) for p in parameters] == SIGNATURES[name]


def inputs(batch=B, dtype=torch.float64):
    q, k = torch.randn(2, batch, T, H, K, dtype=dtype).unbind(0)
    return q, k, torch.randn(batch, T, H, V, dtype=dtype)


def loop(q, k, v, g=None, scale=None, state=None, order=range(T)):
    """One token after the other: ``S = exp(g) S + k v^T``, ``o = scale q S``; g is [batch, tokens, heads]."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    state = q.new_zeros(q.shape[0], H, q.shape[-1], v.shape[-1]) if state is None else state
    out = torch.zeros_like(v)
    for t in order:
        if g is not None:
            state = state * g[:, t, :, None, None].exp()
        state = state + k[:, t, :, :, None] * v[:, t, :, None, :]
        out[:, t] = scale * (q[:, t, :, :, None] * state).sum(-2)
    return out, state


def same(ours, theirs):
    assert torch.allclose(ours, theirs, atol=1e-10)


def retnet(q):
    gamma = torch.tensor([1 - 2.0 ** (-5 - h) for h in range(H)], dtype=torch.float64).log()
    return gamma.expand(q.shape[:3])


def lightning(q, layer, layers):
    slopes = torch.tensor([8 / H * h * (1 - layer / layers) for h in range(H)], dtype=torch.float64)
    return -slopes.expand(q.shape[:3])


FADING = {
    "simple_gla": (lambda q: F.logsigmoid(torch.randn(q.shape[:3], dtype=torch.float64)), lambda g: {"g": g}),
    "retention": (retnet, lambda _: {}),
    "lightning_attn": (lambda q: lightning(q, 3, 12), lambda _: {"layer_idx": 3, "num_layers": 12}),
}
WITH_STATES = [
    (kind, form)
    for kind in FADING
    for form in ("chunk", "fused_chunk", "fused_recurrent")
    if f"{form}_{kind}" in SIGNATURES
]


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(("kind", "form"), WITH_STATES)
def test_fading_operators_equal_the_loop(kind, form, scale):
    q, k, v = inputs()
    decay, arguments = FADING[kind]
    g = decay(q)
    state = torch.randn(B, H, K, V, dtype=torch.float64)
    operator = getattr(ops, f"{form}_{kind}")
    o, nothing = operator(q, k, v, **arguments(g), scale=scale)
    assert nothing is None
    same(o, loop(q, k, v, g, scale)[0])
    o, after = operator(q, k, v, **arguments(g), scale=scale, initial_state=state, output_final_state=True)
    expected = loop(q, k, v, g, scale, state)
    same(o, expected[0])
    same(after, expected[1])


@pytest.mark.parametrize("kind", FADING)
def test_reverse_walks_from_the_last_token_to_the_first(kind):
    q, k, v = inputs()
    decay, arguments = FADING[kind]
    g = decay(q)
    state = torch.randn(B, H, K, V, dtype=torch.float64)
    operator = getattr(ops, f"fused_recurrent_{kind}")
    o, after = operator(q, k, v, **arguments(g), initial_state=state, output_final_state=True, reverse=True)
    expected = loop(q, k, v, g, None, state, reversed(range(T)))
    same(o, expected[0])
    same(after, expected[1])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", FADING)
def test_packed_sequences_equal_each_alone(kind, reverse):
    q, k, v = inputs(1)
    decay, arguments = FADING[kind]
    g = decay(q)
    bounds = torch.tensor([0, 4, 4, T])
    state = torch.randn(3, H, K, V, dtype=torch.float64)
    operator = getattr(ops, f"fused_recurrent_{kind}")
    options = {"initial_state": state, "output_final_state": True, "reverse": reverse, "cu_seqlens": bounds}
    o, after = operator(q, k, v, **arguments(g), **options)
    for s, (a, b) in enumerate(pairwise(bounds.tolist())):
        order = range(b - a)
        part = [x[:, a:b] for x in (q, k, v, g)]
        expected = loop(*part, None, state[s : s + 1], reversed(order) if reverse else order)
        same(o[:, a:b], expected[0])
        same(after[s : s + 1], expected[1])


def test_a_decay_per_head():
    q, k, v = inputs()
    gamma = -torch.rand(H, dtype=torch.float64)
    for form in ("chunk", "fused_chunk", "fused_recurrent"):
        o, _ = getattr(ops, f"{form}_simple_gla")(q, k, v, g_gamma=gamma)
        same(o, loop(q, k, v, gamma.expand(B, T, H))[0])


def test_states_with_values_first():
    q, k, v = inputs()
    g = F.logsigmoid(torch.randn(B, T, H, dtype=torch.float64))
    state = torch.randn(B, H, K, V, dtype=torch.float64)
    expected = loop(q, k, v, g, None, state)
    turned = state.transpose(-1, -2)
    for operator in (ops.chunk_simple_gla, ops.fused_recurrent_simple_gla):
        o, after = operator(q, k, v, g, initial_state=turned, output_final_state=True, state_v_first=True)
        same(o, expected[0])
        same(after, expected[1].transpose(-1, -2))
    with pytest.warns(DeprecationWarning, match="state_v_first"):
        o, _ = ops.fused_recurrent_simple_gla(q, k, v, g, initial_state=turned, transpose_state_layout=True)
    same(o, expected[0])


@pytest.mark.parametrize("with_decay", [False, True])
def test_attention_weights(with_decay):
    q, k, v = inputs()
    g = F.logsigmoid(torch.randn(B, T, H, dtype=torch.float64)) if with_decay else None
    o, weights = ops.parallel_simple_gla(q, k, v, g, output_attentions=True)
    same(o, loop(q, k, v, g)[0])
    assert weights.shape == (B, H, T, T)
    same(torch.einsum("bhij,bjhe->bihe", weights, v), o)
    assert ops.parallel_simple_gla(q, k, v, g)[1] is None


def test_parallel_retention():
    q, k, v = inputs()
    o, weights = ops.parallel_retention(q, k, v, output_attentions=True)
    same(o, loop(q, k, v, retnet(q))[0])
    same(torch.einsum("bhij,bjhe->bihe", weights, v), o)
    same(ops.parallel_retention(q, k, v)[0], o)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("form", ["chunk", "fused_chunk", "fused_recurrent"])
def test_linear_attention_is_divided_by_its_running_sum_of_keys(form, reverse):
    operator = getattr(ops, f"{form}_linear_attn")
    options = {"reverse": True} if reverse and form == "fused_recurrent" else {}
    order = range(T - 1, -1, -1) if options else range(T)
    q, k, v = inputs()
    q, k = q.exp(), k.exp()
    state, total = torch.rand(B, H, K, V, dtype=torch.float64), torch.rand(B, 1, H, K, dtype=torch.float64)
    sums, after = loop(q, k, v, None, None, state, order)
    seen, at = torch.zeros_like(k), total[:, 0]
    for t in order:
        at = at + k[:, t]
        seen[:, t] = at
    below = K**-0.5 * (q * seen).sum(-1, keepdim=True)
    o, (own, own_total) = operator(
        q, k, v, initial_state=(state, total), output_final_state=True, normalize=True, **options
    )
    same(o, sums / (below + 1e-10))
    same(own, after)
    same(own_total, at[:, None])
    plain, own = operator(q, k, v, initial_state=state, output_final_state=True, normalize=False, **options)
    same(plain, sums)
    same(own, after)
    without, (nothing, _) = operator(q, k, v, initial_state=state, normalize=True, **options)
    assert nothing is None
    same(without, sums / (K**-0.5 * (q * (seen - total)).sum(-1, keepdim=True) + 1e-10))


def test_a_normalized_state_continues_a_sequence():
    q, k, v = (x.exp() for x in inputs())
    whole, (state, total) = ops.chunk_linear_attn(q, k, v, output_final_state=True)
    first, middle = ops.chunk_linear_attn(q[:, :9], k[:, :9], v[:, :9], output_final_state=True)
    rest, end = ops.chunk_linear_attn(q[:, 9:], k[:, 9:], v[:, 9:], initial_state=middle, output_final_state=True)
    same(torch.cat([first, rest], 1), whole)
    same(end[0], state)
    same(end[1], total)


@pytest.mark.parametrize("use_norm", [True, False])
@pytest.mark.parametrize("scale", [None, 0.4])
def test_based_weighs_by_the_taylor_polynomial_of_exp(use_norm, scale):
    q, k, v = inputs()
    u = torch.einsum("bihd,bjhd->bhij", q, k) * (K**-0.5 if scale is None else scale)
    weights = (1 + u + u * u / 2).tril()
    expected = torch.einsum("bhij,bjhe->bihe", weights, v)
    if use_norm:
        expected = expected / (weights.sum(-1).transpose(1, 2)[..., None] + 1e-6)
    for operator in (ops.parallel_based, ops.fused_chunk_based):
        same(operator(q, k, v, scale, use_norm), expected)


def test_gradients_come_back_to_every_input():
    leaves = [x.requires_grad_() for x in inputs()]
    g = F.logsigmoid(torch.randn(B, T, H, dtype=torch.float64)).requires_grad_()
    state = torch.randn(B, H, K, V, dtype=torch.float64, requires_grad=True)
    q, k, v = leaves
    o, after = ops.chunk_simple_gla(q, k, v, g, initial_state=state, output_final_state=True)
    expected = loop(q, k, v, g, None, state)
    everything = [*leaves, g, state]
    ours = torch.autograd.grad((o.sin().sum() + after.cos().sum()), everything)
    theirs = torch.autograd.grad((expected[0].sin().sum() + expected[1].cos().sum()), everything)
    for a, b in zip(ours, theirs, strict=True):
        same(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_outputs_keep_the_type_and_states_are_float32(dtype):
    q, k, v = (x.to(dtype) for x in inputs())
    for operator in (ops.chunk_retention, ops.chunk_simple_gla):
        o, state = operator(q, k, v, output_final_state=True)
        assert (o.dtype, state.dtype) == (dtype, torch.float32)
        operator(q, k, v, initial_state=state.to(dtype))
    o, (state, total) = ops.chunk_linear_attn(q.exp(), k.exp(), v, output_final_state=True)
    assert (o.dtype, state.dtype, total.dtype) == (dtype, torch.float32, torch.float32)
    assert ops.parallel_based(q, k, v).dtype == dtype


Q, KEY, VALUE = torch.zeros(2, 6, 4, 8), torch.zeros(2, 6, 4, 8), torch.zeros(2, 6, 4, 5)
ONE = (Q[:1], KEY[:1], VALUE[:1])
BOUNDS = torch.tensor([0, 2, 6])
WRONG = {
    "a packed batch": (lambda: ops.chunk_retention(Q, KEY, VALUE, cu_seqlens=BOUNDS), ValueError, "q has batch 2"),
    "states of other sequences": (
        lambda: ops.chunk_simple_gla(*ONE, initial_state=torch.zeros(3, 4, 8, 5), cu_seqlens=BOUNDS),
        ValueError, "initial_state has 3 states but cu_seqlens has 2 sequences"),
    "a packed parallel batch": (
        lambda: ops.parallel_retention(Q, KEY, VALUE, cu_seqlens=BOUNDS), ValueError, "q has batch 2"),
    "weights of packed sequences": (
        lambda: ops.parallel_simple_gla(*ONE, output_attentions=True, cu_seqlens=BOUNDS),
        ValueError, "output_attentions"),
    "head first": (
        lambda: ops.chunk_simple_gla(Q, KEY, VALUE, head_first=True), DeprecationWarning, "head_first is gone"),
    "an odd chunk": (lambda: ops.chunk_retention(Q, KEY, VALUE, chunk_size=48), ValueError, "power of 2, got 48"),
    "an unknown argument": (
        lambda: ops.chunk_lightning_attn(Q, KEY, VALUE, 0, 2, chunks=4), TypeError, "unknown argument 'chunks'"),
    "two decays": (
        lambda: ops.fused_chunk_simple_gla(Q, KEY, VALUE, torch.zeros(2, 6, 4), torch.zeros(4)),
        ValueError, "one of the two"),
    "growth": (lambda: ops.chunk_simple_gla(Q, KEY, VALUE, torch.ones(2, 6, 4)), ValueError, "at most 0"),
    "two names of the layout": (
        lambda: ops.fused_recurrent_simple_gla(Q, KEY, VALUE, state_v_first=True, transpose_state_layout=True),
        ValueError, "two names"),
    "a pair without normalize": (
        lambda: ops.fused_recurrent_linear_attn(Q, KEY, VALUE, initial_state=(None, None)), ValueError, "pair"),
    "a layer outside": (
        lambda: ops.chunk_lightning_attn(Q, KEY, VALUE, 2, 2), ValueError, r"layer must be in \[0, 2\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls(case):
    call, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        call()


def test_chunk_size_is_taken():
    q, k, v = inputs()
    same(ops.chunk_retention(q, k, v, chunk_size=16)[0], ops.chunk_retention(q, k, v)[0])


def test_bounds_on_the_cpu_are_enough():
    q, k, v = inputs(1)
    bounds = torch.tensor([0, 7, T])
    same(
        ops.chunk_simple_gla(q, k, v, cu_seqlens=bounds, cu_seqlens_cpu=bounds)[0],
        ops.chunk_simple_gla(q, k, v, cu_seqlens=bounds)[0],
    )
