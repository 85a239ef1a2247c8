"""Counts of detectors under resamples that also estimate each unit's threshold anew, as another data set would.

A dissection holds the thresholds of the data in every resample (microtome.quantify.resampling). Here a resample's own
T is the (floor(tail n) + 1)-th highest of its n values, a picture that is drawn twice giving its values twice; pixels
are then lit by that T. Labels are held as they are there, so that the two intervals differ by the thresholds alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.accumulate import rank
from microtome.quantify.dissection import Best, Counts, DetectorCount, detectors, iou

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


class RedrawnCounts:
    """I, A and L of each unit's labels in resamples that light pixels by thresholds of their own.

    Args:
        labels: of the data set, held.
        category: (concepts,) number of each concept's category.
        weights: (resamples, images) how often each picture is drawn.
        all_images: A over all images instead of those in which the category is annotated.
    """

    def __init__(self, labels: Best, category: NDArray[np.int64], weights: Weights, *, all_images: bool) -> None:
        self._labels, self._category, self._weights, self._all_images = labels, category, weights, all_images
        shape = (len(weights), *labels.by_category.shape)
        self._intersection, self._activation = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._pixels = np.zeros((len(weights), len(category)), np.int64)

    def annotated(self, first: int, pixels: NDArray[np.int64]) -> None:
        """Take the labels of a run of images once: (images, concepts) pixels, from image `first` on."""
        self._pixels += self._weights[:, first : first + len(pixels)].astype(np.int64) @ pixels

    def update(self, resample: int, first: int, counts: Counts, annotated: NDArray[np.bool_]) -> None:
        """Take what a batch of images lights by one resample's thresholds.

        Args:
            resample: which one.
            first: the batch's first image.
            counts: of the batch.
            annotated: (images, categories) whether anything of the category is annotated.
        """
        weights = self._weights[resample, first : first + len(annotated)].astype(np.int64)
        slot = self._category[counts.concept]
        own = self._labels.by_category[counts.unit, slot] == counts.concept
        place = (resample, counts.unit[own], slot[own])
        np.add.at(self._intersection, place, (counts.intersection * weights[counts.image])[own])
        seen = np.ones_like(annotated) if self._all_images else annotated
        self._activation[resample] += (counts.activated * weights[:, None]).T @ seen

    def detectors(self, min_iou: float) -> list[DetectorCount]:
        """Of every resample; a label's IoU must lie strictly above `min_iou`."""
        label = self._labels.by_category
        unit, slot = np.nonzero(label >= 0)
        found = []
        for met, active, pixels in zip(self._intersection, self._activation, self._pixels, strict=True):
            scores = np.zeros((len(label), len(self._category)))
            concept = label[unit, slot]
            scores[unit, concept] = iou(met[unit, slot], active[unit, slot], pixels[concept])
            found.append(detectors(scores, self._labels, min_iou))
        return found
