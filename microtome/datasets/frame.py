"""The frame a picture is put into: crop and resize, the same for pictures, masks and landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import MOST_PIXELS, Landmark, Record

Labels = TypeVar("Labels", bound=np.generic)

FILTERS = {name.lower(): getattr(Image.Resampling, name) for name in ("BILINEAR", "BICUBIC", "LANCZOS", "NEAREST")}
"""What a picture can be resized by."""
HAIR = 1e-6  # of a pixel: what rounding may put a window's end beyond the picture's
CROP_SHARE = 224 / 256  # of the resized shorter side that the usual centre crop keeps


@dataclass(frozen=True)
class Placement:
    """How one picture lies in the frame: crop `box`, resize it to `resized`, cut `size` out of that at `offset`.

    All pairs are (x, y) or (width, height); `box` is x0, y0, x1, y1 in pixels of the stored picture, half-open;
    `interpolation` is one of `FILTERS`.
    """

    box: tuple[float, float, float, float]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]
    interpolation: str = "bilinear"

    def picture(self, image: Image.Image) -> NDArray[np.uint8]:
        """(height, width, 3) in the frame; resized by PIL on the uint8 crop, untouched where nothing changes."""
        if self.box != (0, 0, *image.size):
            image = _cropped(image, self.box)
        if self.resized[0] * self.resized[1] > MOST_PIXELS:
            return np.asarray(self._only_what_is_cut_out(image))
        if image.size != self.resized:
            image = image.resize(self.resized, FILTERS[self.interpolation])
        if self.resized != self.size:
            x, y = self.offset
            image = image.crop((x, y, x + self.size[0], y + self.size[1]))
        return np.asarray(image)

    def _only_what_is_cut_out(self, image: Image.Image) -> Image.Image:
        """Resize then crop, of a picture so long that resized whole it would fill the memory."""
        across, down = image.width / self.resized[0], image.height / self.resized[1]
        (x, y), (width, height) = self.offset, self.size
        box = (x * across, y * down, (x + width) * across, (y + height) * down)
        box = (*box[:2], min(box[2], image.width), min(box[3], image.height))
        return image.resize(self.size, FILTERS[self.interpolation], box=box)

    def mask(self, plane: NDArray[Labels], stored: tuple[int, int], size: tuple[int, int]) -> NDArray[Labels]:
        """Nearest neighbour: each pixel of the result takes the mask pixel under its centre.

        Args:
            plane: (..., height, width) labels over the whole stored picture, in any resolution.
            stored: (width, height) of the stored picture.
            size: (height, width) of the result, over the whole frame.
        """
        height, width = plane.shape[-2:]
        if (self.box, self.resized) == ((0, 0, *stored), self.size) and (height, width) == size:
            return plane
        columns = self._source(0, size[1], width / stored[0], width)
        rows = self._source(1, size[0], height / stored[1], height)
        return plane[..., rows[:, None], columns[None, :]]

    def landmark(self, mark: Landmark) -> Landmark:
        """The landmark in the frame's pixels."""
        x, y = (
            (value - self.box[axis]) * self.resized[axis] / (self.box[axis + 2] - self.box[axis]) - self.offset[axis]
            for axis, value in enumerate((mark.x, mark.y))
        )
        return Landmark(mark.name, x, y)

    def _source(self, axis: int, count: int, scale: float, limit: int) -> NDArray[np.intp]:
        centres = (np.arange(count) + 0.5) * self.size[axis] / count + self.offset[axis]
        origin = self.box[axis] + centres * (self.box[axis + 2] - self.box[axis]) / self.resized[axis]
        return np.clip(np.floor(origin * scale), 0, limit - 1).astype(np.intp)


@dataclass(frozen=True)
class Frame:
    """The network's input frame.

    Args:
        size: (height, width) of the network's input, in pixels.
        resize: `squash` (aspect not kept) or `shortest-side-crop` (shorter side to the size / crop_share, centre crop).
        crop: `object` crops to the record's box first, `none` does not.
        margin: added to each side of the box, as a share of its longer side.
        mask_size: (height, width) of masks; half the input by default.
        crop_share: of the resized picture that the centre crop keeps, along each side; 224/256 by default, and all of
            it where a picture is squashed.
        interpolation: one of `FILTERS`.
    """

    size: tuple[int, int]
    resize: str = "squash"
    crop: str = "none"
    margin: float = 0.0
    mask_size: tuple[int, int] | None = None
    crop_share: float | None = None
    interpolation: str = "bilinear"

    @property
    def masks(self) -> tuple[int, int]:
        """(height, width) of masks."""
        return self.mask_size or (self.size[0] // 2, self.size[1] // 2)

    def place(self, record: Record) -> Placement:
        """How a picture lies in the frame."""
        height, width = self.size
        box = self._box(record)
        resized = self._resized(box)
        offset = (round((resized[0] - width) / 2), round((resized[1] - height) / 2))
        return Placement(box, resized, offset, (width, height), self.interpolation)

    def _resized(self, box: tuple[float, float, float, float]) -> tuple[int, int]:
        """(width, height) of what the frame is cut out of."""
        height, width = self.size
        if self.resize == "squash":
            share = self.crop_share or 1
            return int(width / share), int(height / share)
        share = self.crop_share or CROP_SHARE
        scale = max(int(height / share) / (box[3] - box[1]), int(width / share) / (box[2] - box[0]))
        return max(width, int((box[2] - box[0]) * scale)), max(height, int((box[3] - box[1]) * scale))

    def _box(self, record: Record) -> tuple[float, float, float, float]:
        if self.crop != "object" or record.box is None:
            return (0, 0, record.width, record.height)
        x0, y0, x1, y1 = record.box
        pad = self.margin * max(x1 - x0, y1 - y0)
        left, right = _pixels(x0 - pad, x1 + pad, record.width)
        top, bottom = _pixels(y0 - pad, y1 + pad, record.height)
        return (left, top, right, bottom)


def _cropped(image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """What a box shows; beyond its border the picture is mirrored, border pixels twice."""
    x0, y0, x1, y1 = map(round, box)
    if x0 >= 0 and y0 >= 0 and x1 <= image.width and y1 <= image.height:
        return image.crop((x0, y0, x1, y1))
    rows, columns = _mirrored(np.arange(y0, y1), image.height), _mirrored(np.arange(x0, x1), image.width)
    return Image.fromarray(np.asarray(image)[rows[:, None], columns])


def _mirrored(places: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Places on a line of pixels that goes to and fro: ... 1 0 | 0 1 ... size - 1 | size - 1 ..."""
    around = places % (2 * size)
    return np.minimum(around, 2 * size - 1 - around)


def _pixels(low: float, high: float, limit: int) -> tuple[int, int]:
    """The span rounded to pixels within 0 to `limit`; the pixel it begins in, where it rounds to none."""
    first, last = max(0, round(low)), min(limit, round(high))
    if first < last:
        return first, last
    pixel = min(max(0, int(low)), limit - 1)
    return pixel, pixel + 1


@dataclass(frozen=True)
class MovedPlacement:
    """How a picture lies in the frame once its crop window was moved.

    Args:
        placement: of the moved window.
        offset: x, y by which what is shown moved the other way, in pixels of the frame.
        inside: the window stayed in the picture; where it did not, the picture goes on mirrored at its border.
    """

    placement: Placement
    offset: tuple[float, float]
    inside: bool


def moved(place: Placement, stored: tuple[int, int], offset: tuple[float, float]) -> MovedPlacement:
    """Move the crop window by whole pixels of the stored picture, so that what is shown moves by about an offset.

    Along each axis it is moved the other way where only that leaves it in the picture.

    Args:
        place: of the picture.
        stored: (width, height) of the stored picture.
        offset: x, y wanted, in pixels of the frame.
    """
    steps, moves, inside = [], [], True
    for axis in (0, 1):
        scale = (place.box[axis + 2] - place.box[axis]) / place.resized[axis]  # stored pixels to one of the frame
        first = place.box[axis] + place.offset[axis] * scale
        last = first + place.size[axis] * scale
        step = -round(offset[axis] * scale)
        fits = [way for way in (step, -step) if first + way >= -HAIR and last + way <= stored[axis] + HAIR]
        steps.append(fits[0] if fits else step)
        moves.append(-steps[axis] / scale)
        inside = inside and bool(fits)
    x, y = steps
    box = (place.box[0] + x, place.box[1] + y, place.box[2] + x, place.box[3] + y)
    return MovedPlacement(replace(place, box=box), (moves[0], moves[1]), inside)


def whole(stored: tuple[int, int], size: tuple[int, int]) -> Placement:
    """The placement that squashes a whole picture of `stored` (width, height) into `size` (width, height)."""
    return Placement((0, 0, *stored), size, (0, 0), size)
