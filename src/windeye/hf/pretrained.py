"""Real models by one name: assets, folders, GGUF files and ids of the hub, each with its tokenizer."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging, quantization_config

from windeye.data import assets
from windeye.data.assets.store import downloads_are_off
from windeye.hf.smiles import smiles_tokenizer

PRETRAINED = ("smollm2-135m-instruct", "smollm2-135m-instruct-safetensors", "rxnmapper", "all-minilm-l6-v2")
"""Assets that are whole models with a tokenizer."""

_EXIST = (
    f"There are {', '.join(PRETRAINED)}; a folder that transformers reads, a .gguf file, or an id of the Hugging Face "
    "hub does as well"
)

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load(name_or_path: str | Path, *, dtype: torch.dtype = torch.float32, offline: bool = False) -> Loaded:
    """A model in evaluation mode and its tokenizer.

    Looked up in this order: an asset of `PRETRAINED` (fetched if it is not on this machine), a folder that transformers
    reads (with ``config.json``, or with one file in the GGUF format), a GGUF file, an id of the Hugging Face hub. The
    class is the one that the configuration names: with a head that says the next token, with one that fills masks, or
    without a head. GGUF files are taken out of their quantisation; of an asset the result is kept in the cache, since
    that takes most of the time.

    Args:
        name_or_path: which model.
        dtype: of its weights.
        offline: never download.

    Raises:
        ValueError: no such model, what stands there is none, or weights are missing; says what there is.
        AssetUnavailable: the asset is not on this machine and could not be fetched.

    Example:
        >>> load("smollm2-135m-instrukt")
        Traceback (most recent call last):
        ValueError: no model 'smollm2-135m-instrukt'; did you mean 'smollm2-135m-instruct'? There are smollm2-135m-...
    """
    name, place = str(name_or_path), Path(name_or_path)
    with _quiet():
        if name in PRETRAINED:
            return _asset(name, dtype, offline)
        if place.exists():
            try:
                return _read(place, dtype)
            except (OSError, ValueError) as error:
                raise ValueError(f"{place} holds no model: {_first_line(error)}") from error
        if "/" not in name and (close := _close(name)):
            raise ValueError(f"no model {name!r}; did you mean {close[0]!r}? {_EXIST}")
        if place.is_absolute() or name.count("/") > 1 or name.startswith("."):
            raise ValueError(f"there is no folder or file {name}. {_EXIST}")
        try:
            return _read(name, dtype, local_files_only=offline or downloads_are_off())
        except (OSError, ValueError) as error:
            raise ValueError(f"no model {name!r}: {_first_line(error)}. {_EXIST}") from error


def _asset(name: str, dtype: torch.dtype, offline: bool) -> Loaded:
    folder = assets.get(name, offline=offline).folder
    if name == "rxnmapper":
        return _model(folder, dtype), smiles_tokenizer(folder / "vocab.txt")
    if not list(folder.glob("*.gguf")):
        return _read(folder, dtype)
    digest = (assets.find(name).files[0].sha256 or "")[:12]
    unpacked = assets.cache_directory() / "unpacked" / f"{name}-{digest}"
    if not unpacked.exists():
        model, tokenizer = _read(folder, torch.float32)
        try:
            unpacked.parent.mkdir(exist_ok=True)
            with TemporaryDirectory(dir=unpacked.parent) as staging:
                model.save_pretrained(Path(staging) / name)
                tokenizer.save_pretrained(Path(staging) / name)
                (Path(staging) / name).rename(unpacked)
        except OSError:  # the cache is full or not ours to write, or another process was quicker
            return model.to(dtype), tokenizer
    return _read(unpacked, dtype)


def _read(place: str | Path, dtype: torch.dtype, **options: Any) -> Loaded:
    where, which = _gguf(place)
    return _model(where, dtype, **which, **options), AutoTokenizer.from_pretrained(where, **which, **options)


def _model(where: str | Path, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    packed = "gguf_file" in options
    kind = AutoModelForCausalLM if packed else _class_of(AutoConfig.from_pretrained(where, **options))
    if packed and hasattr(quantization_config, "GgufConfig"):  # since 5.24, which else leaves weights packed
        options["quantization_config"] = quantization_config.GgufConfig(dequantize=True)
    model, info = kind.from_pretrained(where, dtype=dtype, output_loading_info=True, **options)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"weights of {type(model).__name__} are missing: {', '.join(missing[:5])}")
    if packed:  # its weights are ordinary ones now, which may be saved
        model.hf_quantizer = None
        vars(model.config).pop("quantization_config", None)
    return model.eval()


def _gguf(place: str | Path) -> tuple[str | Path, dict[str, Any]]:
    """The folder, and which file in it is the model if one in the GGUF format is."""
    if not isinstance(place, Path):
        return place, {}
    if place.is_file():
        if place.suffix != ".gguf":
            raise ValueError("a model is a folder, or a file that ends in .gguf")
        return place.parent, {"gguf_file": place.name}
    found = sorted(place.glob("*.gguf"))
    if (place / "config.json").exists() or not found:
        return place, {}
    if len(found) > 1:
        raise ValueError(f"there are several, name one: {', '.join(file.name for file in found)}")
    return place, {"gguf_file": found[0].name}


def _class_of(config: Any) -> Any:
    """What the configuration says that the weights are of."""
    named = (config.architectures or [""])[0]
    if named.endswith(("ForCausalLM", "LMHeadModel")):
        return AutoModelForCausalLM
    return AutoModelForMaskedLM if named.endswith("ForMaskedLM") else AutoModel


def _close(name: str) -> list[str]:
    begin_alike = [known for known in PRETRAINED if known.startswith(name.lower())]
    return begin_alike or difflib.get_close_matches(name, PRETRAINED, n=1)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars, and no reports on weights that the class leaves aside; what is missing is an error here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
