"""Pictures whose show was moved, as the stages of a shift test read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.source import Source
from microtome.quantify.shift import Shifted


def shifted_pictures(source: Source, shift: float, images: NDArray[np.int64]) -> Shifted:
    """By what offsets some pictures were moved.

    Args:
        source: of the pictures.
        shift: of the maps, as of `Source`.
        images: numbers of the pictures.
    """
    places = [replace(source, shift=shift).moved(image) for image in images.tolist()]
    return Shifted(np.array([place.offset for place in places]), np.array([place.inside for place in places]))
