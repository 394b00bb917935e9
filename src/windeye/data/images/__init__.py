"""Images of any sizes from folders, as squares of one size."""

from windeye.data.images.crops import middle, random_part
from windeye.data.images.folder import Files, ImageFolder

__all__ = ["Files", "ImageFolder", "middle", "random_part"]
