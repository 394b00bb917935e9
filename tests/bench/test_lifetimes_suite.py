"""The lifetimes suite: its cases compute the same as torch, and its rows come from what was measured."""

import torch
import torch.nn.functional as F

from windeye.bench import lifetimes
from windeye.patterns import Expiry


def test_what_is_timed_is_the_masked_attention_it_is_compared_with():
    ours, (query, key, value) = lifetimes._tensors(96)
    score = ours[3]
    mask = Expiry(lifetimes.topw_expiry(score, 12)).bind((96,)).mask()
    added = score[:, :, None].masked_fill(~mask, -torch.inf)
    theirs = F.scaled_dot_product_attention(query, key, value, attn_mask=added)
    assert torch.allclose(lifetimes._ours(ours, 12), theirs.transpose(1, 2), atol=1e-5)


def test_a_case_is_measured_and_becomes_a_row(monkeypatch):
    case = lifetimes.Case(64, 16)
    monkeypatch.setattr(lifetimes, "CASES", (case, lifetimes.Case(128, 16)))
    measured = {
        f"prefill {case.name}": lifetimes._prefill(case, 3), f"training {case.name}": lifetimes._training(case, 3),
    }  # fmt: skip
    prefill = measured[f"prefill {case.name}"]
    assert set(prefill["timings"]) == {"causal", "windeye", "selection", "masked"}
    assert prefill["flop_bound"] == (64 * 65 / 2) / (16 * 17 / 2 + 48 * 16)
    (row,) = lifetimes.rows({"parts": measured})
    assert row[0] == "64 tokens, 16 keys"
    assert len(row) == len(lifetimes.COLUMNS)


def test_decoding_is_measured_for_each_length():
    measured = lifetimes._decode(3, (40, 600))
    assert set(measured) == {"40", "600"}
    assert all(m["milliseconds"]["windeye"] > 0 for m in measured.values())


def test_parts_have_names_of_their_own():
    names = [name for name, _ in lifetimes.parts()]
    assert len(names) == len(set(names)) == 2 * len(lifetimes.CASES) + 1
    assert len(list(lifetimes.parts(quick=True))) == 5
