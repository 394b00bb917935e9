"""The Hugging Face adapter: our decoders as models of transformers, with everything that `generate` does, and models
of transformers whose attention is watched, steered or replaced; real ones by one name.

Importing it makes ``AutoConfig`` and ``AutoModelForCausalLM`` know the model type ``windeye``.
"""

try:
    import transformers as _transformers  # noqa: F401 - only asked whether it is there
except ImportError as error:
    raise ImportError("windeye.hf needs transformers: pip install 'windeye[hf]'") from error

from windeye.hf.attach import Handle, attach
from windeye.hf.cache import StateCache
from windeye.hf.config import WindeyeConfig
from windeye.hf.decoder import WindeyeForCausalLM
from windeye.hf.pretrained import PRETRAINED, load

__all__ = ["PRETRAINED", "Handle", "StateCache", "WindeyeConfig", "WindeyeForCausalLM", "attach", "load"]
