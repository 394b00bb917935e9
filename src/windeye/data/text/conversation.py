"""Conversations as text: rendered by a chat template, with the role of every character and token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``, as chat templates take it."""

Template = Callable[[Sequence[Message]], str]
"""From messages to text."""

Label = Literal["template", "bos", "system", "user", "indicator", "assistant"]
LABELS: tuple[Label, ...] = get_args(Label)
ROLES = ("system", "user", "assistant")


class Span(NamedTuple):
    """Characters ``start .. stop - 1`` of a rendered conversation: what they are, and the turn they belong to.

    A turn is a user's message and what follows up to the next one, counted from 0; a system message belongs to turn 0,
    and the template's text in front of a message to that message's turn.
    """

    start: int
    stop: int
    label: Label
    turn: int


class Rendered(NamedTuple):
    """A conversation as text, and spans that cover it from the first to the last character without overlap."""

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class RoleTags:
    """A template of our own: a line with the role's tag, the text, the end token, a new line; for every message.

    Args:
        end: what closes a message.
        generation_prompt: open the next answer with the assistant's tag.

    Example:
        >>> RoleTags("</s>")([{"role": "user", "content": "Hello"}])
        '<|user|>\\nHello</s>\\n'
    """

    end: str = "<|end|>"
    generation_prompt: bool = False

    def __call__(self, messages: Sequence[Message]) -> str:
        written = "".join(f"<|{m['role']}|>\n{m['content']}{self.end}\n" for m in messages)
        return written + "<|assistant|>\n" * self.generation_prompt


def chat_template(tokenizer: Any, *, generation_prompt: bool = False) -> Template:
    """The chat template of a tokenizer of transformers.

    Args:
        tokenizer: has ``apply_chat_template``.
        generation_prompt: end with what opens an answer.
    """

    def template(messages: Sequence[Message]) -> str:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=generation_prompt
        )

    return template


def render(messages: Sequence[Message], template: Template, *, indicator: str | None = None) -> Rendered:
    """Render a conversation and find each message in the text.

    The template is asked twice: with the messages, and with markers in their place. What stands between the markers is
    the template's own; between these pieces the text must hold each message as it is, or with white space stripped from
    its ends, as some templates do.

    Args:
        messages: at least one; roles are "system", "user" and "assistant".
        template: `RoleTags`, `chat_template` of a tokenizer, or any function from messages to text.
        indicator: a marker in user messages that gets a label of its own.

    Raises:
        ValueError: no messages, an unknown role, or a template that changes a message or leaves it out.

    Source: context-awareness spec, span map.

    Example:
        >>> text, spans = render([{"role": "user", "content": "Hi"}], RoleTags("</s>"))
        >>> [(text[s.start : s.stop], s.label) for s in spans]
        [('<|user|>\\n', 'template'), ('Hi', 'user'), ('</s>\\n', 'template')]
    """
    _check(messages)
    text = template(messages)
    own = _pieces(messages, template)
    found = _place(text, own, [message["content"] for message in messages], 0)
    if found is None:
        raise ValueError(
            "template must write every message as it is, once and in order; it changed one or left one out, so that "
            "its tokens cannot be told from the template's"
        )
    spans, at, turn = [], 0, 0
    users = 0
    for message, (start, stop) in zip(messages, found, strict=True):
        users += message["role"] == "user"
        turn = max(users - 1, 0)
        spans += [Span(at, start, "template", turn), *_content(message, start, text[start:stop], turn, indicator)]
        at = stop
    spans.append(Span(at, len(text), "template", turn))
    return Rendered(text, tuple(span for span in spans if span.start < span.stop))


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise ValueError("messages must not be empty")
    for place, message in enumerate(messages):
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise ValueError(
                f"message {place} must have a role of {', '.join(ROLES)} and a text as content, got {dict(message)!r}"
            )


def _pieces(messages: Sequence[Message], template: Template) -> list[str]:
    """What the template writes before, between and after the messages."""
    # Private-use characters: no template looks for them, and letters around them survive any trimming.
    markers = [f"\ue000{place}\ue001" for place in range(len(messages))]
    rest = template([{**m, "content": marker} for m, marker in zip(messages, markers, strict=True)])
    pieces = []
    for place, marker in enumerate(markers):
        piece, found, rest = rest.partition(marker)
        if not found or marker in rest:
            raise ValueError(f"template must write every message once and in order; it does not for message {place}")
        pieces.append(piece)
    return [*pieces, rest]


def _place(text: str, own: Sequence[str], contents: Sequence[str], at: int) -> list[tuple[int, int]] | None:
    """Where the messages stand, if the text is the template's pieces with the messages between them."""
    start = at + len(own[0])
    if not text.startswith(own[0], at):
        return None
    if not contents:
        return [] if start == len(text) else None
    whole = contents[0]
    for content in dict.fromkeys((whole, whole.rstrip(), whole.lstrip(), whole.strip())):
        if text.startswith(content, start):
            rest = _place(text, own[1:], contents[1:], start + len(content))
            if rest is not None:
                return [(start, start + len(content)), *rest]
    return None


def _content(message: Message, start: int, content: str, turn: int, indicator: str | None) -> Iterator[Span]:
    label: Label = message["role"]  # type: ignore[assignment]
    at = 0
    if indicator and label == "user":
        while (place := content.find(indicator, at)) >= 0:
            yield Span(start + at, start + place, label, turn)
            at = place + len(indicator)
            yield Span(start + place, start + at, "indicator", turn)
    yield Span(start + at, start + len(content), label, turn)


@dataclass(frozen=True, eq=False)
class Labelled:
    """The tokens of a conversation, each with one label and a turn."""

    ids: Int64[Tensor, " tokens"]
    label: Int64[Tensor, " tokens"]
    """Index into `LABELS`."""
    turn: Int64[Tensor, " tokens"]

    def of(self, *labels: Label) -> Bool[Tensor, " tokens"]:
        """Which tokens have one of these labels.

        Raises:
            ValueError: an unknown label.
        """
        if unknown := [label for label in labels if label not in LABELS]:
            raise ValueError(f"labels must be of {', '.join(LABELS)}, got {', '.join(map(repr, unknown))}")
        return torch.isin(self.label, torch.tensor([LABELS.index(label) for label in labels]))

    def first(self, count: int | None) -> Labelled:
        """The first ``count`` tokens; None: all."""
        return Labelled(self.ids[:count], self.label[:count], self.turn[:count])

    def responses(self) -> Bool[Tensor, "answers tokens"]:
        """A row per answer, in order: which tokens are its text."""
        answer = self.of("assistant")
        return answer & (self.turn == torch.unique(self.turn[answer])[:, None])


def label_tokens(rendered: Rendered, tokenizer: Any) -> Labelled:
    """Encode a rendered conversation without adding tokens, and label each token.

    A token has the label of the message that holds its first character other than white space, also where it begins
    or ends in a tag; a token of white space alone is the message's if it lies inside and touches neither end. The first
    token is "bos" if it is the tokenizer's.

    Args:
        rendered: from `render`; the template writes the begin token if there is to be one.
        tokenizer: of transformers, or of the ``tokenizers`` library. Without offsets, tokens are aligned by decoding
            ever longer prefixes, which takes time that grows with the square of the length.

    Raises:
        ValueError: decoded prefixes do not come to the whole text.

    Source: context-awareness spec, span map.

    Example:
        >>> from windeye.data.text import train_bpe
        >>> text = render([{"role": "user", "content": "the cat"}], RoleTags("</s>"))
        >>> tokens = label_tokens(text, train_bpe("the cat and the hat " * 20, 300))
        >>> int(tokens.of("user").sum()) + int(tokens.of("template").sum()) == len(tokens.ids)
        True
    """
    ids, intervals = _encode(rendered.text, tokenizer)
    spans = _SpanAt(rendered)
    found = [spans.label(start, stop) for start, stop in intervals]
    codes = [LABELS.index(label) for label, _ in found]
    if ids and ids[0] == getattr(tokenizer, "bos_token_id", None):
        codes[0] = LABELS.index("bos")
    return Labelled(*(torch.tensor(values) for values in (ids, codes, [turn for _, turn in found])))


class _SpanAt:
    """Spans by character."""

    def __init__(self, rendered: Rendered) -> None:
        self.text = rendered.text
        self.spans = [span for span in rendered.spans for _ in range(span.start, span.stop)]

    def label(self, start: int, stop: int) -> tuple[Label, int]:
        """Of the characters of one token, which may be none."""
        written = [self.spans[i] for i in range(start, stop) if not self.text[i].isspace()]
        for span in written:
            if span.label != "template":
                return span.label, span.turn
        if written:
            return written[0].label, written[0].turn
        span = self.spans[min(start, len(self.spans) - 1)]
        inside = span.start < start and stop < span.stop
        return (span.label if inside else "template"), span.turn


def _encode(text: str, tokenizer: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """Token numbers, and the characters of each."""
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(encoded["input_ids"]), [tuple(pair) for pair in encoded["offset_mapping"]]
    encoded = tokenizer.encode(text, add_special_tokens=False)
    if hasattr(encoded, "offsets"):
        return list(encoded.ids), list(encoded.offsets)
    return list(encoded), align(text, list(encoded), tokenizer.decode)


def align(text: str, ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[tuple[int, int]]:
    """The characters of each token, from how far decoded prefixes agree with the text.

    Tokens that hold part of a character are given all of it.

    Raises:
        ValueError: the decoded tokens do not come to the whole text.

    Example:
        >>> words = ["the", " ", "cat"]
        >>> align("the cat", [0, 1, 2], lambda ids: "".join(words[i] for i in ids))
        [(0, 3), (3, 4), (4, 7)]
    """
    ends: list[int] = []
    for count in range(1, len(ids) + 1):
        end = ends[-1] if ends else 0
        prefix = decode(list(ids[:count]))
        while end < min(len(prefix), len(text)) and prefix[end] == text[end]:
            end += 1
        ends.append(end)
    if ids and ends[-1] != len(text):
        raise ValueError(f"tokens decode to the text up to character {ends[-1]} of {len(text)}; they are not of it")
    starts = [0, *ends[:-1]]
    for place in range(len(ends) - 2, -1, -1):
        if ends[place] == starts[place]:
            ends[place] = ends[place + 1]
    return list(zip(starts, ends, strict=True))
