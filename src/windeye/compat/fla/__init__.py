"""Operators of flash-linear-attention on windeye's kernels, on any device: replace ``fla.ops`` by
``windeye.compat.fla.ops``.

Public names, parameters, defaults and results are those of fla-core 0.6.0, for every operator whose past is one state
per head that fades by a number per token: simple GLA, retention, lightning attention, linear attention and Based.

Example:
    >>> import torch
    >>> from windeye.compat.fla.ops import chunk_retention
    >>> q = k = v = torch.randn(1, 100, 4, 32)
    >>> o, final_state = chunk_retention(q, k, v, output_final_state=True)
    >>> o.shape, final_state.shape
    (torch.Size([1, 100, 4, 32]), torch.Size([1, 4, 32, 32]))
"""

from windeye.compat.fla import ops

__all__ = ["ops"]
