"""`windeye look`: where a vision model looks, drawn on the image."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from windeye.cli.arguments import bad_input, coordinates_of, grid_of

if TYPE_CHECKING:
    from windeye.inspection.images import Look

INTERRUPTED = 130


def look(
    model: Annotated[str, typer.Argument(help="A published backbone such as swin_t, or a file with one.")],
    image: Annotated[str, typer.Argument(help="An image file, or a photograph that is at hand: astronaut.")],
    query: Annotated[
        list[str] | None, typer.Option("--query", help="Row,column of a pixel, or class; may be repeated.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of a published model, official or ours.")] = None,
    stage: Annotated[int | None, typer.Option(help="The stage to show in full, from 0.")] = None,
    block: Annotated[str | None, typer.Option(help="The block to show in full, from 0, or: entry.")] = None,
    size: Annotated[
        str | None,
        typer.Option(help="As many pixels as a square of 384, or 384x512, or: own. Default the model's."),
    ] = None,
    scaling: Annotated[str | None, typer.Option(help="Of colours: imagenet, unit (0 to 1) or symmetric.")] = None,
    resize_tables: Annotated[bool, typer.Option(help="Interpolate what a window's size binds.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default those of torch.")] = None,
    device: Annotated[str, typer.Option(help="A torch device, such as cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the page, figures and numbers.")] = Path("runs/look"),
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:  # fmt: skip
    """Where tokens of an image look, in every layer of a vision backbone.

    Windows, stripes, neighbourhoods, pooled, sampled and routed keys are all followed back to the pixels of the image.
    """
    with bad_input():
        queries = [words if words == "class" else coordinates_of(words) for words in query] if query else None
        try:
            seen = _run(
                model, image, queries, weights=weights, stage=stage, block=_block(block), size=_size(size),
                scaling=scaling, resize_tables=resize_tables, threads=threads, device=device,
            )  # fmt: skip
        except KeyboardInterrupt:
            typer.echo("stopped; nothing was written", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (IndexError, ImportError) as error:
            raise ValueError(str(error)) from error
        page = seen.save(out, command=shlex.join(["windeye", *sys.argv[1:]]))
    if as_json:
        typer.echo(json.dumps(seen.as_plain()))
    else:
        _print(seen, page)
    if open_page:
        typer.launch(str(page))


def _block(text: str | None) -> int | str | None:
    if text is None or text == "entry":
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--block must be a number from 0, or entry, got {text!r}") from None


def _size(text: str | None) -> int | tuple[int, int] | Literal["own"] | None:
    if text is None or text == "own":
        return "own" if text else None
    grid = grid_of(text, "--size")
    if len(grid) > 2:
        raise ValueError(f"--size must be a side such as 384, or height x width such as 384x512, got {text!r}")
    return grid[0] if len(grid) == 1 else (grid[0], grid[1])


def _run(
    name: str, image: str, queries: list[Any] | None, *, weights: Path | None, stage: int | None,
    block: int | str | None, size: int | tuple[int, int] | Literal["own"] | None, scaling: str | None,
    resize_tables: bool, threads: int | None, device: str,
) -> Look:  # fmt: skip
    import torch

    from windeye.inspection.images import look, read_photo
    from windeye.inspection.images.models import RANDOM, vision_model
    from windeye.inspection.images.page import LOUD

    photo = read_photo(image)  # a wrong name is told before a model is made
    if threads is not None:
        torch.set_num_threads(threads)
    found = vision_model(name, weights, resize_tables=resize_tables)
    if found.weights == RANDOM:
        typer.secho(LOUD, err=True, fg=typer.colors.YELLOW, bold=True)
    return look(
        found.model.to(device), photo, queries, stage=stage, block=block, size=size, scaling=scaling or found.colours,
        name=found.name, weights=found.weights,
    )  # fmt: skip


def _print(seen: Look, page: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from windeye.inspection.images.layers import named
    from windeye.inspection.images.page import by_layer

    console = Console(width=None if sys.stdout.isatty() else 200)
    columns, rows = by_layer(seen)
    shown = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        shown.add_column(column, justify="left" if place in (0, len(columns) - 1) else "right")
    for row in rows:
        shown.add_row(*map(Text, row), style="bold" if row[0] == str(seen.chosen) else None)
    console.print(shown)
    height, width = seen.photo.size
    asked = ", ".join(map(named, seen.queries))
    console.print(
        f"{seen.model} ({seen.weights} weights) looks at {seen.photo.name}, {height} x {width} pixels seen at "
        f"{seen.seen[0]} x {seen.seen[1]}, query {asked}; layer {seen.chosen} in full, {seen.seconds:.1f} s\n"
        f"page: {page}",
        markup=False,
    )  # fmt: skip


def register(app: typer.Typer) -> None:
    app.command()(look)
