"""`windeye explain`: which backend a call would take, and what it would cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from windeye.cli.arguments import GridOption, PatternArgument, bad_input, grid_of, pattern_of

DTYPES = ("float32", "bfloat16", "float16", "float64")


def explain(
    pattern: PatternArgument,
    grid: GridOption,
    heads: Annotated[int, typer.Option(min=1)] = 8,
    head_dim: Annotated[int, typer.Option(min=1)] = 64,
    dtype: Annotated[str, typer.Option(help=", ".join(DTYPES))] = "float32",
    device: Annotated[str, typer.Option()] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say which backend runs and why not the others, with pairs, FLOPs and the predicted gain."""
    import torch

    import windeye

    with bad_input():
        if dtype not in DTYPES:
            raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        shape = (1, *grid_of(grid), heads, head_dim)
        try:
            token = torch.empty(shape[-1:], dtype=getattr(torch, dtype), device=device)
        except RuntimeError as error:
            raise ValueError(f"--device {device!r} is not to be had here: {str(error).splitlines()[0]}") from error
        like = token.expand(shape)  # facts only: nothing of this size is allocated
        explanation = windeye.explain(like, like, like, pattern_of(pattern))
    if as_json:
        facts = asdict(explanation) | {
            "flop_bound": explanation.flop_bound,
            "predicted_speedup": explanation.predicted_speedup,
        }
        typer.echo(json.dumps(facts))
    else:
        typer.echo(str(explanation))


def register(app: typer.Typer) -> None:
    app.command()(explain)
