"""What is kept between steps: states that answer to one small protocol."""

from windeye.memory.state import State
from windeye.memory.topw import TopwCache

__all__ = ["State", "TopwCache"]
