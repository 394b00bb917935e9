"""What the attention of a model does with a text or an image: measured in one pass, told in tables and on a page."""

from windeye.inspection.images import Look, look
from windeye.inspection.measure import Inspection, inspect
from windeye.inspection.page import report
from windeye.inspection.reading import Reading, ends, ordinary_tokens, reach, read
from windeye.inspection.steering import Effect, effect
from windeye.inspection.words import DEFAULT, STATISTICS, layers_of, statistics_of

__all__ = [
    "DEFAULT",
    "STATISTICS",
    "Effect",
    "Inspection",
    "Look",
    "Reading",
    "effect",
    "ends",
    "inspect",
    "layers_of",
    "look",
    "ordinary_tokens",
    "reach",
    "read",
    "report",
    "statistics_of",
]
