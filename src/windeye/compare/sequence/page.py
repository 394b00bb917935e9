"""How the comparison of sequence mixers is shown."""

from __future__ import annotations

from windeye.compare.page import Shown
from windeye.compare.sequence.figures import picture
from windeye.compare.sequence.tables import table

SHOWN = Shown(
    "Sequence mixers side by side",
    {"recall": "Recall", "language": "Text", "throughput": "Speed"},
    lambda part, found: [picture(part, found)],
    table,
)
