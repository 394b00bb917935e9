"""How the tokens of a map are arranged and resampled: windows, means over cells, bilinear samples, chosen regions,
learned mixtures; and where they stand. Maps are channels last; whatever follows the width is carried along."""

from windeye.tokens.mixing import mix
from windeye.tokens.pooling import pool
from windeye.tokens.regions import gather, route
from windeye.tokens.sampling import resize, sample
from windeye.tokens.sizes import always
from windeye.tokens.waves import waves
from windeye.tokens.windows import absent, counts, crop, fill, frame, margins, merge, partition

__all__ = [
    "absent",
    "always",
    "counts",
    "crop",
    "fill",
    "frame",
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
