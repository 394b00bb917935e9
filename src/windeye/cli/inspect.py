"""`windeye inspect`: what the attention of a model does with a text, and what edits change."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windeye.cli.arguments import bad_input

if TYPE_CHECKING:
    from rich.console import Console

    from windeye.inspection import Effect, Inspection
    from windeye.inspection.measure import Progress
    from windeye.inspection.table import Table

INTERRUPTED = 130


def inspect(
    model: Annotated[str, typer.Argument(help="An asset, a folder, a .gguf file, or an id of the Hugging Face hub.")],
    text: Annotated[str | None, typer.Argument(help="What the model reads; or --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text file instead; - is standard input.")] = None,
    layers: Annotated[str | None, typer.Option(help="Such as 0-5,17; default all.")] = None,
    stats: Annotated[str | None, typer.Option(help="Statistics joined by commas; a wrong name lists them.")] = None,
    heads: Annotated[bool, typer.Option("--heads", help="Print a row per head instead of per layer.")] = False,
    steer: Annotated[Path | None, typer.Option(help="Edits as JSON: shows before and after.")] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate with --steer.")] = 24,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Read at most so many tokens.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default those of torch.")] = None,
    device: Annotated[str, typer.Option(help="A torch device, such as cuda.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="The page to write, such as report.html.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never download.")] = False,
    open_report: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Statistics, kinds and sinks of every attention head over a text, without ever forming a map.

    Works with models of transformers and with our decoders. Numbers are computed beside the model's own pass, so that
    tens of thousands of tokens fit.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with bad_input():
        words = _text(text, file)
        edits = _contents(steer, "--steer")
        try:
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task(f"loading {model}", total=None)

                def progress(what: str, share: float) -> None:
                    bar.update(task, description=what, completed=share, total=1.0)

                seen, effect = _run(
                    model, words, layers=layers, stats=stats, edits=edits, new_tokens=new_tokens, threads=threads,
                    device=device, most=max_tokens, offline=offline, progress=progress,
                )  # fmt: skip
        except KeyboardInterrupt:
            console.print("stopped; nothing was written")
            raise typer.Exit(INTERRUPTED) from None
    if out is not None or open_report:
        out = out or Path("report.html")
        _write(out, seen, effect)
    if as_json:
        from windeye.report import machine, versions

        numbers = seen.as_plain() if effect is None else effect.as_plain()
        typer.echo(json.dumps({"command": _command(), "machine": machine(), "versions": versions(), **numbers}))
    else:
        _print(seen, effect, heads=heads, page=out)
    if open_report:
        typer.launch(str(out))


def _text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise ValueError("give either TEXT or --file, what the model shall read")
    if text is not None:
        return text
    if str(file) == "-":
        return sys.stdin.read()
    return _contents(file, "--file") or ""


def _contents(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{option} {path} cannot be read as text: {error}") from error


def _run(
    name: str, text: str, *, layers: str | None, stats: str | None, edits: str | None, new_tokens: int,
    threads: int | None, device: str, most: int | None, offline: bool, progress: Progress,
) -> tuple[Inspection, Effect | None]:  # fmt: skip
    """Everything between the words of the command and what is printed."""
    from windeye.inspection.words import DEFAULT, layers_of, statistics_of

    wanted = statistics_of(stats.split(",") if stats is not None else DEFAULT)
    load = _loader()
    import torch

    from windeye.data import AssetUnavailable
    from windeye.inspection import effect, ends, inspect, ordinary_tokens, reach, read
    from windeye.sites import edits_from_json, parts_of

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model, tokenizer = load(name, offline=offline)
    except AssetUnavailable as error:
        raise ValueError(str(error)) from error
    model = model.to(device)
    reach(model)
    chosen = None if layers is None else layers_of(layers, len(parts_of(model).layers))
    reading = read(model, tokenizer, text, most=most)
    ids = reading.ids.to(device)
    seen = inspect(
        model, ids, reading.tokens, wanted, layers=chosen, vocabulary=ordinary_tokens(tokenizer), ends=ends(tokenizer),
        name=name, progress=progress,
    )  # fmt: skip
    if edits is None:
        return seen, None
    try:
        changes = edits_from_json(edits, model)
        return seen, effect(model, tokenizer, ids, changes, seen, wanted, new_tokens=new_tokens, progress=progress)
    except IndexError as error:  # a layer or a head that there is not
        raise ValueError(f"--steer: {error}") from error


def _loader() -> Callable[..., Any]:
    try:
        from windeye.hf.pretrained import load
    except ImportError as error:
        raise ValueError(f"{error}; models are read by transformers") from error
    return load


def _write(path: Path, seen: Inspection, effect: Effect | None) -> None:
    from windeye.inspection import report
    from windeye.report.writing import write_whole

    write_whole(path, report(seen, _command(), effect))


def _command() -> str:
    return shlex.join(["windeye", *sys.argv[1:]])


def _print(seen: Inspection, effect: Effect | None, *, heads: bool, page: Path | None) -> None:
    from rich.console import Console

    from windeye.inspection import table

    # Where lines need not fit a screen they are not folded.
    console = Console(width=None if sys.stdout.isatty() else 200)
    if effect is not None:
        if effect.next_before is not None:
            _table(console, "next token", effect.next_tokens())
            console.print(f"before: {effect.text_before!r}\nafter:  {effect.text_after!r}", markup=False)
        _table(console, "statistics before and after", effect.statistics())
    _table(console, "heads" if heads else "layers", table.by_head(seen) if heads else table.by_layer(seen))
    _table(console, "kinds of heads", table.kinds(seen))
    if seen.received is not None:
        _table(console, "tokens that receive most attention", table.top_tokens(seen, 10))
    layers = f"{len(seen.layers)} layer{'s' * (len(seen.layers) > 1)}"
    told = f"{seen.model}: {len(seen.tokens):,} tokens, {layers}, {seen.heads} heads each"
    console.print(f"{told}, {seen.seconds:.1f} s" + (f"\nreport: {page}" if page is not None else ""), markup=False)


def _table(console: Console, title: str, table: Table) -> None:
    from rich.table import Table as Shown
    from rich.text import Text

    columns, rows = table
    console.print(title, style="italic")
    shown = Shown(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        shown.add_column(column, justify="left" if place in (0, len(columns) - 1) else "right", overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)


def register(app: typer.Typer) -> None:
    app.command()(inspect)
