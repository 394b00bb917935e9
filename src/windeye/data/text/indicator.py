"""The indicator: a token of its own at the end of prompts whose answer should come from the prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from windeye.data.text.conversation import Message

INDICATOR = "[IND]"
CLOSING = tuple(".!?\"')]}…。！？”’")
"""What ends a sentence, quotes and brackets behind it included."""


def mark(messages: Sequence[Message], turns: Collection[int], indicator: str = INDICATOR) -> list[dict[str, str]]:
    """Append the indicator to the user messages of some turns, behind a full stop where no punctuation ends them.

    Messages that end with it already stay as they are, so marking twice is marking once; all others are left alone.

    Args:
        messages: a conversation.
        turns: numbers of user messages, from 0.
        indicator: the text of the token.

    Raises:
        ValueError: a turn that the conversation does not have.

    Differs from: the official code, which asks for a letter or digit at the end before it adds the full stop.

    Source: context-awareness spec, E.

    Example:
        >>> mark([{"role": "user", "content": "Who wrote the passage "}], {0})
        [{'role': 'user', 'content': 'Who wrote the passage.[IND]'}]
    """
    users = sum(message["role"] == "user" for message in messages)
    if wrong := sorted(turn for turn in turns if not 0 <= turn < users):
        raise ValueError(f"turns must be in 0 .. {users - 1} for {users} user messages, got {wrong}")
    marked, turn = [], -1
    for message in messages:
        turn += message["role"] == "user"
        chosen = message["role"] == "user" and turn in turns
        marked.append({**message, "content": _marked(message["content"], indicator) if chosen else message["content"]})
    return marked


def _marked(content: str, indicator: str) -> str:
    if content.endswith(indicator):
        return content
    text = content.rstrip()
    return text + ("" if text.endswith(CLOSING) else ".") + indicator


def add_indicator(tokenizer: Any, model: Any = None, indicator: str = INDICATOR) -> int:
    """Make the indicator one token of a tokenizer, and give it a row in a model's embeddings; its number.

    Doing it again changes nothing. Rows that a model already has beyond the vocabulary are used and not cut.

    Args:
        tokenizer: of transformers.
        model: of transformers; the new row is an ordinary parameter that training moves.
        indicator: the text of the token.

    Source: context-awareness spec, E.
    """
    from transformers import AddedToken

    tokenizer.add_tokens([AddedToken(indicator, special=True, normalized=False)], special_tokens=True)
    if model is not None and model.get_input_embeddings().num_embeddings < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer))
    return int(tokenizer.convert_tokens_to_ids(indicator))
