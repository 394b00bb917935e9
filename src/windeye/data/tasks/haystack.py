"""A fact hidden in a long text and asked for in words: contexts of an exact number of tokens, prompts, recall.

`windeye.data.tasks.Needle` is the same idea for models of bytes that are trained on it; this one is for pretrained
models, whose answers are words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from windeye.data.sequences import check_integer, derived_seed
from windeye.data.tasks.hide import check_depth
from windeye.data.text.conversation import Message, Rendered, Span, Template, render

Layout = Literal["chat", "raw", "assistant"]
Wrapper = Literal["document", "context", "document first", "context first"]
LAYOUTS: tuple[Layout, ...] = ("chat", "raw", "assistant")

SENTENCE_END = re.compile(r"\.(?=\s)")


@dataclass(frozen=True)
class Fact:
    """A sentence to hide, the question that it answers, and the words that a right answer holds."""

    sentence: str
    question: str
    keywords: tuple[str, ...]

    def prefix(self, words: int = 8) -> str:
        """The first words of the sentence: an answer that begins with them has only to copy the rest.

        Example:
            >>> SANDWICH.prefix()
            'The best thing to do in San Francisco'
        """
        return " ".join(self.sentence.split()[:words])


SANDWICH = Fact(
    "The best thing to do in San Francisco is to eat a sandwich and to sit in Dolores Park on a sunny day.",
    "What is the best thing to do in San Francisco?",
    ("eat", "sandwich", "sit", "dolores", "park", "sunny", "day"),
)
"""The advice of the needle test (context-awareness spec, A)."""

PIZZA = Fact(
    "For the perfect pizza one needs figs, prosciutto, smoked applewood bacon, lemon, goat cheese, truffle honey, pear "
    "slices, espresso-soaked dates, gorgonzola dolce and candied walnuts.",
    "What does one need for the perfect pizza?",
    ("figs", "prosciutto", "smoked", "applewood", "bacon", "lemon"),
)
"""The second needle, with the short form of its keywords (context-awareness spec, A)."""

PLACES = ("Lisbon", "Nairobi", "Quito", "Hanoi", "Tallinn", "Fez", "Oslo", "Lima", "Perth", "Turin")


def code_fact(seed: int) -> Fact:
    """A key with a value of six digits, which nobody can know without reading.

    Example:
        >>> code_fact(0).sentence
        'The access code of the archive in Lima is 022593.'
    """
    draw = random.Random(derived_seed("code fact", seed))
    place, code = draw.choice(PLACES), f"{draw.randrange(10**6):06d}"
    key = f"access code of the archive in {place}"
    return Fact(f"The {key} is {code}.", f"What is the {key}?", (code,))


@dataclass(frozen=True)
class Haystack:
    """A text from which contexts are cut.

    Args:
        text: what facts are hidden in; long enough for the longest context.
        count: tokens of a text, for example ``lambda text: len(tokenizer.encode(text, add_special_tokens=False))``.
        reserve: tokens of a length that are left for template, question and answer.

    Source: context-awareness spec, A.

    Example:
        >>> hay = Haystack("One two three. Four five six. " * 20, count=lambda text: len(text.split()), reserve=10)
        >>> context = hay.context(Fact("The cat sat.", "Who sat?", ("cat",)), length=30, depth=0.5)
        >>> len(context.split()), context[30:58]
        (20, 'The cat sat. One two three. ')
    """

    text: str
    count: Callable[[str], int]
    reserve: int = 200

    def __post_init__(self) -> None:
        check_integer("reserve", self.reserve, 0)

    def context(self, fact: Fact, *, length: int, depth: float, seed: int | None = None) -> str:
        """A stretch of the text with the fact in it: ``length - reserve`` tokens, give or take one.

        Args:
            fact: what is hidden.
            length: tokens with the reserve.
            depth: share of the stretch's characters before the fact, 0 to 1; the fact goes behind the last sentence
                that ends there, and for 1 behind everything.
            seed: where in the text the stretch begins, at a sentence; None is the text's beginning.

        Raises:
            ValueError: no room for the fact and a token of text, a depth outside [0, 1], or too short a text.
        """
        check_integer("length", length, 1)
        check_depth(depth, 1)
        room = length - self.reserve
        least = self.count(fact.sentence) + 1
        if room < least:
            raise ValueError(
                f"length must be at least {least + self.reserve}, for the fact with {least - 1} tokens, one token of "
                f"text and a reserve of {self.reserve}; got {length}"
            )
        text = self.text if seed is None else self.text[self._start(seed) :]

        def made(characters: int) -> str:
            return insert(fact.sentence, text[:characters], depth)

        most = 8 * room
        while self.count(made(most)) < room:
            if most >= len(text):
                raise ValueError(
                    f"the text has {self.count(text)} tokens from where the stretch begins, too few for {room}"
                )
            most *= 2
        fewest = 0
        while most - fewest > 1:
            middle = (fewest + most) // 2
            fewest, most = (middle, most) if self.count(made(middle)) < room else (fewest, middle)
        # A character more can change two tokens into one, so the first stretch that is long enough may be too long.
        near = (made(most + step) for step in sorted(range(-8, 9), key=abs) if most + step > 0)
        found = next((context for context in near if abs(self.count(context) - room) <= 1), None)
        if found is None:
            raise ValueError(f"no stretch of the text has {room} tokens, give or take one, near {most} characters")
        return found

    def _start(self, seed: int) -> int:
        ends = [match.end() for match in SENTENCE_END.finditer(self.text, 0, len(self.text) // 2)]
        return random.Random(derived_seed("haystack", seed)).choice([0, *ends])


def insert(sentence: str, text: str, depth: float) -> str:
    """A sentence in a text, behind the last sentence that ends before the share ``depth``; no line is broken there.

    Example:
        >>> insert("Here.", "One. Two. Three.", 0.6)
        'One. Two. Here. Three.'
    """
    at = len(text)
    if depth < 1:
        at = max((end.end() for end in SENTENCE_END.finditer(text, 0, round(depth * len(text)) + 1)), default=0)
    return " ".join(part for part in (text[:at].rstrip(), sentence, text[at:].lstrip()) if part)


def grid(lengths: tuple[int, int, int], depths: int) -> list[tuple[int, float]]:
    """All pairs of ``(shortest, longest, how many)`` evenly spaced lengths and as evenly spaced depths from 0 to 1.

    Example:
        >>> grid((200, 400, 2), 3)
        [(200, 0.0), (200, 0.5), (200, 1.0), (400, 0.0), (400, 0.5), (400, 1.0)]
    """
    shortest, longest, count = lengths
    check_integer("count of lengths", count, 2)
    check_integer("depths", depths, 2)
    spaced = [round(shortest + (longest - shortest) * i / (count - 1)) for i in range(count)]
    return list(product(spaced, [i / (depths - 1) for i in range(depths)]))


def question(context: str, fact: Fact, wrapper: Wrapper = "document") -> str:
    """The user's message with the context and the question.

    Args:
        context: what is asked about.
        fact: whose question is asked.
        wrapper: "document" and "context" name it so, say first that nothing else may be used and ask last;
            "document first" and "context first" begin with it.
    """
    name, _, first = wrapper.partition(" ")
    if first:
        return f"{name.capitalize()}:\n{context}\n\nAnswer from the {name} above. {fact.question}"
    return f"You answer with what the {name} below says, and with nothing else.\n{context}\n\nQuestion: {fact.question}"


def prompt(layout: Layout, asked: str, template: Template, *, answer: str = "", system: str | None = "") -> Rendered:
    """A prompt whose next token is the answer's, with spans.

    Args:
        layout: "chat" puts the question into the user's turn, "assistant" into the answer of a user who asked for a
            document with a question and an answer, and "raw" uses no template at all.
        asked: from `question`.
        template: for "chat" without ``answer``, one that ends with what opens an answer.
        answer: how the answer begins, for example ``fact.prefix()``.
        system: the system message; None for templates that know none, and so get no message of that role.

    Raises:
        ValueError: an unknown layout, or a template that changes messages.

    Example:
        >>> from windeye.data.text import RoleTags
        >>> prompt("raw", "Who sat?", RoleTags(), answer="The").text
        'Who sat?\\n\\nThe'
        >>> prompt("chat", "Who sat?", RoleTags("</s>"), answer="The", system=None).text
        '<|user|>\\nWho sat?</s>\\n<|assistant|>\\nThe'
    """
    before: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    if layout == "raw":
        text = f"{asked}\n\n{answer}"
        ends = (len(asked), len(asked) + 2, len(text))
        spans = (Span(0, ends[0], "user", 0), Span(ends[0], ends[1], "template", 0), Span(*ends[1:], "assistant", 0))
        return Rendered(text, spans if answer else spans[:2])
    if layout == "chat":
        messages = [*before, {"role": "user", "content": asked}]
        if not answer:
            return render(messages, template)
        return opened([*messages, {"role": "assistant", "content": answer}], template)
    if layout == "assistant":
        wish = {"role": "user", "content": "Write a document, a question about it, and the answer."}
        return opened([*before, wish, {"role": "assistant", "content": f"{asked}\n\n{answer}".rstrip()}], template)
    raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")


def opened(messages: Sequence[Message], template: Template) -> Rendered:
    """A conversation up to the end of its last message: what the template puts behind it is left out.

    Example:
        >>> from windeye.data.text import RoleTags
        >>> opened([{"role": "assistant", "content": "It is"}], RoleTags("</s>")).text
        '<|assistant|>\\nIt is'
    """
    text, spans = render(messages, template)
    end = max(span.stop for span in spans if span.label != "template")
    return Rendered(text[:end], tuple(span for span in spans if span.stop <= end))


def keyword_recall(output: str, keywords: Sequence[str], *, every: bool = False) -> float:
    """The share of keywords that an output holds; letters may be of any case, and a word may stand inside another.

    With ``every`` it is 1 if all are there and 0 otherwise.

    Raises:
        ValueError: no keywords.

    Example:
        >>> keyword_recall("Sit in the PARK today", ("sit", "park", "day", "sandwich"))
        0.75
    """
    if not keywords:
        raise ValueError("keywords must not be empty")
    folded = output.casefold()
    found = sum(keyword.casefold() in folded for keyword in keywords)
    return float(found == len(keywords)) if every else found / len(keywords)
