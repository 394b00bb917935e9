"""Credit of single tokens in reinforcement learning, read off attention.

>>> import torch
>>> from windeye.train.credit import coupled_rhythm, credited
>>> waad, fai, response = torch.rand(2, 30), torch.rand(2, 30), torch.ones(2, 30, dtype=torch.bool)
>>> credited(torch.tensor([0.7, -0.3]), coupled_rhythm(waad, fai, response), response).shape
torch.Size([2, 30])
"""

from windeye.train.credit.rhythm import HeadTypes, Rhythm, middle_layers, rhythm, type_heads
from windeye.train.credit.rules import Sign, boosted, coupled_rhythm, credited, global_anchor, jumps, local_chunk, top
from windeye.train.credit.trainers import for_openrlhf, for_roll, for_trl, for_verl

__all__ = [
    "HeadTypes",
    "Rhythm",
    "Sign",
    "boosted",
    "coupled_rhythm",
    "credited",
    "for_openrlhf",
    "for_roll",
    "for_trl",
    "for_verl",
    "global_anchor",
    "jumps",
    "local_chunk",
    "middle_layers",
    "rhythm",
    "top",
    "type_heads",
]
