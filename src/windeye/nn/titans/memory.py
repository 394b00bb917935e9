"""The neural memory of Titans as a sequence mixer."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.kernels.associative.network import Activation
from windeye.kernels.associative.problem import Reduction
from windeye.memory import AssociativeState, ConvolutionState, HybridState, State
from windeye.nn.convolution import convolve
from windeye.nn.mixer import SequenceMixer, check_count, check_divides, expect, seen_after
from windeye.nn.norms import norm_of
from windeye.ops import associative_memory, associative_recall

FORGET, MOMENTUM = -5.0, 0.0
"""Where the gates start, before the sigmoid: the memory forgets 0.7 % a token, and half of each step is taken again."""


class NeuralMemory(SequenceMixer):
    """A small network per head that learns ``key -> value`` while it reads, by gradient descent with momentum and
    weight decay (`windeye.associative_memory`); its weights are the state.

    ``out = out_proj(norm_h(M(q; W_t)) silu(gate_proj(x)))`` with ``q, k, v = silu(conv(qkv_proj(x)))``, ``q`` and ``k``
    of unit length per head, and per head and token ``forget = sigmoid(.)``, ``momentum = sigmoid(.)`` and
    ``step_size = max_step (1 - momentum) sigmoid(.)`` of linear maps of the input. A step that momentum takes again and
    again thus amounts to ``max_step`` at most.

    Args:
        dim: channels in and out.
        heads: memories side by side.
        head_dim: width of a head's key and value, default ``dim / heads``.
        depth: layers of the memory, 1 is linear. expansion: hidden width over ``head_dim``.
        chunk_size: tokens between two looks at the gradient; part of the function, see `windeye.associative_memory`.
        max_step: default ``1 / chunk_size``, at which a key may fill a whole chunk; larger steps store in one go what
            does not repeat at once, and can diverge where it does. Steps start at ``1 / chunk_size`` at most.
        kernel_size: tokens that the causal convolution of queries, keys and values reads; 1 leaves it out.
        persistent: learned tokens that are written to the memory before the first one.
        momentum, forgetting: False takes the gate out.
        activation, loss_factor, reduction, residual, predict_decayed, max_grad_norm: of the memory.
        recompute: less memory in training, see `windeye.associative_memory`.

    The memory is learned in evaluation mode, too. While the attribute ``writing`` is False it is only read.

    Differs from: nothing official, for no code was published. Gates, step size, order of convolution and activation,
    and what normalises the output are decisions of this library.

    Raises:
        ValueError, TypeError: sizes or options do not fit. windeye.ops.MemoryDiverged: the steps were too large.

    Source: titans spec, sections 1 to 4.

    Example:
        >>> layer = NeuralMemory(32, heads=2, chunk_size=8)
        >>> out, state = layer(torch.randn(2, 50, 32), return_state=True)
        >>> out.shape, layer.state_bytes(50) == layer.state_bytes(5000)
        (torch.Size([2, 50, 32]), True)
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int | None = None,
        depth: int = 2,
        expansion: int = 4,
        chunk_size: int = 16,
        max_step: float | None = None,
        kernel_size: int = 4,
        persistent: int = 0,
        momentum: bool = True,
        forgetting: bool = True,
        activation: Activation = "gelu",
        loss_factor: float = 1.0,
        reduction: Reduction = "sum",
        residual: bool = False,
        predict_decayed: bool = False,
        max_grad_norm: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__(dim)
        self.heads = check_count("heads", heads)
        self.head_dim = check_divides(heads, dim, "dim") if head_dim is None else check_count("head_dim", head_dim)
        self.chunk_size = check_count("chunk_size", chunk_size)
        self.max_step = 1 / chunk_size if max_step is None else float(max_step)
        if not (math.isfinite(self.max_step) and self.max_step > 0):
            raise ValueError(f"max_step must be a finite number above 0, got {max_step}")
        self.momentum, self.forgetting, self.activation, self.writing = momentum, forgetting, activation, True
        self.options: dict[str, Any] = {
            "chunk_size": chunk_size, "activation": activation, "loss_factor": loss_factor, "reduction": reduction,
            "predict_decayed": predict_decayed, "max_grad_norm": max_grad_norm, "recompute": recompute,
        }  # fmt: skip
        inner = heads * self.head_dim
        self.qkv_proj = nn.Linear(dim, 3 * inner, bias=False)
        kernel = check_count("kernel_size", kernel_size)
        self.conv = None if kernel == 1 else nn.Conv1d(3 * inner, 3 * inner, kernel, groups=3 * inner, bias=False)
        self.kernel_size = kernel
        # Biases of their own: a model that starts its linear maps anew must not take the gates along.
        share = min(0.5, 1 / (chunk_size * self.max_step))
        starts = [math.log(share / (1 - share))] + [MOMENTUM] * momentum + [FORGET] * forgetting
        self.rates_proj = nn.Linear(dim, len(starts) * heads, bias=False)
        self.rates_bias = nn.Parameter(torch.tensor(starts).repeat_interleave(heads))
        self.gate_proj = nn.Linear(dim, inner, bias=False)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.norm = norm_of("rms", self.head_dim, 1e-6)
        width = check_count("expansion", expansion) * self.head_dim
        widths = [self.head_dim, *[width] * (check_count("depth", depth) - 1), self.head_dim]
        self.weights = nn.ParameterList(
            torch.randn(heads, before, after) * before**-0.5 for before, after in pairwise(widths)
        )
        self.residual_gain = nn.Parameter(torch.zeros(heads, self.head_dim)) if residual else None
        if isinstance(persistent, bool) or not isinstance(persistent, int) or persistent < 0:
            raise ValueError(f"persistent must be a number of tokens, at least 0, got {persistent!r}")
        self.persistent = nn.Parameter(0.02 * torch.randn(persistent, dim)) if persistent else None

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], HybridState]:
        past = expect(state, HybridState)
        if past is None:
            _, past = self.begin(self.persistent, x.shape[0])
        return self._go_on(x, lengths, past)

    def begin(
        self, prefix: Float[Tensor, "tokens dim"] | None, batch: int
    ) -> tuple[Float[Tensor, "tokens dim"] | None, HybridState]:
        """What the memory says of learned tokens before the first one, and its state once it has read them.

        They are the same for every sequence, and are not counted as seen.
        """
        like = self.rates_bias.new_empty(1, 0, self.qkv_proj.out_features)
        query = like.new_empty(1, 0, self.heads, self.head_dim)
        _, memory = associative_memory(
            query, query, query, list(self.weights), step_size=query[..., 0], return_state=True
        )  # fmt: skip
        convolution = ConvolutionState.empty(like, self.kernel_size)
        state = HybridState([convolution, AssociativeState.of(convolution.seen, memory)])
        out = None
        if prefix is not None:
            out, state = self._go_on(prefix[None], None, state)
            out = out[0]
        state = state.select(torch.zeros(batch, dtype=torch.int64))
        nothing = torch.zeros_like(state.seen)
        return out, HybridState([replace(layer, seen=nothing) for layer in state.layers])  # type: ignore[type-var]

    def retrieve(self, x: Float[Tensor, "batch n dim"], memory: AssociativeState) -> Float[Tensor, "batch n dim"]:
        """Look tokens up in the memory as it is, one by one: without the convolution, and nothing is written."""
        query = F.linear(x, self.qkv_proj.weight[: self.out_proj.in_features])
        query = F.normalize(F.silu(query).reshape(*x.shape[:2], self.heads, self.head_dim), dim=-1)
        return self._out(self._recalled(query, memory), x)

    def _go_on(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, past: HybridState
    ) -> tuple[Float[Tensor, "batch n dim"], HybridState]:
        convolution, memory = past.layers
        assert isinstance(convolution, ConvolutionState)
        assert isinstance(memory, AssociativeState)
        qkv = self.qkv_proj(x)
        if self.conv is None:
            after = convolution.append(qkv, lengths)
        else:
            qkv, after = convolve(self.conv, qkv, lengths, convolution)
        query, key, value = F.silu(qkv).reshape(*x.shape[:2], 3, self.heads, self.head_dim).unbind(-3)
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        seen = seen_after(x, lengths, memory)
        if self.writing:
            step_size, momentum, forget = self._rates(x)
            out, fast = associative_memory(
                query, key, value, list(self.weights), step_size=step_size, momentum=momentum, forget=forget,
                lengths=lengths, residual_gain=self.residual_gain, initial_state=memory.memory, return_state=True,
                **self.options,
            )  # fmt: skip
            memory = AssociativeState.of(seen, fast)
        else:
            out, memory = self._recalled(query, memory), replace(memory, seen=seen)
        return self._out(out, x), HybridState([after, memory])

    def _rates(
        self, x: Float[Tensor, "batch n dim"]
    ) -> tuple[
        Float[Tensor, "batch n heads"], Float[Tensor, "batch n heads"] | None, Float[Tensor, "batch n heads"] | None
    ]:
        """Step size, momentum and forgetting of each token."""
        rates = (self.rates_proj(x) + self.rates_bias).sigmoid()
        gates = 1 + self.momentum + self.forgetting
        step, *others = rates.reshape(*x.shape[:2], gates, self.heads).unbind(-2)
        momentum = others.pop(0) if self.momentum else None
        forget = others.pop(0) if self.forgetting else None
        return self.max_step * (step if momentum is None else step * (1 - momentum)), momentum, forget

    def _recalled(
        self, query: Float[Tensor, "batch n heads head_dim"], memory: AssociativeState
    ) -> Float[Tensor, "batch n heads head_dim"]:
        return associative_recall(
            query, list(self.weights), memory.memory, activation=self.activation, residual_gain=self.residual_gain
        )

    def _out(
        self, recalled: Float[Tensor, "batch n heads head_dim"], x: Float[Tensor, "batch n dim"]
    ) -> Float[Tensor, "batch n dim"]:
        return self.out_proj(self.norm(recalled).flatten(-2) * F.silu(self.gate_proj(x)))

    def state_bytes(self, n: int) -> int:  # noqa: ARG002 - constant
        """Three times the weights in float32, the inputs of the convolution, and the place in the chunk."""
        numbers = sum(weight.numel() for weight in self.weights)
        held = (self.kernel_size - 1) * self.qkv_proj.out_features
        return 3 * numbers * max(4, self.itemsize) + held * self.itemsize + 8

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}, depth={len(self.weights)}, chunk_size={self.chunk_size}"
