"""Conversations and questions as public data sets write them."""

import gzip
import json

import pytest

from windeye.data.text.dialogue_files import PassageQuestion, holds_answer, read_conversations, read_questions

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
ENTRIES = {
    "messages": {"messages": TALK},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "ultrachat": {"id": "0", "data": ["Hi", "Hello"]},
    "wizardlm": {"instruction": "Hi", "output": "Hello"},
    "pairs": {"prompt": "Hi", "response": "Hello"},
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "jsonl.gz"])
def test_every_layout_gives_the_same_messages(tmp_path, entry, suffix):
    path = tmp_path / f"talk.{suffix}"
    text = json.dumps([entry, entry]) if suffix == "json" else f"{json.dumps(entry)}\n\n{json.dumps(entry)}\n"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    assert read_conversations(path) == [TALK, TALK]


def test_an_input_follows_its_instruction(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"instruction": "Sum up.", "input": "A text.", "output": "Short."}]))
    assert read_conversations(path)[0][0]["content"] == "Sum up.\n\nA text."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"text": "x"}]', "entry 0 must have"),
        ('[{"conversations": [{"from": "narrator", "value": "x"}]}]', r"entry 0 has speakers \['narrator'\]"),
        ('{"messages": []}\n{', "line 2 of talk.json is not JSON"),
    ],
)
def test_other_conversations_are_refused(tmp_path, text, message):
    path = tmp_path / "talk.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_conversations(path)


def test_squad_and_quac(tmp_path):
    asked = [
        {"question": "Who?", "answers": [{"text": "Ada"}, {"text": "Ada"}, {"text": "A. L."}]},
        {"question": "Never?", "answers": [], "is_impossible": True},
        {"question": "Unknown?", "answers": [{"text": "CANNOTANSWER"}]},
    ]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Ada wrote.", "qas": asked}]}]}))
    assert read_questions(path) == [PassageQuestion("Ada wrote.", "Who?", ("Ada", "A. L."))]


def test_drop(tmp_path):
    answers = [
        {"number": "7", "spans": [], "date": {}},
        {"number": "", "spans": ["Rams", "Bears"], "date": {}},
        {"number": "", "spans": [], "date": {"day": "3", "month": "May", "year": "1920"}},
        {"number": "", "spans": [], "date": {"day": "", "month": "", "year": ""}},
    ]
    pairs = [{"question": f"{i}?", "answer": answer} for i, answer in enumerate(answers)]
    pairs[0]["validated_answers"] = [{"number": "8", "spans": []}]
    path = tmp_path / "drop.json"
    path.write_text(json.dumps({"nfl_1": {"passage": "A game.", "qa_pairs": pairs}}))
    assert [found.answers for found in read_questions(path)] == [("7", "8"), ("Rams Bears",), ("3 May 1920",)]
    path.write_text("[]")
    with pytest.raises(ValueError, match=r'drop\.json must have "data"'):
        read_questions(path)


def test_an_answer_counts_in_the_first_sentence_only():
    assert holds_answer("The Rams, 7", ["rams 7"])
    assert not holds_answer("Nobody knows. Rams", ["Rams"])
    assert not holds_answer("anything", ["the", "!"])
