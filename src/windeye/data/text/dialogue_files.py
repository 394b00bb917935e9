"""Conversations and questions about passages in the files of public data sets."""

from __future__ import annotations

import gzip
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant",
    "bing": "assistant", "assistant": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip
"""Names of speakers in ShareGPT's files, as roles."""

LAYOUTS = '"messages", "conversations", "data", "instruction" with "output", or "prompt" with "response"'


def read_conversations(path: Path | str) -> list[list[dict[str, str]]]:
    """Conversations as lists of messages, from JSON (a list) or JSON lines, plain or gzipped.

    An entry is ``{"messages": [{"role", "content"}]}``, ``{"conversations": [{"from", "value"}]}`` (ShareGPT),
    ``{"data": [text, ...]}`` with user and assistant in turn (UltraChat), ``{"instruction", "output"}`` (WizardLM; an
    ``input`` follows the instruction behind a blank line) or ``{"prompt", "response"}``.

    Raises:
        FileNotFoundError: nothing there. ValueError: an entry is of no known layout; names it and the layouts.
    """
    return [_messages(entry, number) for number, entry in enumerate(_entries(Path(path)))]


def _entries(path: Path) -> Iterator[Any]:
    text = _text(path)
    if text.lstrip().startswith("["):
        yield from json.loads(text)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {path.name} is not JSON: {error}") from error


def _text(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")


def _messages(entry: Any, number: int) -> list[dict[str, str]]:
    found: list[tuple[str, str]] | None = None
    if isinstance(entry, Mapping):
        if "messages" in entry:
            found = [(message["role"], message["content"]) for message in entry["messages"]]
        elif "conversations" in entry:
            found = [(message["from"], message["value"]) for message in entry["conversations"]]
        elif "data" in entry:
            found = [(("user", "assistant")[place % 2], text) for place, text in enumerate(entry["data"])]
        elif "instruction" in entry and "output" in entry:
            asked = "\n\n".join(part for part in (entry["instruction"], entry.get("input") or "") if part)
            found = [("user", asked), ("assistant", entry["output"])]
        elif "prompt" in entry and "response" in entry:
            found = [("user", entry["prompt"]), ("assistant", entry["response"])]
    if found is None:
        keys = sorted(entry) if isinstance(entry, Mapping) else type(entry).__name__
        raise ValueError(f"entry {number} must have {LAYOUTS}; it has {keys}")
    if unknown := sorted({speaker for speaker, _ in found} - set(SPEAKERS)):
        raise ValueError(f"entry {number} has speakers {unknown}; known are {', '.join(SPEAKERS)}")
    return [{"role": SPEAKERS[speaker], "content": text} for speaker, text in found]


class PassageQuestion(NamedTuple):
    """A question about a passage, and every answer that counts as right."""

    passage: str
    question: str
    answers: tuple[str, ...]


def read_questions(path: Path | str) -> list[PassageQuestion]:
    """Questions with answers in the layouts of SQuAD and QuAC (``data``, ``paragraphs``, ``qas``) and of DROP
    (passages by id, with ``qa_pairs``). Questions that cannot be answered from the passage are left out.

    Raises:
        FileNotFoundError: nothing there. ValueError: neither layout.
    """
    found = json.loads(_text(Path(path)))
    if isinstance(found, Mapping) and isinstance(found.get("data"), list):
        return [
            PassageQuestion(paragraph["context"], asked["question"], answers)
            for article in found["data"]
            for paragraph in article["paragraphs"]
            for asked in paragraph["qas"]
            if (answers := _squad(asked))
        ]
    if isinstance(found, Mapping) and found and all("qa_pairs" in entry for entry in found.values()):
        return [
            PassageQuestion(entry["passage"], asked["question"], answers)
            for entry in found.values()
            for asked in entry["qa_pairs"]
            if (answers := _drop(asked))
        ]
    raise ValueError(
        f'{Path(path).name} must have "data" with "paragraphs" (SQuAD, QuAC) or "qa_pairs" by passage (DROP)'
    )


def _squad(asked: Mapping[str, Any]) -> tuple[str, ...]:
    if asked.get("is_impossible"):
        return ()
    texts = dict.fromkeys(answer["text"] for answer in asked["answers"])
    return tuple(text for text in texts if text != "CANNOTANSWER")


def _drop(asked: Mapping[str, Any]) -> tuple[str, ...]:
    written = [_drop_text(answer) for answer in (asked["answer"], *asked.get("validated_answers", ()))]
    return tuple(dict.fromkeys(text for text in written if text))


def _drop_text(answer: Mapping[str, Any]) -> str:
    date = answer.get("date") or {}
    day = " ".join(date[part] for part in ("day", "month", "year") if date.get(part))
    return str(answer.get("number") or "") or " ".join(answer.get("spans") or ()) or day


def holds_answer(output: str, answers: Sequence[str]) -> bool:
    """Whether an output, up to its first sentence end, holds one of the answers: without regard to case, punctuation,
    articles and white space.

    Source: context-awareness spec, QA evaluation.

    Example:
        >>> holds_answer("It was the Eiffel  Tower. In Rome", ["eiffel tower", "Louvre"]), holds_answer("Rome", ["a"])
        (True, False)
    """
    said = _plain(output.partition(". ")[0])
    return any(bool(wanted) and wanted in said for wanted in map(_plain, answers))


def _plain(text: str) -> str:
    text = "".join(character for character in text.casefold() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())
