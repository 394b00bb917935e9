"""Sequence mixers side by side: recall against memory, perplexity of a text, and speed as sequences grow.

>>> from windeye.compare.sequence import ARMS
>>> "softmax" in ARMS
True
"""

from windeye.compare.sequence.arms import ARMS, Arm, selected
from windeye.compare.sequence.recall import RecallOutcome, RecallPlan, choose_rate, train_recall

__all__ = ["ARMS", "Arm", "RecallOutcome", "RecallPlan", "choose_rate", "selected", "train_recall"]
