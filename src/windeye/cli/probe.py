"""`windeye probe`: what heads can read from the tokens of a frozen encoder."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from windeye.cli.arguments import bad_input

INTERRUPTED = 130


def probe(
    model: Annotated[str, typer.Argument(help="A backbone such as vit_b, a file, or a folder of transformers.")],
    data: Annotated[
        str, typer.Argument(help="fashion-mnist, made-scenes, or a folder with train/CLASS/* and val/CLASS/*.")
    ] = "fashion-mnist",
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", help="average, class_token, ep:queries=8, jepa, ...; repeat. Default average and ep."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder where the run is kept; run again to go on.")] = Path("runs/probe"),
    weights: Annotated[Path | None, typer.Option(help="Weights of a published model, official or ours.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the model, such as in_chans=1; repeat.")
    ] = None,
    stage: Annotated[int | None, typer.Option(help="Of a hierarchical backbone; default the last.")] = None,
    final_norm: Annotated[bool, typer.Option("--final-norm", help="Tokens behind the model's last norm.")] = False,
    side: Annotated[int | None, typer.Option(help="Of the squares that the model sees.")] = None,
    scaling: Annotated[str | None, typer.Option(help="Of pixels: imagenet, unit (0 to 1) or symmetric.")] = None,
    epochs: Annotated[int, typer.Option(help="The study trains for 90.")] = 90,
    warm_up: Annotated[int, typer.Option(help="Epochs in which the rate rises.")] = 10,
    batch: Annotated[int, typer.Option(help="Examples of a step.")] = 256,
    optimiser: Annotated[str, typer.Option(help="lars or adamw.")] = "lars",
    rate: Annotated[float | None, typer.Option(help="Default 0.1 per 256 examples for lars, 1e-3 for adamw.")] = None,
    augment: Annotated[bool, typer.Option("--augment", help="Train on random parts; folders only.")] = False,
    keep_gib: Annotated[float, typer.Option(help="Keep tokens on disk up to so many GiB.")] = 4.0,
    most: Annotated[int | None, typer.Option(help="Of the training images so many at most.")] = None,
    precision: Annotated[str, typer.Option(help="Of the encoder: no or bf16.")] = "no",
    seed: Annotated[int, typer.Option(help="Of weights, order and random parts.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default those of torch.")] = None,
    device: Annotated[str, typer.Option(help="A torch device, such as cuda.")] = "cpu",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:  # fmt: skip
    """Train pools and a linear classifier on the tokens of a frozen encoder: accuracy, parameters, time of a step.

    All pools see the same batches. After Ctrl-C the same command goes on where it stopped. The defaults are the
    protocol of the efficient-probing study at a batch of 256.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    command = shlex.join(["windeye", *sys.argv[1:]])
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with bad_input():
        import torch

        from windeye.compare.probing import ProbePlan
        from windeye.compare.probing import probe as run
        from windeye.data import AssetUnavailable

        plan = ProbePlan(
            model, data=data, pools=tuple(pool or ("average", "ep")), weights=None if weights is None else str(weights),
            settings=_settings(setting or []), stage=stage, final_norm=final_norm or None, side=side,
            scaling=scaling, epochs=epochs, batch_size=batch, warm_up=warm_up, optimiser=optimiser, rate=rate,  # type: ignore[arg-type]
            augment=augment, keep_gib=keep_gib, most=most, precision=precision, seed=seed,  # type: ignore[arg-type]
        )  # fmt: skip
        if threads is not None:
            torch.set_num_threads(threads)
        if weights is None and not Path(model).exists():
            typer.secho("no --weights: the encoder is random", err=True, fg=typer.colors.YELLOW, bold=True)
        try:
            with Progress(*columns, console=console, transient=True) as bar:
                tasks: dict[str, Any] = {}

                def tell(name: str, share: float) -> None:
                    if name not in tasks:
                        tasks[name] = bar.add_task(name, total=1.0)
                    bar.update(tasks[name], completed=share)

                result = run(plan, out, device=device, command=command, progress=tell)
        except KeyboardInterrupt:
            console.print(f"stopped; what is finished is kept in {out}, run again to go on")
            raise typer.Exit(INTERRUPTED) from None
        except (AssetUnavailable, FileNotFoundError, ImportError) as error:
            raise ValueError(str(error)) from error
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print(result, out)
    if open_page:
        typer.launch(str(out / "probe.html"))


def _settings(words: list[str]) -> dict[str, Any]:
    from windeye.compare.probing.arms import settings_of

    try:
        return settings_of(words)
    except ValueError as error:
        raise ValueError(f"--set must be name=value, such as in_chans=1, {error}") from None


def _print(result: dict[str, Any], folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from windeye.compare.probing.page import COLUMNS, rows

    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if place else "left")
    for row in rows(result):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    typer.echo(f"wrote {folder / 'probe.json'} and {folder / 'probe.html'}")


def register(app: typer.Typer) -> None:
    app.command()(probe)
