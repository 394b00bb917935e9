"""The compiled module, loaded once: what it has, why it is missing, and memory for what it writes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

try:
    cpu: Any = import_module("windeye._cpu")
    missing = ""
except ImportError as error:
    cpu = None
    missing = (
        f"the compiled module is missing ({error}); reinstall windeye where a C++17 compiler (gcc or clang) is found"
    )

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
"""How the module numbers the types of tensors."""

LARGE = 2 * 2**20
"""Bytes from which fresh tensors ask for huge pages, of which one has as many. Blocks of tens of megabytes go back to
the system when they are freed, and every call pays a page fault per 4 KiB again; smaller ones hardly feel it."""


def instruction_sets() -> list[str]:
    """Instruction sets that this build has and this processor knows, best first; empty without the compiled module."""
    return [] if cpu is None else list(cpu.instruction_sets())


def prefer_huge_pages(*tensors: torch.Tensor) -> None:
    """To be called before the first write to new tensors."""
    for tensor in tensors:
        if tensor.nbytes >= LARGE:
            cpu.prefer_huge_pages(tensor.data_ptr(), tensor.nbytes)
