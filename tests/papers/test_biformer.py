"""The experiment of bi-level routing: scenes, controls, its measure, and its rule."""

import pytest
import torch

from papers.smoke import smoke_run
from windeye import Blocks
from windeye.papers import biformer
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
    assert batch.images.shape == (20, 2, 48, 48)
    cells = batch.images.unflatten(3, (6, 8)).unflatten(2, (6, 8)).transpose(3, 4).flatten(2, 3)
    assert torch.equal(cells[:, 1].flatten(2).amax(-1).argmax(1), batch.marked)
    assert (cells[:, 1].flatten(2).sum(-1) == 28 * torch.nn.functional.one_hot(batch.marked, 36)).all()
    assert batch.twins.any(1).all()
    assert not batch.twins.gather(1, batch.marked[:, None]).any()
    assert torch.equal((batch.digits == batch.digits.gather(1, batch.marked[:, None])).sum(1), batch.twins.sum(1) + 1)
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
    x = torch.randn(2, 12, 12, biformer.DIM)
    random = biformer.RandomRegions(biformer.DIM, biformer.HEADS, biformer.CELLS, biformer.KEEP, local=None)
    own = biformer.OwnRegion(biformer.DIM, biformer.HEADS, biformer.CELLS, biformer.KEEP, local=None)
    (plan,), (again,), (inside,) = random.plans(x), random.plans(x), own.plans(x)
    assert (plan.relation.bind((12, 12)).mask().sum(-1) == 16).all()
    assert not torch.equal(plan.relation.index, again.relation.index)
    assert torch.equal(inside.relation.bind((12, 12)).mask()[0, 0], Blocks(2).bind((12, 12)).mask())


def test_digits_of_the_test_were_not_trained_on():
    known, new = biformer.digits()
    assert (set(known[1].tolist()), set(new[1].tolist())) == ({0, 1, 2, 3}, {0, 1, 2, 3})
    assert not (known[0].flatten(1)[:, None] == new[0].flatten(1)[None]).all(-1).any()


def test_what_keeps_the_mark_is_counted_over_the_other_regions():
    test = biformer.scenes(biformer.digits()[1], 60, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    some, blocks = biformer.keeps_the_mark(biformer.Finder("random regions"), test, "cpu")
    assert blocks == pytest.approx([100 / 9] * biformer.DEPTH, abs=3)
    assert some == pytest.approx(100 * (1 - (8 / 9) ** biformer.DEPTH), abs=4)
    assert biformer.keeps_the_mark(biformer.Finder("own region"), test, "cpu") == (0.0, [0.0] * biformer.DEPTH)
    assert biformer.keeps_the_mark(biformer.Finder("full"), test, "cpu") == (0.0, [])
    routed = biformer.Finder("routed")
    seen = []
    for block in routed.trunk.stages[0]:
        block.mixer.register_forward_hook(lambda mixer, inputs, _: seen.append(mixer.routes(inputs[0])))
    some, blocks = biformer.keeps_the_mark(routed, test, "cpu")
    for percent, index in zip(blocks, seen, strict=True):
        kept = [
            (test.marked[scene] in index[scene, region])
            for scene in range(60)
            for region in range(36)
            if region != test.marked[scene]
        ]
        assert percent == pytest.approx(100 * sum(kept) / len(kept))
    assert max(blocks) <= some <= sum(blocks)


def tokens_read(mixer, *, trains):
    """Which tokens the output of the token (2, 3) depends on, as it is computed in training or afterwards."""
    x = torch.randn(1, 12, 12, biformer.DIM, requires_grad=trains)

    def output(x):
        torch.manual_seed(0)
        return mixer(x)[0, 2, 3]

    if trains:
        return torch.autograd.grad(output(x).sum(), x)[0][0].abs().sum(-1) > 0
    with torch.no_grad():
        moved = (x + torch.nn.functional.one_hot(torch.tensor(token), 144).reshape(12, 12, 1) for token in range(144))
        return torch.stack([(output(other) != output(x)).any() for other in moved]).reshape(12, 12)


@pytest.mark.parametrize("trains", [True, False])
def test_controls_compute_with_the_regions_that_they_keep(trains):
    def mixer(arm):
        return biformer.Finder(arm).trunk.stages[0][1].mixer

    own = tokens_read(mixer("own region"), trains=trains).nonzero().tolist()
    assert own == [[2, 2], [2, 3], [3, 2], [3, 3]]
    random = tokens_read(mixer("random regions"), trains=trains)
    torch.manual_seed(0)
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected.view(-1)[torch.rand(1, 36, 36).topk(biformer.KEEP).indices[0, 6 + 1]] = True
    expected = expected.repeat_interleave(2, 0).repeat_interleave(2, 1)
    expected[2, 3] = True  # its own query
    assert torch.equal(random, expected)


def test_precision_is_the_mean_over_ranks():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    for twins, expected in (([0, 1, 0, 0], 1.0), ([1, 0, 0, 0], 0.25), ([0, 1, 0, 1], (1 + 2 / 3) / 2)):
        found = biformer.average_precision(scores, torch.tensor([twins]).bool())
        assert found.item() == pytest.approx(expected)


def test_a_smoke_run_has_every_arm(tmp_path):
    evidence = smoke_run(biformer, tmp_path).evidence
    assert {row.arm for row in evidence.rows if row.metric == biformer.PRECISION} == set(biformer.ARMS)
    assert all(0 <= row.values[0] <= 100 for row in evidence.rows if row.unit == "%")
    assert evidence.checks == biformer.checks(evidence.rows)
