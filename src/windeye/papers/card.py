"""Cards: what each published system is, in our own words. The text lives in cards.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
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
    """One published system.

    ``posted`` is the ISO date or month of its first version; ``code`` is empty where no official code was published;
    ``summary`` tells the mechanism in two sentences; ``claim`` is what a run here could show, and what would count.
    """

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
    text = resources.files("windeye.papers").joinpath("cards.toml").read_text(encoding="utf-8")
    return {slug: Card(slug=slug, **facts) for slug, facts in tomllib.loads(text).items()}


def find(slug: str) -> Card:
    """The card of a slug.

    Raises:
        ValueError: there is none; names the nearest ones.

    Example:
        >>> find("gna").family
        'windows'
        >>> find("gnaa")
        Traceback (most recent call last):
        ...
        ValueError: no paper 'gnaa'; did you mean gna?
    """
    if slug in cards():
        return cards()[slug]
    raise ValueError(f"no paper {slug!r}; {hint(slug)}")


def hint(slug: str) -> str:
    """What to try in place of a slug that does not exist.

    Example:
        >>> hint("titan")
        'did you mean titans?'
        >>> hint("???")
        '`windeye papers` lists them'
    """
    near = get_close_matches(slug.lower(), cards(), n=3)
    return f"did you mean {', '.join(near)}?" if near else "`windeye papers` lists them"


def search(words: str) -> list[Card]:
    """Cards in which every word occurs, in any case: in slug, title, family, authors, arXiv number or summary.

    The claim is left out: it names what a system is compared with, which would find every baseline's word.

    Example:
        >>> [card.slug for card in search("linear attention decay")]
        ['lightning-attention', 'lightning-attention-2']
    """
    wanted = words.lower().split()
    return [card for card in cards().values() if all(word in _searched(card) for word in wanted)]


def _searched(card: Card) -> str:
    family = f"{card.family} {FAMILIES[card.family]}"
    return " ".join((card.slug, card.title, family, card.authors, card.arxiv, card.summary)).lower()
