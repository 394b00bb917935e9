"""na1d, na2d and na3d are attention over NATTEN's windows: against loops over queries, with all gradients."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windeye.compat.natten as natten
from oracles.attention import attention
from oracles.windows import as_mask, relation
from windeye import Neighborhood
from windeye.kernels.softmax import flex

EXACT = {"rtol": 1e-9, "atol": 1e-9}
FUNCTIONS = {1: natten.na1d, 2: natten.na2d, 3: natten.na3d}


@dataclass(frozen=True)
class Case:
    grid: tuple
    kernel_size: object
    stride: object = 1
    dilation: object = 1
    is_causal: object = False
    heads: int = 2
    kv_heads: int = 2
    extra: int = 0
    batch: int = 1

    @property
    def rank(self):
        return len(self.grid)

    @property
    def window(self):
        return {name: getattr(self, name) for name in ("kernel_size", "stride", "dilation", "is_causal")}


CASES = [
    Case((8,), 5),
    Case((8,), (4,), stride=(2,), is_causal=(True,)),
    Case((9,), 3, stride=2, dilation=2),
    Case((11,), 11, is_causal=True, extra=3),
    Case((6,), 6, heads=4, kv_heads=2, extra=2),
    Case((5, 7), 3, batch=2),
    Case((6, 5), (3, 2), stride=(3, 1), dilation=(2, 1)),
    Case((6, 5), 3, is_causal=(True, False), extra=1),
    Case((5, 5), 4, stride=3, is_causal=(False, True), heads=3, kv_heads=1),
    Case((4, 4), 2, dilation=2, is_causal=True),
    Case((4, 6), (4, 6), extra=2),
    Case((3, 4, 5), 2),
    Case((3, 4, 4), (2, 3, 2), stride=(1, 3, 2), dilation=(1, 1, 2), is_causal=(True, False, True), extra=1),
    Case((2, 3, 3), (2, 3, 3), heads=4, kv_heads=1),
]


@st.composite
def cases(draw):
    grid = tuple(draw(st.lists(st.integers(2, 7), min_size=1, max_size=2)))
    if draw(st.booleans()):  # one value for all axes
        dilation = draw(st.sampled_from([d for d in (1, 2, 3) if 2 * d <= min(grid)]))
        kernel = draw(st.integers(2, min(grid) // dilation))
        window = (kernel, draw(st.integers(1, kernel)), dilation, draw(st.booleans()))
    else:
        axes = []
        for length in grid:
            dilation = draw(st.sampled_from([d for d in (1, 2, 3) if 2 * d <= length]))
            kernel = draw(st.integers(2, length // dilation))
            axes.append((kernel, draw(st.integers(1, kernel)), dilation, draw(st.booleans())))
        window = tuple(zip(*axes, strict=True))
    kv_heads = draw(st.sampled_from((1, 2)))
    return Case(grid, *window, heads=kv_heads * draw(st.sampled_from((1, 2))), kv_heads=kv_heads,
                extra=draw(st.sampled_from((0, 0, 1, 3))))  # fmt: skip


def check(case):
    def random(*shape):
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    query = random(case.batch, *case.grid, case.heads, 4)
    key, value = random(case.batch, *case.grid, case.kv_heads, 4), random(case.batch, *case.grid, case.kv_heads, 3)
    leaves = [query, key, value]
    extra = {}
    if case.extra:
        leaves += [random(case.batch, case.extra, case.kv_heads, 4), random(case.batch, case.extra, case.kv_heads, 3)]
        extra = {"additional_keys": leaves[3], "additional_values": leaves[4]}
    out, lse = FUNCTIONS[case.rank](query, key, value, **case.window, scale=0.7, **extra, return_lse=True)

    seen = torch.from_numpy(relation(Neighborhood(**case.window), case.grid))
    seen = torch.cat([seen, torch.ones(len(seen), case.extra, dtype=torch.bool)], dim=1)
    keys = torch.cat([key.flatten(1, -3), *leaves[3:4]], dim=1)
    values = torch.cat([value.flatten(1, -3), *leaves[4:5]], dim=1)
    true_out, true_lse = attention(query.flatten(1, -3), keys, values, seen, scale=0.7)
    true_out, true_lse = true_out.reshape(out.shape), true_lse.reshape(lse.shape)
    torch.testing.assert_close(out, true_out, **EXACT)
    torch.testing.assert_close(lse, true_lse, **EXACT)

    pull_out, pull_lse = torch.randn_like(out), torch.randn_like(lse)
    ours = torch.autograd.grad((out * pull_out).sum() + (lse * pull_lse).sum(), leaves)
    truth = torch.autograd.grad((true_out * pull_out).sum() + (true_lse * pull_lse).sum(), leaves)
    for one, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_oracle_with_all_gradients(case):
    check(case)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases())
def test_equals_the_oracle_on_random_windows(case):
    check(case)


WORKED = [
    ({"kernel_size": 5}, 8, [range(5)] * 3 + [range(1, 6), range(2, 7)] + [range(3, 8)] * 3),
    ({"kernel_size": 5, "stride": 2}, 8, [range(5)] * 2 + [range(1, 6)] * 2 + [range(3, 8)] * 4),
    ({"kernel_size": 4, "stride": 4, "is_causal": True}, 8,
     [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [4], [4, 5], [4, 5, 6], [4, 5, 6, 7]]),
    ({"kernel_size": 3, "stride": 2, "dilation": 2}, 9,
     [[0, 2, 4], [1, 3, 5], [0, 2, 4], [1, 3, 5], [4, 6, 8], [3, 5, 7], [4, 6, 8], [3, 5, 7], [4, 6, 8]]),
]  # fmt: skip
"""Windows and the keys of each query, written out by hand (gna and fna specs)."""


@pytest.mark.parametrize(("window", "length", "rows"), WORKED, ids=str)
def test_published_windows_are_read_off_the_values(window, length, rows):
    """With equal logits the output is the mean of the values that a query sees; one-hot values name them."""
    query = torch.zeros(1, length, 1, 8)
    out = natten.na1d(query, query, torch.eye(length)[None, :, None], **window)[0, :, 0]
    assert torch.equal(out > 0, torch.from_numpy(as_mask(rows, length)))


def test_a_missing_scale_is_the_root_of_the_head_dim_and_zero_is_a_scale():
    q, k, v = torch.randn(3, 1, 9, 2, 16).unbind(0)
    assert torch.equal(natten.na1d(q, k, v, 3), natten.na1d(q, k, v, 3, scale=0.25))
    mean = torch.stack([v[:, i : i + 3].mean(dim=1) for i in range(7)], dim=1)
    assert torch.allclose(natten.na1d(q, k, v, 3, scale=0)[:, 1:-1], mean, atol=1e-6)


def test_none_means_the_default_of_stride_dilation_and_causality():
    q = torch.randn(1, 6, 7, 2, 8)
    plain = natten.na2d(q, q, q, 3)
    assert torch.equal(natten.na2d(q, q, q, 3, stride=None, dilation=None, is_causal=None), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_log_sum_exp_is_single_precision_and_the_output_has_the_inputs_type(dtype):
    q = torch.randn(1, 6, 7, 2, 8).to(dtype)
    out, lse = natten.na2d(q, q, q, 3, return_lse=True)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    truth = natten.na2d(*[q.double()] * 3, 3)
    assert (out.double() - truth).abs().max() < {torch.float32: 1e-5}.get(dtype, 2e-2)


def test_parameters_of_kernels_change_no_result():
    q = torch.randn(1, 16, 16, 2, 32)
    options = {
        "q_tile_shape": (8, 8), "kv_tile_shape": (8, 8), "backward_q_tile_shape": (8, 8),
        "backward_kv_tile_shape": (8, 8), "backward_kv_splits": (1, 2), "backward_use_pt_reduction": True,
        "run_persistent_kernel": False, "kernel_schedule": "coop", "torch_compile": True,
        "attention_kwargs": {"q_tile_size": 64, "run_persistent_kernel": True},
    }  # fmt: skip
    assert torch.equal(natten.na2d(q, q, q, 5, **options), natten.na2d(q, q, q, 5))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_by_name_runs_flex_attention_and_gives_the_same_numbers(monkeypatch):
    calls = []
    monkeypatch.setattr(flex, "_compiled", lambda: calls.append(1) or flex._flex_attention())
    q, k, v = torch.randn(3, 1, 8, 9, 2, 16).unbind(0)
    ours = natten.na2d(q, k, v, 5, backend="flex-fna")
    assert torch.allclose(ours, natten.na2d(q, k, v, 5), atol=1e-5)
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_into_one_graph():
    torch.compiler.reset()
    q, k, v = (torch.randn(1, 6, 7, 2, 8, requires_grad=True) for _ in range(3))

    def step(q, k, v):
        return natten.na2d(q * 2, k, v, kernel_size=(3, 5), stride=2, is_causal=(True, False)).sin()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(q, k, v), step(q, k, v), atol=1e-6)
