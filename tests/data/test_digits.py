"""Scans of digits: as scikit-learn has them, and mixed the same way every time."""

import torch
from sklearn.datasets import load_digits

from windeye.data.digits import divided, mixed_digits, scanned_digits


def test_they_are_those_of_scikit_learn_from_zero_to_one():
    found = load_digits()
    scans, values = scanned_digits()
    assert torch.equal(scans, torch.from_numpy(found.images / 16).float())
    assert torch.equal(values, torch.from_numpy(found.target).long())
    assert (scans.min(), scans.max()) == (0, 1)


def test_mixing_keeps_every_scan_with_its_value():
    scans, values = scanned_digits()
    mixed, order = mixed_digits(), torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mixed[0], scans[order])
    assert torch.equal(mixed[1], values[order])
    assert not torch.equal(mixed[1], values)


def test_a_scan_is_trained_on_or_tested_with():
    known, new = divided(scanned_digits())
    assert len(new[1]) == 500
    for part, whole in zip(zip(known, new, strict=True), scanned_digits(), strict=True):
        assert torch.equal(torch.cat(part), whole)
