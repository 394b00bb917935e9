"""Long work piece by piece: what is finished is kept, and the share that is done is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from windeye.report.recorder import Recorder

Tell = Callable[[float], None]
"""Takes the share of a piece that is done."""
T = TypeVar("T")


def silent(_share: float) -> None:
    """Progress that nobody watches."""


class Pieces:
    """Work of a known total, done in pieces.

    Args:
        recorder: where finished pieces are kept; recorded ones are read back.
        progress: called with a piece's name and the share of all work that is done.
        total: the weights of all pieces together.

    Example:
        >>> told = []
        >>> pieces = Pieces(Recorder(None, {}), lambda name, share: told.append((name, share)), total=4)
        >>> pieces.do("a", lambda tell: tell(0.5) or 7), pieces.do("b", lambda tell: 8, weight=3)
        (7, 8)
        >>> told
        [('a', 0.0), ('a', 0.125), ('a', 0.25), ('b', 0.25), ('b', 1.0)]
    """

    def __init__(self, recorder: Recorder, progress: Callable[[str, float], None], total: float) -> None:
        self.recorder, self.progress, self.total = recorder, progress, total
        self._done = 0.0

    def do(self, name: str, work: Callable[[Tell], T], weight: float = 1.0) -> T:
        """The result of ``work(tell)``, a plain JSON value, or what was recorded under this name."""

        def tell(share: float) -> None:
            self.progress(name, (self._done + weight * share) / self.total)

        tell(0.0)
        result = self.recorder.part(name, lambda: work(tell))
        tell(1.0)
        self._done += weight
        return cast(T, result)
