"""`windeye demo`: on a real photograph, what windows see, that they are exact, and how fast they are here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from windeye.bench.demo import Measured

COLUMNS = ("pattern", "pairs", "error", "bound", "tiles", "dense", "Flex", "ms", "MiB")
EXACT = 1e-4
"""float32 against float64; a wrong mask is off by more than a thousand times as much."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and the picture.")] = Path("runs/demo"),
    threads: Annotated[int, typer.Option(min=1)] = 2,
    flex: Annotated[bool, typer.Option(help="Also compile and time FlexAttention (half a minute).")] = True,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
) -> None:
    """Windows on a photograph: pictures, proof and speed, as a table and a page. Exit code 1 if not exact."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from windeye.bench import demo as demos
    from windeye.data import photograph

    torch.set_num_threads(threads)
    console = Console()
    try:
        photo = photograph()
    except ImportError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
        raise typer.Exit(2) from None
    qkv = demos.tokens(photo)
    measured: list[Measured] = []
    parts = list(demos.measure(qkv, flex=flex))
    bar_columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*bar_columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=len(parts))
            for name, run in parts:
                bar.update(task, description=name)
                measured.append(run())
                bar.advance(task)
    except KeyboardInterrupt:
        typer.echo(f"stopped after {len(measured)} of {len(parts)} patterns", err=True)
        if not measured:
            raise typer.Exit(130) from None
    console.print(_table(measured))
    console.print(_words(measured), style="dim")
    _report(out, measured, demos.picture(photo, qkv))
    console.print(f"[bold]{out / 'report.html'}[/] shows what chosen tokens see")
    if open_report:
        typer.launch(str(out / "report.html"))
    wrong = [m.name for m in measured if not m.max_error < EXACT]
    if wrong:
        typer.secho(f"not equal to the oracle: {', '.join(wrong)}", err=True, fg=typer.colors.RED)
        raise typer.Exit(1)


def _cells(m: Measured) -> tuple[str, ...]:
    return (
        m.name,
        f"{m.pairs / 1e6:.2f} M",
        f"{m.max_error:.0e}",
        f"{m.flop_bound:.1f}x",
        f"{m.simulated:.1f}x" if m.simulated else "-",
        f"{m.over_dense:.1f}x",
        f"{m.over_flex:.1f}x" if m.over_flex else "-",
        f"{1000 * m.seconds:.1f}",
        f"{m.memory / 2**20:.1f}" if m.memory is not None else "-",
    )


def _table(measured: list[Measured]) -> object:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for m in measured:
        table.add_row(*_cells(m))
    return table


def _words(measured: list[Measured]) -> str:
    import statistics

    import torch

    from windeye.report import machine

    dense = statistics.median(m.dense_seconds for m in measured)
    compiled = [m.flex_seconds for m in measured if m.flex_seconds]
    peers = f"Dense attention takes {1000 * dense:.0f} ms" + (
        f", compiled FlexAttention {1000 * min(compiled):.0f} to {1000 * max(compiled):.0f} ms." if compiled else "."
    )
    lines = [
        "64 x 64 tokens of a photograph, 8 heads x 64, float32, forward; medians.",
        "error: largest, against dense float64 attention with the same mask.",
        "bound: dense FLOPs over the pattern's. tiles: simulated, dense pairs over those",
        "in the tiles that are visited. dense, Flex: measured speed-up over either.",
        "ms: one forward pass. MiB: its peak memory beyond inputs and output.",
        peers,
        f"{machine()['processor']}, {torch.get_num_threads()} threads, torch {torch.__version__}.",
    ]
    missing = {m.flex_missing for m in measured if m.flex_missing}
    return "\n".join(lines + [f"FlexAttention: {reason}" for reason in sorted(missing)])


def _report(out: Path, measured: list[Measured], figure: object) -> None:
    from matplotlib.figure import Figure

    from windeye.bench.demo import facts
    from windeye.report import html, machine, versions
    from windeye.report.figures import as_png

    assert isinstance(figure, Figure)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "seen.png", dpi=80, facecolor="white")
    shown = as_png(
        figure, "What three tokens see", "Squares mark the tokens; what they do not see is dark, what they see is "
        "tinted by their attention weight, averaged over heads.", dpi=90,
    )  # fmt: skip
    page = html.page(
        "windeye: windows on a photograph",
        [
            html.picture(shown),
            html.table(COLUMNS, [_cells(m) for m in measured]),
            html.paragraph(_words(measured), quiet=True),
            html.facts(machine()),
            html.facts(versions()),
        ],
    )
    (out / "report.html").write_text(page)
    result = {"machine": machine(), "versions": versions(), "patterns": facts(measured)}
    (out / "report.json").write_text(json.dumps(result, indent=1) + "\n")


def register(app: typer.Typer) -> None:
    app.command()(demo)
