"""From pixels to what a network takes, (pixel / 255 - mean) / std in float32: the one place where that is written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Normalisation:
    """The scale of a network's input.

    Args:
        mean, std: per channel, of pixels in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """(channels, height, width) of a picture, each operation rounded to float32.

        Args:
            pixels: (height, width, channels).
            out: where the result is put. Without it the result lies in memory as the picture does, channels last: what
                a convolution rounds to depends on that.
        """
        planes = pixels.transpose(2, 0, 1)
        planes = planes if out is None else np.ascontiguousarray(planes)
        result: NDArray[np.float32] = np.divide(planes, np.float32(255), out=out, dtype=np.float32)
        mean, std = self._planes
        result -= mean
        result /= std
        return result

    @cached_property
    def _planes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        return mean, std
