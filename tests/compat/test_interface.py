"""The face of NATTEN: names, parameters, defaults, settings, and words for wrong calls; and NATTEN code that runs."""

import inspect

import pytest
import torch

import windeye.compat.natten as natten
from windeye.compat.natten import context, functional, modules

REQUIRED = inspect.Parameter.empty
NEIGHBORHOOD = [
    ("query", REQUIRED), ("key", REQUIRED), ("value", REQUIRED), ("kernel_size", REQUIRED), ("stride", 1),
    ("dilation", 1), ("is_causal", False), ("scale", None), ("additional_keys", None), ("additional_values", None),
    ("attention_kwargs", None), ("backend", None), ("q_tile_shape", None), ("kv_tile_shape", None),
    ("backward_q_tile_shape", None), ("backward_kv_tile_shape", None), ("backward_kv_splits", None),
    ("backward_use_pt_reduction", False), ("run_persistent_kernel", True), ("kernel_schedule", None),
    ("torch_compile", False), ("return_lse", False),
]  # fmt: skip
ATTENTION = [
    ("query", REQUIRED), ("key", REQUIRED), ("value", REQUIRED), ("is_causal", False), ("scale", None),
    ("seqlens_Q", None), ("seqlens_KV", None), ("cumulative_seqlen_Q", None), ("cumulative_seqlen_KV", None),
    ("max_seqlen_Q", None), ("max_seqlen_KV", None), ("backend", None), ("q_tile_size", None), ("kv_tile_size", None),
    ("backward_q_tile_size", None), ("backward_kv_tile_size", None), ("backward_kv_splits", None),
    ("backward_use_pt_reduction", False), ("run_persistent_kernel", True), ("kernel_schedule", None),
    ("torch_compile", False), ("return_lse", False),
]  # fmt: skip
MODULE = [
    ("embed_dim", REQUIRED), ("num_heads", REQUIRED), ("kernel_size", REQUIRED), ("stride", 1), ("dilation", 1),
    ("is_causal", False), ("qkv_bias", True), ("qk_scale", None), ("proj_drop", 0.0),
]  # fmt: skip
QK = [
    ("query", REQUIRED), ("key", REQUIRED), ("kernel_size", REQUIRED), ("dilation", 1), ("additional_keys", None),
    ("is_causal", False), ("rpb", None),
]  # fmt: skip
AV = [
    ("attn", REQUIRED), ("value", REQUIRED), ("kernel_size", REQUIRED), ("dilation", 1), ("additional_values", None),
    ("is_causal", False),
]  # fmt: skip
SIGNATURES = [
    *[(getattr(functional, f"na{rank}d"), NEIGHBORHOOD) for rank in (1, 2, 3)],
    *[(getattr(functional, f"na{rank}d_qk"), QK) for rank in (1, 2, 3)],
    *[(getattr(functional, f"na{rank}d_av"), AV) for rank in (1, 2, 3)],
    *[(getattr(modules, f"NeighborhoodAttention{rank}D"), MODULE) for rank in (1, 2, 3)],
    (natten.attention, ATTENTION),
    (natten.merge_attentions,
     [("outputs", REQUIRED), ("lse_tensors", REQUIRED), ("torch_compile", True), ("use_autograd_fix", True)]),
    (natten.generate_varlen_parameters,
     [("query", REQUIRED), ("key", REQUIRED), ("value", REQUIRED), ("seqlens_Q", None), ("seqlens_KV", None)]),
    (natten.use_deterministic_algorithms, [("mode", True)]),
    (natten.use_kv_parallelism_in_fused_na, [("mode", True)]),
    (natten.set_memory_usage_preference, [("pref", "default")]),
    (natten.allow_flex_compile, [("mode", True), ("backprop", False)]),
    (natten.allow_flex_compile_backprop, [("mode", True)]),
    (natten.disable_flex_compile, []),
    (natten.disable_flex_compile_backprop, []),
]  # fmt: skip


@pytest.mark.parametrize(("callable_", "expected"), SIGNATURES, ids=lambda x: getattr(x, "__name__", ""))
def test_parameters_have_nattens_names_order_and_defaults(callable_, expected):
    parameters = inspect.signature(callable_).parameters.values()
    assert [(p.name, p.default) for p in parameters] == expected
    assert {p.kind for p in parameters} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_every_public_name_has_a_docstring():
    for name in natten.__all__:
        assert getattr(natten, name).__doc__, name
    for name in functional.__all__:
        assert getattr(functional, name).__doc__, name


def test_names_are_found_where_natten_has_them():
    assert natten.functional.na2d is natten.na2d
    assert natten.functional.attention is natten.attention
    assert natten.functional.merge_attentions is natten.merge_attentions
    assert natten.modules.NeighborhoodAttention2D is natten.NeighborhoodAttention2D
    assert natten.context.use_deterministic_algorithms is natten.use_deterministic_algorithms


T1, T2, T3 = (torch.zeros(2, *grid, 4, 8) for grid in ((12,), (8, 10), (4, 5, 6)))
PACKED = torch.zeros(1, 6, 2, 8)
LENGTHS = torch.tensor([2, 4], dtype=torch.int32)
SUMS = torch.tensor([0, 2, 6], dtype=torch.int32)
TOKENS, VALUES = torch.zeros(2, 3, 4, 8), torch.zeros(2, 5, 4, 8)


def na1d(**options):
    return natten.na1d(T1, T1, T1, **{"kernel_size": 3, **options})


def na2d(**options):
    return natten.na2d(T2, T2, T2, **{"kernel_size": 3, **options})


def packed(**options):
    return natten.attention(PACKED, PACKED, PACKED, **options)


ERRORS = [
    (lambda: natten.na2d(T1, T1, T1, 3), ValueError, r"query must be \[batch, 2 token axes, heads, head_dim\], 5 axes, "
     r"got shape \(2, 12, 4, 8\)"),
    (lambda: natten.na1d(T2, T2, T2, 3), ValueError, r"query must be \[batch, 1 token axes"),
    (lambda: natten.na1d(None, T1, T1, 3), ValueError, r"query must be a torch.Tensor, got NoneType"),
    (lambda: natten.na1d(T1, T1.double(), T1, 3), ValueError, r"key is torch.float64 on cpu but query is"),
    (lambda: natten.na1d(T1, T1[:1], T1, 3), ValueError, r"key has batch 1 but query has 2"),
    (lambda: natten.na1d(T1, T1[:, 1:], T1, 3), ValueError, r"key has token layout \(11,\) but query has \(12,\)"),
    (lambda: natten.na1d(T1, T1[:, :, :2], T1, 3), ValueError, r"key and value differ before the last axis"),
    (lambda: natten.na1d(T1, T1[..., :4], T1, 3), ValueError, r"key has head_dim 4 but query has 8"),
    (lambda: natten.na1d(T1, T1[:, :, :3], T1[:, :, :3], 3), ValueError, r"4 heads, which 3 key/value heads do not"),
    (lambda: natten.na1d(T1.to_sparse(), T1, T1, 3), NotImplementedError, r"query must be a dense tensor"),
    (lambda: natten.na1d(*[T1.int()] * 3, 3), TypeError, r"query must be float32, bfloat16, float16 or float64, got"),
    (lambda: na1d(kernel_size=1), ValueError, r"kernel_size must be integers of at least 2, got 1 on axis 0"),
    (lambda: na2d(kernel_size=(3, 1)), ValueError, r"kernel_size must be integers of at least 2, got 1 on axis 1"),
    (lambda: na2d(kernel_size=(3,)), ValueError, r"kernel_size must be an integer or 2 integers, one per token axis"),
    (lambda: na2d(kernel_size=3.0), ValueError, r"kernel_size must be integers of at least 2, got 3.0"),
    (lambda: na2d(kernel_size=True), ValueError, r"kernel_size must be integers of at least 2, got True"),
    (lambda: na2d(kernel_size="3"), ValueError, r"kernel_size must be integers of at least 2, got '3'"),
    (lambda: na2d(kernel_size=(9, 3)), ValueError, r"kernel_size 9 with dilation 1 needs 9 keys but axis 0 has 8"),
    (lambda: na2d(dilation=3), ValueError, r"needs 9 keys but axis 0 has 8; the largest valid kernel_size there is 2"),
    (lambda: na2d(dilation=0), ValueError, r"dilation must be integers of at least 1, got 0 on axis 0"),
    (lambda: na2d(stride=(1, 0)), ValueError, r"stride must be integers of at least 1, got 0 on axis 1"),
    (lambda: na2d(stride=(1, 4)), ValueError, r"stride 4 is larger than kernel_size 3 on axis 1; it must be at most 3"),
    (lambda: na2d(is_causal=(True,)), ValueError, r"is_causal must be a bool or 2 bools, one per token axis"),
    (lambda: na2d(is_causal=1), ValueError, r"is_causal must be a bool or 2 bools, one per token axis, got 1"),
    (lambda: na1d(additional_keys=TOKENS), ValueError, r"come together, but additional_values is None"),
    (lambda: na1d(additional_values=TOKENS), ValueError, r"come together, but additional_keys is None"),
    (lambda: na1d(additional_keys=TOKENS[:1], additional_values=TOKENS), ValueError,
     r"additional_keys must be \[batch 2, extra, heads 4, head_dim 8\], got shape \(1, 3, 4, 8\)"),
    (lambda: na1d(additional_keys=TOKENS, additional_values=VALUES), ValueError,
     r"additional_keys has 3 tokens but additional_values has 5"),
    (lambda: na1d(additional_keys=TOKENS.double(), additional_values=TOKENS), ValueError,
     r"additional_keys is torch.float64 on cpu, must be torch.float32"),
    (lambda: na1d(backend="fastest"), NotImplementedError, r"None or one of .*'flex-fna'.*, got 'fastest'"),
    (lambda: na1d(backend="flex-fmha"), NotImplementedError, r"got 'flex-fmha'"),
    (lambda: na1d(backend="hopper-fna"), NotImplementedError, r'"hopper-fna" names a CUDA kernel .* pass backend=None'),
    (lambda: na1d(backend="flex-fna", return_lse=True), NotImplementedError, r"no log-sum-exp on CPUs"),
    (lambda: natten.na1d(T1.clone().requires_grad_(), T1, T1, 3, backend="flex-fna"), NotImplementedError,
     r'backend "flex-fna" cannot run this call: FlexAttention has no backward pass on CPUs'),
    (lambda: na2d(q_tile_shape=(8,)), ValueError, r"q_tile_shape must be None or 2 positive integers"),
    (lambda: na2d(backward_kv_splits=(0, 1)), ValueError, r"backward_kv_splits must be None or 2 positive integers"),
    (lambda: na2d(kernel_schedule="fast"), ValueError, r"kernel_schedule must be None or one of"),
    (lambda: na2d(attention_kwargs={"scale": 1.0}), ValueError, r"attention_kwargs may hold .*, got \['scale'\]"),
    (lambda: na2d(attention_kwargs={"q_tile_size": 0}), ValueError, r"attention_kwargs\['q_tile_size'\] must be"),
    (lambda: na2d(attention_kwargs={"backend": "flex-fmha"}), NotImplementedError, r"in both places or in neither"),
    (lambda: natten.attention(T2, T2, T2), ValueError, r"query must be \[batch, 1 token axes"),
    (lambda: natten.attention(T1, T1, T1, is_causal=(True,)), ValueError, r"is_causal must be a bool, got \(True,\)"),
    (lambda: natten.attention(T1, T1[:, 1:], T1[:, 1:], is_causal=True), NotImplementedError,
     r"is_causal needs equal query and key lengths of every sequence, got \(12,\) and \(11,\)"),
    (lambda: natten.attention(T1, T1, T1, q_tile_size=-1), ValueError, r"q_tile_size must be None or a positive"),
    (lambda: natten.attention(T1, T1, T1, backend="cutlass-fmha"), NotImplementedError, r"names a CUDA kernel"),
    (lambda: natten.attention(T1, T1, T1, backend="flex-fna"), NotImplementedError, r"got 'flex-fna'"),
    (lambda: packed(seqlens_Q=LENGTHS), ValueError, r"come together, but seqlens_KV is None"),
    (lambda: packed(seqlens_Q=LENGTHS.long(), seqlens_KV=LENGTHS), ValueError, r"seqlens_Q must be int32, got"),
    (lambda: packed(seqlens_Q=[2, 4], seqlens_KV=LENGTHS), ValueError, r"seqlens_Q must be a torch.Tensor, got list"),
    (lambda: packed(seqlens_Q=LENGTHS[None], seqlens_KV=LENGTHS), ValueError, r"seqlens_Q must have one axis"),
    (lambda: packed(seqlens_Q=LENGTHS, seqlens_KV=LENGTHS[:1]), ValueError, r"has 2 sequences but seqlens_KV has 1"),
    (lambda: packed(seqlens_Q=LENGTHS + 1, seqlens_KV=LENGTHS), ValueError,
     r"cumulative_seqlen_Q must rise from 0 to the 6 packed tokens, got \[0, 3, 8\]"),
    (lambda: packed(cumulative_seqlen_Q=SUMS, cumulative_seqlen_KV=SUMS), ValueError, r"packed sequences need all of"),
    (lambda: packed(cumulative_seqlen_Q=SUMS, cumulative_seqlen_KV=SUMS, max_seqlen_Q=3, max_seqlen_KV=4), ValueError,
     r"max_seqlen_Q must be an integer between the longest sequence, 4, and all 6 tokens, got 3"),
    (lambda: packed(cumulative_seqlen_Q=SUMS, cumulative_seqlen_KV=SUMS[[0, 2]], max_seqlen_Q=4, max_seqlen_KV=6),
     ValueError, r"cumulative_seqlen_Q has 2 sequences but cumulative_seqlen_KV has 1"),
    (lambda: natten.attention(T1, T1, T1, seqlens_Q=LENGTHS, seqlens_KV=LENGTHS), ValueError, r"of 1, got batch 2"),
    (lambda: natten.generate_varlen_parameters(T1, T1[:1], T1), ValueError, r"must have one batch, got 2, 1 and 2"),
    (lambda: natten.merge_attentions([T1], [T1[..., 0]]), ValueError, r"at least two attentions, got 1"),
    (lambda: natten.merge_attentions([T1, T1], [T1[..., 0]]), ValueError, r"differ in number: 2 and 1"),
    (lambda: natten.merge_attentions([T2, T2], [T2[..., 0]] * 2), ValueError, r"outputs\[0\] must be \[batch, seqlen"),
    (lambda: natten.merge_attentions([T1, T1[:, 1:]], [T1[..., 0], T1[:, 1:, :, 0]]), ValueError, r"branch 1 has out"),
    (lambda: natten.merge_attentions([T1, T1], [T1[..., 0], T1]), ValueError, r"lse lacks the last axis only"),
    (lambda: natten.set_memory_usage_preference("much"), ValueError, r"pref must be one of \('default',"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), ERRORS, ids=[words for *_, words in ERRORS])
def test_wrong_calls_are_refused_by_name(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setattr(context, "_settings", context._Settings())


@pytest.mark.usefixtures("settings")
def test_settings_begin_as_in_natten_and_are_remembered():
    assert not natten.are_deterministic_algorithms_enabled()
    assert natten.is_kv_parallelism_in_fused_na_enabled()
    assert natten.is_memory_usage_default()
    assert not natten.is_flex_compile_allowed()
    natten.use_kv_parallelism_in_fused_na(False)
    natten.use_deterministic_algorithms()
    natten.set_memory_usage_preference("strict")
    assert natten.are_deterministic_algorithms_enabled()
    assert not natten.is_kv_parallelism_in_fused_na_enabled()
    assert (natten.is_memory_usage_strict(), natten.is_memory_usage_default()) == (True, False)
    natten.set_memory_usage_preference("unrestricted")
    assert natten.is_memory_usage_unrestricted()
    assert natten.get_memory_usage_preference() is context.MemoryUsagePreference.Unrestricted


@pytest.mark.usefixtures("settings")
def test_parallelism_over_keys_and_determinism_exclude_each_other():
    natten.use_deterministic_algorithms()
    with pytest.raises(RuntimeError, match="KV parallelism is not deterministic"):
        natten.use_kv_parallelism_in_fused_na()


@pytest.mark.usefixtures("settings")
def test_compiled_backward_passes_need_compiled_forward_passes():
    natten.allow_flex_compile_backprop()
    assert not natten.is_flex_compile_backprop_allowed()
    natten.allow_flex_compile(backprop=True)
    assert natten.is_flex_compile_backprop_allowed()
    natten.disable_flex_compile()
    assert (natten.is_flex_compile_allowed(), natten.is_flex_compile_backprop_allowed()) == (False, False)


def test_code_written_for_natten_trains():
    """A video block as NATTEN's users write it: causal in time, with text tokens, trained a few steps."""
    from windeye.compat.natten import NeighborhoodAttention3D
    from windeye.compat.natten.functional import attention, merge_attentions, na3d

    class Block(torch.nn.Module):
        def __init__(self, dim=16, heads=2):
            super().__init__()
            self.heads = heads
            self.window = NeighborhoodAttention3D(
                embed_dim=dim, num_heads=heads, kernel_size=(2, 3, 3), stride=(1, 3, 3), is_causal=(True, False, False)
            )
            self.qkv = torch.nn.Linear(dim, 3 * dim)
            self.text = torch.nn.Linear(dim, 2 * dim)

        def forward(self, x, text):
            x = x + self.window(x)
            heads = (self.heads, -1)
            q, k, v = (part.unflatten(-1, heads) for part in self.qkv(x).chunk(3, dim=-1))
            text_k, text_v = (part.unflatten(-1, heads) for part in self.text(text).chunk(2, dim=-1))
            near = na3d(q, k, v, kernel_size=(2, 3, 3), dilation=(1, 1, 2), return_lse=True)
            far = attention(q.flatten(1, 3), text_k, text_v, return_lse=True)
            merged, _ = merge_attentions([near[0].flatten(1, 3), far[0]], [near[1].flatten(1, 3), far[1]])
            fused = na3d(
                q, k, v, kernel_size=(2, 3, 3), dilation=(1, 1, 2), additional_keys=text_k, additional_values=text_v
            )
            assert torch.allclose(merged, fused.flatten(1, 3), atol=1e-5)
            return x + fused.flatten(-2)

    block = Block()
    optimizer = torch.optim.Adam(block.parameters(), lr=3e-3)
    x, text = torch.randn(2, 3, 4, 6, 16), torch.randn(2, 5, 16)
    target = x.roll(1, dims=1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (block(x, text) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in block.parameters())
    assert losses[-1] < 0.9 * losses[0]


def test_code_written_for_the_unfused_operators_runs():
    """The attention of a DiNAT layer as downstream code wrote it against NATTEN 0.17."""
    from windeye.compat.natten.functional import na2d_av, na2d_qk

    heads, dim, kernel_size, dilation = 3, 8, 5, 2
    q, k, v = (torch.randn(2, heads, 11, 14, dim, requires_grad=True) for _ in range(3))
    rpb = torch.nn.Parameter(torch.randn(heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
    attn = na2d_qk(q * dim**-0.5, k, kernel_size=kernel_size, dilation=dilation, rpb=rpb)
    out = na2d_av(attn.softmax(dim=-1), v, kernel_size=kernel_size, dilation=dilation)
    assert out.shape == q.shape
    out.square().sum().backward()
    assert all(t.grad.abs().sum() > 0 for t in (q, k, v, rpb))
