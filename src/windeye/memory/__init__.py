"""What is kept between steps: states that answer to one small protocol."""

from windeye.memory.associative import AssociativeState
from windeye.memory.convolution import ConvolutionState
from windeye.memory.files import load_state, save_state
from windeye.memory.hybrid import HybridState
from windeye.memory.key_value import KeyValueState
from windeye.memory.recurrent import RecurrentState
from windeye.memory.segment import SegmentState
from windeye.memory.state import State
from windeye.memory.tensors import TensorState
from windeye.memory.topw import TopwCache

__all__ = [
    "AssociativeState",
    "ConvolutionState",
    "HybridState",
    "KeyValueState",
    "RecurrentState",
    "SegmentState",
    "State",
    "TensorState",
    "TopwCache",
    "load_state",
    "save_state",
]
