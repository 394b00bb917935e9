"""A backbone in one file: its weights, and the configuration that they belong to."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from windeye.models.vision.backbone import BackboneConfig, HierarchicalBackbone
from windeye.models.vision.vit import VisionTransformer, ViTConfig
from windeye.report.writing import write_whole

Backbone = HierarchicalBackbone | VisionTransformer
KEY = "windeye.backbone"
"""The entry of a file's metadata that holds the configuration, as JSON."""


def save_backbone(model: Backbone, path: str | Path) -> Path:
    """Write weights and configuration to a safetensors file, whole or not at all.

    Args:
        model: any backbone; its state dict is stored as it is.
        path: of the file; folders on the way are made.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> from windeye.models.vision import load_backbone, swin
        >>> model, images = swin(16, (1, 1), (2, 2), window=4, num_classes=5).eval(), torch.randn(1, 3, 32, 32)
        >>> with TemporaryDirectory() as folder:
        ...     again = load_backbone(save_backbone(model, f"{folder}/small.safetensors"))
        >>> again.config == model.config, torch.equal(again.eval()(images), model(images))
        (True, True)
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_whole(path, save(tensors, {KEY: json.dumps(model.config.to_dict())}))
    return path


def load_backbone(path: str | Path) -> Backbone:
    """The backbone that `save_backbone` wrote, in training mode, on the CPU, in the file's dtypes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a file of `save_backbone`, or of a mixer or entry that is not registered.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    try:
        with safe_open(path, framework="pt") as content:
            told = (content.metadata() or {}).get(KEY)
            # Copied to where torch aligns memory: products of numbers that lie otherwise are rounded otherwise.
            tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118, no mapping
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file: {error}") from error
    if told is None:
        raise ValueError(
            f"{path.name} holds weights without a configuration; weights of a published model go through "
            "windeye.models.create(name, weights=path)"
        )
    settings = json.loads(told)
    model: Backbone
    if "stages" in settings:
        model = HierarchicalBackbone(BackboneConfig.from_dict(settings))
    else:
        model = VisionTransformer(ViTConfig.from_dict(settings))
    model.load_state_dict(tensors, assign=True)  # keeps the file's dtypes
    return model
