"""Where a query stands on the key axis when the two grids differ (cross windows)."""

from __future__ import annotations

import numpy as np

from windeye.patterns.table import Ints


def positions(queries: int, keys: int, *, causal: bool) -> Ints:
    """Key coordinate of each query.

    Causal axes are aligned at their ends, as decoders need it: the last query stands on the last key. Other axes are
    aligned by scale: query ``i`` stands on the key below its centre, ``floor((2 i + 1) keys / (2 queries))``.
    With equal lengths both are the identity. A negative position lies before the first key and sees nothing.

    Example:
        >>> positions(2, 4, causal=False).tolist(), positions(2, 4, causal=True).tolist()
        ([1, 3], [2, 3])
    """
    index = np.arange(queries, dtype=np.int64)
    return index + (keys - queries) if causal else (2 * index + 1) * keys // (2 * max(queries, 1))
