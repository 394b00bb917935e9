"""`windeye show`: what a pattern looks like."""

from __future__ import annotations

from typing import Annotated

import typer

from windeye.cli.arguments import GridOption, PatternArgument, bad_input, coordinates_of, grid_of, pattern_of


def show(
    pattern: PatternArgument,
    grid: GridOption,
    grid_kv: Annotated[str | None, typer.Option("--grid-kv", help="Key grid, if it is another one.")] = None,
    query: Annotated[list[str] | None, typer.Option("--query", help="A query such as 5,7; repeat for several.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write a .png or .svg instead of text.")] = None,
) -> None:
    """Draw who sees whom, and count it."""
    with bad_input():
        parsed = pattern_of(pattern)
        bound = parsed.bind(grid_of(grid), grid_of(grid_kv, "--grid-kv") if grid_kv else None)
        queries = [coordinates_of(q) for q in query] if query else None
        from windeye.patterns.draw import draw

        drawing = draw(bound, out, queries=queries)
    typer.echo(f"wrote {drawing}" if out else drawing)
    bound_on_speed = f", FLOP bound {1 / bound.density():.1f}x over dense" if bound.pairs() else ""
    typer.echo(f"\n{parsed.spec}\n{bound.pairs():,} pairs, {bound.density():.2%} of all{bound_on_speed}")


def register(app: typer.Typer) -> None:
    app.command()(show)
