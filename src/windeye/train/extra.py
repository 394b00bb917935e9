"""The libraries of the extra ``train``, imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any


def required(library: str) -> Any:
    """Import a library, or say which extra brings it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(f"windeye.train needs {library}: pip install 'windeye[train]'") from error
