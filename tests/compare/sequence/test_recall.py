"""The recall harness: arms are paired, training ends when it is good enough, and rates are chosen alike for all."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from windeye.compare.sequence import RecallPlan, choose_rate, train_recall
from windeye.compare.sequence.recall import Asked, accuracy, asked
from windeye.compare.sequence.skeleton import decoder
from windeye.compare.training import PILOT, chosen, trained
from windeye.data.tasks import IGNORED, MQAR
from windeye.models import AttentionSpec, DecoderLM, ProductConvolutionSpec, TaylorSpec
from windeye.ops import MemoryDiverged
from windeye.train import NonFinite

TASK = MQAR(vocabulary=32, length=16, pairs=2, power=1.0, filler="zero")
PLAN = RecallPlan(TASK, dim=16, steps=6, batch_size=4, held_out=20, every=2, rates=(1e-3, 1e-2))
SOFTMAX = (AttentionSpec(heads=1),)


class Lookup(nn.Module):
    """Names the token that followed the earlier occurrence of the same token: what MQAR asks for, by brute force."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, self.vocabulary)
        for row, sequence in enumerate(tokens.tolist()):
            for place, token in enumerate(sequence):
                earlier = [i for i in range(place) if sequence[i] == token]
                if earlier:
                    logits[row, place, sequence[earlier[0] + 1]] = 1.0
        return logits


def test_an_oracle_that_looks_keys_up_recalls_everything():
    for task in (TASK, RecallPlan().task, replace(TASK, length=24, pairs=6)):
        assert accuracy(Lookup(task.vocabulary), task.sample(8, seed=3, split="test")) == 1.0


def test_an_echo_of_the_query_recalls_nothing():
    echo = nn.Embedding.from_pretrained(50 * torch.eye(TASK.vocabulary))
    assert accuracy(echo, PLAN.held_out_examples(0)) == 0.0


def test_accuracy_is_the_share_of_queries():
    tokens, targets = TASK.sample(10, seed=0, split="test")
    wrong = targets.clone()
    wrong[:5][wrong[:5] != IGNORED] = 0
    assert accuracy(Lookup(TASK.vocabulary), type(PLAN.held_out_examples(0))(tokens, wrong)) == 0.5


def test_what_is_asked_is_what_the_whole_decoder_says_there():
    examples = TASK.sample(9, seed=4, split="test")
    model = PLAN.model(SOFTMAX, 3)
    packed = asked(examples)
    judged = examples.targets != IGNORED
    torch.testing.assert_close(Asked(model, TASK.length)(packed.tokens).flatten(0, 1), model(examples.tokens)[judged])
    assert torch.equal(packed.targets.flatten(), examples.targets[judged])
    assert accuracy(Asked(model, TASK.length), packed) == accuracy(model, examples)


def test_every_arm_of_a_seed_sees_the_same_examples_and_starts_alike(monkeypatch):
    seen, starts = [], []
    hidden = DecoderLM.hidden

    def watched(model, ids):
        if model.training:
            seen[-1].append(ids)
        return hidden(model, ids)

    monkeypatch.setattr(DecoderLM, "hidden", watched)
    for mixers in (SOFTMAX, (TaylorSpec(heads=1, feature_dim=4),), (ProductConvolutionSpec(),)):
        seen.append([])
        starts.append(PLAN.model(mixers, 7).state_dict())
        train_recall(mixers, PLAN, 7, rate=3e-3)
    assert len(seen[0]) == PLAN.steps
    for other, start in zip(seen[1:], starts[1:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
        shared = [name for name in start if name.startswith(("embedding", "blocks.0."))]
        assert len(shared) > 3
        assert all(torch.equal(start[name], starts[0][name]) for name in shared)


def test_another_seed_is_other_examples_and_other_weights():
    assert not torch.equal(PLAN.batches(0)(0).tokens, PLAN.batches(1)(0).tokens)
    assert not torch.equal(PLAN.held_out_examples(0).tokens, PLAN.held_out_examples(1).tokens)
    first, second = (PLAN.model(SOFTMAX, seed).embedding.weight for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_run_repeats_itself_to_the_bit_and_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train_recall(SOFTMAX, PLAN, 1, rate=3e-3)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    assert train_recall(SOFTMAX, PLAN, 1, rate=3e-3) | {"seconds": 0} == first | {"seconds": 0}
    assert first["steps"] == PLAN.steps
    assert [point["step"] for point in first["history"]] == [2, 4, 6]
    assert first["state_bytes"] == PLAN.model(SOFTMAX, 0).state_bytes(TASK.length) == 4 * (2 * 16 * 16 + 2 * 16)


def test_training_ends_at_the_first_evaluation_that_is_good_enough():
    told = []
    scores = iter([0.2, 0.99, 1.0])
    model = decoder(SOFTMAX, 0, vocab_size=32, dim=16)
    points, diverged = trained(
        model,
        PLAN.batches(0),
        steps=6,
        every=2,
        rate=1e-3,
        score=lambda _: next(scores),
        nothing=0.0,
        enough=0.99,
        tell=told.append,
    )
    assert [(point["step"], point["score"]) for point in points] == [(2, 0.2), (4, 0.99)]
    assert not diverged
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert next(scores) == 1.0


def test_an_arm_that_diverges_is_scored_as_it_stands(monkeypatch):
    def explode(*_arguments, **_options):
        raise NonFinite("the loss of step 1 is nan")

    monkeypatch.setattr("windeye.compare.training.fit", explode)
    outcome = train_recall(SOFTMAX, PLAN, 0, rate=1e-3)
    assert outcome["diverged"]
    assert outcome["steps"] == 0
    assert outcome["accuracy"] == accuracy(PLAN.model(SOFTMAX, 0), PLAN.held_out_examples(0))


def test_an_arm_whose_memory_diverges_wherever_it_looks_knows_nothing():
    def diverge(_model):
        raise MemoryDiverged("no longer finite")

    model = decoder(SOFTMAX, 0, vocab_size=32, dim=16)
    points, diverged = trained(
        model, PLAN.batches(0), steps=2, every=1, rate=1e-3, score=diverge, nothing=0.25, enough=None, tell=float
    )
    assert diverged
    assert [point["score"] for point in points] == [0.25]


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ({1e-3: (0.5, 6), 3e-3: (0.9, 6), 1e-2: (0.7, 6)}, 3e-3),
        ({1e-3: (1.0, 6), 3e-3: (1.0, 2), 1e-2: (1.0, 4)}, 3e-3),
        ({1e-3: (0.1, 6), 3e-3: (0.1, 6), 1e-2: (0.1, 6)}, 1e-3),
    ],
)
def test_the_best_rate_is_the_most_accurate_then_the_quickest_then_the_smallest(found, best):
    told = []
    choice = chosen(tuple(found), lambda rate, tell: tell(1.0) or found[rate], told.append)
    assert choice["rate"] == best
    assert choice["scores"] == [score for score, _ in found.values()]
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_rates_are_chosen_on_the_seed_of_the_pilot(monkeypatch):
    seeds = []
    batches = RecallPlan.batches
    monkeypatch.setattr(RecallPlan, "batches", lambda plan, seed: seeds.append(seed) or batches(plan, seed))
    choice = choose_rate(SOFTMAX, PLAN)
    assert seeds == [PILOT, PILOT]
    assert choice["rates"] == [1e-3, 1e-2]
    assert choice["rate"] in PLAN.rates


def test_softmax_learns_to_recall_and_a_window_of_two_does_not():
    plan = RecallPlan(
        MQAR(vocabulary=32, length=16, pairs=3, power=1.0, filler="zero"), dim=32, steps=400, batch_size=32, held_out=64
    )
    whole = train_recall(SOFTMAX, plan, 0, rate=1e-2)
    short = train_recall((AttentionSpec(heads=1, window=2),), replace(plan, steps=whole["steps"]), 0, rate=1e-2)
    assert whole["accuracy"] >= 0.95
    assert short["accuracy"] < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"rates": ()}, "rates must name at least one learning rate"),
        ({"held_out": 2.5}, "held_out must be an integer, got 2.5"),
    ],
)
def test_bad_plans_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        RecallPlan(**options)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1; -1 is where rates are chosen"):
        train_recall(SOFTMAX, PLAN, PILOT, rate=1e-3)
    with pytest.raises(ValueError, match="mixers must name at least one block"):
        train_recall((), PLAN, 0, rate=1e-3)
