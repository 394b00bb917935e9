"""Pools side by side on the tokens of one frozen encoder: accuracy, trainable parameters, time of a step.

>>> from windeye.compare.probing import arm_of
>>> arm_of("ep:queries=8").settings
{'queries': 8}
"""

from windeye.compare.probing.arms import Arm, Heads, arm_of
from windeye.compare.probing.plan import ProbePlan
from windeye.compare.probing.run import probe

__all__ = ["Arm", "Heads", "ProbePlan", "arm_of", "probe"]
