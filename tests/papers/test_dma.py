"""The experiment of dynamic mask attention: its arms, its measures, and its rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from oracles.attention import attention
from papers.smoke import Smoke, smoke_run
from windeye.data.sequences import IGNORED, Sequences
from windeye.data.tasks import MQAR
from windeye.nn import CausalAttention
from windeye.nn.rotary import rotate
from windeye.papers import dma
from windeye.papers.dma import arms, judgement, training
from windeye.papers.dma.arms import BEST, DMA, EQUAL, FULL, RANDOM, WINDOW, ChoosingAttention, EqualSpec
from windeye.papers.dma.judgement import ACCURACY, VALUES
from windeye.papers.dma.plan import PLANS
from windeye.report import Row, evidence_page

GOOD = {FULL: 0.98, WINDOW: 0.25, DMA: 0.97, BEST: 0.99, RANDOM: 0.55, EQUAL: 0.26}
SMOKE = PLANS["smoke"]


def rows(held: float = 0.95, **changed: object) -> tuple[Row, ...]:
    """Rows under which the rule holds, but for the changes: one number, or one per seed."""
    names = {"full": FULL, "window": WINDOW, "dma": DMA, "best": BEST, "random": RANDOM, "equal": EQUAL}
    values = GOOD | {names[name]: value for name, value in changed.items()}
    made = [
        Row(arm, ACCURACY, value if isinstance(value, tuple) else (value, value, value))
        for arm, value in values.items()
    ]
    return (*made, Row(DMA, VALUES, (held, held, held)))


def failed(made: tuple[Row, ...]) -> list[str]:
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    return smoke_run(dma, tmp_path_factory.mktemp("dma"))


def test_smoke_has_every_arm(smoke: Smoke) -> None:
    evidence = smoke.evidence
    assert {row.arm for row in evidence.rows if row.metric == ACCURACY} == {arm.name for arm in arms.ARMS}
    assert len(smoke.parts) == 2 * len(arms.ARMS)
    assert all(evidence.row(arm.name, "rate").mean in SMOKE.recall.rates for arm in arms.ARMS)
    assert all(0 <= evidence.row(DMA, metric).mean <= 1 for metric in (VALUES, judgement.KEYS, judgement.CHANCE))
    assert evidence.row(EQUAL, VALUES).n == 1
    assert evidence.verdict == judgement.verdict(evidence.rows)
    assert [picture.content[:4] for picture in evidence.pictures] == ["<svg"] * 3
    assert "From how far" in evidence_page(evidence)


def test_paired_differences_are_rows(smoke: Smoke) -> None:
    evidence = smoke.evidence
    gap = evidence.row(f"{DMA} minus {FULL}", "paired difference in recall").mean
    assert gap == pytest.approx(100 * (evidence.row(DMA, ACCURACY).mean - evidence.row(FULL, ACCURACY).mean))


def test_arms_of_a_seed_share_what_they_have_in_common() -> None:
    models = [SMOKE.recall.model((arm.mixer(SMOKE.keep),), seed=3) for arm in arms.ARMS]
    for model in models[1:]:
        assert torch.equal(model.embedding.weight, models[0].embedding.weight)
        for ours, theirs in zip(model.blocks[0].parameters(), models[0].blocks[0].parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_arms_differ_in_what_they_keep() -> None:
    sizes = {arm.name: SMOKE.recall.model((arm.mixer(SMOKE.keep),), seed=0).state_bytes(16) for arm in arms.ARMS}
    convolution = 4 * 2 * 16
    assert sizes[FULL] == sizes[BEST] == convolution + 4 * 2 * 16 * 16
    assert sizes[WINDOW] == convolution + 4 * 2 * 3 * 16
    assert sizes[DMA] == sizes[EQUAL] == convolution + 4 * (4 * 2 * 16 + 4 + 8)
    assert sizes[RANDOM] == convolution + 4 * 4 * 2 * 16


def heads(layer: ChoosingAttention, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    query, key, value = layer.qkv_proj(x).unflatten(-1, (3, 1, -1)).unbind(-3)
    where = torch.arange(x.shape[1])[None]
    return rotate(query, where), rotate(key, where), value


def test_the_best_logits_are_those_of_a_sort_per_query() -> None:
    layer = ChoosingAttention(8, keep=3, choice="logits").double()
    x = torch.randn(2, 11, 8, dtype=torch.float64)
    query, key, value = heads(layer, x)
    for b in range(2):
        logits = (query[b, :, 0] @ key[b, :, 0].T) / 8**0.5
        mask = torch.zeros(11, 11, dtype=torch.bool)
        for i in range(11):
            mask[i, logits[i, : i + 1].argsort()[-3:]] = True
        out, _ = attention(query[b : b + 1], key[b : b + 1], value[b : b + 1], mask, scale=8**-0.5)
        torch.testing.assert_close(layer(x)[b], layer.out_proj(out[0, :, 0]))


def test_with_room_for_all_both_controls_are_causal_attention() -> None:
    x = torch.randn(2, 11, 8)
    plain = CausalAttention(8, 1)
    for choice in ("logits", "random"):
        layer = ChoosingAttention(8, keep=11, choice=choice)
        layer.load_state_dict(plain.state_dict())
        torch.testing.assert_close(layer(x), plain(x))


def test_random_keys_are_causal_few_and_always_the_same() -> None:
    layer = ChoosingAttention(8, keep=3, choice="random").double()
    x = torch.randn(2, 40, 8, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    assert torch.equal(layer(x), out)
    seen = [int((torch.autograd.grad(out[0, i].sum(), x, retain_graph=True)[0][0] != 0).any(-1).sum()) for i in (5, 39)]
    assert all(count in (3, 4) for count in seen)  # the query's own token besides the keys


def test_a_control_refuses_a_state() -> None:
    layer = ChoosingAttention(8, keep=3, choice="random")
    _, state = layer(torch.randn(1, 5, 8), return_state=True)
    with pytest.raises(ValueError, match="chooses keys by random reads whole sequences, got a state"):
        layer(torch.randn(1, 1, 8), state=state)


def test_without_its_factor_the_mechanism_is_a_window() -> None:
    mixer = EqualSpec(keep=4).build(8, 0, 1)
    window = CausalAttention(8, 1, window=4)
    with torch.no_grad():
        window.qkv_proj.weight.copy_(torch.cat([p.weight for p in (mixer.q_proj, mixer.k_proj, mixer.v_proj)]))
        window.out_proj.weight.copy_(mixer.out_proj.weight)
    x = torch.randn(2, 20, 8)
    torch.testing.assert_close(mixer(x), window(x))
    mixer(x).sum().backward()
    assert mixer.A.grad is None
    assert not mixer.A.any()


class Remembering(torch.nn.Module):
    """Answers queries whose value is less than ``reach`` tokens behind, and no others."""

    def __init__(self, examples: Sequences, reach: int) -> None:
        super().__init__()
        self.examples, self.reach = examples, reach

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 32)
        for row, query in (self.examples.targets != IGNORED).nonzero().tolist():
            value = int((tokens[row] == self.examples.targets[row, query]).nonzero()[0])
            if query - value < self.reach:
                logits[row, query, tokens[row, value]] = 1.0
        return logits


def test_distances_are_counted_from_the_value() -> None:
    examples = MQAR(32, 16, 2, 1.0, "zero").sample(50, seed=1)
    hits, asked = training.by_distance(Remembering(examples, reach=6), examples, pairs=2)
    assert sum(asked) == 100
    assert hits[:3] == asked[:3]  # eighths of 16 tokens: distances 0 to 5
    assert hits[3:] == [0] * 5
    assert sum(asked[3:]) > 0
    assert judgement.distance(2, 16) == "recall over 4 to 5 tokens"


def test_what_is_held_is_what_the_cache_holds() -> None:
    examples = SMOKE.recall.held_out_examples(0)
    model = SMOKE.recall.model((EqualSpec(keep=4),), seed=0)
    share = torch.tensor(training.kept(model, examples))
    last = training.last_query(examples)
    expected = torch.zeros(16)
    for place in last.tolist():
        expected[place - 3 : place + 1] += 1 / len(last)
    torch.testing.assert_close(share, expected)
    assert training.kept(SMOKE.recall.model((arms.ARMS[0].mixer(4),), seed=0), examples) is None


def test_the_score_can_tell_pairs_from_the_rest() -> None:
    """With the factor and projection set by hand, tokens that are not empty are held."""
    examples = SMOKE.recall.held_out_examples(0)
    model = SMOKE.recall.model((arms.ARMS[2].mixer(4),), seed=0)
    mixer = model.blocks[1].mixer
    empty = torch.zeros(1, 16, dtype=torch.long)
    with torch.no_grad():
        hidden = model.blocks[1].mixer_norm(model.blocks[0](model.embedding(empty), None, None)[0])[0, -1]
        mixer.A.fill_(1.0)
        mixer.v_proj.weight.copy_(torch.eye(16))
        mixer.dt_proj.weight.copy_(-hidden[None])
    share = torch.tensor(training.kept(model, examples))
    assert share[:4].mean() > 3 * share[4:].mean()


def test_the_seed_of_the_pilot_is_refused() -> None:
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        training.train(arms.ARMS[0], SMOKE, -1, 1e-3, "cpu", lambda _share: None)


def test_training_repeats_itself() -> None:
    first, second = (training.train(arms.ARMS[2], SMOKE, 5, 1e-2, "cpu", lambda _share: None) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["factor"] != [0.0]


def test_shown_when_all_holds() -> None:
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"full": 1.03}, "at most 5 points below full"),
        ({"window": 0.7}, "at least 30 points above window"),
        ({"equal": 0.7}, "at least 30 points above DMA, A = 0"),
        ({"random": 0.8}, "at least 20 points above random keys"),
        ({"dma": (0.99, 0.99, 0.93), "random": (0.3, 0.3, 0.94)}, "at least 20 points above random keys"),
        ({"held": 0.89}, "holds at least 90% of the values"),
    ],
)
def test_each_gate_alone_prevents_shown(changed: dict[str, object], demand: str) -> None:
    made = rows(**changed)  # type: ignore[arg-type]
    broken = failed(made)
    assert len(broken) == 1
    assert demand in broken[0]
    assert judgement.verdict(made) == "not shown"


def test_margins_are_inclusive() -> None:
    assert judgement.verdict(rows(full=1.02)) == "shown"
    assert judgement.verdict(rows(window=0.67)) == "shown"
    assert judgement.verdict(rows(held=0.9)) == "shown"


def test_opposite_needs_every_seed_and_more_than_the_margin() -> None:
    assert judgement.verdict(rows(dma=0.1)) == "opposite"
    assert judgement.verdict(rows(dma=(0.1, 0.1, 0.26))) == "not shown"
    assert judgement.verdict(rows(dma=0.21)) == "not shown"


def test_best_logits_decide_nothing() -> None:
    assert judgement.verdict(rows(best=0.0)) == "shown"
    assert judgement.verdict(rows(dma=0.3, best=1.0)) == "not shown"


def test_a_missing_row_is_an_error() -> None:
    with pytest.raises(KeyError):
        judgement.verdict(tuple(row for row in rows() if row.arm != RANDOM))


def test_the_plan_drops_keys() -> None:
    for plan in PLANS.values():
        task = plan.recall.task
        assert plan.keep * 4 == task.length
        assert 3 * task.pairs <= plan.keep or plan is SMOKE
        assert task.filler == "zero"
        assert replace(task, power=1.0) == task
