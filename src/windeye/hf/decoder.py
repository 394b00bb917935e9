"""Our decoders as causal language models of transformers."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from windeye.hf.cache import CACHE, StateCache
from windeye.hf.config import WindeyeConfig
from windeye.models import DecoderLM
from windeye.nn.padding import layout_of

POSITIONS = ("position_ids", "cache_position")
"""Counted in columns by transformers; in tokens by our states, which is what rotary positions are of."""

WRONG = ("missing", "unexpected", "mismatched")


class WindeyeForCausalLM(PreTrainedModel, GenerationMixin):
    """A `windeye.models.DecoderLM` in the clothes of transformers: ``generate``, ``save_pretrained`` and
    ``from_pretrained`` work, its cache is a `StateCache`, and its weights stand under ``decoder``.

    Positions come from the states, which count tokens: batches may be padded on the left, each prompt continues as if
    alone. Assisted decoding needs layers that keep all of their past and is refused for others.

    Example:
        >>> import tempfile
        >>> from windeye.models import generate, tnl
        >>> decoder = tnl(2, 32, 2, 64, vocab_size=50)
        >>> model = WindeyeForCausalLM.from_decoder(decoder, pad_token_id=0)
        >>> ids = torch.randint(1, 50, (2, 6))
        >>> new = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)[:, 6:]
        >>> torch.equal(new, generate(decoder, ids, 5))
        True
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     again = AutoModelForCausalLM.from_pretrained(folder)
        >>> torch.equal(again(ids).logits, model(ids).logits)
        True
    """

    config_class = WindeyeConfig
    base_model_prefix = "decoder"
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    _no_split_modules: ClassVar = ["DecoderBlock"]

    def __init__(self, config: WindeyeConfig) -> None:
        super().__init__(config)
        self.decoder = DecoderLM(config.decoder_config())
        self.post_init()

    @classmethod
    def from_decoder(cls, decoder: DecoderLM, **settings: Any) -> Self:
        """A model around a decoder that there is already; they share their weights.

        Args:
            settings: of transformers, as ``eos_token_id``.
        """
        with torch.device("meta"):
            model = cls(WindeyeConfig(decoder.config, **settings))
        model.decoder = decoder
        return model.train(decoder.training)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers, but strict.

        Raises:
            ValueError: weights are missing, left over or of other shapes; names them.
        """
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        told = [f"{kind}: {sorted(map(str, info[f'{kind}_keys']))}" for kind in WRONG if info[f"{kind}_keys"]]
        if told:
            raise ValueError(f"the weights do not fit the decoder of config.json: {'; '.join(told)}")
        return (model, info) if output_loading_info else model

    def forward(
        self,
        input_ids: Int[Tensor, "batch n"],
        attention_mask: Int[Tensor, "batch columns"] | None = None,
        past_key_values: StateCache | None = None,
        cache: StateCache | None = None,
        labels: Int[Tensor, "batch n"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Int[Tensor, " places"] = 0,
        return_dict: bool = True,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits of the next token, and the loss if there are labels.

        Args:
            input_ids: tokens; with a cache, those after its past.
            attention_mask: 0 where there is no token, of these tokens or of the past and these.
            past_key_values, cache: the past, by its older or its newer name; it advances by these tokens.
            labels: the tokens themselves, -100 where no loss is taken; they are shifted here.
            use_cache: start a cache where none is given; default when not training.
            logits_to_keep: compute only so many of the last places, or these; 0 computes all.
            return_dict: False gives a tuple.
            output_attentions, output_hidden_states: refused; maps and hidden states are not kept.
            num_items_in_batch: labels of the whole step, where its batch comes in parts.
            others: what transformers gives to every model: positions, which states know better, and None.

        Raises:
            ValueError, TypeError: shapes do not fit, or an argument or a cache that is none of ours.
        """
        if unknown := [name for name, value in others.items() if value is not None and name not in POSITIONS]:
            raise TypeError(f"a windeye decoder takes no {', '.join(unknown)}")
        if output_attentions or output_hidden_states:
            asked = "output_attentions" if output_attentions else "output_hidden_states"
            raise ValueError(f"{asked}=True: a windeye decoder keeps neither attention maps nor hidden states")
        past = _the_cache(past_key_values, cache)
        if past is None and (use_cache if use_cache is not None else not self.training):
            past = StateCache()
        layout = layout_of(input_ids, _padding(attention_mask, input_ids, 0 if past is None else past.columns))
        hidden, state = self.decoder.hidden(
            layout.to_front(input_ids), lengths=layout.lengths, state=None if past is None else past.state
        )
        if past is not None:
            past.advance(state, input_ids.shape[1])
        places = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.decoder.logits(layout.back(hidden)[:, places])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits, labels, vocab_size=self.config.vocab_size, num_items_in_batch=num_items_in_batch
            )
        output = CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: past})
        return output if return_dict else output.to_tuple()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.decoder.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.decoder.embedding = value

    def get_output_embeddings(self) -> nn.Linear | None:
        """None where the head is the embedding."""
        return self.decoder.head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.decoder.head = value

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As in transformers; the decoder's configuration follows."""
        embedding = super().resize_token_embeddings(*args, **kwargs)
        self.decoder.config = self.config.decoder_config()
        return embedding

    def _init_weights(self, module: nn.Module) -> None:
        """A decoder starts its own weights where it is built."""

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *_: Any
    ) -> None:
        """Generation begins with an empty cache of ours."""
        if not (generation_config.cache_implementation or "dynamic").startswith("dynamic"):
            asked = generation_config.cache_implementation
            raise ValueError(f"cache_implementation={asked!r}: a windeye decoder keeps its own states; leave it None")
        if model_kwargs.get(CACHE) is None and generation_config.use_cache is not False:
            model_kwargs[CACHE] = StateCache()


AutoModelForCausalLM.register(WindeyeConfig, WindeyeForCausalLM)


def _the_cache(older: Any, newer: Any) -> StateCache | None:
    if older is not None and newer is not None:
        raise ValueError("past_key_values and cache are two names of one thing; give one of the two")
    past = older if newer is None else newer
    if past is not None and not isinstance(past, StateCache):
        raise TypeError(f"the cache of a windeye decoder is a StateCache, got {type(past).__name__}")
    return past


def _padding(mask: Tensor | None, ids: Tensor, columns: int) -> Tensor | None:
    """Where these tokens are padding; None where none is, which is cheaper."""
    if mask is None:
        return None
    batch, n = ids.shape
    if mask.dim() != 2 or mask.shape[0] != batch or mask.shape[1] not in (n, columns + n):
        past = f" or {columns + n}" if columns else ""
        raise ValueError(f"attention_mask must be [batch {batch}, columns {n}{past}], got shape {tuple(mask.shape)}")
    padding = mask[:, mask.shape[1] - n :] == 0
    return padding if bool(padding.any()) else None
