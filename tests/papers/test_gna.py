"""The experiment of Generalized Neighborhood Attention: its arms, its measures, and its rule."""

from __future__ import annotations

import pytest
import torch

import windeye
from papers.smoke import Smoke, smoke_run
from windeye.kernels.softmax.cpu import visited_pairs
from windeye.papers import card, denoiser, gna, registry
from windeye.papers.gna import effect, judgement, speed
from windeye.report import Row, evidence_page

SMALL = (speed.Case((12, 12), (4, 4), 2, ()), speed.Case((4, 6, 6), (2, 3, 3), 2, ()))
"""Grids that are timed in no time."""

COSTS = {
    "W=8 s=1": (3.0, 5.0, 10.0, 28.0, 36.0),
    "W=8 s=2": (3.0, 5.0, 10.2, 28.0, 36.0),
    "W=8 s=4": (3.4, 5.4, 10.4, 28.0, 36.0),
    "W=8 s=8": (6.5, 8.7, 13.3, 28.0, 36.0),
}
BORDERS = {"W=8 s=1": 6.0, "W=8 s=2": 6.1, "W=8 s=4": 6.3, "W=8 s=8": 14.0}
PREDICTED = {
    case.name(stride): value
    for case, values in zip(speed.CASES, ((6.9, 7.3, 8.2, 9.2, 8.3), (7.1, 8.0, 9.1, 9.1)), strict=True)
    for stride, value in zip(case.strides, values, strict=True)
}
SPEEDS = {
    case.name(stride): value
    for case, values in zip(speed.CASES, ((4.5, 5.0, 6.5, 7.5, 6.6), (4.6, 6.4, 7.3, 7.2)), strict=True)
    for stride, value in zip(case.strides, values, strict=True)
}


def rows(**changed: dict[str, object]) -> tuple[Row, ...]:
    """Rows under which the rule holds, but for the changes: one number per t and arm, or one per seed."""
    made = []
    for arm, costs in (COSTS | changed.get("costs", {})).items():
        for t, value in zip(effect.TIMES, costs, strict=True):
            values = value if isinstance(value, tuple) else (value, value, value)
            made.append(Row(arm, judgement.increase(t), values, "%"))
    for arm, value in (BORDERS | changed.get("borders", {})).items():
        made.append(Row(arm, judgement.BORDER, (value, value, value), "%"))
    for case in speed.CASES:
        for stride in case.strides:
            name = case.name(stride)
            measured = (SPEEDS | changed.get("speeds", {}))[name]
            made.append(Row(name, judgement.SPEEDUP, (measured, measured, measured), "x"))
            made.append(Row(name, judgement.SIMULATED, (PREDICTED[name],), "x"))
            made.append(Row(name, judgement.BOUND, (9.2,), "x"))
    return tuple(made)


def failed(made: tuple[Row, ...]) -> list[str]:
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "CASES", SMALL)
        return smoke_run(gna, tmp_path_factory.mktemp("gna"))


def test_smoke_has_every_arm_at_every_noise(smoke: Smoke) -> None:
    evidence = smoke.evidence
    for name in effect.attentions(0):
        for t in effect.TIMES:
            assert evidence.row(name, judgement.increase(t) if name != "dense" else f"held-out loss at t={t}").n == 1
    for case in SMALL:
        for stride in case.strides:
            assert evidence.row(case.name(stride), judgement.SPEEDUP).mean > 0
    assert len(smoke.parts) == 1 + len(SMALL)
    assert len(evidence.checks) == 10
    assert [picture.content[:5] for picture in evidence.pictures] == ["<svg ", "data:", "<svg "]
    assert "How fast" in evidence_page(evidence)


def test_paired_differences_are_rows(smoke: Smoke) -> None:
    evidence = smoke.evidence
    gap = evidence.row("W=8 s=8 minus s=1", "paired difference at t=0.4").mean
    expected = [evidence.row(f"W=8 s={s}", judgement.increase(0.4)).mean for s in (8, 1)]
    assert gap == pytest.approx(expected[0] - expected[1])


# The arms


def test_every_arm_sees_as_many_keys_as_it_says() -> None:
    eye = torch.eye(256).reshape(1, 16, 16, 1, 256)
    flat = torch.zeros(1, 16, 16, 1, 256)
    for name, attention in effect.attentions(0).items():
        seen = attention(flat, flat, eye)[0, :, :, 0].flatten(0, 1) > 0
        size = 16 if name == "dense" else 8 if name in (effect.RANDOM, effect.SHUFFLED) else int(name[2])
        assert (seen.sum(dim=1) == size * size).all(), name
        assert seen.diagonal().all(), name


def test_blocked_windows_are_a_partition_and_stride_one_is_not() -> None:
    def windows(stride: int) -> int:
        return len(windeye.Neighborhood(8, stride=stride).bind((16, 16)).mask().unique(dim=0))

    assert [windows(stride) for stride in (1, 2, 4, 8)] == [81, 36, 16, 4]


def test_shuffled_windows_are_the_same_windows_on_other_places() -> None:
    mask = effect.shuffled_keys(torch.Generator().manual_seed(1))
    truth = windeye.Neighborhood(8).bind((16, 16)).mask()
    assert not torch.equal(mask, truth)
    assert torch.equal(mask.sum(dim=0).sort().values, truth.sum(dim=0).sort().values)
    rows, columns = torch.arange(256) // 16, torch.arange(256) % 16
    far = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs()) > 8
    assert not truth[far].any()
    assert mask[far].float().mean() > 0.1


def test_random_keys_follow_the_seed() -> None:
    first, second, other = (effect.random_keys(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_arms_share_crops_and_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that is dense under another name has dense errors, and evaluation repeats itself."""
    arms = {"dense": denoiser.dense, "again": denoiser.dense, "whole": denoiser.masked(None)}
    monkeypatch.setattr(effect, "attentions", lambda _seed, _device: arms)
    torch.manual_seed(0)
    model = denoiser.Denoiser(1)
    torch.nn.init.normal_(model.head.weight)
    images = denoiser.photographs(only_shipped=True)
    first, second = (effect.replace(model, images, 3, 5, "cpu", lambda _: None) for _ in range(2))
    assert first == second
    assert first["dense"] == first["again"] == first["whole"]
    other = effect.replace(model, images, 3, 6, "cpu", lambda _: None)
    assert other["dense"] != first["dense"]


def test_a_window_of_the_whole_grid_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect, "STRIDES", {16: (1, 5, 16), 8: (8,)})
    torch.manual_seed(0)
    model = denoiser.Denoiser(1)
    for layer in model.layers:
        torch.nn.init.normal_(layer.modulation.weight, std=0.3)
    torch.nn.init.normal_(model.head.weight)
    images = denoiser.photographs(only_shipped=True)
    outcome = effect.Outcome(errors=effect.replace(model, images, 2, 0, "cpu", lambda _: None), last=0.0, seconds=0.0)
    for stride in (1, 5, 16):
        assert effect.cost(outcome, effect.arm(16, stride)).abs().max() < 0.01
    assert effect.cost(outcome, effect.arm(8, 8)).abs().max() > 0.05


# The measures


def outcome(dense: torch.Tensor, **arms: torch.Tensor) -> effect.Outcome:
    maps = {"dense": dense, **arms}
    return effect.Outcome(errors={n: [m.flatten().tolist()] * 5 for n, m in maps.items()}, last=0.0, seconds=0.0)


def test_cost_is_relative_in_percent() -> None:
    found = effect.cost(outcome(torch.full((16, 16), 0.5), a=torch.full((16, 16), 0.6)), "a")
    assert torch.allclose(found, torch.full((5,), 20.0, dtype=torch.float64))


def test_cost_next_to_borders_is_of_those_tokens_alone() -> None:
    near = effect.next_to_borders(8)
    made = outcome(torch.ones(16, 16), a=torch.ones(16, 16) + 0.5 * near)
    assert effect.cost(made, "a", near)[0].item() == pytest.approx(50)
    assert effect.cost(made, "a", ~near)[0].item() == pytest.approx(0)
    assert effect.cost(made, "a")[0].item() == pytest.approx(50 * 60 / 256)


@pytest.mark.parametrize("size", [4, 6, 8])
def test_tokens_next_to_borders_have_a_neighbour_in_another_block(size: int) -> None:
    block = torch.arange(16) // size
    row, column = torch.meshgrid(block, block, indexing="ij")
    label = 100 * row + column
    other = torch.zeros(16, 16, dtype=torch.bool)
    for axis in (0, 1):
        for step in (1, -1):
            beside = label.roll(step, axis)
            edge = torch.arange(16) == (0 if step == 1 else 15)
            outside = edge[:, None] if axis == 0 else edge[None]
            other |= (beside != label) & ~outside
    assert torch.equal(effect.next_to_borders(size), other)


def test_the_windows_of_the_speed_part_are_about_a_ninth() -> None:
    for case in speed.CASES:
        for stride in case.strides:
            bound = windeye.Neighborhood(case.window, stride=stride).bind(case.grid)
            assert 8.5 < 1 / bound.density() < 9.5


def test_the_simulator_finds_that_stride_t_needs_no_masks() -> None:
    for case in speed.CASES:
        bound = 1 / windeye.Neighborhood(case.window).bind(case.grid).density()
        one, fitting = case.strides[0], (case.tile,) * len(case.grid)
        assert speed.simulated(case, fitting) == pytest.approx(bound)
        assert speed.simulated(case, one) < 0.95 * bound
        assert speed.counted(case, one) <= speed.simulated(case, one) * 1.0001


def test_counted_pairs_are_those_that_the_kernel_says_it_computes() -> None:
    for case in speed.CASES:
        for stride in case.strides:
            bound = windeye.Neighborhood(case.window, stride=stride).bind(case.grid)
            computed = visited_pairs(bound, torch.float32)
            assert speed.counted(case, stride) == pytest.approx(bound.tokens**2 / computed)
            assert computed >= bound.pairs()


def test_rank_correlation() -> None:
    assert judgement.rank_correlation([1, 2, 3, 4], [5, 6, 7, 9]) == 1
    assert judgement.rank_correlation([1, 2, 3, 4], [9, 7, 6, 5]) == -1
    assert judgement.rank_correlation([1, 1, 3], [1, 2, 3]) == pytest.approx(0.866025404)


# The rule


def test_shown_when_all_holds() -> None:
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"costs": {"W=8 s=2": (3.0, 5.7, 10.0, 28.0, 36.0)}}, "stride 2 at most 0.6"),
        ({"costs": {"W=8 s=4": (3.0, 5.0, 10.7, 28.0, 36.0)}}, "stride 4 at most 0.6"),
        ({"costs": {"W=8 s=8": (4.9, 8.7, 13.3, 28.0, 36.0)}}, "blocked at least 2.0"),
        ({"costs": {"W=8 s=8": (6.5, 8.7, 13.3, 18.0, 36.0)}}, "at most half"),
        ({"costs": {"W=8 s=2": (3.0, 5.0, 10.2, 11.0, 36.0)}}, "at most half"),
        ({"borders": {"W=8 s=4": 14.0}}, "next to block borders"),
        ({"speeds": {"64x64 W=21x21 s=1x1": 5.1}}, "64x64: stride 8 is 1.5 times"),
        ({"speeds": {"16x32x32 W=8x15x15 s=1x1x1": 4.9}}, "16x32x32: stride 4 is 1.5 times"),
        ({"speeds": {"64x64 W=21x21 s=8x8": 4.5, "64x64 W=21x21 s=1x1": 2.0}}, "64x64: stride 8 reaches 50%"),
        ({"speeds": {"64x64 W=21x21 s=21x21": 3.0}}, "Spearman"),
    ],
)
def test_each_gate_prevents_shown(changed: dict[str, dict[str, object]], demand: str) -> None:
    made = rows(**changed)
    broken = failed(made)
    assert any(demand in text for text in broken)
    assert all(demand in text or "Spearman" in text for text in broken)
    assert judgement.verdict(made) == "not shown"


def test_margins_are_inclusive() -> None:
    assert judgement.verdict(rows(costs={"W=8 s=2": (3.6, 5.6, 10.6, 28.0, 36.0)})) == "shown"
    assert judgement.verdict(rows(costs={"W=8 s=8": (5.0, 7.0, 12.0, 28.0, 36.0)})) == "shown"
    assert judgement.verdict(rows(costs={"W=8 s=8": (5.0, 7.0, 12.0, 16.0, 36.0)})) == "shown"


def test_an_intermediate_stride_may_be_better() -> None:
    assert judgement.verdict(rows(costs={"W=8 s=2": (1.0, 2.0, 7.0, 28.0, 36.0)})) == "shown"


def test_seeds_are_averaged_before_the_gates() -> None:
    spread = (2.0, 3.0, 4.0)
    assert judgement.verdict(rows(costs={"W=8 s=2": (spread, 5.0, 10.2, 28.0, 36.0)})) == "shown"


def test_opposite_needs_every_noise_every_seed_and_the_margin() -> None:
    assert judgement.verdict(rows(costs={"W=8 s=8": (1.0, 3.0, 8.0, 28.0, 36.0)})) == "opposite"
    assert judgement.verdict(rows(costs={"W=8 s=8": (1.5, 3.0, 8.0, 28.0, 36.0)})) == "not shown"
    one_seed = (1.0, 3.0, (6.0, 6.0, 10.0), 28.0, 36.0)
    assert judgement.verdict(rows(costs={"W=8 s=8": one_seed})) == "not shown"


def test_other_windows_and_controls_decide_nothing() -> None:
    others = dict.fromkeys(("W=6 s=6", "W=4 s=1", effect.RANDOM, effect.SHUFFLED), (0.0,) * 5)
    assert judgement.verdict(rows(costs=others)) == "shown"


def test_a_missing_row_is_an_error() -> None:
    for metric in (judgement.increase(0.8), judgement.BORDER, judgement.SPEEDUP, judgement.SIMULATED):
        with pytest.raises(KeyError):
            judgement.verdict(tuple(row for row in rows() if row.metric != metric))


# The committed run


def test_the_argument_is_true_of_the_committed_run() -> None:
    evidence = registry.evidence_of(card.find("gna"))
    assert evidence is not None
    assert evidence.verdict == judgement.verdict(evidence.rows) == "not shown"
    broken = [check.demand for check in judgement.checks(evidence.rows) if not check.held]
    assert len(evidence.checks) == 10
    assert [text.split(":")[0] for text in broken[:-1]] == ["W=8", "64x64", "16x32x32"]
    assert "Spearman" in broken[-1]

    missed = {}
    for t in effect.CLEAN:
        gaps = evidence.row("W=8 s=8 minus s=1", f"paired difference at t={t}")
        assert min(gaps.values) > 0
        missed[t] = judgement.BEHIND - gaps.mean
        if t == 0.2:
            assert 0 < missed[t] < gaps.spread / gaps.n**0.5
    assert missed[0.4] < 0
    assert missed[0.6] < 0

    for case in speed.CASES:
        fitting, one = (
            [evidence.row(case.named(s), m).mean for m in (judgement.SIMULATED, judgement.SPEEDUP)]
            for s in (case.tile, 1)
        )
        assert fitting[0] / one[0] < judgement.FASTER
        assert fitting[1] / one[1] == pytest.approx(fitting[0] / one[0], abs=0.1)
        assert fitting[1] > 0.9 * evidence.row(case.named(case.tile), judgement.BOUND).mean
        simulated, measured = (
            [evidence.row(case.name(stride), m).mean for stride in case.strides]
            for m in (judgement.SIMULATED, judgement.SPEEDUP)
        )
        assert judgement.rank_correlation(simulated, measured) > judgement.RANKED
        assert 7 < min(simulated) <= max(simulated) < 10
