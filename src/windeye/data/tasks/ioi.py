"""IOI, indirect object identification: two names, one comes back, the other is the answer."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from windeye.data.sequences import check_integer, derived_seed
from windeye.data.tasks.contrast import Contrast

Order = Literal["BABA", "ABBA"]
Corruption = Literal["S2->IO", "S2->RAND", "IO->RAND"]

#: ``{pair}`` is the first clause's two names, ``{s}`` the subject when it comes back; the answer follows the text.
TEMPLATES = (
    "Then, {pair} went to the {place}. {s} gave a {object} to",
    "Then, {pair} had a lot of fun at the {place}. {s} gave a {object} to",
    "Then, {pair} were working at the {place}. {s} decided to give a {object} to",
    "Then, {pair} were thinking about going to the {place}. {s} wanted to give a {object} to",
    "Then, {pair} had a long argument, and afterwards {s} said to",
    "After {pair} went to the {place}, {s} gave a {object} to",
    "When {pair} got a {object} at the {place}, {s} decided to give it to",
    "When {pair} got a {object} at the {place}, {s} decided to give the {object} to",
    "While {pair} were working at the {place}, {s} gave a {object} to",
    "While {pair} were commuting to the {place}, {s} gave a {object} to",
    "After the lunch, {pair} went to the {place}. {s} gave a {object} to",
    "Afterwards, {pair} went to the {place}. {s} gave a {object} to",
    "Then, {pair} had a long argument. Afterwards {s} said to",
    "The {place} {pair} went to had a {object}. {s} gave it to",
    "Friends {pair} found a {object} at the {place}. {s} gave it to",
)
#: How many templates of each order a mixed sample takes.
MIXED = len(TEMPLATES) // 2

#: Three names of which none comes back alone: prompts for mean ablation.
ABC_TEMPLATES = (
    "Then, {a}, {b} and {c} went to the {place}. {b} and {c} gave a {object} to",
    "Afterwards {a}, {b} and {c} went to the {place}. {b} and {c} gave a {object} to",
    "When {a}, {b} and {c} arrived at the {place}, {b} and {c} gave a {object} to",
    "Friends {a}, {b} and {c} went to the {place}. {b} and {c} gave a {object} to",
)

PLACES = ("store", "garden", "restaurant", "school", "hospital", "office", "house", "station")
OBJECTS = ("ring", "kiss", "bone", "basketball", "computer", "necklace", "drink", "snack")
NAMES = (
    "Michael", "Christopher", "Jessica", "Matthew", "Ashley", "Jennifer", "Joshua", "Amanda", "Daniel", "David",
    "James", "Robert", "John", "Joseph", "Andrew", "Ryan", "Brandon", "Jason", "Justin", "Sarah", "William",
    "Jonathan", "Stephanie", "Brian", "Nicole", "Nicholas", "Anthony", "Heather", "Eric", "Elizabeth", "Adam",
    "Megan", "Melissa", "Kevin", "Steven", "Thomas", "Timothy", "Christina", "Kyle", "Rachel", "Laura", "Lauren",
    "Amber", "Brittany", "Danielle", "Richard", "Kimberly", "Jeffrey", "Amy", "Crystal", "Michelle", "Tiffany",
    "Jeremy", "Benjamin", "Mark", "Emily", "Aaron", "Charles", "Rebecca", "Jacob", "Stephen", "Patrick", "Sean",
    "Erin", "Jamie", "Kelly", "Samantha", "Nathan", "Sara", "Dustin", "Paul", "Angela", "Tyler", "Scott",
    "Katherine", "Andrea", "Gregory", "Erica", "Mary", "Travis", "Lisa", "Kenneth", "Bryan", "Lindsey", "Kristen",
    "Jose", "Alexander", "Jesse", "Katie", "Lindsay", "Shannon", "Vanessa", "Courtney", "Christine", "Alicia",
    "Cody", "Allison", "Bradley", "Samuel",
)  # fmt: skip


@dataclass(frozen=True)
class IOIPrompt:
    """One filled template: the subject comes back, the indirect object is the answer.

    Args:
        template: index into `TEMPLATES`.
        order: "BABA" names the subject first, "ABBA" the indirect object.
        stranger: a third name, for corruptions.

    Example:
        >>> prompt = IOIPrompt(5, "BABA", "Amy", "Mark", "Paul", "store", "ring")
        >>> prompt.text
        'After Mark and Amy went to the store, Mark gave a ring to'
        >>> prompt.answer, prompt.distractor, prompt.text[prompt.chars["s2"] :][:4]
        (' Amy', ' Mark', 'Mark')
    """

    template: int
    order: Order
    indirect_object: str
    subject: str
    stranger: str
    place: str
    object: str

    @property
    def text(self) -> str:
        return self._filled(self.indirect_object, self.subject, self.subject)

    @property
    def answer(self) -> str:
        return f" {self.indirect_object}"

    @property
    def distractor(self) -> str:
        return f" {self.subject}"

    @property
    def chars(self) -> dict[str, int]:
        """Where the words begin: ``io``, ``s1``, ``s2``, ``after_s1`` (the next word) and ``stop``, the full stop or
        comma that ends the part before the subject comes back."""
        text = self.text
        (io,), (s1, s2) = (_starts(name, text) for name in (self.indirect_object, self.subject))
        return {
            "io": io,
            "s1": s1,
            "s2": s2,
            "after_s1": s1 + len(self.subject) + 1,
            "stop": max(text.rfind(mark, 0, s2) for mark in ".,"),
        }

    def contrast(self, corruption: Corruption = "S2->IO") -> Contrast:
        """The prompt with a twin in which a name is replaced.

        "S2->IO" writes the indirect object where the subject comes back, so that answer and distractor change places;
        "S2->RAND" writes a third name there, which keeps both; "IO->RAND" replaces the indirect object, the answer
        included.

        Raises:
            ValueError: an unknown corruption.
        """
        io, s, stranger = self.indirect_object, self.subject, self.stranger
        names = {"S2->IO": (io, s, io), "S2->RAND": (io, s, stranger), "IO->RAND": (stranger, s, s)}
        answers = {"S2->IO": s, "S2->RAND": io, "IO->RAND": stranger}
        if corruption not in names:
            raise ValueError(f"corruption must be one of {', '.join(get_args(Corruption))}, got {corruption!r}")
        twin, twin_answer = self._filled(*names[corruption]), f" {answers[corruption]}"
        return Contrast(self.text, self.answer, self.distractor, twin, twin_answer, self.chars)

    def _filled(self, io: str, s1: str, s2: str) -> str:
        first, second = (s1, io) if self.order == "BABA" else (io, s1)
        return TEMPLATES[self.template].format(pair=f"{first} and {second}", s=s2, place=self.place, object=self.object)


@dataclass(frozen=True)
class IOI:
    """Draws prompts: a template, three distinct names, a place and an object, each uniform.

    Args:
        order: "BABA" or "ABBA" take all templates, "mixed" the first seven in both orders.
        names: what names are drawn from; give those that are one token, see `single_tokens`.

    Raises:
        ValueError: an unknown order, fewer than three names.

    Source: circuit-reuse spec; the prompts of Wang et al., 2022.

    Example:
        >>> [prompt.text for prompt in IOI("ABBA").sample(1, seed=0)]
        ['Then, Jennifer and Jason went to the store. Jason gave a basketball to']
        >>> IOI("mixed").sample(3, seed=1) == IOI("mixed").sample(3, seed=1)
        True
    """

    order: Literal[Order, "mixed"] = "mixed"
    names: Sequence[str] = NAMES

    def __post_init__(self) -> None:
        if self.order not in (*get_args(Order), "mixed"):
            raise ValueError(f'order must be "BABA", "ABBA" or "mixed", got {self.order!r}')
        if len(set(self.names)) < 3:
            raise ValueError(f"names must hold at least three distinct names, got {len(set(self.names))}")

    @property
    def templates(self) -> tuple[tuple[int, Order], ...]:
        """The (template, order) that are drawn from."""
        if self.order == "mixed":
            return tuple((template, order) for order in get_args(Order) for template in range(MIXED))
        return tuple((template, self.order) for template in range(len(TEMPLATES)))

    def sample(self, examples: int, *, seed: int) -> list[IOIPrompt]:
        """Draw prompts; equal arguments give equal prompts."""
        draw = _generator(examples, seed, "ioi")
        prompts = []
        for _ in range(examples):
            template, order = draw.choice(self.templates)
            io, s, stranger = draw.sample(self.names, 3)
            prompts.append(IOIPrompt(template, order, io, s, stranger, draw.choice(PLACES), draw.choice(OBJECTS)))
        return prompts

    def abc(self, examples: int, *, seed: int) -> list[str]:
        """Prompts with three names of which no single one comes back: what a mean ablation averages over.

        Example:
            >>> IOI().abc(1, seed=0)
            ['Friends Joseph, Andrea and Mary went to the restaurant. Andrea and Mary gave a snack to']
        """
        draw = _generator(examples, seed, "abc")
        prompts = []
        for _ in range(examples):
            a, b, c = draw.sample(self.names, 3)
            template, place, thing = draw.choice(ABC_TEMPLATES), draw.choice(PLACES), draw.choice(OBJECTS)
            prompts.append(template.format(a=a, b=b, c=c, place=place, object=thing))
        return prompts


def _generator(examples: int, seed: int, task: str) -> random.Random:
    check_integer("examples", examples, 0)
    check_integer("seed", seed)
    return random.Random(derived_seed(task, seed))


def _starts(name: str, text: str) -> list[int]:
    """Where a name stands as a word of its own: Sara is not in Sarah."""
    return [found.start() for found in re.finditer(rf"\b{re.escape(name)}\b", text)]
