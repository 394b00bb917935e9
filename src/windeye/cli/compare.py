"""`windeye compare`: mechanisms side by side on the same skeleton, data and budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from windeye.cli.arguments import bad_input

if TYPE_CHECKING:
    from windeye.compare.page import Shown
    from windeye.compare.parts import Result
    from windeye.report import Budget

INTERRUPTED = 130

app = typer.Typer(no_args_is_help=True)


@app.callback()
def compare() -> None:
    """Mechanisms side by side: the same skeleton, data and budget for each."""


@app.command()
def sequence(
    arms: Annotated[str | None, typer.Option(help="Mechanisms joined by commas; default all, softmax always.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many; default the budget's.")] = None,
    budget: Annotated[str, typer.Option(help="smoke (seconds), default (an hour) or full (hours).")] = "default",
    parts: Annotated[str, typer.Option(help="Of recall, language, throughput.")] = "recall,language,throughput",
    device: Annotated[str, typer.Option(help="A torch device, such as cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("runs/compare-sequence"),
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Sequence mixers: recall against memory, perplexity of a text, and speed as sequences grow.

    What is finished is kept in the report's folder: after Ctrl-C the same command goes on, and parts that were run
    before stay in the report.
    """
    from windeye.compare.sequence.page import SHOWN
    from windeye.compare.sequence.run import run

    words = _words(arms=arms, seeds=seeds, budget=budget, parts=parts)
    work = partial(
        run, _listed(arms), _listed(parts) or [], budget=_checked(budget), seeds=seeds, device=device, folder=out,
        command=f"windeye compare sequence {words}",
    )  # fmt: skip
    _report(work, SHOWN, out, as_json=as_json, open_report=open_report)


@app.command()
def vision(
    mixers: Annotated[str | None, typer.Option(help="Mixers joined by commas; default all, full always.")] = None,
    data: Annotated[
        str, typer.Option(help="fashion-mnist, made-scenes, or a folder with a folder of images per class.")
    ] = "fashion-mnist",
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels; default the budget's.")] = None,
    rates: Annotated[
        str | None,
        typer.Option(help="Rates joined by commas; each mixer takes its best. Default one for all."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of training; default the budget's.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many; default the budget's.")] = None,
    budget: Annotated[str, typer.Option(help="smoke (seconds), default (most of an hour) or full (days).")] = "default",
    parts: Annotated[str, typer.Option(help="Of accuracy, speed.")] = "accuracy,speed",
    device: Annotated[str, typer.Option(help="A torch device to train on, such as cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the report and the models.")] = Path("runs/compare-vision"),
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Mixers of maps in one backbone: accuracy and what it costs, speed and memory as maps grow.

    What is finished is kept in the report's folder: after Ctrl-C the same command goes on, and parts that were run
    before stay in the report. The trained model of every mixer lies in OUT/models, for `windeye look`.
    """
    from windeye.compare.vision.page import SHOWN
    from windeye.compare.vision.run import run

    words = _words(
        mixers=mixers,
        data=None if data == "fashion-mnist" else data,
        size=size,
        rates=rates,
        steps=steps,
        seeds=seeds,
        budget=budget,
        parts=parts,
    )
    work = partial(
        run, _listed(mixers), _listed(parts) or [], data=data, size=size, rates=_numbers("rates", rates),
        steps=steps, budget=_checked(budget), seeds=seeds, device=device, folder=out,
        command=f"windeye compare vision {words}",
    )  # fmt: skip
    _report(work, SHOWN, out, as_json=as_json, open_report=open_report)


def _report(run: Callable[..., Result], shown: Shown, out: Path, *, as_json: bool, open_report: bool) -> None:
    """Run a comparison under a bar, write its report and print it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from windeye.compare.page import save
    from windeye.data import AssetUnavailable

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with bad_input():
        try:
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task("compare", total=1.0)
                result = run(progress=lambda name, share: bar.update(task, description=name[:48], completed=share))
        except KeyboardInterrupt:
            console.print(f"stopped; what is finished is kept in {out}, run again to go on")
            raise typer.Exit(INTERRUPTED) from None
        except (AssetUnavailable, ImportError) as error:
            raise ValueError(str(error)) from error
    json_path, html_path = save(result, out, shown)
    if as_json:
        typer.echo(json_path.read_text())
    else:
        _print(result, shown, html_path)
    if open_report:
        typer.launch(str(html_path))


def _words(**options: object) -> str:
    """Options as they are typed, those that were left away left away."""
    return " ".join(f"--{name} {value}" for name, value in options.items() if value is not None)


def _checked(budget: str) -> Budget:
    from windeye.report import BUDGETS

    with bad_input():
        if budget not in BUDGETS:
            raise ValueError(f"--budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
    return budget


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _numbers(name: str, text: str | None) -> list[float] | None:
    with bad_input():
        try:
            return None if text is None else [float(word) for word in _listed(text) or []]
        except ValueError:
            raise ValueError(f"--{name} must be numbers joined by commas, such as 3e-3,1e-2, got {text!r}") from None


def _print(result: Result, shown: Shown, html_path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for part in shown.headings:
        if part in result["parts"]:
            columns, rows = shown.table(part, result["parts"][part])
            table = Table(box=None, pad_edge=False, title=part, title_justify="left")
            for place, column in enumerate(columns):
                table.add_column(column, justify="right" if place else "left")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    console.print(f"report: {html_path}")


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="compare")
