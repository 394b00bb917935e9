"""The four graphs of the paper from the files that they are published in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from windeye.data.graphs.graph import SPLITS, Graph

CLASSES: dict[str, tuple[str, ...]] = {
    "roman_empire": (
        "root", "prepositional object", "preposition", "determiner", "adjectival", "conjunct", "nominal subject",
        "coordinating conjunction", "direct object", "adverbial", "compound", "auxiliary", "appositional",
        "passive auxiliary", "passive nominal subject", "possession", "relative clause", "other",
    ),
    "amazon_ratings": ("Very Positive", "Positive", "Neutral", "Negative", "Very Negative"),
    "pubmed": tuple(f"Diabetes Mellitus {kind}" for kind in ("Experimental", "Type 1", "Type 2")),
    "wikics": (
        "Computational linguistics", "Databases", "Operating systems", "Computer architecture", "Computer security",
        "Internet protocols", "Computer file systems", "Distributed computing architecture", "Web technology",
        "Programming language topics",
    ),
}  # fmt: skip
"""What the classes are called, by their numbers (llm-graphs spec)."""


def load_heterophilous(
    path: Path | str, classes: Sequence[str], *, mask: int = 0, texts: Sequence[str] | None = None
) -> Graph:
    """Roman-Empire or Amazon-Ratings from the archive of the heterophilous benchmark.

    Args:
        path: a NumPy archive with ``node_features`` [N, D], ``node_labels`` [N], ``edges`` [E, 2] (each once; both
            directions are added) and ``train_masks``, ``val_masks``, ``test_masks`` [10, N].
        classes: names of the labels, see `CLASSES`.
        mask: which of the standard splits.
        texts: of the nodes, which the archive does not have.

    Raises:
        ValueError: an array is missing, or there is no such split.
    """
    names = {"train": "train_masks", "validation": "val_masks", "test": "test_masks"}
    with np.load(path, allow_pickle=False) as archive:
        wanted = ("node_features", "node_labels", "edges", *names.values())
        if missing := [name for name in wanted if name not in archive]:
            raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(archive)}")
        arrays = {name: torch.from_numpy(archive[name]) for name in wanted}
    count = len(arrays["train_masks"])
    if not 0 <= mask < count:
        raise ValueError(f"mask must be in 0 .. {count - 1}, got {mask}")
    return Graph.of(
        arrays["edges"].long(),
        arrays["node_labels"].long(),
        classes,
        texts=texts,
        features=arrays["node_features"].float(),
        splits={name: arrays[masks][mask].bool().nonzero()[:, 0] for name, masks in names.items()},
    )


def load_text_attributed(
    path: Path | str, classes: Sequence[str], *, seed: int = 0, texts: Sequence[str] | None = None
) -> Graph:
    """PubMed or WikiCS from a file of torch.

    Args:
        path: a mapping with features ``x`` [N, D], labels ``y`` [N] and ``adj``, dense or sparse [N, N], or a list of
            edges [2, E]. With ``train_id``, ``val_id`` and ``test_id`` those are the splits, else they are random.
        classes: names of the labels, see `CLASSES`.
        seed: of random splits, 60, 20 and 20 per cent.
        texts: of the nodes.

    Raises:
        ValueError: an entry is missing, or only some of the splits are there.
    """
    held: Mapping[str, Any] = torch.load(path, weights_only=True)
    if missing := [name for name in ("x", "adj", "y") if name not in held]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(held)}")
    labels = torch.as_tensor(held["y"]).long().flatten()
    edges = _edges(held["adj"], len(labels))
    names = ("train_id", "val_id", "test_id")
    given = [name for name in names if name in held]
    if given and len(given) < len(names):
        raise ValueError(f"{path} has {', '.join(given)} but not all of {', '.join(names)}")
    features = torch.as_tensor(held["x"]).float()
    graph = Graph.of(edges, labels, classes, texts=texts, features=features)
    splits = (
        {split: torch.as_tensor(held[name]).long() for split, name in zip(SPLITS, names, strict=True)}
        if given
        else graph.shuffled_splits(seed)
    )
    return Graph.of(edges, labels, classes, texts=texts, features=features, splits=splits)


def _edges(adjacency: Tensor, nodes: int) -> Tensor:
    if adjacency.layout != torch.strided:
        return adjacency.to_sparse_coo().coalesce().indices().T  # type: ignore[no-untyped-call]
    if adjacency.shape == (nodes, nodes):
        return adjacency.nonzero()
    if adjacency.dim() == 2 and adjacency.shape[0] == 2:
        return adjacency.long().T
    raise ValueError(f"adj must be [{nodes}, {nodes}] or [2, edges], got shape {tuple(adjacency.shape)}")
