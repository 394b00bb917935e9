"""The states of our decoders as a cache of transformers."""

from __future__ import annotations

import inspect
from typing import Any, NoReturn

from jaxtyping import Int
from torch import Tensor
from transformers import GenerationMixin
from transformers.cache_utils import Cache

from windeye.memory import State

_ARGUMENTS = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = "cache" if "cache" in _ARGUMENTS else "past_key_values"
"""What transformers calls a model's cache: ``cache`` since 5.24."""


class StateCache(Cache):
    """What a `WindeyeForCausalLM` keeps of the past, whatever its mixers keep.

    Sequences of a padded batch have been through different numbers of tokens, and states know it; `get_seq_length`
    counts columns, padding included, because transformers cuts what it has passed already off its input ids by it.

    Args:
        state: a past to continue, as a `windeye.models.DecoderLM` returns it; it is left as it was. None begins.

    Example:
        >>> import torch
        >>> from windeye.models import transformer
        >>> _, state = transformer(2, 32, 4, vocab_size=50)(torch.randint(50, (1, 7)), return_state=True)
        >>> cache = StateCache(state)
        >>> cache.batch_repeat_interleave(3)
        >>> cache.crop(-2)
        >>> cache.get_seq_length(), cache.state.seen
        (5, tensor([5, 5, 5]))
    """

    def __init__(self, state: State | None = None) -> None:
        super().__init__(layers=[])
        self.state = state
        self.columns = 0 if state is None else int(state.seen.max())

    def advance(self, state: State, columns: int) -> None:
        """Hold the state after ``columns`` more of them."""
        self.state = state
        self.columns += columns

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 - all layers have seen the same
        """Columns that have been passed, padding included."""
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:  # noqa: ARG002
        """-1: there is no limit."""
        return -1

    def reset(self) -> None:
        """Back to the beginning."""
        self.state, self.columns = None, 0

    def reorder_cache(self, beam_idx: Int[Tensor, " batch"]) -> None:
        """Put sequence ``beam_idx[i]`` in place ``i``."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Int[Tensor, " chosen"]) -> None:
        """Keep these sequences, each as often as it is named."""
        if self.state is not None:
            self.state = self.state.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence ``repeats`` times in a row."""
        if self.state is not None:
            self.state = self.state.repeat(repeats)

    def crop(self, tokens: int) -> None:
        """Negative: forget so many of the newest tokens. Positive: keep so many of the oldest. 0 changes nothing.

        Raises:
            ValueError: a layer cannot go back, or sequences of different lengths stand in the batch.
        """
        kept = max(0, self.columns + tokens) if tokens < 0 else min(tokens or self.columns, self.columns)
        if self.state is None or kept == self.columns:
            return
        if not bool((self.state.seen == self.columns).all()):
            raise ValueError(
                f"a cache of padded sequences cannot be cropped: of {self.columns} columns its sequences have "
                f"{self.state.seen.tolist()} tokens"
            )
        self.state, self.columns = self.state.crop(kept), kept

    @property
    def is_croppable(self) -> bool:
        """Whether every layer has kept all of its past, as assisted decoding needs it."""
        if self.state is None:
            return True
        try:
            self.state.crop(0)
        except ValueError:
            return False
        return True

    @property
    def is_initialized(self) -> bool:
        return self.state is not None

    @property
    def is_compileable(self) -> bool:
        """False: states are new objects at every step."""
        return False

    @property
    def is_linear(self) -> list[bool]:
        """One layer that counts its tokens."""
        return [False]

    @property
    def is_sliding(self) -> list[bool]:
        return [False]

    def update(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - the signature is the contract's
        """Refused: states take in inputs of layers, not keys and values.

        Raises:
            TypeError: always.
        """
        raise TypeError("StateCache is the cache of WindeyeForCausalLM; give other models a cache of transformers")

    def __repr__(self) -> str:
        kinds = "empty" if self.state is None else f"{self.state.nbytes} bytes"
        return f"{type(self).__name__}({self.columns} columns, {kinds})"
