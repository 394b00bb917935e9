"""The experiment of bi-level routing: scenes, controls, its measure, and its rule."""

import pytest
import torch

from windeye import Blocks
from windeye.papers import biformer
from windeye.papers.experiment import Run
from windeye.report import Row

GOOD = {"full": 90.0, "routed": 88.0, "random regions": 60.0, "own region": 20.0, "shifted windows": 50.0}


def rows(before=(30.0,) * 3, after=(80.0,) * 3, **changed):
    values = GOOD | {name.replace("_", " "): value for name, value in changed.items()}
    made = [Row(a, biformer.PRECISION, v if isinstance(v, tuple) else (v,) * 3, "%") for a, v in values.items()]
    made.append(Row("routed", biformer.BEFORE, before, "%"))
    return (*made, Row("routed", biformer.AFTER, after, "%"))


@pytest.mark.parametrize(
    ("changed", "verdict", "failed"),
    [
        ({}, "shown", 0),
        ({"full": 39.0, "routed": 38.5, "random regions": 25.0, "shifted windows": 25.0}, "not shown", 1),
        ({"routed": 80.0}, "not shown", 1),
        ({"random regions": 84.0}, "not shown", 1),
        ({"shifted windows": (70.0, 70.0, 89.0)}, "not shown", 1),
        ({"after": (80.0, 80.0, 29.0)}, "not shown", 1),
        ({"routed": 60.0, "random regions": 66.0}, "opposite", 2),
        ({"routed": 20.0, "full": 20.0}, "opposite", 4),
    ],
)
def test_the_rule(changed, verdict, failed):
    made = rows(**changed)
    assert sum(not check.held for check in biformer.checks(made)) == failed
    assert biformer.verdict(made) == verdict


def test_scenes_mark_one_cell_and_know_its_twins():
    known, _ = biformer.digits()
    batch = biformer.scenes(known, 20, torch.Generator().manual_seed(0))
    assert batch.images.shape == (20, 2, 64, 64)
    cells = batch.images.unflatten(3, (8, 8)).unflatten(2, (8, 8)).transpose(3, 4).flatten(2, 3)
    assert torch.equal(cells[:, 1].flatten(2).amax(-1).argmax(1), batch.marked)
    assert (cells[:, 1].flatten(2).sum(-1) == 28 * torch.nn.functional.one_hot(batch.marked, 64)).all()
    assert batch.twins.any(1).all()
    assert not batch.twins.gather(1, batch.marked[:, None]).any()
    same = (cells[:, 0] == cells[:, 0][torch.arange(20), batch.marked][:, None]).flatten(2).all(-1)
    same[torch.arange(20), batch.marked] = False
    assert same.any(1).all()  # the planted twin is the same scan
    assert batch.twins[same].all()


def test_all_arms_are_one_network_but_for_who_sees_whom():
    shapes = []
    for arm in biformer.ARMS:
        torch.manual_seed(3)
        model = biformer.Finder(arm)
        shapes.append({name: tuple(p.shape) for name, p in model.named_parameters()})
    assert all(found == shapes[0] for found in shapes)


def test_controls_see_as_many_tokens_and_own_regions_alone():
    x = torch.randn(2, 16, 16, biformer.DIM)
    random = biformer.RandomRegions(biformer.DIM, biformer.HEADS, 8, biformer.KEEP, local=None)
    own = biformer.OwnRegion(biformer.DIM, biformer.HEADS, 8, biformer.KEEP, local=None)
    (plan,), (again,), (inside,) = random.plans(x), random.plans(x), own.plans(x)
    assert (plan.relation.bind((16, 16)).mask().sum(-1) == 32).all()
    assert not torch.equal(plan.relation.index, again.relation.index)
    assert torch.equal(inside.relation.bind((16, 16)).mask()[0, 0], Blocks(2).bind((16, 16)).mask())


def test_precision_is_the_mean_over_ranks():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    for twins, expected in (([0, 1, 0, 0], 1.0), ([1, 0, 0, 0], 0.25), ([0, 1, 0, 1], (1 + 2 / 3) / 2)):
        found = biformer.average_precision(scores, torch.tensor([twins]).bool())
        assert found.item() == pytest.approx(expected)


def test_a_smoke_run_has_every_arm():
    told = []
    run = Run(budget="smoke", seeds=(0,), progress=lambda _part, share: told.append(share), command="smoke")
    evidence = biformer.experiment(run)
    assert {row.arm for row in evidence.rows if row.metric == biformer.PRECISION} == set(biformer.ARMS)
    assert all(0 <= row.values[0] <= 100 for row in evidence.rows if row.unit == "%")
    assert evidence.checks == biformer.checks(evidence.rows)
    assert told == sorted(told)
    assert told[-1] == 1.0
