"""Synthetic tasks: a frozen description each, and a `sample` that draws tokens and targets from a seed.

>>> from windeye.data.tasks import MQAR
>>> MQAR(vocabulary=256, length=64, pairs=4).sample(32, seed=0, split="test").tokens.shape
torch.Size([32, 64])
"""

from windeye.data.sequences import IGNORED, Epochs, Fresh, Sequences
from windeye.data.tasks.colored_objects import ColoredObjects
from windeye.data.tasks.contrast import Contrast, ContrastBatch, single_tokens, tokenize
from windeye.data.tasks.countdown import Countdown
from windeye.data.tasks.haystack import Fact, Haystack
from windeye.data.tasks.ioi import IOI
from windeye.data.tasks.mqar import MQAR, STANDARD_TEST, STANDARD_TRAIN
from windeye.data.tasks.needle import Needle
from windeye.data.tasks.pair_lists import PairLists
from windeye.data.tasks.passkey import Passkey
from windeye.data.tasks.plan_then_fill import PlanThenFill

__all__ = [
    "IGNORED",
    "IOI",
    "MQAR",
    "STANDARD_TEST",
    "STANDARD_TRAIN",
    "ColoredObjects",
    "Contrast",
    "ContrastBatch",
    "Countdown",
    "Epochs",
    "Fact",
    "Fresh",
    "Haystack",
    "Needle",
    "PairLists",
    "Passkey",
    "PlanThenFill",
    "Sequences",
    "single_tokens",
    "tokenize",
]
