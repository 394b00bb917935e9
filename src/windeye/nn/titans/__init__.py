"""Titans: a memory that learns at test time, alone and beside attention in three ways."""

from windeye.nn.titans.context import MemoryAsContext
from windeye.nn.titans.gate import MemoryAsGate
from windeye.nn.titans.layer import MemoryAsLayer
from windeye.nn.titans.memory import NeuralMemory

__all__ = ["MemoryAsContext", "MemoryAsGate", "MemoryAsLayer", "NeuralMemory"]
