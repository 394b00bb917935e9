"""The associative suite: its forms compute the same, and a part becomes a row."""

import torch

from windeye.bench import associative


def test_the_forms_compute_the_same_numbers_and_gradients():
    inputs = associative.Inputs(associative.Case(20, chunk=8))
    found = []
    for form in (lambda: inputs.memory("torch"), lambda: inputs.memory("auto"), inputs.per_token):
        out = form()
        found.append([out, *torch.autograd.grad(out.square().sum(), inputs.leaves)])
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_dense_attention_sees_the_past_only():
    inputs = associative.Inputs(associative.Case(20))
    out = inputs.dense()
    with torch.no_grad():
        inputs.value[:, 10:] = 0
    assert torch.equal(inputs.dense()[:, :, :10], out[:, :, :10])


def test_a_part_is_measured_and_becomes_a_row(monkeypatch):
    monkeypatch.setattr(associative, "CASES", (associative.Case(20, chunk=8, peer=True),))
    name, work = next(associative.parts(quick=True))
    part = work()
    table = associative.rows({"parts": {name: part}})
    assert len(table[0]) == len(associative.COLUMNS)
    assert table[0][0] == "20 tokens, chunks of 8, 2 layers"
    assert all(cell.endswith("x") for cell in table[0][3:])


def test_where_a_form_took_no_part_nothing_is_said():
    part = associative._measure(associative.Case(32, chunk=8), 3)
    assert associative.rows({"parts": {"a": part}})[0][4] == ""
