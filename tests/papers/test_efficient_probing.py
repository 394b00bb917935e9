"""The experiment of efficient probing: its scenes, its probes, what it resumes, and its rule."""

import pytest
import torch

from papers.smoke import smoke_run
from windeye.papers import efficient_probing
from windeye.papers.efficient_probing import judgement, plan, probes, scenes
from windeye.papers.efficient_probing.encoders import Encoders, Tokens, tokens
from windeye.papers.efficient_probing.judgement import SUFFIX
from windeye.papers.experiment import Run
from windeye.report import Recorder, Row

SMALL = plan.PLANS["smoke"]
GOOD = {
    plan.CLASS: 40.0, plan.MEAN: 50.0, plan.ep(1): 60.0, plan.ep(4): 75.0, plan.ep(8): 80.0, plan.ep(16): 82.0,
    plan.HEADS: 80.5, plan.SIMPOOL: 70.0, plan.ABMILP: 70.0, plan.NEAREST: 30.0,
    plan.CLASS + SUFFIX: 85.0, plan.MEAN + SUFFIX: 84.0, plan.ep(8) + SUFFIX: 88.0,
}  # fmt: skip


def rows(changed=(), size=18_698, on=0.4, area=0.13, before=0.99, after=0.5):
    """Rows under which the rule holds, but for the changes."""
    made = []
    for arm, value in {**GOOD, **dict(changed)}.items():
        made.append(Row(arm, judgement.ACCURACY, value if isinstance(value, tuple) else (value,) * 3))
    made += [Row(plan.MATCHED, judgement.PARAMETERS, (size,)), Row(plan.HEADS, judgement.PARAMETERS, (66_954.0,))]
    made += [Row(plan.MATCHED, judgement.COVERAGE, (0.4, 0.4, on)), Row(plan.MATCHED, judgement.COVERED, (area,) * 3)]
    for arm in judgement.SEVERAL:
        made += [Row(arm, judgement.UNTRAINED, (before,) * 3), Row(arm, judgement.OVERLAP, (0.5, after, 0.5))]
    return made


def failed(made):
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(efficient_probing, tmp_path_factory.mktemp("efficient_probing"))


@pytest.fixture(scope="module")
def read():
    """Tokens in which one patch, anywhere, says the digit, among patches that say nothing."""

    def of(number, seed):
        random = torch.Generator().manual_seed(seed)
        digits = torch.randint(10, (number,), generator=random)
        place = torch.randint(9, (number, 1), generator=random)
        patches = torch.randn(number, 9, 16, generator=random)
        covered = torch.zeros(number, 9, dtype=torch.bool).scatter(1, place, True)
        patches[covered] = 4.0 * torch.nn.functional.one_hot(digits, 16).float()
        patches[covered, 15] = 6.0
        return Tokens(patches.mean(1, keepdim=True), patches, digits, covered)

    return of(1200, 0), of(200, 1), of(300, 2)


def test_every_arm_leaves_its_numbers(smoke):
    evidence = smoke.evidence
    for arm in (*plan.POOLS, *(name + SUFFIX for name in plan.LABELLED)):
        assert 0 <= evidence.row(arm, judgement.ACCURACY).mean <= 100
        assert evidence.row(arm, judgement.TIME).mean > 0
    assert 0 <= evidence.row(plan.NEAREST, judgement.ACCURACY).mean <= 100
    for queries in plan.QUERIES:
        assert 0 < evidence.row(plan.ep(queries), judgement.COVERAGE).mean < 1
    for name in judgement.NAMES.values():
        assert evidence.row(name, judgement.STAGES.format(1)).mean > 0
    assert evidence.checks == judgement.checks(evidence.rows)
    assert evidence.verdict == judgement.verdict(evidence.rows)


def test_sizes_are_those_of_the_specification():
    """``D^2 + M D`` for efficient probing, ``4 D^2 + D`` for cross-attention, and ``10 D + 10`` for the classifier."""
    dim = plan.PLANS["default"].dim
    classifier = 10 * dim + 10
    sizes = {
        arm: sum(p.numel() for p in probes.fresh(arm, plan.PLANS["default"], 0).parameters()) for arm in plan.POOLS
    }
    for queries in plan.QUERIES:
        assert sizes[plan.ep(queries)] == dim**2 + queries * dim + classifier
    assert sizes[plan.HEADS] == 4 * dim**2 + dim + classifier
    assert sizes[plan.CLASS] == sizes[plan.MEAN] == classifier
    assert sizes[plan.MATCHED] / sizes[plan.HEADS] <= judgement.SMALL


def test_a_finished_part_is_read_back_and_an_encoder_goes_on(tmp_path, monkeypatch):
    def run():
        recorder = Recorder(tmp_path / "parts.jsonl", {"paper": "efficient-probing"})
        return efficient_probing.experiment(Run("smoke", (0,), recorder=recorder, command="again"))

    real, asked = efficient_probing.probe, []

    def dying(arm, *rest):
        asked.append(arm)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(arm, *rest)

    monkeypatch.setattr(efficient_probing, "probe", dying)
    with pytest.raises(KeyboardInterrupt):
        run()
    first = run()
    assert asked[:4] == [*list(plan.POOLS)[:3], list(plan.POOLS)[2]]
    monkeypatch.setattr(efficient_probing, "probe", None)
    assert run().rows == first.rows
    assert len(list(tmp_path.glob("encoders-*/*/checkpoint"))) == 2


class TestScenes:
    def test_they_follow_from_their_generator(self):
        first, again = (scenes.scenes(3, torch.Generator().manual_seed(5)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))

    def test_no_digit_is_in_two_splits(self, monkeypatch):
        scans, values = scenes.glyphs()
        monkeypatch.setattr(scenes, "glyphs", lambda: (scans, torch.arange(len(values))))
        seen = {
            split: set(scenes.scenes(300, torch.Generator().manual_seed(0), split).digits.tolist())
            for split in scenes.SCANS
        }
        assert not seen["train"] & seen["check"] | seen["check"] & seen["test"] | seen["train"] & seen["test"]
        assert all(len(digits) > 100 for digits in seen.values())
        assert min(seen["test"]) >= 1297

    def test_no_photograph_is_seen_in_both_halves(self):
        for left, right in zip(scenes.photographs(False), scenes.photographs(True), strict=True):
            assert left.shape[0] == right.shape[0]
            assert min(left.shape[1], right.shape[1]) > scenes.SIDE
        whole = torch.cat([scenes.photographs(False)[0], scenes.photographs(True)[0]], dim=1)
        assert whole.shape == (512, 512)

    def test_covered_patches_are_where_ink_is(self, monkeypatch):
        monkeypatch.setattr(scenes, "cut_outs", lambda number, *_, **__: torch.zeros(number, 48, 48))
        images, _, covered = scenes.scenes(20, torch.Generator().manual_seed(1))
        ink = (images[:, 0] * scenes.SPREAD + scenes.MEAN).unflatten(2, (8, 6)).unflatten(1, (8, 6))
        assert torch.equal(covered, (ink.amax((2, 4)) >= scenes.INK).flatten(1))
        assert 4 <= covered.sum(1).min() <= covered.sum(1).max() <= 16

    def test_a_digit_can_be_read(self):
        scans, values = scenes.glyphs()
        assert scans.shape == (1797, 16, 16)
        assert 0 <= scans.min() < scans.max() <= 1
        assert values.unique().tolist() == list(range(10))


def test_tokens_are_those_of_the_last_block_and_of_a_frozen_encoder():
    encoders = Encoders(SMALL, 0, "cpu", None)
    encoder = encoders.trained("masked").encoder
    before = [p.clone() for p in encoder.parameters()]
    found = tokens(encoder, 5, 0, "test", "cpu")
    assert found.first.shape == (5, 1, 16)
    assert found.patches.shape == (5, 64, 16)
    assert not found.patches.requires_grad
    probes.probe(plan.MATCHED, SMALL, 0, *encoders.tokens("masked").values())
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))


def test_queries_find_the_patch_that_tells_where_its_mean_does_not(read):
    setting = plan.Plan(**{**vars(SMALL), "probe_steps": 150, "probe_batch": 64, "rates": (1e-4, 1e-2)})
    found = probes.probe(plan.ep(4), setting, 0, *read)
    poor = probes.probe(plan.MEAN, setting, 0, *read)
    assert found["accuracy"] > 90 > 75 > poor["accuracy"] > 20
    assert found["rate"] == 1e-2
    assert found["coverage"] > 2 * found["covered"]
    assert found["covered"] == pytest.approx(1 / 9)
    assert found["overlap"] != found["untrained"] > 0.9


def test_coverage_is_the_share_of_attention_on_the_digit():
    maps = torch.rand(3, 4, 9).softmax(-1)
    covered = torch.rand(3, 9) < 0.5
    on = [maps[scene, :, covered[scene]].sum(-1).mean() for scene in range(3)]
    assert probes.coverage(maps, covered) == pytest.approx(torch.stack(on).mean().item(), abs=2e-6)


def test_neighbours_name_what_their_means_tell(read):
    """The class of a patch of ten is in its mean, behind noise."""
    assert 20 < probes.neighbours(*read) < 90


def test_the_rule_holds_where_it_should():
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


EP = plan.MATCHED


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"changed": {plan.HEADS: 81.5}}, f"{EP}: at most 1 point below {plan.HEADS}"),
        ({"size": 30_000}, "at a third of its trained parameters or fewer"),
        ({"changed": {plan.CLASS: (40.0, 40.0, 76.0)}}, f"{EP}: at least 5 points above {plan.CLASS}, every seed"),
        ({"changed": {plan.MEAN: (50.0, 76.0, 50.0)}}, f"{EP}: at least 5 points above {plan.MEAN}, every seed"),
        ({"changed": {plan.ep(1): (60.0, 60.0, 83.0)}}, "more queries name more: 16 above 1, every seed"),
        ({"changed": {plan.ep(16): 96.0}}, "and ever fewer more: the last step gains less than the first"),
        ({"on": 0.12}, "attention seeks the digit, every seed"),
        ({"after": 0.995}, "maps overlap less after training, every arm and seed"),
        (
            {"changed": {plan.CLASS + SUFFIX: 45.0}},
            f"{EP} gains less over the class token where labels trained it",
        ),
    ],
)
def test_each_gate_can_fail(changed, demand):
    made = rows(**changed)
    assert failed(made) == [demand]
    assert judgement.verdict(made) == "not shown"


def test_a_margin_that_is_met_exactly_counts():
    assert failed(rows({plan.HEADS: 81.0, plan.CLASS: 75.0, plan.MEAN: 75.0})) == []


def test_it_is_opposite_only_below_both_linear_probes_with_every_seed():
    high = {plan.CLASS: 85.0, plan.MEAN: (85.0, 85.0, 81.0)}
    assert judgement.verdict(rows(high)) == "opposite"
    assert judgement.verdict(rows(high | {plan.MEAN: (85.0, 85.0, 80.0)})) == "not shown"
