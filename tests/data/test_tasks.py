"""MQAR, passkey and needle: laid out as specified, solvable by looking up, drawn from the law that is claimed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from functools import partial
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from windeye.data.sequences import derived_seed
from windeye.data.tasks import IGNORED, MQAR, STANDARD_TEST, STANDARD_TRAIN, Epochs, Fresh, Needle, Passkey, Sequences
from windeye.data.tasks.draws import distinct, weighted
from windeye.data.tasks.passkey import BEFORE, FILLER, QUESTION

UNLIKELY = 1e-4


@st.composite
def recalls(draw: st.DrawFn) -> MQAR:
    pairs = draw(st.integers(1, 9))
    length = 2 * draw(st.integers(2 * pairs, 2 * pairs + 20))
    vocabulary = length + draw(st.integers(1, 40))
    return MQAR(vocabulary, length, pairs, draw(st.sampled_from([0.01, 0.5, 1.0, 2.0])), draw(FILLERS))


FILLERS = st.sampled_from(["random", "zero"])


def looked_up(tokens: list[int], pairs: int) -> dict[int, int]:
    """What a reader who remembers every pair knows."""
    return {tokens[2 * i]: tokens[2 * i + 1] for i in range(pairs)}


class TestDraws:
    def test_every_ordered_choice_without_replacement_is_as_likely(self):
        drawn = distinct(24_000, 3, 4, torch.Generator().manual_seed(1))
        seen = Counter(map(tuple, drawn.tolist()))
        assert set(seen) == set(permutations(range(4), 3))
        assert chisquare(list(seen.values())).pvalue > UNLIKELY

    @pytest.mark.parametrize("power", [0.01, 1.0, 2.0])
    def test_weighted_draws_follow_the_law_of_drawing_one_after_the_other(self, power):
        weights = torch.arange(1, 5, dtype=torch.float64) ** (power - 1)
        p = (weights / weights.sum()).tolist()
        drawn = Counter(map(tuple, weighted(20_000, 2, weights, torch.Generator().manual_seed(2)).tolist()))
        pairs = list(permutations(range(4), 2))
        expected = [20_000 * p[i] * p[j] / (1 - p[i]) for i, j in pairs]
        assert chisquare([drawn[pair] for pair in pairs], expected).pvalue > UNLIKELY

    def test_all_of_them_is_a_permutation(self):
        drawn = weighted(50, 7, torch.rand(7, dtype=torch.float64) + 0.1, torch.Generator().manual_seed(3))
        assert (drawn.sort(dim=1).values == torch.arange(7)).all()


class TestMQAR:
    @given(task=recalls(), seed=st.integers(0, 2**40))
    def test_the_layout_is_the_specified_one(self, task, seed):
        for tokens, targets in zip(*(t.tolist() for t in task.sample(3, seed=seed)), strict=True):
            start, middle = 2 * task.pairs, task.vocabulary // 2
            keys, values = tokens[0:start:2], tokens[1:start:2]
            assert len(set(keys)) == len(set(values)) == task.pairs
            assert all(1 <= key < middle for key in keys)
            assert all(middle <= value < task.vocabulary for value in values)
            judged = [i for i, target in enumerate(targets) if target != IGNORED]
            assert all(i >= start and (i - start) % 2 == 0 for i in judged)
            assert sorted(tokens[i] for i in judged) == sorted(keys)  # each key is asked for once
            rest = [tokens[i] for i in range(start, task.length) if i not in judged]
            assert all(0 <= token < task.vocabulary for token in rest)
            assert task.filler == "random" or not any(rest)

    @given(task=recalls(), seed=st.integers(0, 2**40))
    def test_a_reader_who_remembers_the_pairs_is_always_right(self, task, seed):
        for tokens, targets in zip(*(t.tolist() for t in task.sample(3, seed=seed)), strict=True):
            known = looked_up(tokens, task.pairs)
            asked = [(token, target) for token, target in zip(tokens, targets, strict=True) if target != IGNORED]
            assert all(known[token] == target for token, target in asked)

    @pytest.mark.parametrize("power", [0.01, 1.0])
    def test_queries_follow_the_power_law(self, power):
        """One pair: slot i = 1, 2, ... in proportion to i ** (power - 1)."""
        task = MQAR(length=32, pairs=1, power=power)
        targets = task.sample(20_000, seed=5).targets
        slots = ((targets != IGNORED).int().argmax(dim=1) - 2) // 2
        weights = torch.arange(1, 16, dtype=torch.float64) ** (power - 1)
        expected = (20_000 * weights / weights.sum()).tolist()
        assert chisquare(slots.bincount(minlength=15).tolist(), expected).pvalue > UNLIKELY

    def test_the_power_moves_queries_away_from_the_pairs(self):
        def mean_place(power: float) -> float:
            targets = MQAR(length=128, pairs=8, power=power).sample(500, seed=0).targets
            return (targets != IGNORED).nonzero()[:, 1].double().mean().item()

        near, uniform = mean_place(0.01), mean_place(1.0)
        assert uniform == pytest.approx((16 + 126) / 2, abs=1)
        assert near < uniform - 15

    def test_keys_values_and_fillers_are_uniform_over_their_ranges(self):
        tokens, targets = MQAR(vocabulary=24, length=16, pairs=4).sample(6000, seed=7)
        assert chisquare(tokens[:, 0:8:2].flatten().bincount()[1:].tolist()).pvalue > UNLIKELY
        assert chisquare(tokens[:, 1:8:2].flatten().bincount()[12:].tolist()).pvalue > UNLIKELY
        fillers = tokens[:, 8:][targets[:, 8:] == IGNORED]
        assert len(fillers.unique()) == 24  # token 0 and all keys too: fillers collide
        assert chisquare(fillers.bincount().tolist()).pvalue > UNLIKELY

    def test_every_value_is_as_likely_for_every_key(self):
        tokens, _ = MQAR(vocabulary=6, length=4, pairs=1).sample(6000, seed=8)
        joint = Counter(map(tuple, tokens[:, :2].tolist()))
        assert len(joint) == 2 * 3
        assert chisquare(list(joint.values())).pvalue > UNLIKELY

    def test_equal_seeds_give_equal_examples_and_splits_differ(self):
        task = MQAR()
        first, again = task.sample(4, seed=3), task.sample(4, seed=3)
        assert torch.equal(first.tokens, again.tokens)
        assert torch.equal(first.targets, again.targets)
        for other in (task.sample(4, seed=4), task.sample(4, seed=3, split="test")):
            assert not (first.tokens == other.tokens).all(dim=1).any()

    def test_nothing_of_the_world_outside_decides(self):
        torch.manual_seed(1)
        first = MQAR().sample(4, seed=3).tokens
        state = torch.get_rng_state()
        torch.manual_seed(2)
        assert torch.equal(first, MQAR().sample(4, seed=3).tokens)
        torch.manual_seed(1)
        assert torch.equal(state, torch.get_rng_state())

    def test_the_standard_mixture(self):
        assert sum(examples for _, examples in STANDARD_TRAIN) == 180_000
        assert [(task.length, task.pairs) for task, _ in STANDARD_TEST][-1] == (1024, 256)
        assert {task.vocabulary for task, _ in STANDARD_TRAIN + STANDARD_TEST} == {8192}
        tokens, targets = STANDARD_TEST[-1][0].sample(2, seed=0)
        known = looked_up(tokens[0].tolist(), 256)
        assert len(known) == 256
        assert ((targets != IGNORED).sum(dim=1) == 256).all()

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"length": 63}, "length must be even, got 63"),
            ({"pairs": 17}, "pairs must be at most length / 4 = 16, got 17"),
            ({"pairs": 0}, "pairs must be at least 1, got 0"),
            ({"vocabulary": 64}, "vocabulary must be greater than length 64, got 64"),
            ({"power": 0.0}, "power must be positive and finite, got 0.0"),
            ({"power": float("nan")}, "power must be positive and finite, got nan"),
            ({"filler": "noise"}, 'filler must be "random" or "zero", got \'noise\''),
        ],
    )
    def test_impossible_tasks_are_refused(self, wrong, says):
        with pytest.raises(ValueError, match=re.escape(says)):
            MQAR(**wrong)

    def test_wrong_types_and_calls_are_refused(self):
        with pytest.raises(TypeError, match=r"pairs must be an integer, got 4\.0"):
            MQAR(pairs=4.0)
        with pytest.raises(ValueError, match="examples must be at least 0, got -1"):
            MQAR().sample(-1, seed=0)
        with pytest.raises(TypeError, match="seed must be an integer, got 'a'"):
            MQAR().sample(1, seed="a")
        with pytest.raises(ValueError, match=r"split must be one of \('train', 'test'\), got 'valid'"):
            MQAR().sample(1, seed=0, split="valid")
        with pytest.raises(FrozenInstanceError):
            MQAR().pairs = 3
        assert MQAR().sample(0, seed=0).tokens.shape == (0, 64)


def as_text(row: torch.Tensor) -> str:
    return bytes(row.tolist()).decode("latin-1")


class TestPasskey:
    @given(
        digits=st.integers(1, 7),
        extra=st.integers(0, 200),
        depth=st.sampled_from([None, 0.0, 0.3, 1.0]),
        seed=st.integers(0, 2**40),
    )
    @settings(max_examples=50)
    def test_the_key_that_is_said_is_the_key_that_is_asked_for(self, digits, extra, depth, seed):
        length = Passkey.__dataclass_fields__["length"].default + extra
        task = Passkey(length, digits, depth)
        for tokens, targets in zip(*task.sample(3, seed=seed), strict=True):
            text = as_text(tokens)
            assert len(text) == length
            said = re.search(rf"{BEFORE.decode()}(\d{{{digits}}})\. Keep it in mind\. ", text)
            answer = targets[-digits:]
            assert as_text(answer) == said[1]
            assert (targets[:-digits] == IGNORED).all()
            assert torch.equal(tokens[1:][-digits + 1 :], answer[:-1]) or digits == 1  # what was answered is read on
            context, question = text[: said.start()] + text[said.end() :], QUESTION.decode() + said[1][:-1]
            assert context.endswith(question)
            filler = context.removesuffix(question)
            assert (FILLER.decode() * 9).startswith(filler)
            if depth is not None:
                assert said.start() == round(depth * len(filler))

    def test_every_place_is_as_likely(self):
        tokens, _ = Passkey(length=140).sample(9000, seed=1)
        places = [as_text(row).index("The pass key is ") for row in tokens]
        assert chisquare(list(Counter(places).values())).pvalue > UNLIKELY
        assert min(places) == 0
        assert len(set(places)) == max(places) + 1

    def test_all_digits_are_as_likely(self):
        targets = Passkey().sample(3000, seed=2).targets
        drawn = targets[targets != IGNORED] - ord("0")
        assert chisquare(drawn.bincount(minlength=10).tolist()).pvalue > UNLIKELY

    def test_the_shortest_sequence_is_all_sentence_and_question(self):
        with pytest.raises(ValueError, match="length must be at least") as caught:
            Passkey(length=20, digits=4)
        least = int(re.search(r"at least (\d+)", str(caught.value))[1])
        assert as_text(Passkey(least, 4).sample(1, seed=0).tokens[0]).startswith("The pass key is ")
        with pytest.raises(ValueError, match="length must be at least"):
            Passkey(least - 1, 4)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"depth must be in \[0, 1\] or None for a random place, got 1.5"):
            Passkey(depth=1.5)
        with pytest.raises(ValueError, match="digits must be at least 1, got 0"):
            Passkey(digits=0)


HAYSTACKS = (torch.randint(97, 123, (900,), dtype=torch.uint8), torch.randint(65, 91, (300,), dtype=torch.uint8))


@st.composite
def hidden(draw: st.DrawFn) -> Needle:
    needles, repeats = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    key_length = draw(st.integers(1 if needles > 1 else 0, 3))
    depth = draw(st.sampled_from([None, 0.0, 0.6, 1.0])) if needles * repeats == 1 else None
    value_length = draw(st.integers(1, 4))
    return Needle(256, needles, repeats, key_length, value_length, depth, draw(st.booleans()))


class TestNeedle:
    @given(task=hidden(), seed=st.integers(0, 2**40))
    def test_needles_lie_in_real_text_and_one_of_them_is_asked_for(self, task, seed):
        fact = re.compile(r"\x02([a-z]*)\x1f?(\d+)\x03")
        texts = [as_text(part) for part in HAYSTACKS]
        for tokens, targets in zip(*task.sample(3, seed=seed, haystack=HAYSTACKS), strict=True):
            text, answer = as_text(tokens), targets[-task.value_length :]
            assert len(text) == task.length
            found = fact.findall(text)
            assert len(found) == task.needles * task.repeats
            assert set(Counter(found).values()) == {task.repeats}
            known = dict(found)
            assert len(known) == task.needles
            rest = fact.sub("", text)
            hay, _, question = rest.rpartition("\x02")
            key = question[: task.key_length]
            assert as_text(answer) == known[key]
            assert question == key + ("\x1f" if key else "") + known[key][:-1]
            assert any(hay in whole for whole in texts)
            if task.depth is not None:
                assert text.index("\x02") == round(task.depth * len(hay))
            rest_of_targets = targets[: -task.value_length]
            assert torch.equal(rest_of_targets, tokens[1:][: len(rest_of_targets)]) or task.answer_only
            assert (rest_of_targets == IGNORED).all() or not task.answer_only

    def test_places_are_uniform_and_the_needle_asked_for_is_any_of_them(self):
        task = Needle(length=24, needles=2, key_length=1, value_length=1)
        tokens, _ = task.sample(8000, seed=1, haystack=HAYSTACKS[1])
        places, first = Counter(), 0
        for row in tokens:
            text = as_text(row)
            places[tuple(m.start() for m in re.finditer(r"\x02.\x1f\d\x03", text))] += 1
            first += text[text.index("\x02") + 1] == text[-2]
        hay = 24 + 1 - 2 * 5 - 4
        assert len(places) == (hay + 2) * (hay + 1) // 2
        assert chisquare(list(places.values())).pvalue > UNLIKELY
        assert abs(first - 4000) < 200

    def test_answer_only_changes_targets_alone(self):
        task = Needle(length=64)
        judged = task.sample(2, seed=0, haystack=HAYSTACKS)
        every = replace(task, answer_only=False).sample(2, seed=0, haystack=HAYSTACKS)
        assert torch.equal(judged.tokens, every.tokens)
        kept = judged.targets != IGNORED
        assert torch.equal(judged.targets[kept], every.targets[kept])

    def test_bad_input(self):
        with pytest.raises(ValueError, match="key_length 0 makes 1 keys, too few for 2 needles"):
            Needle(needles=2)
        with pytest.raises(ValueError, match="length must be at least 8 for 1 needles and a question, got 7"):
            Needle(length=7)
        assert Needle(length=8).sample(1, seed=0, haystack=HAYSTACKS).tokens.shape == (1, 8)
        with pytest.raises(ValueError, match="depth places one insertion, got 3"):
            Needle(repeats=3, depth=0.5)
        with pytest.raises(ValueError, match=r"does not fit: the longest stretch of text has 10"):
            Needle().sample(1, seed=0, haystack=torch.zeros(10, dtype=torch.uint8))


class TestBatches:
    def test_fresh_batches_follow_from_the_step_and_never_repeat(self):
        batches = Fresh(MQAR().sample, batch_size=5, seed=1)
        assert torch.equal(batches(3).tokens, batches(3).tokens)
        others = [batches(4), Fresh(MQAR().sample, 5, seed=2)(3), Fresh(MQAR().sample, 5, seed=1, split="test")(3)]
        assert all(not torch.equal(batches(3).tokens, other.tokens) for other in others)
        needles = Fresh(partial(Needle().sample, haystack=HAYSTACKS), batch_size=2)
        assert needles(0).tokens.shape == (2, 256)

    def test_derived_seeds_depend_on_every_part_and_fit_a_generator(self):
        seeds = {derived_seed(*parts) for parts in [(0, 1), (1, 0), ("a", 1), (0, "1a"), (-1, 1)]}
        assert len(seeds) == 5
        assert all(0 <= seed < 2**63 for seed in seeds)

    @given(
        sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
        batch=st.integers(1, 7),
        seed=st.integers(0, 1000),
    )
    def test_an_epoch_holds_every_example_once(self, sizes, batch, seed):
        segments = []
        for index, size in enumerate(sizes):
            tokens = 100 * index + torch.arange(size).unsqueeze(1).expand(size, index + 1)
            segments.append(Sequences(tokens, -tokens))
        batches = Epochs(segments, batch, seed)
        everything = sorted(100 * index + i for index, size in enumerate(sizes) for i in range(size))
        orders = []
        for epoch in range(2):
            dealt = [batches(epoch * len(batches) + i) for i in range(len(batches))]
            assert all(len(b.tokens) <= batch and torch.equal(b.targets, -b.tokens) for b in dealt)
            orders.append([int(value) for b in dealt for value in b.tokens[:, 0]])
            assert sorted(orders[-1]) == everything
        assert [int(v) for v in batches(0).tokens[:, 0]] == orders[0][: len(batches(0).tokens)]  # back in time

    def test_epochs_are_shuffled_anew_and_segments_are_mixed(self):
        segments = [MQAR(length=length, pairs=4).sample(40, seed=0) for length in (16, 32)]
        batches = Epochs(segments, batch_size=4)
        lengths = [batches(i).tokens.shape[1] for i in range(len(batches))]
        assert lengths != sorted(lengths)
        assert lengths != sorted(lengths, reverse=True)
        assert lengths != [batches(len(batches) + i).tokens.shape[1] for i in range(len(batches))]

    def test_bad_input(self):
        some = MQAR().sample(3, seed=0)
        with pytest.raises(ValueError, match=r"segments must not be empty, got \[\]"):
            Epochs([], 4)
        with pytest.raises(ValueError, match=r"segments must not be empty, got \[3, 0\]"):
            Epochs([some, MQAR().sample(0, seed=0)], 4)
        with pytest.raises(ValueError, match="one number per segment, got 2 for 1"):
            Epochs([some], [4, 4])
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            Epochs([some], 0)
        with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
            Fresh(MQAR().sample, 0)
