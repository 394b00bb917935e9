"""The vote of the nearest features, against a loop."""

import math

import pytest
import torch

from windeye.models.probing import nearest, nearest_vote


def by_loops(known, labels, asked, neighbours, temperature, classes):
    found = []
    for a in asked:
        cosines = [float(torch.dot(a, b) / a.norm() / b.norm()) for b in known]
        nearest_ones = sorted(range(len(known)), key=lambda i: -cosines[i])[:neighbours]
        votes = [0.0] * classes
        for i in nearest_ones:
            votes[labels[i]] += math.exp(cosines[i] / temperature)
        found.append([vote / sum(votes) for vote in votes])
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("neighbours", [1, 5, 200])
@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_votes_are_those_of_a_loop(neighbours, temperature, monkeypatch):
    monkeypatch.setattr(nearest, "MOST", 90)  # several pieces
    known, asked = torch.randn(30, 6, dtype=torch.float64), torch.randn(11, 6, dtype=torch.float64)
    labels = torch.randint(4, (30,))
    votes = nearest_vote(known, labels, asked, neighbours=neighbours, temperature=temperature, classes=5)
    torch.testing.assert_close(votes, by_loops(known, labels.tolist(), asked, neighbours, temperature, 5))


def test_the_length_of_features_does_not_matter():
    known, labels, asked = torch.randn(9, 4), torch.randint(3, (9,)), torch.randn(5, 4)
    torch.testing.assert_close(
        nearest_vote(known * 7, labels, asked, classes=3), nearest_vote(known, labels, asked / 9, classes=3)
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
        ({"asked": torch.zeros(2, 5)}, r"got \(3, 4\) and \(2, 5\)"),
        ({"labels": torch.tensor([0, 1])}, "one for each of 3 known features"),
        ({"classes": 2}, r"labels must be in \[0, 2\), got 0 to 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, match):
    given = {"known": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2]), "asked": torch.randn(2, 4)} | change
    with pytest.raises(ValueError, match=match):
        nearest_vote(**given)
