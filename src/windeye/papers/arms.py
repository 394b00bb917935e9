"""Every arm with every seed: the loop of experiments that train one network per arm and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from typing import TypeVar

from windeye.papers.experiment import Run, one_thread

Tell = Callable[[float], None]
"""Takes the share of a part that is done."""
Outcome = TypeVar("Outcome")
"""What a part leaves behind, as plain JSON values."""


def each_arm(
    run: Run, arms: Iterable[str], detail: str, train: Callable[[str, int, Tell], Outcome], *, share: float = 1.0
) -> dict[str, list[Outcome]]:
    """What ``train(arm, seed, tell)`` makes of each arm, in the order of the run's seeds; one thread, seed by seed.

    Args:
        detail: what parts depend on beside arm and seed, such as "400 steps"; finished parts are read back under it.
        share: how much of the run's work this is.

    Example:
        >>> each_arm(Run("smoke", (0, 1)), ("near", "far"), "1 step", lambda arm, seed, _tell: f"{arm} {seed}")
        {'near': ['near 0', 'near 1'], 'far': ['far 0', 'far 1']}
    """
    names = tuple(arms)
    found: dict[str, list[Outcome]] = {arm: [] for arm in names}
    total = len(run.seeds) * len(names)
    with one_thread():
        for done, (seed, arm) in enumerate(product(run.seeds, names)):
            part = f"{arm}, seed {seed}, {detail}"

            def tell(made: float, part: str = part, done: int = done) -> None:
                run.progress(part, share * (done + made) / total)

            found[arm].append(run.recorder.part(part, partial(train, arm, seed, tell)))
            tell(1.0)
    return found
