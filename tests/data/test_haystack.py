"""Facts in long texts: exact length, the right depth, prompts that hold what they should and no more."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.data.tasks import haystack
from windeye.data.tasks.haystack import (
    PIZZA,
    SANDWICH,
    Fact,
    Haystack,
    code_fact,
    grid,
    insert,
    keyword_recall,
    opened,
    prompt,
    question,
)
from windeye.data.text import RoleTags, corpus, train_bpe

HELP = bytes(corpus("pydoc").numpy()).decode()


@pytest.fixture(scope="module")
def hay():
    bpe = train_bpe(HELP[:100_000], 700)
    return Haystack(HELP, lambda text: len(bpe.encode(text, add_special_tokens=False).ids))


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(300, 1500),
    depth=st.floats(0, 1),
    fact=st.sampled_from([SANDWICH, code_fact(3)]),
    seed=st.none() | st.integers(0, 99),
)
def test_contexts_have_their_length_and_hold_the_fact_at_its_depth(hay, length, depth, fact, seed):
    context = hay.context(fact, length=length, depth=depth, seed=seed)
    assert abs(hay.count(context) - (length - 200)) <= 1
    assert context.count(fact.sentence) == 1
    before, after = context.split(fact.sentence)
    assert before == "" or after == "" or before.endswith(". ")
    text = len(before) + len(after)
    assert len(before) <= depth * text + 2
    if after:  # no sentence between the fact and the place that was asked for
        rest = after[: max(int(depth * text) - len(before) - 2, 0)]
        assert haystack.SENTENCE_END.search(rest) is None


def test_equal_arguments_give_equal_contexts_and_seeds_other_stretches(hay):
    made = [hay.context(SANDWICH, length=500, depth=0.5, seed=seed) for seed in (None, 1, 1, 2)]
    assert made[1] == made[2]
    assert len(set(made)) == 3


def test_the_ends_are_the_beginning_and_the_end(hay):
    assert hay.context(PIZZA, length=500, depth=0.0).startswith(PIZZA.sentence)
    assert hay.context(PIZZA, length=500, depth=1.0).endswith(PIZZA.sentence)


def test_no_line_is_broken_around_the_fact():
    assert insert("Here.", "One.\n\nTwo is long.", 0.4) == "One. Here. Two is long."


def test_what_does_not_fit_is_refused(hay):
    with pytest.raises(ValueError, match="length must be at least"):
        hay.context(SANDWICH, length=205, depth=0.5)
    with pytest.raises(ValueError, match="too few for 800"):
        Haystack(HELP[:100], hay.count).context(SANDWICH, length=1000, depth=0.5)
    with pytest.raises(ValueError, match="depth must be in"):
        hay.context(SANDWICH, length=500, depth=1.5)
    with pytest.raises(ValueError, match="reserve must be at least 0"):
        Haystack(HELP, hay.count, reserve=-1)


def test_facts_hold_their_keywords():
    for fact in (SANDWICH, PIZZA, code_fact(0), code_fact(7)):
        assert keyword_recall(fact.sentence, fact.keywords, every=True) == 1.0
        assert fact.sentence.startswith(fact.prefix())
        assert keyword_recall(fact.question, fact.keywords) == 0.0


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1), st.text("abcABC "), st.text("abcABC "))
def test_recall_never_falls_when_an_output_grows(keywords, output, more):
    short, long = (keyword_recall(text, keywords) for text in (output, output + more))
    assert 0 <= short <= long <= 1
    assert keyword_recall(output, keywords, every=True) == (short == 1)


def test_words_inside_words_count():
    assert keyword_recall("today", ("day",)) == 1.0
    with pytest.raises(ValueError, match="keywords must not be empty"):
        keyword_recall("x", ())


def test_the_grid_of_the_paper_has_400_cells():
    cells = grid((200, 4000, 20), 20)
    assert len(cells) == 400
    assert cells[0] == (200, 0.0)
    assert cells[-1] == (4000, 1.0)


FACT = Fact("The key is red.", "What is the key?", ("red",))


@pytest.mark.parametrize("wrapper", ["document", "context", "document first", "context first"])
def test_every_wrapper_holds_context_and_question(wrapper):
    asked = question("A long text.", FACT, wrapper)
    assert asked.count("A long text.") == asked.count(FACT.question) == 1
    assert asked.endswith(FACT.question)
    assert wrapper.split()[0] in asked.lower()


def test_a_raw_prompt_holds_nothing_of_the_template():
    rendered = prompt("raw", "Who?", RoleTags("</s>"), answer="It is")
    assert rendered.text == "Who?\n\nIt is"
    assert [(s.label, rendered.text[s.start : s.stop]) for s in rendered.spans] == [
        ("user", "Who?"),
        ("template", "\n\n"),
        ("assistant", "It is"),
    ]
    assert prompt("raw", "Who?", RoleTags()).text == "Who?\n\n"


def test_an_answer_is_left_open():
    rendered = prompt("chat", "Who?", RoleTags("</s>"), answer="It is")
    assert rendered.text == "<|system|>\n</s>\n<|user|>\nWho?</s>\n<|assistant|>\nIt is"
    assert rendered.spans[-1].label == "assistant"
    fresh = prompt("chat", "Who?", RoleTags("</s>", generation_prompt=True))
    assert fresh.text + "It is" == rendered.text


def test_the_context_may_stand_in_the_answer():
    rendered = prompt("assistant", "Text. Who?", RoleTags("</s>"), answer="It is", system=None)
    assert rendered.text.endswith("<|assistant|>\nText. Who?\n\nIt is")
    assert "Text." not in rendered.text[: rendered.text.index("<|assistant|>")]


def test_unknown_layouts_are_refused():
    with pytest.raises(ValueError, match="layout must be one of chat, raw, assistant, got 'none'"):
        prompt("none", "Who?", RoleTags())


def test_spans_of_an_open_conversation_end_with_it():
    rendered = opened([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], RoleTags())
    assert rendered.spans[-1].stop == len(rendered.text)
    assert rendered.text.endswith("b")
