"""What is kept between steps: states that answer to one small protocol."""

from windeye.memory.convolution import ConvolutionState
from windeye.memory.files import load_state, save_state
from windeye.memory.hybrid import HybridState
from windeye.memory.key_value import KeyValueState
from windeye.memory.recurrent import RecurrentState
from windeye.memory.state import State
from windeye.memory.tensors import TensorState
from windeye.memory.topw import TopwCache

__all__ = [
    "ConvolutionState",
    "HybridState",
    "KeyValueState",
    "RecurrentState",
    "State",
    "TensorState",
    "TopwCache",
    "load_state",
    "save_state",
]
