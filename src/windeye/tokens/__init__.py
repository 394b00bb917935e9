"""How the tokens of a map are arranged: windows, and what stands between them and the map."""

from windeye.tokens.windows import absent, merge, partition

__all__ = ["absent", "merge", "partition"]
