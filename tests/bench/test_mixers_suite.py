"""The mixers suite: every registered kind becomes a part and a row."""

import torch

from windeye.bench import mixers
from windeye.nn.mixers import MIXERS


def test_every_kind_is_measured_against_its_textbook_form():
    case = mixers.QUICK[1]
    small = mixers.Case(case.batch, case.side, case.dim, train=True)
    kinds = [kind for kind, spec in MIXERS.items() if spec.__module__.startswith("windeye.")]
    result = {"parts": {f"{kind}, {small.name}": mixers.measure(kind, small, 3) for kind in kinds}}
    table = mixers.rows(result)
    assert [row[0] for row in table] == kinds
    assert all(len(row) == len(mixers.COLUMNS) and row[4].endswith("x") for row in table)
    assert [row[0] for row in table if not row[5]] == ["full"]


def test_parts_have_names_of_their_own():
    names = [name for name, _ in mixers.parts()]
    assert len(names) == len(set(names)) == len(MIXERS) * len(mixers.CASES)
    assert len(list(mixers.parts(quick=True))) == 2 * len(MIXERS)


def test_training_takes_gradients_of_everything():
    layer = MIXERS["window"]().build(64, 2)
    x = torch.randn(1, 14, 14, 64, requires_grad=True)
    gradients = mixers.one(layer, x)
    assert len(gradients) == 1 + len(list(layer.parameters()))
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
