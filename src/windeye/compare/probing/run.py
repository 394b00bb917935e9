"""A probe from beginning to end: tokens, heads, neighbours, times; what is finished stays in the run's folder."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from windeye.bench.run import save
from windeye.compare.parts import Progress
from windeye.compare.probing.arms import Arm, Heads, arm_of, losses
from windeye.compare.probing.measures import EVALUATED, looks, maps, nearest, times
from windeye.compare.probing.page import page
from windeye.compare.probing.pictures import SMALL, sets_of
from windeye.compare.probing.plan import GIBIBYTE, ProbePlan
from windeye.compare.probing.tokens import Kept, Reader, Source
from windeye.data.sequences import derived_seed
from windeye.models import create
from windeye.models.probing import FrozenEncoder, ProbeHead
from windeye.report import machine, versions
from windeye.train import Cosine, fit

RANDOM = "random"
ACCURACY = "accuracy "
"""What stands before the name of a pool in the rows of training."""


def probe(
    plan: ProbePlan,
    folder: Path,
    *,
    device: str = "cpu",
    command: str = "",
    progress: Progress = lambda _name, _share: None,
) -> dict[str, Any]:
    """Train the heads of a plan on its frozen encoder, and say what they read.

    Args:
        plan: what is done.
        folder: where tokens, training, heads and the result go; a folder of the same plan is gone on with.
        device: where encoder and heads are.
        command: what the result says it was made by.
        progress: called with what is done now, and its share.

    Returns:
        ``probe.json`` as a dict: the accuracy of each pool after the last epoch and in its best one, as the study
        reports it (percent), trainable parameters, seconds of a step, and the vote of nearest mean tokens where tokens
        are kept.

    Raises:
        ValueError: the model gives no tokens, or the folder holds another probe; says what differs.
        windeye.data.AssetUnavailable: the data is not here and cannot be fetched.
    """
    backbone, origin = _backbone(plan)
    channels, own_side = _takes(backbone)
    side = plan.side or (own_side if plan.of_folder else SMALL)
    sets = sets_of(plan.data, side)
    scaling = plan.scaling or ("imagenet" if channels == 3 else "unit")
    encoder = FrozenEncoder(
        backbone.to(device), keep="all", leading=plan.leading, final_norm=plan.final_norm, stage=plan.stage
    )
    train, test = sets.train.first(plan.most, plan.seed), sets.test
    readers = [Reader(encoder, part, channels, scaling, plan.precision) for part in (train, test)]
    shape = readers[0]([0], None).shape[1:]
    arms = [arm_of(words) for words in plan.pools]
    heads = _heads(arms, encoder, shape, len(sets.classes), plan.seed).to(device)
    _claim(folder, plan.as_plain() | {"encoder": _digest(backbone), "side": side, "classes": list(sets.classes)})
    need = 4 * (len(train) + len(test)) * shape.numel() / GIBIBYTE
    keeps = not plan.augment and need <= plan.keep_gib
    sources: list[Source] = list(readers)
    if keeps:
        sources = [
            Kept(folder / "tokens" / f"{name}.npy", reader, partial(progress, f"tokens {name}"))
            for name, reader in zip(("train", "test"), readers, strict=True)
        ]

    rows = _train(heads, plan, sources, (train.labels, test.labels), folder / "training", progress)
    _save(heads, folder / "heads")
    seconds = times(heads, sources[0], train.labels, plan.batch_size)
    found_maps = maps(heads, sources[1], len(test))
    history = [
        {name: value for name, value in row.items() if name == "step" or name.startswith(ACCURACY)}
        for row in rows
        if any(name.startswith(ACCURACY) for name in row)
    ]
    result = {
        "command": command,
        "plan": plan.as_plain(),
        "encoder": {
            "model": plan.model,
            "weights": origin,
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "tokens": list(shape[:-1]),
            "dim": shape[-1],
            "leading": encoder.leading,
            "kept_gib": round(need, 3) if keeps else None,
        },
        "data": {"name": plan.data, "classes": len(sets.classes), "train": len(train), "test": len(test), "side": side},
        "pools": {
            arm.name: {
                "accuracy": history[-1][ACCURACY + arm.name],
                "best": max(row[ACCURACY + arm.name] for row in history),
                "parameters": sum(p.numel() for p in head.parameters()),
                "seconds_per_step": seconds[arm.name],
                "maps": found_maps.get(arm.name),
            }
            for arm, head in heads.items()
        },
        "nearest": nearest(sources, sets, train.labels, encoder.leading) if keeps else None,
        "history": history,
        "machine": machine(),
        "versions": versions(),
    }
    save(result, folder / "probe.json")
    (folder / "probe.html").write_text(page(result, looks(heads, sources[1], test)))
    return result


def _backbone(plan: ProbePlan) -> tuple[nn.Module, str]:
    """The model of a plan, and where its weights are from."""
    from windeye.inspection.images.models import vision_model, vision_names

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("probe encoder", plan.seed))
        if plan.settings and plan.model in vision_names():
            return create(plan.model, plan.weights, **plan.settings), plan.weights or RANDOM
        if plan.settings:
            raise ValueError(f"settings are for named models, {plan.model} has its own; got {dict(plan.settings)}")
        found = vision_model(plan.model, plan.weights)
    return found.model, found.weights


def _takes(backbone: Any) -> tuple[int, int]:
    """Channels of the images that a model takes, and the side of the squares that it was made for."""
    config = backbone.config
    if hasattr(config, "in_chans"):
        return config.in_chans, min(config.img_size)
    return config.num_channels, config.image_size


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Note what the folder holds, or see that it holds the same."""
    note, settings = folder / "plan.json", json.loads(json.dumps(settings))
    if note.exists():
        before = json.loads(note.read_text())
        changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
        if changed:
            told = ", ".join(f"{key} {before.get(key)} (now {settings.get(key)})" for key in changed)
            raise ValueError(f"folder {folder} holds another probe: {told}; name another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(settings, indent=1))


def _heads(arms: list[Arm], encoder: FrozenEncoder, shape: torch.Size, classes: int, seed: int) -> Heads:
    leading, dim = encoder.leading, shape[-1]
    for arm in arms:
        if arm.kind == "class_token" and len(shape) > 2:
            raise ValueError(f"{arm.name} reads a class token, and the encoder gives a map")
    counts = [arm.read(torch.empty(1, *shape, device="meta"), leading)[0, ..., 0].numel() for arm in arms]
    built: list[ProbeHead] = [arm.head(dim, classes, count, seed) for arm, count in zip(arms, counts, strict=True)]
    return Heads(arms, built, leading)


def _train(
    heads: Heads,
    plan: ProbePlan,
    sources: list[Source],
    labels: tuple[Tensor, Tensor],
    folder: Path,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Every epoch in an order of its own; of its last batch what is not whole is left out, as batch norms want it."""
    count = len(labels[0])
    batch = min(plan.batch_size, count)
    each = count // batch
    orders: dict[int, Tensor] = {}

    def batches(step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, each)
        if epoch not in orders:
            orders.clear()
            generator = torch.Generator().manual_seed(derived_seed("probe order", plan.seed, epoch))
            orders[epoch] = torch.randperm(count, generator=generator)
        rows = orders[epoch][place * batch : (place + 1) * batch]
        seed = derived_seed("probe parts", plan.seed, epoch) if plan.augment else None
        return sources[0](rows.tolist(), seed), labels[0][rows]

    def evaluate(model: nn.Module) -> dict[str, float]:
        right = torch.zeros(len(heads.arms), dtype=torch.int64)
        for rows in torch.split(torch.arange(len(labels[1])), EVALUATED):
            logits = model(sources[1](rows.tolist(), None))
            right += (logits.argmax(dim=-1).cpu() == labels[1][rows]).sum(dim=1)
        shares = (100 * right.double() / len(labels[1])).tolist()
        return {ACCURACY + arm.name: share for arm, share in zip(heads.arms, shares, strict=True)}

    return fit(
        heads, batches, steps=each * plan.epochs, optimiser=plan.moves(),
        schedule=Cosine(warm_up=each * min(plan.warm_up, plan.epochs - 1), final=0.0), objective=losses,
        evaluate=evaluate, every=each, folder=folder, progress=lambda share: progress("training", share),
    )  # fmt: skip


def _save(heads: Heads, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for arm, head in heads.items():
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
        save_file(tensors, folder / f"{arm.name.replace(':', '-').replace(',', '-')}.safetensors")
