"""Cards: what each published system is, in our own words. The text lives in cards.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

FAMILIES = {
    "windows": "Windows over grids, video and points",
    "backbones": "Vision backbones and heads",
    "sequence": "Recurrences, memory and trainable sparsity",
    "memory": "KV memory and long context",
    "inspect": "Looking inside",
    "steer": "Steering vision-language models",
    "gui": "Pointing at interfaces",
    "gaze": "Human gaze",
    "audio": "Sound and speech",
}


@dataclass(frozen=True)
class Card:
    """One published system. ``posted`` is an ISO date or month; ``code`` is empty where no official code is known."""

    slug: str
    title: str
    family: str
    authors: str
    posted: str
    arxiv: str
    code: str
    summary: str
    claim: str

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def module(self) -> str:
        """The name of its module in this package."""
        return self.slug.replace("-", "_")


@lru_cache(maxsize=1)
def cards() -> dict[str, Card]:
    """All cards by slug, in the order of their families.

    Example:
        >>> cards()["fna"].arxiv
        '2403.04690'
    """
    text = resources.files("windeye.papers").joinpath("cards.toml").read_text()
    return {slug: Card(slug=slug, **facts) for slug, facts in tomllib.loads(text).items()}


def find(slug: str) -> Card:
    """The card of a slug.

    Raises:
        ValueError: there is none; names the nearest ones.
    """
    from difflib import get_close_matches

    if slug in cards():
        return cards()[slug]
    near = get_close_matches(slug, cards(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "`windeye papers` lists them"
    raise ValueError(f"no paper {slug!r}; {hint}")


def search(words: str) -> list[Card]:
    """Cards in which every word occurs, in any field and any case."""
    wanted = words.lower().split()
    return [
        card
        for card in cards().values()
        if all(
            word in " ".join((card.slug, card.title, card.family, card.authors, card.summary, card.arxiv)).lower()
            for word in wanted
        )
    ]
