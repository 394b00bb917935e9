"""What is read off maps, against loops and made cases."""

import itertools
import math

import pytest
import torch

from windeye.models.probing import evenness, groups, overlap


def test_overlap_is_the_mean_cosine_over_pairs():
    maps = torch.rand(3, 5, 4, 6, dtype=torch.float64)
    cosines = [
        torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()
        for entry in maps
        for a, b in itertools.combinations(entry, 2)
    ]
    assert overlap(maps) == pytest.approx(sum(cosines) / len(cosines))
    assert overlap(maps[:, :1]) == 0.0


def test_evenness_is_entropy_over_its_largest_and_knows_no_scale():
    maps = torch.rand(2, 3, 7, dtype=torch.float64)
    found = []
    for row in maps.flatten(0, 1):
        shares = [float(v / row.sum()) for v in row]
        found.append(-sum(p * math.log(p) for p in shares) / math.log(7))
    assert evenness(maps) == pytest.approx(sum(found) / len(found))
    assert evenness(5 * maps) == pytest.approx(evenness(maps))
    assert evenness(torch.ones(1, 1, 3, 3)) == pytest.approx(1.0)
    assert evenness(torch.tensor([[[1.0, 0.0, 0.0]]])) == 0.0
    assert evenness(torch.ones(1, 1, 1)) == 1.0


def test_groups_find_maps_that_were_made_of_few_looks():
    looks = torch.rand(3, 4, 30).softmax(-1)
    which = torch.tensor([0, 1, 1, 2, 1, 0, 2, 1])
    maps = looks[which].transpose(0, 1) + 0.01 * torch.rand(4, 8, 30)
    found = groups(maps, 3)
    assert all((found[a] == found[b]) == (which[a] == which[b]) for a in range(8) for b in range(8))
    assert torch.bincount(found).tolist() == [4, 2, 2]


def test_as_many_groups_as_maps_are_all_apart():
    assert groups(torch.eye(4)[None], 9).sort().values.tolist() == [0, 1, 2, 3]
    assert groups(torch.ones(1, 3, 5), 3).tolist() == [0, 0, 0]
