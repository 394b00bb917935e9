"""`windeye papers` and `windeye run`: what is published, what runs here, and running it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from windeye.cli.arguments import bad_input

NOT_SHOWN = 1
INTERRUPTED = 130


def papers(
    words: Annotated[list[str] | None, typer.Argument(help="Words to search for; a slug alone shows its card.")] = None,
    family: Annotated[str | None, typer.Option(help="Only one family, such as windows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Search and list the published systems, each with its state: planned, built or works."""
    from windeye.papers.card import FAMILIES, cards, search
    from windeye.papers.registry import evidence_of, state

    with bad_input():
        if family is not None and family not in FAMILIES:
            raise ValueError(f"--family must be one of {', '.join(FAMILIES)}, got {family!r}")
    one = cards().get(words[0]) if words and len(words) == 1 else None
    found = [one] if one else [c for c in search(" ".join(words or [])) if family in (None, c.family)]
    if as_json:
        typer.echo(json.dumps([asdict(card) | {"state": state(card)} for card in found], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if one:
        evidence = evidence_of(one)
        console.print(f"[bold]{one.title}[/] ({one.slug})\n{one.authors}, {one.posted}, {one.url}")
        console.print(f"{one.code or 'no official code known'}\n\n{one.summary}\n\n[bold]To show:[/] {one.claim}")
        console.print(f"[bold]State:[/] {state(one)}" + (f"; last run: {evidence.verdict}" if evidence else ""))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("slug", "title", "posted", "state"):
        table.add_column(column, no_wrap=column != "title")
    for card in found:
        table.add_row(card.slug, card.title, card.posted, _coloured(state(card)))
    console.print(table)
    console.print(f"{len(found)} of {len(cards())} systems", style="dim")


def _coloured(state: str) -> str:
    return {"works": "[green]works[/]", "built": "[yellow]built[/]"}.get(state, "[dim]planned[/]")


def run(
    slug: Annotated[str, typer.Argument(help="Which paper, such as gna.")],
    budget: Annotated[str, typer.Option(help="smoke (seconds), default (minutes) or full.")] = "default",
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Repeat for several; default the paper's.")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    data: Annotated[Path | None, typer.Option(help="A folder with real data, where the experiment takes one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default runs/SLUG.")] = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the evidence as JSON.")] = False,
) -> None:
    """Run a paper's experiment. Exit code 0 if its rule held, 1 if not shown, 2 for bad input."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from windeye.papers import run as runs
    from windeye.papers.experiment import BUDGETS

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with bad_input():
        if budget not in BUDGETS:
            raise ValueError(f"--budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
        try:
            with Progress(*columns, console=console, transient=True) as bar:
                task = bar.add_task(slug, total=1.0)
                report = runs.run(
                    slug, budget=budget, seeds=tuple(seed) if seed else None, device=device, data=data, out=out,
                    progress=lambda part, share: bar.update(task, description=f"{slug}: {part}", completed=share),
                )  # fmt: skip
        except KeyboardInterrupt:
            console.print(f"stopped; finished parts are kept in {out or Path('runs') / slug}, run again to go on")
            raise typer.Exit(INTERRUPTED) from None
    evidence = report.evidence
    if as_json:
        typer.echo(report.json.read_text())
    else:
        _print(evidence, report.html)
    if open_report:
        typer.launch(str(report.html))
    raise typer.Exit(0 if evidence.verdict == "shown" else NOT_SHOWN)


def _print(evidence: object, html: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from windeye.report import Evidence

    assert isinstance(evidence, Evidence)
    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("arm", "metric", "mean", "spread", "n", "unit"):
        table.add_column(column, justify="left" if column in ("arm", "metric", "unit") else "right")
    for row in evidence.rows:
        table.add_row(row.arm, row.metric, f"{row.mean:.4g}", f"{row.spread:.2g}", str(row.n), row.unit)
    console.print(table)
    for check in evidence.checks:
        console.print(f"{'[green]held[/]' if check.held else '[red]not held[/]'}  {check.demand}: {check.measured}")
    console.print(f"[bold]{evidence.verdict}[/]: {evidence.claim}\nreport: {html}")


def register(app: typer.Typer) -> None:
    app.command()(papers)
    app.command()(run)
