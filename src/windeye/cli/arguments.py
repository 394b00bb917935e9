"""What several commands understand alike: grids, coordinates, patterns, and bad input as one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from windeye.patterns import Pattern

BAD_INPUT = 2

GridOption = Annotated[str, typer.Option("--grid", help="Tokens per axis, such as 32x32 or 8192.")]
PatternArgument = Annotated[
    str, typer.Argument(help='A pattern in words: "neighborhood 13 stride 4", "sliding 256 | sinks 4".')
]


@contextmanager
def bad_input() -> Iterator[None]:
    """Turn what the library refuses into one line on standard error and exit code 2."""
    try:
        yield
    except (ValueError, TypeError) as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(BAD_INPUT) from error


def grid_of(text: str, name: str = "--grid") -> tuple[int, ...]:
    """A grid such as 32x32.

    Example:
        >>> grid_of("16x32x32")
        (16, 32, 32)
    """
    try:
        grid = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ValueError(f"{name} must be integers joined by x, such as 32x32, got {text!r}") from None
    if any(length < 1 for length in grid):
        raise ValueError(f"{name} must have at least one token per axis, got {text!r}")
    return grid


def coordinates_of(text: str, name: str = "--query") -> tuple[int, ...]:
    """Coordinates such as 5,7."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} must be integers joined by commas, such as 5,7, got {text!r}") from None


def pattern_of(text: str) -> Pattern:
    """A pattern from the words of the command line."""
    from windeye.patterns import parse

    return parse(text)
