"""Every arm with every seed: the loop of experiments that train one network per arm and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import TypeVar

from windeye.papers.experiment import one_thread
from windeye.report import Pieces, Tell

Outcome = TypeVar("Outcome")
"""What a network leaves behind, as plain JSON values."""


def each_arm(
    pieces: Pieces, arms: Iterable[str], seeds: Sequence[int], detail: str, train: Callable[[str, int, Tell], Outcome]
) -> dict[str, list[Outcome]]:
    """What ``train(arm, seed, tell)`` makes of each arm, in the order of the seeds; one thread, seed by seed, so that a
    run that is stopped has whole seeds.

    Args:
        pieces: the work of the run; a network weighs 1.
        detail: what networks depend on beside arm and seed, such as "400 steps"; finished ones are read back under it.

    Example:
        >>> from windeye.report import Recorder
        >>> pieces = Pieces(Recorder(None, {}), lambda _name, _share: None, total=4)
        >>> each_arm(pieces, ("near", "far"), (0, 1), "1 step", lambda arm, seed, _tell: f"{arm} {seed}")
        {'near': ['near 0', 'near 1'], 'far': ['far 0', 'far 1']}
    """
    names = tuple(arms)
    found: dict[str, list[Outcome]] = {arm: [] for arm in names}
    with one_thread():
        for seed, arm in product(seeds, names):
            found[arm].append(pieces.do(f"{arm}, seed {seed}, {detail}", partial(train, arm, seed)))
    return found
