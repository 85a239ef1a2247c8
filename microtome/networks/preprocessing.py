"""How a picture becomes a network's input: the frame that it is put into, and the scale of its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter

from microtome.datasets.frame import Frame
from microtome.networks.normalisation import Normalisation

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before a network sees it.

    Args:
        size: (height, width) of the input, in pixels.
        mean, std: per channel, of pixels in [0, 1].
        resize: `squash` or `shortest-side-crop`, see `Frame`.
        crop_share: of the resized picture that the centre crop keeps, along each side; None for the usual one.
        interpolation: what pictures are resized by, see `microtome.datasets.frame.FILTERS`.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: str = "squash"
    crop_share: float | None = None
    interpolation: str = "bilinear"

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Preprocessing:
        """From JSON values."""
        return TypeAdapter(cls).validate_python(dict(values))

    @property
    def scale(self) -> Normalisation:
        """How pixels become the network's input."""
        return Normalisation(self.mean, self.std)

    @property
    def frame(self) -> Frame:
        """Where a whole picture lies in the input."""
        return Frame(self.size, self.resize, crop_share=self.crop_share, interpolation=self.interpolation)

    @property
    def words(self) -> str:
        """In one line."""
        height, width = self.size
        share = f", of which the centre {self.crop_share:g} of each side is cut out" if self.crop_share else ""
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"{height} x {width}, {self.resize}{share}, {self.interpolation}, mean {mean}, std {std}"
