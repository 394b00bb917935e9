"""Attention over key lifetimes equals attention one query at a time, forward and gradient, on every backend."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention, softplus

import windeye
from oracles.lifetimes import lifetime_attention
from windeye import Causal, Documents, Expiry, Sinks, Sliding, topw_expiry
from windeye.kernels.native import instruction_sets
from windeye.kernels.softmax import operator
from windeye.kernels.softmax.operands import Operands

GOLDEN = Path(__file__).parents[1] / "golden" / "dma"
native = pytest.mark.skipif(not instruction_sets(), reason="the C++ module is missing")
BACKENDS = [pytest.param("cpu", marks=native), "reference"]


@dataclass(frozen=True)
class Problem:
    queries: int
    keys: int | None = None
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    table_heads: int = 2
    bias_heads: int | None = 2
    head_dim: int = 5
    value_dim: int = 3
    w: int = 4
    shared: bool = False
    """One table for every batch entry."""
    padding: bool = False
    layout: str = "plain"


PROBLEMS = [
    Problem(1, w=1),
    Problem(7, w=1),
    Problem(33, w=7, batch=2),
    Problem(70, w=70, heads=4, kv_heads=2, table_heads=4, bias_heads=4, head_dim=16, value_dim=16),
    Problem(151, w=20, heads=4, kv_heads=2, table_heads=2, bias_heads=2, head_dim=17, value_dim=33),
    Problem(200, w=140, heads=1, kv_heads=1, table_heads=1, bias_heads=1, head_dim=8, value_dim=8),
    Problem(40, w=6, heads=6, kv_heads=1, table_heads=3, bias_heads=2, batch=2),
    Problem(40, w=6, heads=4, kv_heads=4, table_heads=1, bias_heads=None),
    Problem(40, w=6, batch=3, shared=True, padding=True, bias_heads=None),
    Problem(35, w=5, batch=2, padding=True),
    Problem(5, keys=90, w=9),
    Problem(12, keys=7, w=3),
    Problem(30, w=5, layout="sliced", batch=2),
    Problem(30, w=5, layout="permuted"),
    Problem(300, w=3, heads=1, kv_heads=1, table_heads=1, bias_heads=1, head_dim=2, value_dim=1),
]


def inputs(problem, dtype=torch.float64):
    """Numbers that bfloat16 holds exactly, so that every type computes the same attention."""
    generator = torch.Generator().manual_seed(problem.queries + problem.w)
    keys = problem.queries if problem.keys is None else problem.keys

    def random(*shape):
        return torch.randn(shape, generator=generator).to(torch.bfloat16).double()

    def tokens(n, heads, dim):
        if problem.layout == "sliced":
            return random(problem.batch, 2 * n, 2 * heads, 2 * dim)[:, ::2, ::2, ::2]
        if problem.layout == "permuted":
            return random(problem.batch, heads, dim, n).permute(0, 3, 1, 2)
        return random(problem.batch, n, heads, dim)

    query = tokens(problem.queries, problem.heads, problem.head_dim)
    key = tokens(keys, problem.kv_heads, problem.head_dim)
    value = tokens(keys, problem.kv_heads, problem.value_dim)
    bias = None if problem.bias_heads is None else random(problem.batch, problem.bias_heads, keys)
    table = topw_expiry(random(1 if problem.shared else problem.batch, problem.table_heads, keys), problem.w)
    hidden = torch.rand(problem.batch, keys, generator=generator) < 0.3 if problem.padding else None
    if hidden is not None:
        hidden[0] = True
    leaves = [t if t is None else as_type(t, dtype) for t in (query, key, value, bias)]
    rows = (problem.batch, problem.queries, problem.heads)
    return leaves, Expiry(table), hidden, random(*rows, problem.value_dim), random(*rows)


def as_type(tensor, dtype):
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype).copy_(tensor).requires_grad_()


def differentiate(out, lse, leaves, grad_out, grad_lse):
    finite = torch.isfinite(lse)
    loss = (out.double() * grad_out).sum() + (lse.double()[finite] * grad_lse[finite]).sum()
    given = [t for t in leaves if t is not None]
    return torch.autograd.grad(loss + sum(0 * t.sum() for t in given), given)


def close(actual, expected, tolerance):
    actual, expected = actual.double(), expected.double()
    finite = torch.isfinite(expected)
    assert torch.equal(torch.isfinite(actual), finite)
    assert torch.equal(actual[~finite], expected[~finite])
    if finite.any():
        assert (actual[finite] - expected[finite]).abs().max() <= tolerance * expected[finite].abs().max().clamp(min=1)


def attend(leaves, pattern, hidden, backend):
    query, key, value, bias = leaves
    return windeye.attend(
        query, key, value, pattern, scale=0.4, bias=bias, key_padding=hidden, backend=backend, return_lse=True
    )


def check(problem, backend, dtype, tolerance):
    leaves, pattern, hidden, *cotangents = inputs(problem)
    expected = lifetime_attention(*leaves[:3], pattern.planes, scale=0.4, bias=leaves[3], hidden=hidden)
    grads = differentiate(*expected, leaves, *cotangents)
    leaves, *_ = inputs(problem, dtype)
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        actual = attend(leaves, pattern, hidden, backend)
        ours = differentiate(*actual, leaves, *cotangents)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(actual, expected, strict=True):
        close(a, b, tolerance)
    for a, b in zip(ours, grads, strict=True):
        close(a, b, 4 * tolerance)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_oracle_in_float64(problem, backend):
    check(problem, backend, torch.float64, 1e-12)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_oracle_in_float32(problem, backend):
    check(problem, backend, torch.float32, 5e-6)


@st.composite
def problems(draw):
    kv_heads = draw(st.sampled_from((1, 2)))
    sharing = draw(st.sampled_from((1, 2, 3)))
    heads = kv_heads * sharing
    return Problem(
        draw(st.integers(1, 24)), draw(st.sampled_from((None, None, 1, 13, 30))), draw(st.integers(1, 2)),
        heads, kv_heads,
        draw(st.sampled_from([h for h in (1, 2, 3, 4, 6) if heads % h == 0])),
        draw(st.sampled_from((None, kv_heads, heads))), draw(st.sampled_from((1, 4, 7, 16))),
        draw(st.sampled_from((1, 5, 16))), draw(st.integers(1, 25)), draw(st.booleans()), draw(st.booleans()),
        draw(st.sampled_from(("plain", "permuted", "sliced"))),
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=problems())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_random_problems(problem, backend):
    check(problem, backend, torch.float64, 1e-12)


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("problem", PROBLEMS[3:7], ids=str)
def test_every_instruction_set(problem, dtype, isa, monkeypatch):
    monkeypatch.setenv("WINDEYE_ISA", isa)
    check(problem, "cpu", dtype, {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 2e-2}[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_types_lose_at_most_twice_what_dense_attention_loses(dtype, backend):
    problem = Problem(90, w=20, head_dim=16, value_dim=16)
    leaves, pattern, _, grad_out, grad_lse = inputs(problem)
    out, lse = lifetime_attention(*leaves[:3], pattern.planes, scale=0.4, bias=leaves[3])
    truth = [out, *differentiate(out, torch.full_like(lse, torch.inf), leaves, grad_out, grad_lse)]
    dense, *_ = inputs(problem, dtype)
    mask = pattern.bind((90,)).mask()
    added = dense[3][:, :, None, :].expand(mask.shape).masked_fill(~mask, -torch.inf)
    q, k, v = (t.transpose(1, 2) for t in dense[:3])
    theirs = scaled_dot_product_attention(q, k, v, attn_mask=added, scale=0.4).transpose(1, 2)
    theirs = [theirs, *differentiate(theirs, torch.full_like(lse, torch.inf), dense, grad_out, grad_lse)]
    mine, *_ = inputs(problem, dtype)
    ours = attend(mine, pattern, None, backend)[0]
    ours = [ours, *differentiate(ours, torch.full_like(lse, torch.inf), mine, grad_out, grad_lse)]
    for actual, other, expected in zip(ours, theirs, truth, strict=True):
        limit = (other.double() - expected).abs().max()
        rounding = torch.finfo(dtype).eps * expected.abs().max()
        assert (actual.double() - expected).abs().max() <= 2 * limit + rounding


@native
@pytest.mark.parametrize("problem", [PROBLEMS[2], PROBLEMS[6], PROBLEMS[9]], ids=str)
def test_gradcheck(problem):
    leaves, pattern, hidden, *_ = inputs(problem)

    def run(*tensors):
        out, lse = attend(tensors, pattern, hidden, "cpu")
        return out, lse.masked_fill(torch.isinf(lse), 0.0)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@native
def test_the_same_bits_on_every_run_and_with_any_number_of_threads():
    leaves, pattern, _, grad_out, grad_lse = inputs(
        Problem(700, w=60, heads=4, head_dim=16, value_dim=16), torch.float32
    )
    results = []
    for threads in (1, 1, 2, 5):
        torch.set_num_threads(threads)
        out, lse = attend(leaves, pattern, None, "cpu")
        results.append((out, lse, *differentiate(out, lse, leaves, grad_out, grad_lse)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@native
@pytest.mark.parametrize(
    "pattern", [Causal(), Sliding(9), Sliding(9) | Sinks(2), Documents((30, 50)) & Causal()], ids=str
)
def test_lifetimes_of_a_pattern_compute_what_the_pattern_computes(pattern):
    q, k, v = torch.randn(3, 2, 80, 4, 16).unbind(0)
    lives = windeye.attend(q, k, v, Expiry.of(pattern, 80), backend="cpu", return_lse=True)
    tables = windeye.attend(q, k, v, pattern, backend="cpu", return_lse=True)
    for a, b in zip(lives, tables, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_room_for_all_keys_it_is_causal_attention_with_a_bias(backend):
    q, k, v = torch.randn(3, 1, 50, 2, 8, dtype=torch.float64).unbind(0)
    score = torch.randn(1, 2, 50, dtype=torch.float64)
    ours = windeye.attend(q, k, v, Expiry(topw_expiry(score, 50)), bias=score, backend=backend)
    added = score[:, :, None].expand(1, 2, 50, 50).masked_fill(torch.ones(50, 50).triu(1).bool(), -torch.inf)
    dense = scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_mask=added)
    assert torch.allclose(ours, dense.transpose(1, 2), atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_key_matters_to_nobody_after_its_life_and_the_future_to_nobody(backend):
    q, k, v = torch.randn(3, 1, 60, 1, 8).unbind(0)
    score = torch.randn(1, 1, 60)
    expiry = topw_expiry(score, 5)
    out = windeye.attend(q, k, v, Expiry(expiry), bias=score, backend=backend)
    for j in (0, 10, 59):
        k2, v2 = k.clone(), v.clone()
        k2[:, j], v2[:, j] = 7.0, torch.nan
        changed = windeye.attend(q, k2, v2, Expiry(expiry), bias=score, backend=backend)
        e = max(int(expiry[0, 0, j]), j)
        assert torch.isnan(changed[0, j:e]).all()
        if backend == "cpu":  # the reference multiplies NaN by zero, as it says
            assert torch.equal(changed[:, :j], out[:, :j])
            assert torch.equal(changed[:, e:], out[:, e:])


@native
def test_nan_in_one_query_or_its_gradient_stays_with_the_keys_it_sees():
    leaves, pattern, _, grad_out, _ = inputs(Problem(80, w=6, heads=1, kv_heads=1, table_heads=1, bias_heads=1))
    seen = pattern.bind((80,)).mask()[0, 0, 37]
    out, _ = attend(leaves, pattern, None, "cpu")
    grad_out[:, 37] = torch.nan
    dq, dk, dv, db = torch.autograd.grad(out, leaves, grad_out)
    assert torch.isnan(dq[0]).any(dim=(1, 2)).nonzero().flatten().tolist() == [37]
    for grad in (dk[0, :, 0], dv[0, :, 0], db[0, 0, :, None]):
        assert torch.equal(torch.isnan(grad).all(dim=-1), seen)


def test_a_key_that_nobody_keeps_gets_no_gradient():
    score = torch.tensor([[[3.0, 2.0, 1.0, 4.0]]])
    q, k, v = (t.requires_grad_() for t in torch.randn(3, 1, 4, 1, 8).unbind(0))
    out = windeye.attend(q, k, v, Expiry(topw_expiry(score, 2)), bias=score.requires_grad_())
    dk, dv, ds = torch.autograd.grad(out.square().sum(), (k, v, score))
    for grad in (dk[0, :, 0], dv[0, :, 0], ds[0, 0, :, None]):
        assert grad.any(dim=-1).tolist() == [True, True, False, True]


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_keys_are_zero_and_safe(backend):
    q, k, v = (t.requires_grad_() for t in torch.randn(3, 1, 6, 1, 4).unbind(0))
    bias = torch.full((1, 1, 6), 1e30, requires_grad=True)
    table = torch.tensor([0, 1, 2, 6, 4, 6], dtype=torch.int32)
    out, lse = windeye.attend(q, k, v, Expiry(table), bias=bias, backend=backend, return_lse=True)
    assert torch.equal(out[0, :3], torch.zeros(3, 1, 4))
    assert lse[0, :, 0].isinf().tolist() == [True] * 3 + [False] * 3
    grads = torch.autograd.grad(out.sum(), (q, k, v, bias))
    assert all(torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_branches_merge(backend):
    q, k, v = torch.randn(3, 2, 40, 2, 8).unbind(0)
    text = torch.randn(2, 2, 5, 2, 8)
    pattern = Expiry(topw_expiry(torch.randn(2, 2, 40), 6))
    both = windeye.attend(q, k, v, pattern, extra_kv=(text[0], text[1]), backend=backend)
    near = windeye.attend(q, k, v, pattern, backend=backend, return_lse=True)
    far = windeye.attend(q, text[0], text[1], backend=backend, return_lse=True)
    assert torch.allclose(both, windeye.merge(near, far)[0], atol=1e-6)


@native
def test_dropout_drops_the_same_pairs_everywhere():
    leaves, pattern, _, grad_out, _ = inputs(Problem(90, w=12, heads=4, kv_heads=2))
    results = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(3)
        out = windeye.attend(*leaves[:3], pattern, bias=leaves[3], dropout_p=0.4, backend=backend)
        results.append([out, *torch.autograd.grad(out, leaves, grad_out)])
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs, 1e-11)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flex_computes_the_same(padding):
    problem = Problem(
        150, w=20, batch=2, heads=4, kv_heads=2, bias_heads=None, head_dim=16, value_dim=16, padding=padding
    )
    leaves, pattern, hidden, *_ = inputs(problem, torch.float32)
    tensors, options = [t.detach() for t in leaves[:3]], {"scale": 0.4, "key_padding": hidden}
    flex = windeye.attend(*tensors, pattern, backend="flex", **options)
    ours = windeye.attend(*tensors, pattern, backend="reference", **options)
    assert torch.allclose(flex, ours, atol=1e-5)


def test_it_is_explained():
    q = torch.zeros(2, 64, 4, 8)
    pattern = Expiry(topw_expiry(torch.randn(2, 2, 64), 8))
    explanation = windeye.explain(q, q[:, :, :2], q[:, :, :2], pattern)
    pairs = 8 * 9 // 2 + 56 * 8
    assert explanation.pairs == 4 * pairs
    assert explanation.flops == 2 * 2 * 4 * pairs * 16
    assert explanation.flop_bound == pytest.approx(64 * 64 / pairs)
    assert "Expiry(int32 [2, 2, 64]) on 64 queries" in str(explanation)
    if instruction_sets():
        assert 1 < explanation.predicted_speedup <= explanation.flop_bound


# torch's own tools


def arguments():
    leaves, pattern, *_ = inputs(Problem(20, w=4), torch.float32)
    return leaves, pattern


@native
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_operator_contract():
    leaves, pattern = arguments()
    args = (*Operands(*leaves), pattern.spec, list(pattern.tables), 0.3, 0.0, "cpu")
    torch.library.opcheck(operator.attend, args)
    torch.library.opcheck(torch.ops.windeye.topw_expiry.default, (torch.randn(1, 2, 9), None, 3))


@native
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_into_one_graph_that_new_tables_reuse(backend):
    torch.compiler.reset()
    graphs = []

    def counting(graph, _inputs):
        graphs.append(graph)
        return graph

    def step(q, k, v, score):
        pattern = Expiry(topw_expiry(score, 4))
        return windeye.attend(q, k, v, pattern, bias=score, backend=backend).sin()

    leaves, _ = arguments()
    compiled = torch.compile(step, fullgraph=True, backend=counting)
    for _ in range(3):
        leaves[3] = torch.randn_like(leaves[3]).requires_grad_()
        ours, plain = compiled(*leaves), step(*leaves)
        assert torch.allclose(ours, plain, atol=1e-6)
        pairs = zip(torch.autograd.grad(ours.sum(), leaves), torch.autograd.grad(plain.sum(), leaves), strict=True)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    assert len(graphs) == 1


# official numbers


def load(case):
    with np.load(GOLDEN / f"{case}.npz") as file:
        return json.loads(str(file["meta"]))["config"], {k: torch.from_numpy(file[k]) for k in file if k != "meta"}


def turned(x, cos, sin):
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, :, None] + rotated * sin[:, :, None]


def normed(x, weight):
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["doge_topw_gqa", "doge_dense_bias", "doge_left_padding", "doge2_kv_head_scores"])
def test_official_layers_compute_this(case, backend):
    config, numbers = load(case)
    weights = {
        k.removeprefix("weight."): v.clone().requires_grad_() for k, v in numbers.items() if k.startswith("weight.")
    }
    x = numbers["input.x"].clone().requires_grad_()

    def heads(name):
        return (x @ weights[f"{name}.weight"].T).unflatten(-1, (-1, config["head_dim"]))

    q, k, v = heads("q_proj"), heads("k_proj"), heads("v_proj")
    if "q_norm.weight" in weights:
        q, k = normed(q, weights["q_norm.weight"]), normed(k, weights["k_norm.weight"])
    q, k = (turned(t, numbers["input.cos"], numbers["input.sin"]) for t in (q, k))
    score = (weights["A"] * softplus(v.flatten(2) @ weights["dt_proj.weight"].T)).exp().transpose(1, 2)
    assert torch.allclose(score, numbers["output.delta"], atol=1e-12)
    visible = numbers["input.visible"][:, 0]
    expiry = topw_expiry(score, config["keep_window_size"], key_padding=~visible[:, -1])
    out = windeye.attend(q, k, v, Expiry(expiry), bias=score, backend=backend)
    y = out.flatten(2) @ weights["o_proj.weight"].T
    seen = visible.any(dim=-1)
    assert torch.allclose(y[seen], numbers["output.y"][seen], atol=1e-12)
    if not seen.all():
        return  # their gradients run through rows that average over everything
    names = [k for k in numbers if k.startswith("grad_weight.")]
    grads = torch.autograd.grad(
        (y * numbers["input.do"]).sum(), [x, *(weights[n.removeprefix("grad_weight.")] for n in names)]
    )
    for ours, name in zip(grads, ["grad_input.x", *names], strict=True):
        assert torch.allclose(ours, numbers[name], atol=1e-10), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["flash_per_query", "flash_relu"])
def test_official_kernels_compute_this(case, backend):
    config, numbers = load(case)
    leaves = [numbers[f"input.{name}"].transpose(1, 2).clone().requires_grad_() for name in "qkv"]
    rates, mixing = (numbers[f"weight.{name}"].clone().requires_grad_() for name in ("A", "dt_proj"))
    score = leaves[2].flatten(2) @ mixing.T
    score = (rates * (score if case == "flash_relu" else softplus(score))).transpose(1, 2)
    expiry = topw_expiry(score, config["window_size"], selection="relu" if case == "flash_relu" else "causal")
    out, lse = windeye.attend(*leaves, Expiry(expiry), bias=score, backend=backend, return_lse=True)
    assert torch.allclose(out, numbers["output.o"], atol=1e-12)
    assert torch.equal(lse.isinf().any(dim=-1), numbers["output.row_without_keys"])
    if "grad_input.q" in numbers:
        grads = torch.autograd.grad((out * numbers["input.do"]).sum(), [*leaves, rates, mixing])
        for name, grad in zip("qkv", grads, strict=False):
            assert torch.allclose(grad, numbers[f"grad_input.{name}"].transpose(1, 2), atol=1e-10)
        assert torch.allclose(grads[3], numbers["grad_weight.A"], atol=1e-10)
        assert torch.allclose(grads[4], numbers["grad_weight.dt_proj"], atol=1e-10)


# wrong calls

Q, K = torch.zeros(2, 5, 4, 8), torch.zeros(2, 5, 2, 8)
TABLE = torch.zeros(2, 2, 5, dtype=torch.int32)
WRONG = {
    "other keys": ({"table": TABLE[..., :4]}, ValueError, "table holds 4 keys but key has 5"),
    "another batch": ({"table": TABLE.repeat(2, 1, 1)}, ValueError, "table has batch 4 but query has 2"),
    "heads that do not divide": ({"table": TABLE[:, [0, 1, 0]]}, ValueError, "3 heads, which do not divide the 4"),
    "no heads": ({"table": TABLE[:, :0]}, ValueError, "table has 0 heads"),
    "another device": ({"table": TABLE.to("meta")}, ValueError, "table is on meta but query is on cpu"),
    "a relative table": ({"bias": torch.zeros(4, 9)}, ValueError, r"one number per key, got shape \(4, 9\)"),
    "a bias of fewer heads": ({"bias": torch.zeros(2, 1, 5)}, ValueError, "bias has 1 heads; .* multiple of the 2"),
    "a bias of three heads": ({"bias": torch.zeros(2, 3, 5)}, ValueError, "bias has 3 heads"),
    "a bias of integers": ({"bias": TABLE}, TypeError, "bias must be floating point on cpu, got torch.int32"),
    "a bias as a list": ({"bias": [1.0]}, TypeError, "bias must be a torch.Tensor, got list"),
    "natten": ({"backend": "natten"}, ValueError, 'backend "natten" cannot run'),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_refused(name):
    options, error, words = WRONG[name]
    options = dict(options)
    with pytest.raises(error, match=words):
        windeye.attend(Q, K, K, Expiry(options.pop("table", TABLE)), **options)


def test_a_grid_is_refused():
    grid = torch.zeros(1, 2, 3, 1, 4)
    with pytest.raises(ValueError, match="query has 2 grid axes"):
        windeye.attend(grid, grid, grid, Expiry(TABLE))


def test_no_tokens():
    empty = torch.zeros(2, 0, 4, 8)
    none = Expiry(TABLE[..., :0])
    assert windeye.attend(empty, empty, empty, none).shape == empty.shape
    out, lse = windeye.attend(Q, empty, empty, none, return_lse=True)
    assert not out.any()
    assert torch.isneginf(lse).all()
