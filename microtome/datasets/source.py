"""Pictures as everybody needs them: pixels in the frame, the network's input, masks, landmarks, thumbnails."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import Annotation, Dataset, Record, open_picture
from microtome.datasets.frame import Frame, MovedPlacement, Placement, moved
from microtome.networks.normalisation import Normalisation

if TYPE_CHECKING:
    import torch

SHIFTS = 1710  # tells the offsets' chance from others


@dataclass(frozen=True)
class Source:
    """Some pictures of a data set, by their number among them, in a network's frame.

    Args:
        dataset: whose.
        frame: that they are put into.
        scale: of the network.
        chosen: which records of the data set, in order: picture n is record `chosen[n]`.
        shift: how far crop windows are moved, in widths and heights of the frame: each picture's by an offset of its
            own, always the same one, of half of it at least along each axis.
    """

    dataset: Dataset
    frame: Frame
    scale: Normalisation
    chosen: Sequence[int]
    shift: float = 0.0

    def __len__(self) -> int:
        return len(self.chosen)

    def record(self, image: int) -> Record:
        """What the data set says of a picture."""
        return self.dataset.records[self.chosen[image]]

    def placement(self, image: int) -> Placement:
        """How a picture lies in the frame."""
        return self.moved(image).placement if self.shift else self.frame.place(self.record(image))

    def moved(self, image: int) -> MovedPlacement:
        """How a picture lies in the frame once its crop window was moved."""
        record, (height, width) = self.record(image), self.frame.size
        rng = np.random.default_rng([self.chosen[image], SHIFTS])
        across, down = rng.choice([-1, 1], 2) * rng.uniform(self.shift / 2, self.shift, 2)
        return moved(self.frame.place(record), (record.width, record.height), (across * width, down * height))

    def framed(self, image: int) -> NDArray[np.uint8]:
        """(height, width, 3) pixels in the frame, 0 to 255."""
        return self.placement(image).picture(self.dataset.picture(self.chosen[image]))

    def pixels(self, image: int) -> NDArray[np.float32]:
        """(height, width, 3) in [0, 1], in the frame."""
        return self.framed(image).astype(np.float32) / np.float32(255)

    def normalised(self, image: int) -> NDArray[np.float32]:
        """(3, height, width), as the network takes it."""
        return self.scale(self.framed(image))

    def batch(self, images: Sequence[int], device: str = "cpu") -> torch.Tensor:
        """(pictures, 3, height, width) in [0, 1]."""
        import torch

        return torch.from_numpy(np.stack([self.pixels(image).transpose(2, 0, 1) for image in images])).to(device)

    def landmarks(self, image: int) -> dict[str, tuple[float, float]]:
        """x, y of the landmarks that a picture shows, in the frame."""
        place = self.placement(image)
        marks = [(mark.name, place.landmark(mark)) for mark in self.dataset.landmarks(self.chosen[image])]
        return {name: (mark.x, mark.y) for name, mark in marks}

    def thumbnail(self, image: int, side: int) -> bytes:
        """A small picture as WebP, `side` pixels wide and high."""
        return small(self.framed(image), side)


def loose(file: Path, frame: Frame, scale: Normalisation) -> Source:
    """One picture file of no data set; its number is 0.

    Args:
        file: the picture.
        frame: that it is put into.
        scale: of the network.

    Raises:
        InputError: it cannot be read.
    """
    return Source(_Loose(file), frame, scale, (0,))


class _Loose(Dataset):
    def __init__(self, file: Path) -> None:
        self._file, self._picture = file, open_picture(file)
        self.records, self.concepts = [Record(file.name, "", self._picture.width, self._picture.height)], []

    def picture(self, index: int) -> Image.Image:
        return self._picture

    def annotation(self, index: int) -> Annotation:
        return Annotation()

    def files(self) -> Iterable[Path]:
        return (self._file,)


def small(pixels: NDArray[np.uint8], side: int) -> bytes:
    """A (height, width, 3) picture made small, as WebP."""
    # Less far from what Lanczos makes (39 dB) than WebP of this quality is from either, in two fifths of the time.
    shown = Image.fromarray(np.array(pixels)).resize((side, side), Image.Resampling.HAMMING)
    return webp(np.asarray(shown), quality=72)


def webp(pixels: NDArray[np.uint8], *, quality: int = 85) -> bytes:
    """A (height, width, 3) picture as WebP."""
    # Method 2 takes half of the default's time for files of the same size, within 7 %.
    return _encoded(pixels, "WEBP", quality=quality, method=2)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A (height, width, 3) picture as JPEG: half as large again as WebP, in a twentieth of its time."""
    return _encoded(pixels, "JPEG", quality=85)


def _encoded(pixels: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()
