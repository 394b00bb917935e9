"""The experiment of circuit-reuse: what its parts measure, and its rule."""

import pytest
import torch

from papers.smoke import smoke_run
from windeye.data.tasks import ContrastBatch, PairLists
from windeye.models import AttentionSpec, DecoderConfig, DecoderLM
from windeye.papers import circuit_reuse, registry
from windeye.papers.card import find
from windeye.papers.circuit_reuse import judgement, real, speed, toy
from windeye.papers.circuit_reuse.judgement import (
    ACCURACY,
    AGREED,
    FIRST,
    FREE,
    FROZEN,
    HALF,
    NEXT,
    REAL,
    SPEED,
    TOY,
)  # fmt: skip
from windeye.papers.circuit_reuse.plan import PLANS
from windeye.report import Row

GOOD = {ACCURACY: 1.0, FIRST: 1.0, FREE: 0.85, NEXT: 0.05, FROZEN: 0.3, AGREED: 0.95}


NAMED = {"accuracy": ACCURACY, "first": FIRST, "free": FREE, "other": NEXT, "frozen": FROZEN, "agreed": AGREED}


def rows(**changed):
    """Rows under which the rule holds, but for the changes."""
    found = GOOD | {NAMED[name]: value for name, value in changed.items()}
    values = {metric: v if isinstance(v, tuple) else (v,) * 3 for metric, v in found.items()}
    return [Row(HALF if metric == AGREED else TOY, metric, value) for metric, value in values.items()]


def failed(made):
    return [check.demand for check in judgement.checks(made) if not check.held]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    pytest.importorskip("transformers")
    return smoke_run(circuit_reuse, tmp_path_factory.mktemp("circuit_reuse"))


class TestRun:
    def test_it_leaves_rows_a_verdict_and_a_picture(self, smoke):
        evidence = smoke.evidence
        assert evidence.verdict == judgement.verdict(evidence.rows)
        assert evidence.row(SPEED, "largest difference of the two").mean < 1e-5
        assert 0 <= evidence.row(TOY, ACCURACY).mean <= 1
        assert evidence.pictures[0].content.startswith("<svg")

    def test_equal_seeds_leave_equal_outcomes(self):
        one, other = (toy.learn(PLANS["smoke"].toy, 3, "cpu", lambda _: None) for _ in range(2))
        assert one | {"seconds": 0} == other | {"seconds": 0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DecoderLM(DecoderConfig(29, 32, (AttentionSpec(4),) * 3, glu_dim=32, init_std=0.3)).eval()


class TestToy:
    def test_attention_to_the_key_is_that_of_the_map(self, model):
        ids = PairLists().contrasts(5, seed=1).clean
        found = toy.previous_token(model, ids)
        with torch.no_grad():
            mixer = model.blocks[0].mixer
            query, key, _ = mixer.project(model.blocks[0].mixer_norm(model.embedding(ids)), torch.arange(13)[None])
            scores = torch.einsum("bqhc,bkhc->bhqk", query, key) / 8**0.5
            weights = scores.masked_fill(torch.ones(13, 13).triu(1).bool(), -torch.inf).softmax(-1)
        expected = torch.stack([weights[:, :, place, place - 1] for place in range(1, 13, 2)]).mean((0, 1))
        torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)

    def test_wrong_values_are_all_values_but_the_answer(self):
        prompts = PairLists().contrasts(50, seed=2)
        places = toy.wrong_values(prompts)
        assert places.shape == (50, 5)
        values = prompts.clean.gather(1, places)
        assert (values >= 6).all()
        assert (values != prompts.answers[:, :1]).all()

    def test_a_repair_with_no_head_is_the_model_itself(self, model):
        prompts = PairLists().contrasts(20, seed=3)
        found = toy.repair(model, prompts, seed=0)
        with torch.no_grad():
            named = model(prompts.clean[10:])[:, -1].argmax(-1)
        assert found["plain"] == (named == prompts.answers[10:, 0]).double().mean().item()

    def test_in_the_last_layer_without_mlps_an_edit_is_its_direct_effect(self):
        torch.manual_seed(1)
        bare = DecoderLM(DecoderConfig(29, 32, (AttentionSpec(4),) * 2, init_std=0.3))
        found = toy.repair(bare, PairLists().contrasts(20, seed=3), seed=0)
        torch.testing.assert_close(torch.tensor(found["direct"][-1]), torch.tensor(found["change"][-1]))
        assert found["direct"][0] != found["change"][0]


class TestReal:
    def test_a_head_that_writes_what_it_sees_with_a_minus_sign_repairs(self):
        """One head that writes minus what it sees: looking at the wrong colours it lowers them."""
        config = DecoderConfig(40, 40, (AttentionSpec(1, rotary_base=None),), norm="none")
        bare = DecoderLM(config)
        with torch.no_grad():
            bare.embedding.weight.copy_(torch.eye(40))
            bare.blocks[0].mixer.qkv_proj.weight.zero_()
            bare.blocks[0].mixer.qkv_proj.weight[80:].copy_(torch.eye(40))
            bare.blocks[0].mixer.out_proj.weight.copy_(-torch.eye(40))
        colours = 10 + torch.stack([torch.randperm(30)[:3] for _ in range(60)])
        wrong = torch.tensor([[1, 2]] * 60)
        places = {f"colour{i}": torch.full((60,), i) for i in range(3)}
        clean = torch.cat((colours, torch.full((60, 1), 3)), dim=1)
        batch = ContrastBatch(clean, clean, colours[:, :2], places=places)
        accuracy, among = real.repaired(bare, batch, colours, wrong, [[], [(0, 0)]])
        assert accuracy == [0, 0]
        assert among[1] == 1

    def test_chance_of_sharing_is_that_of_drawing_without_replacement(self):
        """Two of five heads, in two stages: none is shared with probability (3 / 10) ** 2."""
        assert real.by_chance(1, 2, 5, 200_000) == pytest.approx(1 - 0.09, abs=0.005)
        assert real.by_chance(4, 2, 5, 200_000) == pytest.approx(0.01, abs=0.002)

    def test_rank_correlation_is_scipys(self):
        from scipy.stats import spearmanr

        torch.manual_seed(0)
        a = torch.randn(6, 9)
        b = a + torch.randn(6, 9)
        rho, p = real.spearman(a, b, 2000)
        assert rho == pytest.approx(spearmanr(a.flatten(), b.flatten()).statistic, abs=1e-6)
        assert p < 0.01

    def test_suspects_are_the_largest_senders_and_the_head_that_speaks_against(self):
        task = {"queries": [[0.1, -0.4], [0.3, 0.2]], "logits": [[0.5, 0.1], [-0.2, 0.0]]}
        assert real.suspects(task, 2) == [(0, 1), (1, 1), (1, 0)]

    def test_a_share_of_the_heads_is_rounded_up(self):
        assert len(real.important(torch.randn(30, 9), 0.02)) == 6


class TestSpeed:
    def test_prompts_of_words_have_62_of_them(self):
        prompts = speed._prompts(PLANS["default"].speed)
        assert prompts.clean.shape == (100, 62)
        assert ((prompts.clean != prompts.corrupt).sum(1) == 1).all()
        assert int(prompts.clean.max()) < PLANS["default"].speed.vocab_size


class TestRule:
    def test_it_holds_where_it_should(self):
        assert failed(rows()) == []
        assert judgement.verdict(rows()) == "shown"

    @pytest.mark.parametrize(
        ("changed", "demand"),
        [
            ({"accuracy": (1.0, 1.0, 0.98)}, "keys are looked up: at least 99% with every seed"),
            ({"first": (1.0, 1.0, 0.0)}, "the previous-token head ranks first with every seed"),
            ({"free": 0.4, "frozen": 0.1}, "its effect is at least 0.5"),
            ({"other": 0.2}, "and at least 5 times that of any other head"),
            ({"frozen": 0.7}, "with MLPs frozen at most 0.8 of it are left, less with every seed"),
            ({"frozen": (0.9, 0.1, 0.1)}, "with MLPs frozen at most 0.8 of it are left, less with every seed"),
            ({"agreed": 0.85}, "edits change the logits as their direct effects say: at least 90% of heads"),
        ],
    )
    def test_each_gate_can_fail(self, changed, demand):
        assert failed(rows(**changed)) == [demand]
        assert judgement.verdict(rows(**changed)) == "not shown"

    def test_it_is_opposite_only_if_another_head_is_first_with_every_seed_of_a_model_that_has_learned(self):
        assert judgement.verdict(rows(first=0.0)) == "opposite"
        assert judgement.verdict(rows(first=(0.0, 0.0, 1.0))) == "not shown"
        assert judgement.verdict(rows(first=0.0, accuracy=0.5)) == "not shown"


class TestEvidence:
    def test_the_closed_form_is_at_least_fifty_times_faster(self):
        evidence = registry.evidence_of(find("circuit-reuse"))
        assert evidence.row(SPEED, "times faster, MLPs frozen").mean >= 50
        assert evidence.row(SPEED, "times faster, MLPs free").mean >= 50

    def test_what_two_tasks_share_was_measured_on_a_real_model(self):
        evidence = registry.evidence_of(find("circuit-reuse"))
        assert 0 <= evidence.row(REAL, "as many shared by chance, p").mean <= 1
