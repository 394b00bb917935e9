"""IOI and Colored Objects: texts as the published generators write them, places found by characters."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from windeye.data import assets
from windeye.data.tasks import IOI, ColoredObjects, Contrast, ContrastBatch, ioi, single_tokens, tokenize
from windeye.data.tasks import colored_objects as cobj
from windeye.data.tasks.colored_objects import ColoredObjectsPrompt, Scene
from windeye.data.tasks.contrast import token_at
from windeye.data.tasks.ioi import IOIPrompt

GOLDEN = Path(__file__).parents[1] / "golden" / "circuit-reuse"
UNLIKELY = 1e-4
CORRUPTIONS = ("S2->IO", "S2->RAND", "IO->RAND")


def golden(case):
    with np.load(GOLDEN / f"{case}.npz") as file:
        return json.loads(str(file["output.items_json"][0]))


def words(text, add_special_tokens=True, return_offsets_mapping=False):
    """A tokenizer of words with the space before them and of single marks; names longer than nine letters are two."""
    pieces = re.findall(r" ?\w{1,9}|\n|[^\w\s]", text)
    stops = np.cumsum([len(piece) for piece in pieces]).tolist()
    assert "".join(pieces) == text
    ids = [1 + sum(ord(c) * 131**i for i, c in enumerate(piece)) % 1_000_003 for piece in pieces]
    found = {"input_ids": [0, *ids] if add_special_tokens else ids}
    if return_offsets_mapping:
        found["offset_mapping"] = [(stop - len(piece), stop) for piece, stop in zip(pieces, stops, strict=True)]
    return found


SHORT = single_tokens(ioi.NAMES, words)


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("transformers")
    try:
        assets.get("smollm2-135m-instruct", offline=True)
    except assets.AssetUnavailable:
        pytest.skip("asset smollm2-135m-instruct is not cached")
    from transformers import AutoTokenizer

    folder = assets.get("smollm2-135m-instruct", offline=True).folder
    return AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


def whole(tokenizer):
    return ColoredObjects(single_tokens(cobj.OBJECTS, tokenizer))


@pytest.fixture(scope="module")
def gpt2():
    transformers = pytest.importorskip("transformers")
    try:
        return transformers.AutoTokenizer.from_pretrained("gpt2", local_files_only=True)
    except OSError:
        pytest.skip("GPT-2's tokenizer is not on this machine")


class TestIOI:
    @pytest.mark.parametrize("case", ["ioi_mixed_200", "ioi_baba_50"])
    def test_filled_with_the_same_words_a_prompt_is_the_published_one(self, case):
        for item in golden(case):
            template = item["template"] % ioi.MIXED if "mixed" in case else item["template"]
            names = [item["answer"][1:], item["distractor"][1:]]
            for corruption in CORRUPTIONS:
                expected = item["corrupt"][corruption]
                # The replacement that was drawn there: the name that only the changed prompt has.
                new = set(re.findall(r"\w+", expected["prompt"])) - set(re.findall(r"\w+", item["prompt"]))
                prompt = IOIPrompt(template, item["order"], *names, *(new or {"Nobody"}), item["place"], item["object"])
                found = prompt.contrast(corruption)
                assert found.text == item["prompt"]
                assert (found.answer, found.distractor) == (item["answer"], item["distractor"])
                assert found.twin == expected["prompt"]
                assert found.twin_answer == expected["answer"]
                assert {name: found.chars[name] for name in ("io", "s1", "s2")} == item["chars"]

    def test_names_places_and_objects_are_the_published_ones(self):
        with np.load(GOLDEN / "ioi_mixed_200.npz") as file:
            assert file["output.names"].tolist() == list(ioi.NAMES)
            assert file["output.places"].tolist() == list(ioi.PLACES)
            assert file["output.objects"].tolist() == list(ioi.OBJECTS)

    def test_mixed_draws_seven_templates_in_each_order_with_equal_chance(self):
        drawn = Counter((p.order, p.template) for p in IOI("mixed").sample(7000, seed=3))
        assert set(drawn) == {(order, template) for order in ("BABA", "ABBA") for template in range(7)}
        assert chisquare(list(drawn.values())).pvalue > UNLIKELY

    @pytest.mark.parametrize("order", ["BABA", "ABBA"])
    def test_one_order_draws_all_fifteen_templates(self, order):
        drawn = IOI(order).sample(3000, seed=4)
        assert {p.template for p in drawn} == set(range(15))
        assert {p.order for p in drawn} == {order}

    @given(st.integers(0, 2**40), st.sampled_from(["BABA", "ABBA", "mixed"]))
    def test_the_subject_comes_twice_and_the_indirect_object_once(self, seed, order):
        (prompt,) = IOI(order).sample(1, seed=seed)
        counts = Counter(re.findall(r"\w+", prompt.text))
        assert (counts[prompt.subject], counts[prompt.indirect_object], counts[prompt.stranger]) == (2, 1, 0)
        chars = prompt.chars
        assert (chars["io"] < chars["s1"]) == (prompt.order == "ABBA")
        assert prompt.text[chars["stop"]] in ".,"
        assert chars["s1"] < chars["stop"] < chars["s2"]
        for name, word in (("io", prompt.indirect_object), ("s1", prompt.subject), ("s2", prompt.subject)):
            assert re.match(rf"{word}\b", prompt.text[chars[name] :])

    @given(st.integers(0, 2**40))
    def test_places_point_at_their_words(self, seed):
        (prompt,) = IOI("mixed", SHORT).sample(1, seed=seed)
        batch = tokenize([prompt.contrast()], words)
        ids, places = batch.clean[0], {name: int(place) for name, place in batch.places.items()}
        io, s = batch.answers[0]
        assert ids[places["io"]] == io
        assert ids[places["s1"]] == ids[places["s2"]] == s
        assert places["after_s1"] == places["s1"] + 1
        assert batch.end.tolist() == [len(ids) - 1]
        changed = (batch.clean != batch.corrupt)[0].nonzero().flatten().tolist()
        assert changed == [places["s2"]]
        assert batch.corrupt[0, places["s2"]] == io

    def test_each_row_has_its_own_end(self):
        prompts = [IOIPrompt(t, "BABA", "Amy", "Mark", "Paul", "store", "ring") for t in (0, 1, 4)]
        batch = tokenize([p.contrast() for p in prompts], words)
        assert batch.end.tolist() == [len(words(p.text, False)["input_ids"]) - 1 for p in prompts]
        assert len(set(batch.end.tolist())) == 3
        assert (batch.clean[0, batch.end[0] + 1 :] == 0).all()

    def test_three_names_and_none_comes_back_alone(self):
        for text in IOI().abc(50, seed=1):
            names = [word for word in re.findall(r"\w+", text) if word in ioi.NAMES]
            assert Counter(Counter(names).values()) == {2: 2, 1: 1}

    def test_equal_seeds_give_equal_prompts_and_others_do_not(self):
        assert IOI().sample(20, seed=5) == IOI().sample(20, seed=5)
        assert IOI().sample(20, seed=5) != IOI().sample(20, seed=6)

    def test_errors_say_what_would_be_valid(self):
        with pytest.raises(ValueError, match=r'order must be "BABA", "ABBA" or "mixed", got \'AABB\''):
            IOI("AABB")
        with pytest.raises(ValueError, match="names must hold at least three distinct names, got 2"):
            IOI(names=("Amy", "Mark", "Amy"))
        with pytest.raises(ValueError, match=r"corruption must be one of S2->IO, S2->RAND, IO->RAND, got 'IO->S'"):
            IOI().sample(1, seed=0)[0].contrast("IO->S")
        with pytest.raises(TypeError, match="seed must be an integer"):
            IOI().sample(1, seed=0.5)


class TestColoredObjects:
    def test_filled_with_the_same_words_a_prompt_is_the_published_one(self):
        for item in golden("cobj_200"):
            shot, scene = (
                Scene(s["surface"], s["intro"], tuple(s["objects"]), tuple(s["colours"]), s["queried"])
                for s in (item["shot"], item["query"])
            )
            prompt = ColoredObjectsPrompt(shot, scene, item["twin_queried"])
            assert (prompt.text, prompt.answer) == (item["prompt"], item["label"])
            assert (prompt.twin, prompt.twin_answer) == (item["twin_prompt"], item["twin_label"])
            places = [prompt.chars[f"colour{i}"] for i in range(3)]
            assert places == item["query_colour_chars"]
            assert [places[i] for i in prompt.wrong] == item["wrong_colour_chars"]

    @given(st.integers(0, 2**40))
    def test_scenes_share_nothing_and_the_twin_asks_for_another_thing(self, seed):
        (prompt,) = ColoredObjects().sample(1, seed=seed)
        both = (prompt.shot, prompt.scene)
        assert len({thing for scene in both for thing in scene.objects}) == 6
        assert len({colour for scene in both for colour in scene.colours}) == 6
        assert prompt.twin_queried != prompt.scene.queried
        assert prompt.twin_answer != prompt.answer
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", prompt.text)
        chars = prompt.chars
        for i in range(3):
            assert prompt.text[chars[f"colour{i}"] :].startswith(f"{prompt.scene.colours[i]} {prompt.scene.objects[i]}")
            assert prompt.text[chars[f"object{i}"] :].startswith(prompt.scene.objects[i])
        assert prompt.text[chars["queried"] :].startswith(f"{prompt.scene.objects[prompt.scene.queried]}?\nA:")
        assert prompt.text[chars["shot"] :].startswith(f"{prompt.shot.answer[1:]}\nQ: ")

    def test_every_choice_is_as_likely(self):
        drawn = ColoredObjects().sample(6000, seed=2)
        for seen in (
            Counter(p.scene.queried for p in drawn),
            Counter(p.twin_queried for p in drawn),
            Counter(p.scene.surface for p in drawn),
            Counter(p.shot.intro for p in drawn),
            Counter(thing for p in drawn for thing in p.scene.objects),
            Counter(colour for p in drawn for colour in p.shot.colours),
        ):
            assert chisquare(list(seen.values())).pvalue > UNLIKELY
        assert {thing for p in drawn for thing in p.scene.objects} == set(cobj.OBJECTS)

    def test_with_a_tokenizer_of_words_every_prompt_has_62_tokens_at_the_known_places(self, smollm2):
        """The places that are known of GPT-2's vocabulary; this one keeps the same words whole, but for three."""
        assert set(cobj.OBJECTS) - set(whole(smollm2).objects) == {"leash", "mug", "bracelet"}
        batch = tokenize([p.contrast() for p in whole(smollm2).sample(200, seed=42)], smollm2)
        assert batch.clean.shape == (200, 62)
        expected = {"colour0": 41, "colour1": 45, "colour2": 50, "object0": 42, "object1": 46, "object2": 51}
        for name, place in (expected | {"shot": 30, "queried": 57, "end": 61}).items():
            assert set(batch.at(name).flatten().tolist()) == {place}, name

    def test_with_gpt2s_tokenizer_all_things_are_one_token_and_places_are_the_published_ones(self, gpt2):
        batch = tokenize([p.contrast() for p in ColoredObjects().sample(200, seed=42)], gpt2)
        assert batch.clean.shape == (200, 62)
        expected = {"colour0": 41, "colour1": 45, "colour2": 50, "shot": 30, "queried": 57, "end": 61}
        for name, place in expected.items():
            assert set(batch.at(name).flatten().tolist()) == {place}, name

    def test_a_twin_differs_in_the_thing_that_is_asked_for(self, smollm2):
        batch = tokenize([p.contrast() for p in whole(smollm2).sample(20, seed=1)], smollm2)
        for clean, twin, place in zip(batch.clean, batch.corrupt, batch.places["queried"], strict=True):
            assert (clean != twin).nonzero().flatten().tolist() == [int(place)]


class TestBatches:
    CLEAN = torch.tensor([[1, 2, 3], [4, 5, 0]])
    ANSWERS = torch.tensor([[8, 9], [9, 8]])

    def test_places_come_by_name_or_as_they_are_given(self):
        batch = ContrastBatch(self.CLEAN, self.CLEAN, self.ANSWERS, torch.tensor([2, 1]), {"s": torch.tensor([0, 1])})
        assert batch.at("s").tolist() == [[0], [1]]
        assert batch.at("all").tolist() == [[0, 1, 2], [0, 1, 2]]
        assert batch.at(torch.tensor([[2, 0], [1, 1]])).tolist() == [[2, 0], [1, 1]]
        assert batch.rows(slice(1, 2)).at("end").tolist() == [[1]]

    def test_without_ends_prompts_are_as_long_as_the_batch(self):
        assert ContrastBatch(self.CLEAN, self.CLEAN, self.ANSWERS).end.tolist() == [2, 2]

    def test_errors_say_what_would_be_valid(self):
        with pytest.raises(ValueError, match=r"of the same shape, got \(2, 3\) and \(2, 2\)"):
            ContrastBatch(self.CLEAN, self.CLEAN[:, :2], self.ANSWERS)
        with pytest.raises(ValueError, match=r"answers must be \[batch 2, 2\], got \(1, 2\)"):
            ContrastBatch(self.CLEAN, self.CLEAN, self.ANSWERS[:1])
        with pytest.raises(ValueError, match=r"end must be \[batch 2\] in 0 .. 2, got \[2, 3\]"):
            ContrastBatch(self.CLEAN, self.CLEAN, self.ANSWERS, torch.tensor([2, 3]))
        batch = ContrastBatch(self.CLEAN, self.CLEAN, self.ANSWERS, torch.tensor([2, 1]))
        with pytest.raises(ValueError, match="places must be one of all, end, or a tensor, got 's1'"):
            batch.at("s1")
        with pytest.raises(IndexError, match="place 2 of prompt 1: its tokens are 0 to 1"):
            batch.at(torch.tensor([[2], [2]]))
        with pytest.raises(ValueError, match=r"places must be \[batch 2, places\], got \(2,\)"):
            batch.at(torch.tensor([2, 1]))


class TestTokens:
    def test_offsets_with_and_without_the_leading_space_find_the_same_token(self):
        assert token_at([(0, 3), (3, 9)], 4) == token_at([(0, 3), (4, 9)], 4) == 1
        with pytest.raises(ValueError, match=r"no token covers character 9; the tokens cover 0 .. 8"):
            token_at([(0, 3), (3, 9)], 9)

    def test_names_of_several_tokens_are_dropped(self):
        assert "Christopher" not in SHORT
        assert "Amy" in SHORT

    def test_twins_of_other_lengths_and_long_answers_are_refused(self):
        with pytest.raises(ValueError, match="must have as many tokens, got 2 and 3"):
            tokenize([Contrast("a b", " c", " d", "a b c", " d")], words)
        with pytest.raises(ValueError, match=r"the answer ' Christopher' must be one token, this tokenizer makes 2"):
            tokenize([Contrast("a b", " Christopher", " d", "a c", " d")], words)
        with pytest.raises(ValueError, match="at least one prompt"):
            tokenize([], words)

    def test_special_tokens_stay_out(self):
        assert tokenize([Contrast("a b", " c", " d", "a d", " d")], words).clean.shape == (1, 2)

    def test_six_things_are_needed(self):
        with pytest.raises(ValueError, match="objects must hold at least six distinct things, got 3"):
            ColoredObjects(("pen", "cup", "jug"))
