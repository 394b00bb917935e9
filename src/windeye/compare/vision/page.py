"""How the comparison of mixers of maps is shown."""

from __future__ import annotations

from windeye.compare.page import Shown
from windeye.compare.vision.figures import pictures
from windeye.compare.vision.tables import table

SHOWN = Shown(
    "Mixers of maps side by side",
    {"accuracy": "Accuracy and what it costs", "speed": "Speed and memory"},
    pictures,
    table,
)
