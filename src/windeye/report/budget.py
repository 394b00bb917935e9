"""How much a run may take."""

from __future__ import annotations

from typing import Literal

Budget = Literal["smoke", "default", "full"]
"""``smoke`` takes seconds and proves that the machinery works, ``default`` minutes on two cores, ``full`` longer."""

BUDGETS: tuple[Budget, ...] = ("smoke", "default", "full")
