"""Synthetic tasks: a frozen description each, and a `sample` that draws tokens and targets from a seed.

>>> from windeye.data.tasks import MQAR
>>> MQAR(vocabulary=256, length=64, pairs=4).sample(32, seed=0, split="test").tokens.shape
torch.Size([32, 64])
"""

from windeye.data.sequences import IGNORED, Epochs, Fresh, Sequences
from windeye.data.tasks.mqar import MQAR, STANDARD_TEST, STANDARD_TRAIN
from windeye.data.tasks.needle import Needle
from windeye.data.tasks.passkey import Passkey

__all__ = ["IGNORED", "MQAR", "STANDARD_TEST", "STANDARD_TRAIN", "Epochs", "Fresh", "Needle", "Passkey", "Sequences"]
