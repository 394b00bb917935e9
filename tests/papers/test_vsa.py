"""The experiment of varied-size windows: its scenes, its arms, and its rule."""

from __future__ import annotations

import pytest
import torch

from papers.smoke import smoke_run
from windeye.models.vision import HierarchicalBackbone
from windeye.papers import vsa
from windeye.report import evidence_page

ARMS = tuple(vsa.arms())


def outcomes(values):
    """An outcome per seed, of accuracies on small, middle and large digits."""
    return [
        vsa.Outcome(
            all=sum(v) / 3,
            small=v[0],
            middle=v[1],
            large=v[2],
            wider=v[0],
            growth=0.2,
            moved=0.1,
            last=0.5,
            seconds=1.0,
        )
        for v in values
    ]


HOLDS = {
    vsa.PLAIN: outcomes([(50, 50, 50)] * 3),
    vsa.CONTROL: outcomes([(60, 60, 60)] * 3),
    vsa.FROZEN: outcomes([(60, 60, 59), (60, 61, 60), (60, 60, 60)]),
    vsa.VARIED: outcomes([(61, 62, 64), (60, 61, 63), (62, 62, 63)]),
}


def judged(**changed):
    rows = vsa.made(HOLDS | {getattr(vsa, name): outcomes(values) for name, values in changed.items()})
    return vsa.verdict(rows), [check.held for check in vsa.checks(rows)]


def test_the_rule_holds_where_every_gate_does():
    assert judged() == ("shown", [True] * 4)


@pytest.mark.parametrize(
    ("varied", "gates", "verdict"),
    [
        ([(60, 60, 61)] * 3, [False, True, True, True], "not shown"),
        ([(66, 66, 68), (66, 66, 68), (59, 59, 61)], [True, False, True, True], "not shown"),
        ([(64, 62, 61)] * 3, [True, True, False, True], "not shown"),
        ([(58, 58, 58)] * 3, [False, False, False, True], "opposite"),
        ([(50, 50, 50), (50, 50, 50), (61, 61, 61)], [False, False, False, True], "not shown"),
    ],
)
def test_each_gate_can_fail(varied, gates, verdict):
    assert judged(VARIED=varied) == (verdict, gates)


def test_a_frozen_regression_that_does_not_tie_is_not_shown():
    assert judged(FROZEN=[(62, 62, 62)] * 3) == ("not shown", [True, True, True, False])


def test_digits_of_the_test_were_not_trained_on():
    known, new = vsa.digits()
    assert (len(known.labels), len(new.labels)) == (1297, 500)
    assert known.glyphs.min() == 0
    assert known.glyphs.max() == 1
    assert new.glyphs.shape[1:] == (8, 8)


def test_a_scene_holds_its_digit_where_it_says():
    """A scan of ones is a square of its size around its middle; what else is there is fainter."""
    ones = vsa.Digits(torch.ones(5, 8, 8), torch.arange(5))
    index = torch.tensor([0, 3, 4] * 20)
    found = vsa.scenes(ones, index, torch.Generator().manual_seed(0))
    assert torch.equal(found.labels, index)
    assert 1 <= found.sizes.min() < found.sizes.max() <= 3.5
    pixel = torch.arange(vsa.SIDE) + 0.5
    for image, size, (row, column) in zip(found.images[:, 0], found.sizes, found.middles, strict=True):
        half = 4 * size
        inside = ((pixel - row).abs() < half - size / 2)[:, None] & ((pixel - column).abs() < half - size / 2)[None]
        outside = ((pixel - row).abs() > half + size / 2)[:, None] | ((pixel - column).abs() > half + size / 2)[None]
        assert inside.any()
        torch.testing.assert_close(image[inside], torch.ones(int(inside.sum())))
        assert image[outside].max() <= vsa.FAINT + 1e-6
    assert found.images.shape == (60, 1, vsa.SIDE, vsa.SIDE)


def test_scenes_follow_from_their_seed():
    known, _ = vsa.digits()
    index = torch.arange(4)
    one, two, other = (vsa.scenes(known, index, torch.Generator().manual_seed(seed)).images for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_arms_start_with_the_same_weights_and_do_the_same_with_positions():
    networks = {arm: vsa.network(arm, seed=3).eval() for arm in ARMS}
    states = {arm: model.state_dict() for arm, model in networks.items()}
    for arm in ARMS:
        for name, tensor in states[arm].items():
            assert torch.equal(tensor, states[vsa.CONTROL].get(name, tensor)), (arm, name)
    images = torch.rand(3, 1, vsa.SIDE, vsa.SIDE)
    logits = networks[vsa.CONTROL](images)
    for arm in (vsa.FROZEN, vsa.VARIED):
        torch.testing.assert_close(networks[arm](images), logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(networks[vsa.PLAIN](images), logits)
    assert not torch.equal(
        states[vsa.CONTROL]["head.weight"], vsa.network(vsa.CONTROL, seed=4).state_dict()["head.weight"]
    )


def test_a_frozen_regression_does_not_learn_and_a_free_one_does():
    images = torch.rand(3, 1, vsa.SIDE, vsa.SIDE)
    for arm, learns in ((vsa.FROZEN, False), (vsa.VARIED, True)):
        model = vsa.network(arm, seed=0)
        model(images).square().sum().backward()
        regressions = [p for n, p in model.named_parameters() if "regress" in n]
        assert len(regressions) == 2 * 2 * vsa.DEPTH
        assert all((p.grad is not None and bool(p.grad.any())) == learns for p in regressions)


def test_windows_are_read_where_the_digit_is():
    model = vsa.network(vsa.VARIED, seed=0).eval()
    images, middles = torch.rand(4, 1, vsa.SIDE, vsa.SIDE), torch.tensor([[1.0, 1], [1, 30], [30, 1], [17, 17]])
    mixer = model.stages[0][-1].mixer
    fixed = torch.tensor([1.0, 0.0]).expand(4, 2)
    torch.testing.assert_close(vsa.windows_around(model, images, middles), fixed)
    with torch.no_grad():
        mixer.regress.bias.copy_(torch.tensor([0.6, -0.8, 1.0, -3.0]).repeat(mixer.heads))
    expected = torch.tensor([2.0, 1.0]).expand(4, 2)
    torch.testing.assert_close(vsa.windows_around(model, images, middles), expected)
    torch.nn.init.normal_(mixer.regress.weight)
    seen = []
    mixer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(images)
    numbers = mixer.regression(seen[0])[range(4), [0, 0, 3, 2], [0, 3, 0, 2]]
    sizes, shifts = (1 + numbers[..., 2:]).abs().mean(dim=(1, 2)), numbers[..., :2].square().sum(-1).sqrt().mean(1)
    found = vsa.windows_around(model, images, middles)
    torch.testing.assert_close(found, torch.stack((sizes, shifts), dim=1))
    assert torch.equal(vsa.windows_around(vsa.network(vsa.CONTROL, seed=0), images, middles), fixed)


def test_a_wider_canvas_holds_digits_of_the_same_sizes():
    ones = vsa.Digits(torch.ones(5, 8, 8), torch.arange(5))
    found = vsa.scenes(ones, torch.arange(5).repeat(40), torch.Generator().manual_seed(0), vsa.WIDER)
    assert found.images.shape == (200, 1, vsa.WIDER, vsa.WIDER)
    assert 1 <= found.sizes.min() < found.sizes.max() <= 3.5
    assert found.middles.max() > vsa.SIDE


def test_pixels_are_read_about_their_mean():
    known, _ = vsa.digits()
    images = vsa.scaled(vsa.scenes(known, torch.arange(1000), torch.Generator().manual_seed(0)).images)
    assert abs(images.mean()) < 0.1
    assert abs(images.std() - 1) < 0.1


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    x, y = torch.randn(2, 50)
    assert vsa.rank_correlation(x, y) == pytest.approx(float(spearmanr(x, y).statistic))
    assert vsa.rank_correlation(x, x.exp()) == pytest.approx(1)
    assert vsa.rank_correlation(x, torch.ones(50)) == 0


def test_a_smoke_run_has_every_arm(tmp_path):
    evidence = smoke_run(vsa, tmp_path).evidence
    assert {row.arm for row in evidence.rows if row.metric.endswith(", all") and "paired" not in row.metric} == {*ARMS}
    assert len(evidence.checks) == 4
    assert "<svg" in evidence_page(evidence)


def test_accuracies_of_a_run_are_shares_of_right_answers():
    """A network that always says 3 is right as often as there are threes."""

    class Three(HierarchicalBackbone):
        def forward(self, images):
            return torch.nn.functional.one_hot(torch.full((len(images),), 3), 10).float()

    _, new = vsa.digits()
    found = vsa.measure(Three(vsa.network(vsa.PLAIN, 0).config), new, 1, 0, "cpu")
    assert found["all"] == pytest.approx(100 * (new.labels == 3).float().mean().item())
    assert found["growth"] == found["moved"] == 0
