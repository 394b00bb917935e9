"""How the tokens of a map are arranged and resampled: windows, means over cells, bilinear samples, chosen regions,
learned mixtures; and where they stand. Maps are channels last; whatever follows the width is carried along."""

from windeye.tokens.mixing import mix
from windeye.tokens.pooling import pool
from windeye.tokens.regions import gather, route
from windeye.tokens.sampling import resize, sample
from windeye.tokens.waves import waves
from windeye.tokens.windows import absent, fill, margins, merge, partition

__all__ = [
    "absent",
    "fill",
    "gather",
    "margins",
    "merge",
    "mix",
    "partition",
    "pool",
    "resize",
    "route",
    "sample",
    "waves",
]
