"""What is known of the size of a map while a graph is compiled that is to serve maps of all sizes."""

from __future__ import annotations

import torch


def always(holds: bool) -> bool:
    """Whether something holds that is said of sizes; in a graph for maps of all sizes, whether it holds for all.

    A short cut behind ``if always(...)`` is taken where it is known to be one, and does not tie a compiled graph to the
    sizes that it was traced with, as a plain ``if`` would. What follows must be right for all sizes.

    Example:
        >>> [always(size % 7 == 0) for size in (13, 14)]
        [False, True]
    """
    if not torch.compiler.is_compiling():
        return holds
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(holds)
