"""What a look asks of a model, of whatever library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from windeye.data.images.scaling import Colours
from windeye.inspection.images.capture import Layer, capture, mixers_of
from windeye.inspection.images.layers import LayerLook, Query
from windeye.inspection.images.mixers import seen_by, seen_in_sequence, told
from windeye.inspection.images.photo import Pair
from windeye.inspection.images.placement import Placement
from windeye.models.vision import HierarchicalBackbone, VisionTransformer
from windeye.nn.mixers import MultiScaleFusionMixer, TokenMixer

Measure = Callable[[Tensor, Pair, Sequence[Query]], list[LayerLook]]
"""From the model's input, the size of the photograph and the queries to what its layers do."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model that is looked at.

    Args:
        in_chans: channels of its images.
        img_size: height and width that it was made for.
        depths: blocks of every stage, with attention or not.
        layers: where there is attention, in the order in which it runs.
        measure: runs it.
        class_token: whether it has one, which can be a query.
        patch: both sides of an image must be multiples of it; a model that fills images up itself has 1.
        resizes: whether other sizes than ``img_size`` will do.
        colours: how its images are scaled, if that is known.
    """

    in_chans: int
    img_size: Pair
    depths: tuple[int, ...]
    layers: tuple[Layer, ...]
    measure: Measure
    class_token: bool = False
    patch: int = 1
    resizes: bool = True
    colours: Colours | None = None


def subject_of(model: nn.Module) -> Subject:
    """
    Raises:
        TypeError: a model that cannot be looked at.
    """
    if isinstance(model, HierarchicalBackbone):
        return _backbone(model)
    if isinstance(model, VisionTransformer):
        return _vision_transformer(model)
    if type(model).__module__.startswith("transformers."):
        from windeye.inspection.images.encoders import encoder

        return encoder(model)
    raise TypeError(
        f"model must be a backbone of windeye.models.vision or a vision transformer of transformers, got "
        f"{type(model).__name__}"
    )


def _backbone(model: HierarchicalBackbone) -> Subject:
    infos = model.feature_info

    def measure(given: Tensor, photo: Pair, queries: Sequence[Query]) -> list[LayerLook]:
        found: list[LayerLook] = []
        size = (given.shape[2], given.shape[3])

        def see(layer: Layer, mixer: TokenMixer, x: Float[Tensor, "1 height width dim"]) -> None:
            info = infos[layer.stage]
            place = Placement.of((x.shape[1], x.shape[2]), info.reduction, size, photo, info.middle)
            found.append(seen_by(layer, _words(model, layer), mixer, x, place, queries))

        capture(model, given, see)
        return found

    config = model.config
    depths = tuple(len(stage.mixers) for stage in config.stages)
    mixers = mixers_of(model)
    bound = any(isinstance(m, MultiScaleFusionMixer) and m.tokens.resize is None for m in mixers.values())
    return Subject(config.in_chans, config.img_size, depths, tuple(mixers), measure, resizes=not bound)


def _words(model: HierarchicalBackbone, layer: Layer) -> str:
    stage = model.config.stages[layer.stage]
    spec = stage.mixers[layer.block] if isinstance(layer.block, int) else None
    words = stage.entry.kind if spec is None else told(spec)
    return f"{layer.branch} inside {words}" if layer.branch else words


def _vision_transformer(model: VisionTransformer) -> Subject:
    config = model.config
    words = [told(spec) if spec is not None else "" for spec in config.stage().mixers]

    def measure(given: Tensor, photo: Pair, queries: Sequence[Query]) -> list[LayerLook]:
        found: list[LayerLook] = []
        place = Placement.of(model.grid_of(given), config.patch, (given.shape[2], given.shape[3]), photo)

        def see(layer: Layer, mixer: TokenMixer, x: Float[Tensor, "1 1 tokens dim"]) -> None:
            assert isinstance(layer.block, int)
            found.append(
                seen_in_sequence(layer, words[layer.block], mixer, x, place, queries, int(config.class_token))
            )  # fmt: skip

        capture(model, given, see)
        return found

    layers = tuple(mixers_of(model))
    return Subject(config.in_chans, config.img_size, (config.depth,), layers, measure, config.class_token)
