"""Wrong calls of linear_attention: each is refused with an error that names the argument and the values."""

import pytest
import torch

import windeye
from windeye.kernels.native import instruction_sets


def t(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype)


Q, K, V = t(2, 6, 4, 8), t(2, 6, 2, 8), t(2, 6, 2, 5)
G = t(2, 6, 4)
ONE = (Q[:1], K[:1], V[:1])


def call(*tensors, **options):
    return lambda: windeye.linear_attention(*tensors, **options)


def ints(*values):
    return torch.tensor(values)


WRONG = {
    "a list is no tensor": (call([1.0], K, V), TypeError, "query must be a torch.Tensor, got list"),
    "a grid": (call(t(1, 3, 3, 2, 8), t(1, 3, 3, 2, 8), t(1, 3, 3, 2, 8)), ValueError, r"query must be \[batch, tokens"),
    "integers": (call(Q.long(), K.long(), V.long()), TypeError, "query must be float32.*int64"),
    "mixed types": (call(Q, K.double(), V), TypeError, "key has dtype torch.float64 but query has torch.float32"),
    "another width": (call(Q, K[..., :4], V), ValueError, "key has head_dim 4 but query has 8"),
    "other tokens": (call(Q, K[:, :5], V[:, :5]), ValueError, "key has 5 tokens but query has 6"),
    "heads apart": (call(Q, t(2, 6, 3, 8), t(2, 6, 3, 8)), ValueError, "4 heads.* 3 key/value"),
    "scale as text": (call(Q, K, V, scale="1"), TypeError, "scale must be a number, got '1'"),
    "no scale": (call(Q, K, V, scale=None), TypeError, "scale must be a number, got None"),
    "infinite scale": (call(Q, K, V, scale=float("inf")), ValueError, "scale must be finite, got inf"),
    "feature map": (call(Q, K, V, feature_map="elu"), ValueError, "feature_map must be None or \"taylor2\", got 'elu'"),
    "chunk zero": (call(Q, K, V, chunk_size=0), ValueError, "chunk_size must be a positive integer, got 0"),
    "chunk as a float": (call(Q, K, V, chunk_size=8.0), ValueError, "chunk_size must be a positive integer, got 8.0"),
    "form": (call(Q, K, V, form="scan"), ValueError, "form must be \"auto\" or one of chunk, parallel, recurrent, got 'scan'"),
    "backend": (call(Q, K, V, backend="gpu"), ValueError, "backend must be \"auto\" or one of cpu, triton, torch, got 'gpu'"),
    "form of a backend": (call(Q, K, V, backend="cpu", form="parallel"), ValueError, '"cpu" has no form "parallel"; it has chunk'),
    "decay per channel": (call(Q, K, V, log_decay=t(2, 6, 4, 8)), ValueError, r"log_decay must be \[heads 4\] or .*\(2, 6, 4, 8\)"),
    "decay of other heads": (call(Q, K, V, log_decay=t(2)), ValueError, r"log_decay must be \[heads 4\]"),
    "decay as a number": (call(Q, K, V, log_decay=-0.5), TypeError, "log_decay must be a torch.Tensor, got float"),
    "integer decay": (call(Q, K, V, log_decay=t(4).long()), TypeError, "log_decay must be floating point, got torch.int64"),
    "growth": (call(Q, K, V, log_decay=t(4) + 0.25), ValueError, "log_decay must be at most 0 .*got 0.25 in 4 of 4"),
    "NaN decay": (call(Q, K, V, log_decay=G.masked_fill(G == 0, torch.nan)), ValueError, "log_decay must be at most 0 .*got nan"),
    "a state as a list": (call(Q, K, V, initial_state=[0]), TypeError, "initial_state must be a torch.Tensor, got list"),
    "a state of other heads": (call(Q, K, V, initial_state=t(2, 2, 8, 5)), ValueError, r"initial_state must be .*\[2, 4, 8, 5\], got shape \(2, 2, 8, 5\)"),
    "a state without denominator": (call(Q, K, V, normalize=True, initial_state=t(2, 4, 8, 5)), ValueError, r"\[2, 4, 8, 6\]"),
    "a state of other features": (call(Q, K, V, feature_map="taylor2", initial_state=t(2, 4, 8, 5)), ValueError, r"\[2, 4, 45, 5\]"),
    "a double state": (call(Q, K, V, initial_state=t(2, 4, 8, 5).double()), TypeError, "initial_state must be torch.float32 for torch.float32 tensors, got torch.float64"),
    "packed and padded": (call(*ONE, cu_seqlens=ints(0, 6), lengths=ints(6)), ValueError, "cu_seqlens packs sequences and lengths pads"),
    "packed batches": (call(Q, K, V, cu_seqlens=ints(0, 6)), ValueError, "cu_seqlens needs batch 1, got batch 2"),
    "bounds as a list": (call(*ONE, cu_seqlens=[0, 6]), TypeError, "cu_seqlens must be a torch.Tensor of integers, got list"),
    "bounds as floats": (call(*ONE, cu_seqlens=t(2)), TypeError, "cu_seqlens must be int32 or int64, got torch.float32"),
    "one bound": (call(*ONE, cu_seqlens=ints(0)), ValueError, r"cu_seqlens must be \[sequences \+ 1\], got shape \(1,\)"),
    "falling bounds": (call(*ONE, cu_seqlens=ints(0, 4, 3, 6)), ValueError, r"rise from 0 to the number of tokens 6, got \[0, 4, 3, 6\]"),
    "bounds that end early": (call(*ONE, cu_seqlens=ints(0, 4)), ValueError, r"tokens 6, got \[0, 4\]"),
    "lengths of another batch": (call(Q, K, V, lengths=ints(3)), ValueError, r"lengths must be \[batch 2\], got shape \(1,\)"),
    "too long": (call(Q, K, V, lengths=ints(3, 7)), ValueError, r"lengths must be in \[0, 6\], got 7"),
    "negative length": (call(Q, K, V, lengths=ints(-1, 6)), ValueError, r"lengths must be in \[0, 6\], got -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_refused(name):
    wrong, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        wrong()


@pytest.mark.parametrize("form", ["chunk", "parallel", "recurrent"])
def test_values_are_checked_by_every_form(form):
    for options in ({"log_decay": t(4) + 1}, {"lengths": ints(7, 0)}):
        with pytest.raises(ValueError, match="must be"):
            windeye.linear_attention(Q, K, V, form=form, backend="torch", **options)


def test_the_kernel_says_where_it_runs():
    if instruction_sets():
        with pytest.raises(ValueError, match="it runs on the CPU, the tensors are on meta"):
            windeye.linear_attention(*(x.to("meta") for x in (Q, K, V)), backend="cpu")
