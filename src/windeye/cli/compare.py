"""`windeye compare`: mechanisms side by side on the same skeleton, data and budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from windeye.cli.arguments import bad_input

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
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from windeye.compare.page import save
    from windeye.compare.sequence import sequence as run
    from windeye.data import AssetUnavailable
    from windeye.report import BUDGETS

    words = [f"--arms {arms}"] if arms is not None else []
    words += [f"--seeds {seeds}"] if seeds is not None else []
    command = " ".join(["windeye compare sequence", *words, f"--budget {budget} --parts {parts}"])
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with bad_input():
        if budget not in BUDGETS:
            raise ValueError(f"--budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
        try:
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task("compare", total=1.0)
                result = run(
                    _listed(arms), _listed(parts) or [], budget=budget, seeds=seeds, device=device, folder=out,
                    command=command,
                    progress=lambda name, share: bar.update(task, description=name[:48], completed=share),
                )  # fmt: skip
        except KeyboardInterrupt:
            console.print(f"stopped; what is finished is kept in {out}, run again to go on")
            raise typer.Exit(INTERRUPTED) from None
        except AssetUnavailable as error:
            raise ValueError(str(error)) from error
    json_path, html_path = save(result, out)
    if as_json:
        typer.echo(json_path.read_text())
    else:
        _print(result, html_path)
    if open_report:
        typer.launch(str(html_path))


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _print(result: dict[str, Any], html_path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from windeye.compare.sequence import PARTS
    from windeye.compare.tables import table

    console = Console()
    for part in PARTS:
        if part in result["parts"]:
            columns, rows = table(part, result["parts"][part])
            shown = Table(box=None, pad_edge=False, title=part, title_justify="left")
            for place, column in enumerate(columns):
                shown.add_column(column, justify="right" if place else "left")
            for row in rows:
                shown.add_row(*row)
            console.print(shown)
    console.print(f"report: {html_path}")


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="compare")
