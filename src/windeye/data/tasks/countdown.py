"""Countdown: reach a number from given ones by arithmetic. Answers can be checked exactly, so they make rewards."""

from __future__ import annotations

import ast
import operator
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from windeye.data.sequences import SPLITS, Split, check_integer, derived_seed

_OPERATIONS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}


@dataclass(frozen=True)
class Problem:
    """Numbers, each of which must be used once, the target, and one way to it."""

    numbers: tuple[int, ...]
    target: int
    solution: str

    def prompt(self) -> str:
        """The task in words.

        Example:
            >>> print(Problem((3, 4), 12, "3 * 4").prompt())
            Using the numbers 3, 4, each exactly once, and + - * / and parentheses, write an expression that equals 12.
        """
        given = ", ".join(map(str, self.numbers))
        return (
            f"Using the numbers {given}, each exactly once, and + - * / and parentheses, write an expression that "
            f"equals {self.target}."
        )

    def right(self, expression: str) -> bool:
        """Whether an expression uses every number once and equals the target, in exact arithmetic.

        Anything that is no such expression is wrong and never run.

        Example:
            >>> problem = Problem((3, 4, 6), 2, "6 / (3 * 4) * 4")
            >>> problem.right("(4 * 3) / 6"), problem.right("6 - 4"), problem.right("print(2)")
            (True, False, False)
        """
        try:
            used: Counter[int] = Counter()
            value = _value(ast.parse(expression.strip(), mode="eval").body, used)
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
            return False
        return value == self.target and used == Counter(self.numbers)


@dataclass(frozen=True)
class Countdown:
    """Problems whose target can be reached: it is the value of a random expression over all numbers.

    Args:
        numbers: how many are given.
        largest: they are drawn from 1 to this, with repetition.
        largest_target: targets are whole and lie between 1 and this.

    Raises:
        ValueError, TypeError: naming the argument and what would be valid.

    Source: preplan-anchor spec, configurations (4 numbers from 1 to 99, target reachable);
    the bound of targets is ours.

    Example:
        >>> first, second = Countdown().sample(2, seed=0)
        >>> len(first.numbers), first.right(first.solution), first != second
        (4, True, True)
    """

    numbers: int = 4
    largest: int = 99
    largest_target: int = 999

    def __post_init__(self) -> None:
        check_integer("numbers", self.numbers, 2)
        check_integer("largest", self.largest, 1)
        check_integer("largest_target", self.largest_target, self.numbers)

    def sample(self, examples: int, *, seed: int, split: Split = "train") -> list[Problem]:
        """Draw problems. Equal arguments give equal ones; train and test are distinct streams of one seed.

        Raises:
            ValueError, TypeError: fewer than no examples, unknown split, a seed that is no integer.
        """
        check_integer("examples", examples, 0)
        check_integer("seed", seed)
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        draw = random.Random(derived_seed("countdown", split, seed))
        return [self._problem(draw) for _ in range(examples)]

    def _problem(self, draw: random.Random) -> Problem:
        while True:
            numbers = tuple(draw.randint(1, self.largest) for _ in range(self.numbers))
            parts = [(Fraction(number), str(number)) for number in numbers]
            while len(parts) > 1:
                (left, left_text), (right, right_text) = (parts.pop(draw.randrange(len(parts))) for _ in range(2))
                sign, apply = draw.choice(tuple(_OPERATIONS.values()))
                if sign == "/" and (right == 0 or (left / right).denominator != 1):
                    sign, apply = "+", operator.add
                parts.append((apply(left, right), f"({left_text} {sign} {right_text})"))
            value, text = parts[0]
            if 1 <= value <= self.largest_target:
                return Problem(numbers, int(value), text[1:-1])


def _value(node: ast.expr, used: Counter[int]) -> Fraction:
    """The value of an expression of whole numbers and the four operations; numbers are counted."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used[node.value] += 1
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)][1](_value(node.left, used), _value(node.right, used))
    raise ValueError(f"not a number or one of + - * /: {ast.dump(node)}")
