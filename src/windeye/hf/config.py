"""What transformers keeps of a decoder in config.json."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from windeye.models import DecoderConfig


class WindeyeConfig(PretrainedConfig):
    """A `windeye.models.DecoderConfig` as plain data, and the settings that every model of transformers has.

    Args:
        architecture: the decoder, or its plain data.
        kwargs: settings of transformers, as ``eos_token_id`` and ``pad_token_id``.

    Example:
        >>> from windeye.models import AttentionSpec, LightningSpec
        >>> decoder = DecoderConfig(vocab_size=256, dim=64, mixers=(LightningSpec(), AttentionSpec(window=32)))
        >>> config = WindeyeConfig(decoder, eos_token_id=0)
        >>> config.hidden_size, config.num_hidden_layers, config.decoder_config() == decoder
        (64, 2, True)
    """

    model_type = "windeye"
    has_no_defaults_at_init = True

    def __init__(self, architecture: DecoderConfig | dict[str, Any] | None = None, **kwargs: Any) -> None:
        # None because transformers 4 builds an empty one, to tell which settings differ from it.
        self.architecture = architecture.to_dict() if isinstance(architecture, DecoderConfig) else architecture or {}
        super().__init__(**{"tie_word_embeddings": self.architecture.get("tied_head", True)} | kwargs)

    def decoder_config(self) -> DecoderConfig:
        """The decoder that this describes.

        Raises:
            ValueError: it describes none.
        """
        if not self.architecture:
            raise ValueError("WindeyeConfig has no architecture; give it a DecoderConfig, or its to_dict()")
        return DecoderConfig.from_dict(self.architecture)

    @property
    def vocab_size(self) -> int:
        return self._of_architecture("vocab_size")

    @vocab_size.setter
    def vocab_size(self, size: int) -> None:
        self.architecture = self.architecture | {"vocab_size": size}

    @property
    def hidden_size(self) -> int:
        return self._of_architecture("dim")

    @property
    def num_hidden_layers(self) -> int:
        return len(self._of_architecture("mixers"))

    def _of_architecture(self, name: str) -> Any:
        if not self.architecture:
            raise AttributeError("WindeyeConfig has no architecture")
        return self.architecture[name]


AutoConfig.register(WindeyeConfig.model_type, WindeyeConfig)
