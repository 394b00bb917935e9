"""`windeye papers` and `windeye run`: what is published, what runs here, and running it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from windeye.cli.arguments import bad_input
from windeye.papers.card import FAMILIES, Card, cards, hint, search
from windeye.papers.registry import evidence_of, state
from windeye.report import Evidence

NOT_SHOWN = 1
INTERRUPTED = 130


def papers(
    words: Annotated[list[str] | None, typer.Argument(help="Words to search for; a slug alone shows its card.")] = None,
    family: Annotated[str | None, typer.Option(help=f"Only one family: {', '.join(FAMILIES)}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """Search and list the published systems, each with its state: planned, built or works."""
    with bad_input():
        if family is not None and family not in FAMILIES:
            raise ValueError(f"--family must be one of {', '.join(FAMILIES)}, got {family!r}")
        wanted = " ".join(words or [])
        one = cards().get(wanted.lower())
        if one and family not in (None, one.family):
            raise ValueError(f"{one.slug} is of the family {one.family}, not {family}")
    found = [one] if one else [card for card in search(wanted) if family in (None, card.family)]
    if as_json:
        typer.echo(json.dumps([asdict(card) | {"state": state(card)} for card in found], indent=1))
    elif one:
        _print_card(one)
    elif found:
        _print_list(found)
    else:
        within = f" in the family {family}" if family else ""
        typer.echo(f"no system{within} mentions {wanted!r}; {hint(wanted)}")


def _print_card(card: Card) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    meaning = {
        "planned": "planned: there is this card, and no experiment yet",
        "built": f"built: run its experiment with `windeye run {card.slug}`",
        "works": f"works: repeat its experiment with `windeye run {card.slug}`",
    }
    console = Console(highlight=False)
    console.print(Text(f"{card.slug}: {card.title}", "bold"))
    for line in (f"{card.authors}, {card.posted}", card.url, card.code or "no official code"):
        console.print(Text(line, "dim"), soft_wrap=line.startswith("https://"))
    console.print(Text(f"\n{card.summary}\n"))
    facts = Table.grid(padding=(0, 2))
    facts.add_row(Text("to show", "bold"), Text(card.claim))
    facts.add_row(Text("state", "bold"), Text(meaning[state(card)]))
    if evidence := evidence_of(card):
        run_at = f"budget {evidence.budget}, {len(evidence.seeds)} seeds"
        facts.add_row(Text("last run", "bold"), Text(f"{evidence.verdict} ({run_at})"))
    console.print(facts)


def _print_list(found: list[Card]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for name in ("slug", "title", "posted", "state"):
        table.add_column(name, no_wrap=name != "title", overflow="fold")
    colours = {"works": "green", "built": "yellow", "planned": "dim"}
    for family, meaning in FAMILIES.items():
        of_family = [card for card in found if card.family == family]
        if of_family:
            table.add_row(Text(family, "bold"), Text(meaning, "bold"))
        for card in of_family:
            told = state(card)
            table.add_row(f"  {card.slug}", Text(card.title), card.posted[:7], Text(told, colours[told]))
    console.print(table)
    console.print(f"{len(found)} of {len(cards())} systems; `windeye papers SLUG` shows one", style="dim")


def run(
    slug: Annotated[str, typer.Argument(help="Which paper, such as gna.")],
    budget: Annotated[str, typer.Option(help="smoke (seconds), default (minutes) or full.")] = "default",
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Repeat for several; default the paper's.")] = None,
    device: Annotated[str, typer.Option(help="A torch device, such as cuda.")] = "cpu",
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
        _print_evidence(evidence, report.html)
    if open_report:
        typer.launch(str(report.html))
    raise typer.Exit(0 if evidence.verdict == "shown" else NOT_SHOWN)


def _print_evidence(evidence: Evidence, html: Path) -> None:
    from rich.console import Console
    from rich.table import Table

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
