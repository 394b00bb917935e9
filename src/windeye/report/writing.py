"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and put it there when it is complete; folders on the way are made.

    What was there stays until then, and whatever goes wrong leaves nothing else behind. Text is UTF-8.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "deep", "note.txt")
        ...     write_whole(path, "seen")
        ...     path.read_text(), [file.name for file in path.parent.iterdir()]
        ('seen', ['note.txt'])
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
