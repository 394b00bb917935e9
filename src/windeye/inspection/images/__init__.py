"""Where the attention of a vision backbone lies on an image, layer by layer."""

from windeye.inspection.images.capture import ENTRY, Layer, capture, mixers_of
from windeye.inspection.images.layers import LayerLook, Routes
from windeye.inspection.images.look import Look, look
from windeye.inspection.images.photo import Photo, read_photo
from windeye.inspection.images.placement import Placement
from windeye.inspection.images.spectrum import spectrum

__all__ = [
    "ENTRY",
    "Layer",
    "LayerLook",
    "Look",
    "Photo",
    "Placement",
    "Routes",
    "capture",
    "look",
    "mixers_of",
    "read_photo",
    "spectrum",
]
