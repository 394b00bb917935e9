"""The `windeye` command: one file per command, put together here. Heavy imports happen inside the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from windeye.cli import assets, bench, compare, demo, explain, inspect, look, papers, probe, show, simulate

app = typer.Typer(
    name="windeye",
    help="Attention that looks through windows: show it, simulate it, measure it, run the papers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from windeye import __version__

        typer.echo(f"windeye {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Every published way of restricting attention, on one small, proven, fast core."""


for command in (demo, show, explain, inspect, look, simulate, bench, compare, probe, papers):
    command.register(app)
app.add_typer(assets.app, name="assets", help="Real weights and data that come inside ordinary packages.")
