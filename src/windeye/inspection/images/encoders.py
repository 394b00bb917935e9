"""Vision transformers of transformers: every layer sees all patches of one size."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.hf.attach import attach
from windeye.inspection.images.capture import Layer
from windeye.inspection.images.layers import LayerLook, Query
from windeye.inspection.images.mixers import of_sequence
from windeye.inspection.images.photo import Pair
from windeye.inspection.images.placement import Placement
from windeye.inspection.images.subject import Subject
from windeye.kernels.statistics.scores import Scores
from windeye.kernels.statistics.slab import RowSlab
from windeye.sites import AttentionCall
from windeye.sites.parts import KNOWN, parts_of
from windeye.sites.session import Session

VISION = ("vision_model", "vision_tower", "visual")
"""What the image half is called in models that read texts as well."""
ANY_SIZE = ("dinov2", "dinov3")
"""Families that interpolate or compute their positions unasked."""


class Rows(Session):
    """Rows of the attention map of every layer, in memory that grows with the tokens.

    Patches are the last ``patches`` tokens, what stands before them is the class token and others. ``queries`` are
    numbers of patches; None is the first token of all. ``rows[layer]`` is [queries, heads, tokens].
    """

    def __init__(self, model: nn.Module, queries: Sequence[int | None], patches: int) -> None:
        super().__init__(model)
        self.queries, self.patches = tuple(queries), patches
        self.rows: dict[int, Float[np.ndarray, "queries heads tokens"]] = {}

    def see(self, layer: int, call: AttentionCall, scores: Scores) -> None:
        before = call.query.shape[1] - self.patches
        if before < 0:
            raise ValueError(f"layer {layer} sees {call.query.shape[1]} tokens of an image of {self.patches} patches")
        found = []
        for query in self.queries:
            at = 0 if query is None else before + query
            slab = RowSlab(scores, slice(at, at + 1), scores.logits(slice(at, at + 1)))
            found.append(slab.weights[0, :, 0])
        self.rows[layer] = torch.stack(found).double().cpu().numpy()


def encoder(model: Any) -> Subject:
    """A model of transformers whose vision half is one stack of layers over patches.

    Raises:
        TypeError: it is none, or its attention cannot be reached.
    """
    half = next((getattr(model, name) for name in VISION if hasattr(model, name)), model)
    config = half.config
    patch, size = getattr(config, "patch_size", None), getattr(config, "image_size", None)
    if not isinstance(patch, int) or size is None:
        raise TypeError(f"{type(model).__name__} has no single size of patches; it is no plain vision transformer")
    height, width = (size, size) if isinstance(size, int) else size
    with _reached(half):
        count = len(parts_of(half).layers)
    asked = inspect.signature(half.forward).parameters
    resizes = "interpolate_pos_encoding" in asked or type(half).__name__.lower().startswith(ANY_SIZE)

    @torch.no_grad()
    def measure(given: Tensor, photo: Pair, queries: Sequence[Query]) -> list[LayerLook]:
        seen = (given.shape[2], given.shape[3])
        grid = (seen[0] // patch, seen[1] // patch)
        place = Placement.of(grid, patch, seen, photo)
        tokens = tuple(None if query == "class" else place.token(query) for query in queries)
        numbers = [None if token is None else token[0] * grid[1] + token[1] for token in tokens]
        with _reached(half), Rows(half, numbers, grid[0] * grid[1]) as rows:
            _run(half, given, grid[0] * grid[1], seen != (height, width))
        words = f"full, {type(half).__name__}"
        return [
            of_sequence(Layer(0, layer), words, place, tokens, weights, weights.shape[-1] - grid[0] * grid[1])
            for layer, weights in sorted(rows.rows.items())
        ]

    return Subject(
        in_chans=getattr(config, "num_channels", 3),
        img_size=(height, width),
        depths=(count,),
        layers=tuple(Layer(0, index) for index in range(count)),
        measure=measure,
        class_token=hasattr(_embeddings(half), "cls_token") or hasattr(_embeddings(half), "class_embedding"),
        patch=patch,
        resizes=resizes,
    )


@contextmanager
def _reached(half: Any) -> Iterator[None]:
    """Attached for a while, unless it is already."""
    if half in KNOWN:
        yield
        return
    try:
        handle = attach(half)
    except (TypeError, ValueError) as error:
        raise TypeError(str(error)) from error
    with handle:
        yield


def _embeddings(half: nn.Module) -> Any:
    return next((module for name, module in half.named_modules() if name.endswith("embeddings")), half)


def _run(half: Any, given: Tensor, patches: int, resized: bool) -> None:
    asked = inspect.signature(half.forward).parameters
    options: dict[str, Any] = {}
    if resized and "interpolate_pos_encoding" in asked:
        options["interpolate_pos_encoding"] = True
    if "noise" in asked:  # masked autoencoders shuffle their patches by it, and drop the last of them
        options["noise"] = torch.arange(patches, device=given.device)[None] / patches
    training, ratio = half.training, getattr(half.config, "mask_ratio", None)
    try:
        if ratio is not None:
            half.config.mask_ratio = 0.0
        half.eval()(given, **options)
    finally:
        half.train(training)
        if ratio is not None:
            half.config.mask_ratio = ratio
