"""From stored maps to lit pixels of the masks, beside the annotations of the same pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.frame import Frame
from microtome.networks.geometry import LayerGeometry
from microtome.quantify.upsample import Lit, Upsampler
from storage.tensors import Tensors
from tasks.index.result import AnnotationBlock
from tasks.options import Lighting
from tasks.thresholds.result import SeenPictures

BATCH = 16


def upsampler(frame: Frame, layer: LayerGeometry, lighting: Lighting, device: str) -> Upsampler:
    """From a layer's maps to lit pixels of the masks.

    Args:
        frame: of the pictures.
        layer: geometry.
        lighting: how maps become masks.
        device: for computation.
    """
    return Upsampler(layer, frame.size, frame.masks, align=lighting.align, inclusive=lighting.inclusive, device=device)


def limits(seen: SeenPictures, number: int, lighting: Lighting) -> NDArray[np.float32]:
    """(units,) thresholds of a layer, above which its values light pixels.

    Args:
        seen: thresholds at any tail.
        number: of the layer.
        lighting: how maps become masks.
    """
    return seen.thresholds.at(seen.activations.layers[number].name, lighting.tail)


class Lighter:
    """Lights the pixels of a layer, batch by batch.

    Args:
        seen: maps, thresholds and annotations.
        number: of the layer.
        lighting: how maps become masks.
        device: for computation.
    """

    def __init__(self, seen: SeenPictures, number: int, lighting: Lighting, *, device: str) -> None:
        self.layer = seen.activations.layers[number]
        self.masks = seen.index.frame.masks
        self.thresholds = limits(seen, number, lighting)
        self._seen, self._number = seen, number
        self._limits = torch.from_numpy(self.thresholds).to(device)
        self._upsample = upsampler(seen.index.frame, self.layer, lighting, device)

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[AnnotationBlock, Tensors]]:
        """Annotations and maps of the same images, a row group at a time.

        Args:
            first, last: the images from `first` to before `last`, whole row groups; all where left out.
        """
        maps = self._seen.activations.blocks(self._number, first, last)
        for notes, block in zip(self._seen.index.annotations(first, last), maps, strict=True):
            yield notes, block.tensors

    def light(self, maps: Tensors) -> Lit:
        """Lit pixels of a batch of maps."""
        return self._upsample(self._on_device(maps), self._limits)

    def above(self, maps: Tensors, thresholds: NDArray[np.float32]) -> Lit:
        """Pixels of a batch of maps above other thresholds, (units,), with their values."""
        return self._upsample(self._on_device(maps), torch.from_numpy(thresholds).to(self._limits.device), values=True)

    def _on_device(self, maps: Tensors) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # and nobody writes
            batch = torch.from_numpy(maps.astype(np.float32, copy=False))
        return batch.to(self._limits.device)
