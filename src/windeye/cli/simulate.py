"""`windeye simulate` and `windeye suggest`: what tiles leave of a window's saving, and which window to take."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from windeye.cli.arguments import GridOption, PatternArgument, bad_input, grid_of, pattern_of

if TYPE_CHECKING:
    from windeye.tiling import Simulation

JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
ModeOption = Annotated[str, typer.Option(help="Key tiles: static (fixed on the grid) or dynamic.")]


def simulate(
    pattern: PatternArgument,
    grid: GridOption,
    q_tile: Annotated[str, typer.Option("--q-tile", help="Queries per tile, such as 16x16 or 64.")],
    kv_tile: Annotated[str, typer.Option("--kv-tile", help="Keys per tile.")],
    mode: ModeOption = "static",
    reduce: Annotated[str, typer.Option(help="max (the paper's: the worst tile) or mean.")] = "max",
    share: Annotated[float | None, typer.Option(help="Share of attention in the whole workload, 0 to 1.")] = None,
    dense_steps: Annotated[str, typer.Option(help="Steps that stay dense, such as 15/50.")] = "0/1",
    sweep_stride: Annotated[bool, typer.Option("--sweep-stride", help="Every stride that beats smaller ones.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count the tiles that a kernel would visit, beside the FLOP bound."""
    from windeye.tiling import simulate as run
    from windeye.tiling import sweep_strides

    with bad_input():
        parsed, shape = pattern_of(pattern), grid_of(grid)
        tiles = _tile(q_tile, "--q-tile"), _tile(kv_tile, "--kv-tile")
        dense = _fraction(dense_steps)
        if sweep_stride:
            found = sweep_strides(parsed, shape, *tiles, mode=mode, reduce=reduce)  # type: ignore[arg-type]
        else:
            found = [run(parsed, shape, *tiles, mode=mode, reduce=reduce)]  # type: ignore[arg-type]
        ends = [None if share is None else s.end_to_end(share, dense) for s in found]
    if as_json:
        typer.echo(json.dumps([_facts(s) | {"end_to_end": e} for s, e in zip(found, ends, strict=True)], indent=1))
    else:
        _print([(s.pattern, s, e) for s, e in zip(found, ends, strict=True)])


def suggest(
    grid: GridOption,
    density: Annotated[float, typer.Option(help="Wanted share of pairs, such as 0.1.")],
    q_tile: Annotated[str | None, typer.Option("--q-tile")] = None,
    kv_tile: Annotated[str | None, typer.Option("--kv-tile")] = None,
    mode: ModeOption = "static",
    top: Annotated[int, typer.Option(min=1, help="How many.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Windows and strides for a grid and a density, best first."""
    from windeye.tiling import suggest as run

    with bad_input():
        found = run(
            grid_of(grid), density, q_tile=_tile(q_tile, "--q-tile") if q_tile else None,
            kv_tile=_tile(kv_tile, "--kv-tile") if kv_tile else None, mode=mode, most=top,  # type: ignore[arg-type]
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps([_facts(s.simulation) | {"density": s.density} for s in found], indent=1))
    else:
        _print([(f"{s.pattern.spec}  {s.density:.1%}", s.simulation, None) for s in found])


def _tile(text: str, name: str) -> int | tuple[int, ...]:
    sizes = grid_of(text, name)
    return sizes if len(sizes) > 1 else sizes[0]


def _fraction(text: str) -> float:
    try:
        some, everything = (float(part) for part in text.split("/"))
        return some / everything
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--dense-steps must be a fraction such as 15/50, got {text!r}") from None


def _facts(simulation: Simulation) -> dict[str, object]:
    return asdict(simulation) | {"efficiency": simulation.efficiency}


def _print(rows: list[tuple[str, Simulation, float | None]]) -> None:
    from rich.console import Console
    from rich.table import Table

    with_end = any(end is not None for _, _, end in rows)
    table = Table(box=None, pad_edge=False)
    table.add_column("pattern", overflow="fold")
    for column in ["tiles", "bound", "reached", *(["end to end"] if with_end else []), "masks"]:
        table.add_column(column, justify="right", no_wrap=True)
    for name, s, end in rows:
        cells = [f"{s.op_speedup:.2f}x", f"{s.flop_speedup:.2f}x", f"{s.efficiency:.0%}"]
        cells += [f"{end:.2f}x" if end is not None else ""] if with_end else []
        table.add_row(name, *cells, "none" if s.fully_block_sparse else "some")
    Console().print(table)


def register(app: typer.Typer) -> None:
    app.command()(simulate)
    app.command()(suggest)
