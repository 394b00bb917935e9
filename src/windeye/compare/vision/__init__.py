"""Mixers of maps side by side: accuracy on pictures with what it costs, and speed and memory as maps grow.

>>> from windeye.compare.vision import arms
>>> "full" in arms()
True
"""

from windeye.compare.vision.accuracy import AccuracyPlan, Outcome, choose_rate, train_arm
from windeye.compare.vision.arms import Arm, arms, selected
from windeye.compare.vision.skeleton import Skeleton

__all__ = ["AccuracyPlan", "Arm", "Outcome", "Skeleton", "arms", "choose_rate", "selected", "train_arm"]
