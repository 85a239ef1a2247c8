"""Counts of detectors under resamples that also estimate each unit's threshold anew, as another data set would.

A dissection holds the thresholds of the data in every resample (microtome.quantify.resampling). Here a resample's own
T is the (floor(tail n) + 1)-th highest of its n values, a picture that is drawn twice giving its values twice; pixels
are then lit by that T. Labels are held as they are there, so that the two intervals differ by the thresholds alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from microtome.compiling import compiled
from microtome.quantify.accumulate import rank
from microtome.quantify.dissection import Best, DetectorCount, Labels, detectors, iou

if TYPE_CHECKING:
    from microtome.quantify.upsample import Lit

Weights = NDArray[np.int32]


class PicturedTail:
    """The largest values of each unit, with the picture that each is from.

    Args:
        units: number of units.
        keep: how many of the largest values are kept, at least 1.
    """

    def __init__(self, units: int, keep: int) -> None:
        self._keep = keep
        self._values = np.zeros((units, 0), np.float32)
        self._images = np.zeros((units, 0), np.int64)
        self._seen = 0

    def update(self, first: int, maps: NDArray[np.float32]) -> None:
        """Take (images, units, rows, columns) of consecutive images from `first` on."""
        flat = maps.reshape(*maps.shape[:2], -1).swapaxes(0, 1)
        images = np.repeat(np.arange(first, first + flat.shape[1]), flat.shape[2])
        values = np.concatenate([self._values, flat.reshape(len(flat), -1)], 1)
        origin = np.concatenate([self._images, np.broadcast_to(images, (len(flat), len(images)))], 1)
        self._seen += len(images)
        if values.shape[1] > self._keep:
            top = np.argpartition(values, -self._keep, 1)[:, -self._keep :]
            values, origin = np.take_along_axis(values, top, 1), np.take_along_axis(origin, top, 1)
        self._values, self._images = values, origin

    def thresholds(self, weights: Weights, tail: float) -> NDArray[np.float32] | None:
        """(resamples, units) T of each resample; None where more values must be kept to know it.

        Args:
            weights: (resamples, images) how often each picture is drawn; every row sums to the number of images.
            tail: share of values that may lie strictly above.
        """
        order = np.argsort(-self._values, 1, kind="stable")
        values, images = (np.take_along_axis(part, order, 1) for part in (self._values, self._images))
        wanted, found = rank(tail, self._seen), []
        for own in weights:
            reached = own[images].cumsum(1) > wanted
            if not reached[:, -1].all():
                return None
            found.append(np.take_along_axis(values, reached.argmax(1)[:, None], 1)[:, 0])
        return np.stack(found) + np.float32(0)  # -0.0 and 0.0 are equal, and must be the same bytes, too


@compiled
def _add(totals, lit, limits, annotations):  # type: ignore[no-untyped-def]
    """Add what a batch lights in every resample. Compiled when it is first called.

    A pixel of value S is lit in all resamples whose T lies below S: in the first k of them, by rising T. So one pass
    over the pixels counts how many there are of each k, and their sums from above are the counts of every resample.

    Args:
        totals: I and A, (resamples, units, categories) each, added to.
        lit: where each image's pixels begin, and end; unit, pixel and value of each pixel.
        limits: (units, resamples) T, rising; which resample each is of; (resamples, images) weights of the batch.
        annotations: (images, planes, pixels) place in the table; (images, places) concept; (images, concepts) whether
            it labels the whole picture; (images, categories) whether the picture counts for A; (units, categories)
            label, -1 for none; (concepts,) category of each.
    """
    met, active = totals
    start, unit, pixel, value = lit
    rising, order, weights = limits
    planes, table, whole, counted, labels, category = annotations
    units, resamples = rising.shape
    seen = np.zeros((units, 1 + labels.shape[1], resamples + 1), np.int64)
    for image in range(len(start) - 1):
        lights = np.zeros(units, np.bool_)
        for at in range(start[image], start[image + 1]):
            u = unit[at]
            k = np.searchsorted(rising[u], value[at], side="left")
            lights[u] = True
            seen[u, 0, k] += 1
            for plane in range(planes.shape[1]):
                local = planes[image, plane, pixel[at]]
                if local > 0:
                    concept = table[image, local]
                    slot = category[concept]
                    if labels[u, slot] == concept:
                        seen[u, 1 + slot, k] += 1
        for u in np.flatnonzero(lights):
            for slot in range(labels.shape[1]):
                full = labels[u, slot] >= 0 and whole[image, labels[u, slot]]
                lit_now, met_now = 0, 0
                for place in range(resamples - 1, -1, -1):
                    lit_now += seen[u, 0, place + 1]
                    met_now += seen[u, 1 + slot, place + 1] + (seen[u, 0, place + 1] if full else 0)
                    resample = order[u, place]
                    times = weights[resample, image]
                    met[resample, u, slot] += times * met_now
                    if counted[image, slot]:
                        active[resample, u, slot] += times * lit_now
            seen[u] = 0


class RedrawnCounts:
    """I, A and L of each unit's labels in resamples that light pixels by thresholds of their own.

    Args:
        labels: of the data set, held.
        category: (concepts,) number of each concept's category.
        weights: (resamples, images) how often each picture is drawn.
        thresholds: (resamples, units) T of each resample.
        all_images: A over all images instead of those in which the category is annotated.
        inclusive: light S_k >= T_k instead of strictly above.

    Attributes:
        lowest: (units,) lowest T of each unit: what any resample lights lies above it.
    """

    def __init__(
        self,
        labels: Best,
        category: NDArray[np.int64],
        weights: Weights,
        thresholds: NDArray[np.float32],
        *,
        all_images: bool = False,
        inclusive: bool = False,
    ) -> None:
        self._labels, self._category, self._weights, self._all_images = labels, category, weights, all_images
        order = np.argsort(thresholds, 0, kind="stable").T.copy()
        rising = np.take_along_axis(thresholds.T.astype(np.float64), order, 1)
        self.lowest: NDArray[np.float32] = thresholds.min(0)
        # S >= T where S lies above the float64 before T
        self._limits = np.nextafter(rising, -np.inf) if inclusive else rising, order
        shape = (len(weights), *labels.by_category.shape)
        self._totals = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._pixels = np.zeros((len(weights), len(category)), np.int64)

    def update(self, first: int, lit: Lit, labels: Labels, seen: tuple[NDArray[np.int64], NDArray[np.bool_]]) -> None:
        """Take a batch of images.

        Args:
            first: the batch's first image.
            lit: pixels above the lowest thresholds, with their values.
            labels: annotations of the batch.
            seen: (images, concepts) labelled pixels, and (images, categories) whether anything of it is annotated.
        """
        pixels, annotated = seen
        weights = self._weights[:, first : first + len(pixels)].astype(np.int64)
        self._pixels += weights @ pixels
        counted = np.ones_like(annotated) if self._all_images else annotated
        notes = (*self._notes(labels), counted, self._labels.by_category, self._category)
        _add(self._totals, _by_image(lit, len(pixels)), (*self._limits, weights), notes)

    def detectors(self, min_iou: float) -> list[DetectorCount]:
        """Of every resample; a label's IoU must lie strictly above `min_iou`."""
        label = self._labels.by_category
        unit, slot = np.nonzero(label >= 0)
        concept, found = label[unit, slot], []
        for met, active, pixels in zip(*self._totals, self._pixels, strict=True):
            scores = np.zeros((len(label), len(self._category)))
            scores[unit, concept] = iou(met[unit, slot], active[unit, slot], pixels[concept])
            found.append(detectors(scores, self._labels, min_iou))
        return found

    def _notes(self, labels: Labels) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.bool_]]:
        """Planes, concepts of their values, and concepts of whole pictures."""
        most = max((len(present) for present in labels.present), default=0) + 1
        table = np.full((len(labels.present), most), -1)
        whole = np.zeros((len(labels.present), len(self._category)), bool)
        for image, (present, everywhere) in enumerate(zip(labels.present, labels.whole, strict=True)):
            table[image, 1 : len(present) + 1] = present
            whole[image, everywhere] = True
        return labels.planes, table, whole


def _by_image(lit: Lit, images: int) -> tuple[NDArray[np.int64], ...]:
    """Where each image's pixels begin, and end; unit, pixel and value of each pixel."""
    image, unit, pixel = (part.cpu().numpy() for part in (lit.image, lit.unit, lit.pixel))
    if lit.value is None:
        raise ValueError("lit pixels must have their values here, got none: ask the upsampler for them")
    order = np.argsort(image, kind="stable")
    start = np.searchsorted(image[order], np.arange(images + 1))
    return start, unit[order], pixel[order], lit.value.cpu().numpy()[order]
