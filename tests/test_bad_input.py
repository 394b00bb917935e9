"""Wrong calls: each is refused with an error that names the argument and the values, and nothing is lost."""

import re

import pytest
import torch

import windeye
from windeye import (
    Blocks,
    Causal,
    Documents,
    Full,
    Halo,
    Inward,
    Neighborhood,
    Prefix,
    Sinks,
    Sliding,
    TileWindow,
)  # fmt: skip


def t(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype)


Q = t(2, 6, 8, 4, 16)
K = t(2, 6, 8, 2, 16)
S = t(1, 12, 4, 8)


def on(pattern, *grid):
    return lambda: pattern().bind(grid)


def attend(*tensors, **options):
    return lambda: windeye.attend(*tensors, **options)


WRONG = {
    # tensors
    "a list is no tensor": (attend([1.0], K, K), TypeError, "query must be a torch.Tensor, got list"),
    "no grid axis": (attend(t(2, 4, 16), t(2, 4, 16), t(2, 4, 16)), ValueError, r"query .*grid axis.*\(2, 4, 16\)"),
    "integers": (attend(S.long(), S.long(), S.long()), TypeError, "query must be float32.*int64"),
    "mixed types": (attend(Q, K.double(), K), TypeError, "key has dtype torch.float64 but query has torch.float32"),
    "mixed devices": (attend(Q, K.to("meta"), K), ValueError, "key is on meta but query is on cpu"),
    "another rank": (attend(Q, S, S), ValueError, "key has 1 grid axes but query has 2"),
    "another batch": (attend(Q, K[:1], K[:1]), ValueError, "key has batch 1 but query has 2"),
    "key and value apart": (attend(Q, K, K[:, :5]), ValueError, r"key and value differ .*\(2, 6, 8, 2, 16\)"),
    "another head_dim": (attend(Q, K[..., :8], K), ValueError, "key has head_dim 8 but query has 16"),
    "heads that do not divide": (attend(Q, t(2, 6, 8, 3, 16), t(2, 6, 8, 3, 16)), ValueError, "4 heads.* 3 key/value"),
    "no key heads": (attend(Q, K[..., :0, :], K[..., :0, :]), ValueError, "4 heads.* 0 key/value"),
    "head_dim zero": (attend(S[..., :0], S[..., :0], S), ValueError, "head_dim and value dim must be at least 1"),
    # options
    "a pattern in words": (attend(Q, K, K, "neighborhood 3"), TypeError, "pattern must be a windeye.Pattern"),
    "a pattern class": (attend(Q, K, K, Neighborhood), TypeError, "pattern must be a windeye.Pattern"),
    "scale as text": (attend(Q, K, K, scale="1"), TypeError, "scale must be a number, got '1'"),
    "scale as a bool": (attend(Q, K, K, scale=True), TypeError, "scale must be a number, got True"),
    "scale not finite": (attend(Q, K, K, scale=float("nan")), ValueError, "scale must be finite, got nan"),
    "dropout of one": (attend(Q, K, K, dropout_p=1.0), ValueError, r"dropout_p must be in \[0, 1\), got 1.0"),
    "negative dropout": (attend(Q, K, K, dropout_p=-0.1), ValueError, "dropout_p must be .* got -0.1"),
    "unknown backend": (attend(Q, K, K, backend="cuda"), ValueError, 'backend must be "auto" or one of cpu.*\'cuda\''),
    "a backend that cannot": (attend(Q, K, K, backend="natten"), ValueError, '"natten" cannot run this call: it runs on CUDA'),
    # bias, padding, extra keys
    "bias is no tensor": (attend(Q, K, K, Neighborhood(3), bias=0.5), TypeError, "bias must be a torch.Tensor"),
    "bias of other heads": (attend(Q, K, K, Neighborhood(3), bias=t(2, 5, 5)), ValueError, "bias must be .* 4 heads"),
    "bias of other rank": (attend(Q, K, K, Neighborhood(3), bias=t(4, 5)), ValueError, "bias must be .*2 axes.*got shape"),
    "bias of even size": (attend(Q, K, K, Neighborhood(3), bias=t(4, 5, 6)), ValueError, "6 offsets on grid axis 1; it must be odd"),
    "bias that is too small": (attend(Q, K, K, Neighborhood(5), bias=t(4, 9, 3)), ValueError, "3 offsets on grid axis 1 .*at least 9"),
    "bias of integers": (attend(Q, K, K, Neighborhood(3), bias=t(4, 5, 5).long()), TypeError, "bias must be floating point"),
    "bias across grids": (attend(S, t(1, 9, 4, 8), t(1, 9, 4, 8), bias=t(4, 3)), ValueError, "bias needs equal query and key grids"),
    "bias over mixed dilations": (
        attend(S, S, S, Neighborhood(3) | Neighborhood(3, dilation=2), bias=t(4, 9)), ValueError, "dilation.*axis 0",
    ),
    "padding is no tensor": (attend(Q, K, K, key_padding=[True]), TypeError, "key_padding must be a torch.Tensor"),
    "padding of floats": (attend(Q, K, K, key_padding=t(2, 6, 8)), TypeError, "key_padding must be bool"),
    "padding of other size": (attend(Q, K, K, key_padding=t(2, 48).bool()), ValueError, r"key_padding .*\(2, 6, 8\)|key_padding .*48"),
    "extra_kv alone": (attend(Q, K, K, extra_kv=K), TypeError, r"extra_kv must be a pair \(key, value\)"),
    "extra_kv of text": (attend(Q, K, K, extra_kv=("a", "b")), TypeError, r"extra_kv\[0\] must be a torch.Tensor, got str"),
    "extra_kv of other heads": (attend(Q, K, K, extra_kv=(t(2, 5, 4, 16), t(2, 5, 4, 16))), ValueError, r"extra_kv\[0\] .*kv_heads 2"),
    "extra_kv of another type": (attend(Q, K, K, extra_kv=(t(2, 5, 2, 16), t(2, 5, 2, 16).half())), TypeError, r"extra_kv\[1\] has dtype torch.float16"),
    "extra_kv of two lengths": (attend(Q, K, K, extra_kv=(t(2, 5, 2, 16), t(2, 4, 2, 16))), ValueError, "extra_kv holds 5 keys but 4 values"),
    "merge of nothing": (lambda: windeye.merge(), ValueError, "at least one"),
    "merge of a tensor": (lambda: windeye.merge(S), TypeError, "branch 0 must be a pair"),
    "merge with a wrong lse": (lambda: windeye.merge((S, S)), ValueError, "branch 0 has out .* and lse"),
    "merge of different sizes": (
        lambda: windeye.merge((S, S[..., 0]), (S[:, :5], S[:, :5, :, 0])), ValueError, "branch 1 has out",
    ),
    # patterns on grids
    "window larger than the grid": (on(lambda: Neighborhood((3, 9)), 6, 8), ValueError, "kernel_size 9 .* axis 1 has 8; .*is 8"),
    "dilated window larger than the grid": (
        on(lambda: Neighborhood(3, dilation=4), 10), ValueError, "kernel_size 3 with dilation 4 needs 12 keys but axis 0 has 10",
    ),
    "stride larger than the window": (on(lambda: Neighborhood(3, stride=(1, 4)), 9, 9), ValueError, "stride 4 .*kernel_size 3 on axis 1"),
    "window of zero": (on(lambda: Neighborhood(0), 4), ValueError, "kernel_size must be at least 1 or -1, got 0"),
    "window as a float": (on(lambda: Neighborhood(3.0), 4), TypeError, "kernel_size must be an integer, got 3.0"),
    "window as a bool": (on(lambda: Neighborhood(True), 4), TypeError, "kernel_size must be an integer, got True"),
    "tuple of wrong length": (on(lambda: Neighborhood((3, 3, 3)), 6, 8), ValueError, r"kernel_size \(3, 3, 3\) has 3 entries .*2 axes"),
    "negative stride": (on(lambda: Neighborhood(3, stride=-1), 6), ValueError, "stride must be at least 1, got -1"),
    "stride zero on one axis": (on(lambda: Neighborhood(3, stride=(1, 0)), 6, 6), ValueError, r"stride\[1\] must be at least 1, got 0"),
    "causality as a number": (on(lambda: Neighborhood(3, is_causal=1), 6), TypeError, "is_causal must be a bool"),
    "unknown boundary": (on(lambda: Neighborhood(3, boundary="reflect"), 6), ValueError, "boundary must be one of .*'reflect'"),
    "wrap that does not close": (
        on(lambda: Neighborhood(2, dilation=2, boundary="wrap"), 7), ValueError, "dilation 2 to divide the 7 keys of axis 0",
    ),
    "sliding on a picture": (on(lambda: Sliding(3), 6, 8), ValueError, r"Sliding is defined on a sequence.*\(6, 8\)"),
    "sliding window of zero": (on(lambda: Sliding(0), 6), ValueError, "window must be at least 1, got 0"),
    "documents of another length": (on(lambda: Documents((3, 4)), 8), ValueError, "lengths sum to 7 but the sequence has 8"),
    "documents as a number": (on(lambda: Documents(3), 3), TypeError, "lengths must be a tuple"),
    "negative document": (on(lambda: Documents((3, -1)), 2), ValueError, r"lengths\[1\] must be at least 0, got -1"),
    "shift as large as the block": (on(lambda: Blocks(4, shift=4), 8), ValueError, "shift 4 must be smaller than size 4 on axis 0"),
    "negative halo": (on(lambda: Halo(4, -1), 8), ValueError, "halo must be at least 0, got -1"),
    "more tiles than there are": (on(lambda: TileWindow(4, 3), 8), ValueError, "tiles 3 is larger than the 2 tiles"),
    "inward of zero": (on(lambda: Inward(0), 8), ValueError, "train_shape must be at least 1 or -1, got 0"),
    "negative sinks": (on(lambda: Sinks(-1), 8), ValueError, "n must be at least 0, got -1"),
    "prefix as text": (on(lambda: Prefix("2"), 8), TypeError, "n must be an integer, got '2'"),
    "causal across unlike planes": (lambda: Causal().bind((4, 5), (4, 6)), ValueError, r"equal axes after the first.*\(4, 5\)"),
    "grid as a number": (lambda: Full().bind(8), TypeError, "grid must be a sequence of integers"),
    "grid without axes": (lambda: Full().bind(()), ValueError, "grid must have at least one axis"),
    "negative grid": (lambda: Full().bind((4, -1)), ValueError, r"grid\[1\] must not be negative, got -1"),
    "key grid of another rank": (lambda: Full().bind((4, 4), (4,)), ValueError, r"grid_kv \(4,\) has 1 axes .*2"),
    "and with a number": (lambda: Full() & 3, TypeError, "unsupported operand"),
    "too many parts": (
        lambda: (Causal() | Neighborhood((2, 1)) | Neighborhood((1, 2)) & Causal() | _many(14)).bind((4, 4)),
        ValueError, "parts, at most 16",
    ),
}  # fmt: skip


def _many(number):
    pattern = Neighborhood((1, 1))
    for _ in range(number - 1):
        pattern = pattern | Neighborhood((1, 1))
    return pattern


def test_there_are_enough_of_them():
    assert len(WRONG) >= 40


@pytest.mark.parametrize(("call", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_call(call, kind, message):
    with pytest.raises(kind) as caught:
        call()
    assert re.search(message, str(caught.value)), f"the message was: {caught.value}"
    assert caught.type in (ValueError, TypeError)


def test_a_refused_call_leaves_its_inputs_alone():
    q = torch.randn(1, 6, 2, 4, requires_grad=True)
    before = q.detach().clone()
    with pytest.raises(ValueError, match="kernel_size"):
        windeye.attend(q, q, q, Neighborhood(9))
    assert torch.equal(q, before)
    assert q.grad is None
