"""`windeye assets`: which weights and data there are, bring them here, say where they lie."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from windeye.data.assets import Asset

app = typer.Typer(help="Weights and data to run on: list, fetch, locate.", no_args_is_help=True)

BAD_INPUT = 2
UNAVAILABLE = 1


def _find(names: list[str]) -> list[Asset]:
    """The assets, or exit 2 after one line for each name that does not exist: nothing is fetched for half a request."""
    from windeye.data.assets import UnknownAsset, find

    found, complaints = [], []
    for name in names:
        try:
            found.append(find(name))
        except UnknownAsset as error:
            complaints.append(str(error))
    if complaints:
        typer.echo("\n".join(complaints), err=True)
        raise typer.Exit(BAD_INPUT)
    return found


def _matches(asset: Asset, words: list[str]) -> bool:
    text = f"{asset.name} {asset.description} {asset.kind} {asset.licence}".lower()
    return all(word.lower() in text for word in words)


def _as_json(asset: Asset) -> dict[str, object]:
    from windeye.data.assets import where

    paths = where(asset.name)
    return {
        "name": asset.name,
        "description": asset.description,
        "kind": asset.kind,
        "licence": asset.licence,
        "experiments_only": asset.experiments_only,
        "size_mb": asset.size_mb,
        "loader": asset.loader,
        "verified": asset.verified,
        "files": {file.name: file.sha256 for file in asset.files},
        "sources": [str(source) for source in asset.sources],
        "cached_at": None if paths is None else str(paths.path),
    }


@app.command("list")
def list_command(
    words: Annotated[list[str] | None, typer.Argument(help="Show only assets that mention all of these words.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the assets, with licence, download size and whether each is cached."""
    from windeye.data.assets import list_assets, where

    assets = [asset for asset in list_assets() if _matches(asset, words or [])]
    if as_json:
        typer.echo(json.dumps([_as_json(asset) for asset in assets], indent=1))
        return
    if not assets:
        typer.echo(f"no asset mentions {' and '.join(words or [])}; `windeye assets list` shows all")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(caption="download size in MB; * for experiments only, never to be redistributed; ✓ cached")
    for heading in ("name", "kind", "what"):
        table.add_column(heading, overflow="fold")
    table.add_column("licence", overflow="fold", max_width=28)
    table.add_column("MB", justify="right")
    table.add_column("✓")
    for asset in assets:
        licence = escape(asset.licence) + (" *" if asset.experiments_only else "")
        cached = "✓" if where(asset.name) else ""
        table.add_row(asset.name, asset.kind, escape(asset.description), licence, f"{asset.size_mb:g}", cached)
    Console().print(table)


@app.command("get")
def get_command(
    names: Annotated[list[str], typer.Argument(help="Names from `windeye assets list`.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="Never download; use the cache and installed packages.")
    ] = False,
) -> None:
    """Bring assets to this machine without installing anything, and print where they lie."""
    from windeye.data.assets import AssetUnavailable, get

    failed = False
    for asset in _find(names):
        try:
            paths = get(asset.name, offline=offline)
        except (AssetUnavailable, OSError) as error:  # OSError: the cache cannot be written, the message says so
            typer.echo(str(error), err=True)
            failed = True
            continue
        typer.echo(str(paths.path))
        if asset.experiments_only:
            typer.echo(f"{asset.name}: for experiments only, do not redistribute ({asset.licence})", err=True)
    if failed:
        raise typer.Exit(UNAVAILABLE)


@app.command("where")
def where_command(
    name: Annotated[str, typer.Argument(help="A name from `windeye assets list`.")],
) -> None:
    """Print where a cached asset lies; exit code 1 if it was not fetched yet."""
    from windeye.data.assets import cache_directory, where

    (asset,) = _find([name])
    paths = where(asset.name)
    if paths is None:
        place = cache_directory() / asset.name
        typer.echo(
            f"{asset.name} is not fetched yet (`windeye assets get {asset.name}`); it will lie in {place}", err=True
        )
        raise typer.Exit(UNAVAILABLE)
    typer.echo(str(paths.path))
