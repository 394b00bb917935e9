"""Colored Objects: a scene of three things, one solved question about another scene, and one open question."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from windeye.data.sequences import check_integer, derived_seed
from windeye.data.tasks.contrast import Contrast

SURFACES = ("table", "desk", "floor")
INTROS = ("there is", "you see", "I see")
OBJECTS = (
    "pencil", "notebook", "pen", "cup", "plate", "jug", "mug", "puzzle", "textbook", "leash", "necklace",
    "bracelet", "bottle", "ball", "envelope", "lighter", "bowl",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black")


@dataclass(frozen=True)
class Scene:
    """Three coloured things on a surface, and which one is asked for.

    Example:
        >>> scene = Scene("desk", "I see", ("mug", "pen", "ball"), ("orange", "red", "blue"), queried=1)
        >>> scene.sentence
        'On the desk, I see an orange mug, a red pen, and a blue ball.'
        >>> scene.question, scene.answer
        ('What color is the pen?', ' Red')
    """

    surface: str
    intro: str
    objects: tuple[str, str, str]
    colours: tuple[str, str, str]
    queried: int

    @property
    def sentence(self) -> str:
        first, second, third = (f"{_article(c)} {c} {o}" for c, o in zip(self.colours, self.objects, strict=True))
        return f"On the {self.surface}, {self.intro} {first}, {second}, and {third}."

    @property
    def question(self) -> str:
        return f"What color is the {self.objects[self.queried]}?"

    @property
    def answer(self) -> str:
        """The colour of the queried thing, with a space and a capital."""
        return f" {self.colours[self.queried].capitalize()}"

    @property
    def open(self) -> str:
        """The scene and its question, unanswered."""
        return f"Q: {self.sentence} {self.question}\nA:"


@dataclass(frozen=True)
class ColoredObjectsPrompt:
    """A solved scene, an open one, and which other thing the twin asks for.

    Example:
        >>> shot = Scene("desk", "I see", ("mug", "pen", "ball"), ("orange", "red", "blue"), queried=1)
        >>> scene = Scene("table", "you see", ("cup", "jug", "bowl"), ("black", "green", "brown"), queried=0)
        >>> prompt = ColoredObjectsPrompt(shot, scene, twin_queried=2)
        >>> prompt.answer, prompt.twin_answer
        (' Black', ' Brown')
        >>> prompt.text[-25:]
        'What color is the cup?\\nA:'
    """

    shot: Scene
    scene: Scene
    twin_queried: int

    @property
    def text(self) -> str:
        return self._solved + self.scene.open

    @property
    def twin(self) -> str:
        """The same, but for the thing that is asked for."""
        return self._solved + self._twin_scene.open

    @property
    def answer(self) -> str:
        return self.scene.answer

    @property
    def twin_answer(self) -> str:
        return self._twin_scene.answer

    @property
    def wrong(self) -> tuple[int, int]:
        """The two things of the scene that are not asked for."""
        first, second = (i for i in range(3) if i != self.scene.queried)
        return first, second

    @property
    def chars(self) -> dict[str, int]:
        """Where words of the open scene begin: ``colour0 .. colour2``, ``object0 .. object2``, the thing that is asked
        for (``queried``), and the answer of the solved scene (``shot``, its letters)."""
        text, begin = self.text, len(self._solved)
        found = {"shot": text.index("\nA: ") + 4}
        for i, (colour, thing) in enumerate(zip(self.scene.colours, self.scene.objects, strict=True)):
            found[f"colour{i}"] = text.index(f" {colour} {thing}", begin) + 1
            found[f"object{i}"] = found[f"colour{i}"] + len(colour) + 1
        found["queried"] = text.rindex(f"the {self.scene.objects[self.scene.queried]}?") + 4
        return found

    def contrast(self) -> Contrast:
        """Prompt and twin; the twin's colour is the distractor."""
        return Contrast(self.text, self.answer, self.twin_answer, self.twin, self.twin_answer, self.chars)

    @property
    def _solved(self) -> str:
        return f"{self.shot.open}{self.shot.answer}\n"

    @property
    def _twin_scene(self) -> Scene:
        scene = self.scene
        return Scene(scene.surface, scene.intro, scene.objects, scene.colours, self.twin_queried)


@dataclass(frozen=True)
class ColoredObjects:
    """Draws prompts. The two scenes share no thing and no colour; each thing of a scene is asked for as often.

    Guessing among the scene's colours is right with probability 1/3.

    Args:
        objects: what things are drawn from; give those that are one token, see `single_tokens`.

    Raises:
        ValueError: fewer than six things.

    Source: circuit-reuse spec.

    Example:
        >>> prompt = ColoredObjects().sample(1, seed=0)[0]
        >>> set(prompt.shot.colours) & set(prompt.scene.colours)
        set()
    """

    objects: Sequence[str] = OBJECTS

    def __post_init__(self) -> None:
        if len(set(self.objects)) < 6:
            raise ValueError(f"objects must hold at least six distinct things, got {len(set(self.objects))}")

    def sample(self, examples: int, *, seed: int) -> list[ColoredObjectsPrompt]:
        """Draw prompts; equal arguments give equal prompts."""
        check_integer("examples", examples, 0)
        check_integer("seed", seed)
        draw = random.Random(derived_seed("colored objects", seed))
        return [_drawn(draw, self.objects) for _ in range(examples)]


def _drawn(draw: random.Random, objects: Sequence[str]) -> ColoredObjectsPrompt:
    things, colours = draw.sample(objects, 6), draw.sample(COLOURS, 6)
    shot, scene = (
        Scene(
            draw.choice(SURFACES),
            draw.choice(INTROS),
            (things[i], things[i + 1], things[i + 2]),
            (colours[i], colours[i + 1], colours[i + 2]),
            draw.randrange(3),
        )
        for i in (0, 3)
    )
    twin = (scene.queried + draw.choice((1, 2))) % 3
    return ColoredObjectsPrompt(shot, scene, twin)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
