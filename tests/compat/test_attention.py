"""Dense attention, packed sequences and merging are what their definitions say, with all gradients."""

from itertools import accumulate, pairwise

import pytest
import torch

import windeye.compat.natten as natten
from oracles import attention as oracle

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def assert_equal_with_gradients(ours, truth, leaves):
    pulls = [torch.randn_like(part) for part in truth]
    for one, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    gradients = [
        torch.autograd.grad(sum((part * pull).sum() for part, pull in zip(parts, pulls, strict=True)), leaves)
        for parts in (ours, truth)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize(
    ("tokens", "tokens_kv", "heads", "kv_heads", "is_causal"),
    [(7, 7, 2, 2, False), (9, 9, 4, 2, True), (5, 11, 3, 1, False), (6, 2, 2, 2, False), (1, 1, 1, 1, True)],
)
def test_attention_equals_the_oracle(tokens, tokens_kv, heads, kv_heads, is_causal):
    leaves = [random(2, tokens, heads, 4), random(2, tokens_kv, kv_heads, 4), random(2, tokens_kv, kv_heads, 3)]
    ours = natten.attention(*leaves, is_causal=is_causal, scale=0.6, return_lse=True)
    seen = torch.ones(tokens, tokens_kv, dtype=torch.bool)
    truth = oracle.attention(*leaves, seen.tril() if is_causal else seen, scale=0.6)
    assert_equal_with_gradients(ours, truth, leaves)
    assert torch.equal(natten.attention(*leaves, is_causal=is_causal, scale=0.6), ours[0])


PACKED = [
    ((3, 5, 1), (3, 5, 1), False),
    ((3, 5, 1), (3, 5, 1), True),
    ((2, 0, 4), (2, 0, 4), True),
    ((3, 5, 1), (4, 2, 6), False),
    ((6,), (6,), True),
    ((4,), (7,), False),
]


@pytest.mark.parametrize("given_as", ["lengths", "running sums"])
@pytest.mark.parametrize(("lengths", "lengths_kv", "is_causal"), PACKED)
def test_packed_sequences_are_a_loop_over_the_sequences(lengths, lengths_kv, is_causal, given_as):
    leaves = [random(1, sum(lengths), 4, 4), random(1, sum(lengths_kv), 2, 4), random(1, sum(lengths_kv), 2, 3)]
    counts = [torch.tensor(numbers, dtype=torch.int32) for numbers in (lengths, lengths_kv)]
    if given_as == "lengths":
        packing = {"seqlens_Q": counts[0], "seqlens_KV": counts[1]}
    else:
        names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
        packing = dict(zip(names, natten.generate_varlen_parameters(*leaves, *counts), strict=True))
    ours = natten.attention(*leaves, is_causal, **packing, return_lse=True)
    assert torch.equal(natten.attention(*leaves, is_causal, **packing), ours[0])

    ends, ends_kv = list(accumulate(lengths, initial=0)), list(accumulate(lengths_kv, initial=0))
    parts = []
    for i, (n, m) in enumerate(zip(lengths, lengths_kv, strict=True)):
        if n:
            seen = torch.ones(n, m, dtype=torch.bool)
            kv = slice(ends_kv[i], ends_kv[i + 1])
            one = (leaves[0][:, ends[i] : ends[i + 1]], leaves[1][:, kv], leaves[2][:, kv])
            parts.append(oracle.attention(*one, seen.tril() if is_causal else seen, scale=0.5))
    truth = [torch.cat(pieces, dim=1) for pieces in zip(*parts, strict=True)]
    assert_equal_with_gradients(ours, truth, leaves)


def test_running_sums_begin_at_zero_and_end_at_the_total():
    q, kv = torch.zeros(1, 6, 1, 8), torch.zeros(1, 9, 1, 8)
    lengths, lengths_kv = torch.tensor([4, 2], dtype=torch.int32), torch.tensor([1, 8], dtype=torch.int32)
    sums, sums_kv, longest, longest_kv = natten.generate_varlen_parameters(q, kv, kv, lengths, lengths_kv)
    assert (sums.tolist(), sums_kv.tolist(), longest, longest_kv) == ([0, 4, 6], [0, 1, 9], 4, 8)
    assert sums.dtype == sums_kv.dtype == torch.int32


def test_nothing_packed_is_said_by_none_and_zero_and_read_back_as_dense_attention():
    q = torch.randn(2, 6, 2, 8)
    nothing = natten.generate_varlen_parameters(q, q, q)
    assert nothing == (None, None, 0, 0)
    names = ("cumulative_seqlen_Q", "cumulative_seqlen_KV", "max_seqlen_Q", "max_seqlen_KV")
    assert torch.equal(natten.attention(q, q, q, **dict(zip(names, nothing, strict=True))), natten.attention(q, q, q))


def test_an_empty_sequence_of_keys_leaves_its_queries_at_zero():
    q, kv = torch.randn(1, 5, 2, 8), torch.randn(1, 3, 2, 8)
    lengths, lengths_kv = torch.tensor([2, 3], dtype=torch.int32), torch.tensor([0, 3], dtype=torch.int32)
    out, lse = natten.attention(q, kv, kv, seqlens_Q=lengths, seqlens_KV=lengths_kv, return_lse=True)
    assert torch.equal(out[:, :2], torch.zeros(1, 2, 2, 8))
    assert torch.isneginf(lse[:, :2]).all()
    assert torch.equal(out[:, 2:], natten.attention(q[:, 2:], kv, kv))


@pytest.mark.parametrize("cuts", [(4,), (2, 3, 9)])
def test_merging_attentions_over_parts_of_the_keys_is_attention_over_all_of_them(cuts):
    leaves = [random(2, 6, 4, 4), random(2, 11, 2, 4), random(2, 11, 2, 3)]
    borders = [0, *cuts, 11]
    parts = [
        natten.attention(leaves[0], leaves[1][:, a:b], leaves[2][:, a:b], return_lse=True) for a, b in pairwise(borders)
    ]
    ours = natten.merge_attentions([out for out, _ in parts], [lse for _, lse in parts])
    truth = oracle.attention(*leaves, torch.ones(6, 11, dtype=torch.bool), scale=0.5)
    assert_equal_with_gradients(ours, truth, leaves)


def test_a_window_merged_with_far_tokens_is_additional_keys_and_values():
    q, k, v = (random(1, 10, 2, 4) for _ in range(3))
    far_k, far_v = random(1, 3, 2, 4), random(1, 3, 2, 4)
    parts = [natten.na1d(q, k, v, 3, return_lse=True), natten.attention(q, far_k, far_v, return_lse=True)]
    ours = natten.merge_attentions(*([part[i] for part in parts] for i in (0, 1)), torch_compile=False)
    truth = natten.na1d(q, k, v, 3, additional_keys=far_k, additional_values=far_v, return_lse=True)
    assert_equal_with_gradients(ours, truth, [q, k, v, far_k, far_v])
