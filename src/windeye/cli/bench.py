"""`windeye bench`: measure against the strongest baselines at hand, and leave a JSON."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from windeye.cli.arguments import bad_input

SUITES = (
    "softmax", "recurrence", "lifetimes", "associative", "statistics", "decoding", "inspect", "gpu", "floors",
    "compiled", "mixers", "hilo", "routing", "pools",
)  # fmt: skip


def bench(
    suite: Annotated[str, typer.Argument(help=", ".join(SUITES))],
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every candidate.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="Three rounds of the cheap parts: does it work?")] = False,
    out: Annotated[Path | None, typer.Option(help="The JSON to write; default runs/bench/SUITE.json.")] = None,
    go_on: Annotated[bool, typer.Option("--continue", help="Keep what an interrupted run has measured.")] = False,
) -> None:
    """Ratios over the strongest baselines in one run; medians, machine, versions and command land in a JSON."""
    from rich.console import Console

    with bad_input():
        if suite not in SUITES:
            raise ValueError(f"SUITE must be one of {', '.join(SUITES)}, got {suite!r}")
    from windeye.bench import run as runs

    measured = import_module(f"windeye.bench.{suite}")
    target = out or Path("runs") / "bench" / f"{suite}{'-quick' if quick else ''}.json"
    command = f"windeye bench {suite} --threads {threads}{' --quick' if quick else ''}"
    console = Console(stderr=True)
    with bad_input():
        parts = list(measured.parts(quick=quick))
    names = [name for name, _ in parts]
    try:
        with console.status("") as status:
            result = runs.run(
                parts, suite=suite, command=command, threads=threads, folder=target.parent, fresh=not go_on,
                progress=lambda name: status.update(f"{names.index(name) + 1}/{len(names)} {name}"),
            )  # fmt: skip
    except KeyboardInterrupt:
        console.print(f"stopped; measured parts are kept in {target.parent}, go on with --continue")
        raise typer.Exit(130) from None
    except ImportError as error:
        console.print(f"error: {error}; install the extra: pip install 'windeye[bench]'", style="red")
        raise typer.Exit(2) from None
    runs.save(result, target)
    _show(measured.COLUMNS, measured.rows(result))
    typer.echo(f"wrote {target}")


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def register(app: typer.Typer) -> None:
    app.command()(bench)
