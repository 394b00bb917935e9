"""Mechanisms side by side: the same skeleton, data and budget for each.

>>> from windeye.compare import ARMS
>>> "softmax" in ARMS
True
"""

from windeye.compare.arms import ARMS, Arm, selected
from windeye.compare.recall import RecallOutcome, RecallPlan, choose_rate, train_recall

__all__ = ["ARMS", "Arm", "RecallOutcome", "RecallPlan", "choose_rate", "selected", "train_recall"]
