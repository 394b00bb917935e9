"""One short training loop on Accelerate, and the scores of what it trained.

>>> from torch import nn
>>> from windeye.data.tasks import MQAR, Fresh
>>> from windeye.train import AdamW, fit
>>> model = nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 32))
>>> len(fit(model, Fresh(MQAR(32, 16).sample, batch_size=8), steps=2, optimiser=AdamW(rate=3e-3)))
2

Needs the extra ``train``: ``pip install 'windeye[train]'``.
"""

from windeye.train.history import Row
from windeye.train.lars import LARS
from windeye.train.loop import fit
from windeye.train.masked import HiddenPixels, Masked
from windeye.train.metrics import score
from windeye.train.optimiser import AdamW, Cosine
from windeye.train.training import NonFinite

__all__ = ["LARS", "AdamW", "Cosine", "HiddenPixels", "Masked", "NonFinite", "Row", "fit", "score"]
