"""Numbers made by running official code: inputs, weights under their official names, outputs and gradients."""

import json
from pathlib import Path

import numpy as np
import torch

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def load(paper, case):
    """``(meta, numbers)`` of one file; floating numbers are float64, lists of names are left out."""
    with np.load(Path(__file__).parent / paper / f"{case}.npz") as file:
        meta = json.loads(str(file["meta"]))
        tensors = {k: torch.from_numpy(file[k]) for k in file if file[k].dtype.kind != "U"}
    return meta, {k: t.double() if t.is_floating_point() else t for k, t in tensors.items()}


def under(prefix, numbers):
    """The part of ``numbers`` whose names start with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in numbers.items() if k.startswith(prefix)}


def same(actual, expected):
    torch.testing.assert_close(actual, expected, **EXACT)
