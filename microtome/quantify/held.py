"""Resamples of pictures with each unit's label held: two networks over the same draws, quickly.

A full bootstrap scores every unit against every concept in each draw (microtome.quantify.resampling). Where the label
of a unit is held, one concept per unit is enough: I and A of a draw are sums over pictures, weighted by how often each
is drawn, so all draws together are one product of matrices per count. A comparison of two finished runs needs no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.drift import NONE, Redrawn
from microtome.quantify.intervals import paired_interval
from microtome.quantify.resampling import ImageCounts

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Weights = NDArray[np.int32]
Flags = NDArray[np.bool_]
Counted = NDArray[np.float32]
GROUP = 1024  # images of one product


@dataclass(frozen=True)
class Wanted:
    """IoUs that are wanted: of one concept per unit, under many weightings of the pictures.

    Args:
        labels: (units,) index of each unit's concept; NONE for none, whose IoU is 0.
        weights: (draws, images) how often each picture counts.
        only: (units,) which units are wanted; None for all.
    """

    labels: Labels
    weights: Weights
    only: Flags | None = None


class HeldCounts:
    """I, A and L of one concept per unit under many weightings, streamed over the images.

    Products are of float32, over groups of images, and added up in float64: exact while the counts of a group stay
    below 2**24, else right to seven digits, which is far below what the draws differ by.

    Args:
        wanted: concepts and weightings.
        category: (concepts,) number of each concept's category.
        all_images: A over all images instead of those in which the category is annotated.
    """

    def __init__(self, wanted: Wanted, category: Labels, *, all_images: bool = False) -> None:
        units = np.arange(len(wanted.labels)) if wanted.only is None else np.flatnonzero(wanted.only)
        self._place = np.full(len(wanted.labels), -1)
        self._place[units] = np.arange(len(units))
        labels = wanted.labels[units]
        self._units, self._none, self._label = units, labels == NONE, np.where(labels == NONE, 0, labels)
        self._weights, self._all_images = wanted.weights.astype(np.float32), all_images
        self._category = category[self._label]
        shape = (len(wanted.weights), len(units))
        self._intersection, self._activation = np.zeros(shape), np.zeros(shape)
        self._pixels = np.zeros((len(wanted.weights), len(category)))
        self._group: list[tuple[Counted, Counted, Counted]] = []
        self._first = self._next = 0

    def update(self, counts: ImageCounts) -> None:
        """Take a run of images; runs come in order."""
        images, place = len(counts.activated), self._place[counts.unit]
        own = (place >= 0) & (counts.concept == self._label[place]) if len(self._label) else np.zeros(len(place), bool)
        met = np.zeros((images, len(self._units)), np.float32)
        met[counts.image[own] - counts.first, place[own]] = counts.intersection[own]
        active = counts.activated[:, self._units].astype(np.float32)
        if not self._all_images:
            active *= counts.annotated[:, self._category]
        self._group.append((met, active, counts.label_pixels.astype(np.float32)))
        self._next = counts.first + images
        if self._next - self._first >= GROUP:
            self._add()

    def scores(self) -> Floats:
        """(draws, wanted units) IoU = I / (A + L - I); 0 where there is nothing, and of a unit without a label."""
        if self._group:
            self._add()
        union = self._pixels[:, self._label]
        union += self._activation
        union -= self._intersection
        found: Floats = np.divide(self._intersection, union, out=np.zeros_like(union), where=union > 0)
        found[:, self._none] = 0
        return found

    def _add(self) -> None:
        """Draw the images of the group in hand."""
        weights = np.ascontiguousarray(self._weights[:, self._first : self._next])
        met, active, pixels = (np.concatenate(column) for column in zip(*self._group, strict=True))
        self._intersection += weights @ met
        self._activation += weights @ active
        self._pixels += weights @ pixels
        self._first, self._group = self._next, []


def held_scores(
    blocks: Iterable[ImageCounts], wanted: Sequence[Wanted], category: Labels, *, all_images: bool = False
) -> list[Floats]:
    """For each of what is wanted (draws, wanted units) IoU, in one pass over the images.

    Args:
        blocks: one network's counts, all images.
        wanted: concepts and weightings.
        category: (concepts,) number of each concept's category.
        all_images: as in `HeldCounts`.
    """
    counts = [HeldCounts(item, category, all_images=all_images) for item in wanted]
    for block in blocks:
        for item in counts:
            item.update(block)
    return [item.scores() for item in counts]


def half_labels(blocks: Iterable[ImageCounts], split: Weights, category: Labels, *, all_images: bool = False) -> Labels:
    """(units,) the concept of highest IoU over the first half of the images: what the second half judges.

    Args:
        blocks: one network's counts, all images.
        split: (2, images) from `halves`.
        category, all_images: as in `HeldCounts`.
    """
    half, sums = split[0].astype(np.int64), None
    for block in blocks:
        images, units = block.activated.shape
        weights = half[block.first : block.first + images]
        if sums is None:
            sums = (np.zeros((units, len(category))), np.zeros((units, len(category))), np.zeros(len(category)))
        met, activation, pixels = sums
        key = block.unit * len(category) + block.concept
        taken = (block.intersection * half[block.image]).astype(np.float64)
        met += np.bincount(key, taken, met.size).reshape(met.shape)
        seen = np.ones_like(block.annotated) if all_images else block.annotated
        activation += ((block.activated * weights[:, None]).T @ seen)[:, category]
        pixels += weights @ block.label_pixels
    if sums is None:
        return np.zeros(0, np.int64)
    met, activation, pixels = sums
    union = activation + pixels - met
    labels: Labels = np.divide(met, union, out=np.zeros_like(met), where=union > 0).argmax(1)
    return labels


def held_redrawn(scores: tuple[Floats, Floats, Floats]) -> Redrawn:
    """Matched units over draws in which nobody is labelled anew.

    Args:
        scores: (draws, units) IoU of the label before in the network before, of the label after in the network after,
            and of the label before in the network after.
    """
    return Redrawn(*scores, None, None)


@dataclass(frozen=True)
class Drawn:
    """A layer's counts over draws, labels held.

    Args:
        detectors: (draws,) units whose IoU lies above the limit.
        unique: (draws,) their different labels.
        mean: (draws,) mean IoU of the labels.
        confirmed: (draws,) confirmed detectors, each half redrawn from itself; None where nobody asked for chance.
    """

    detectors: Floats
    unique: Floats
    mean: Floats
    confirmed: Floats | None


def drawn_counts(own: Floats, labels: Labels, min_iou: float, confirmed: Floats | None = None) -> Drawn:
    """Count a layer's detectors in every draw.

    Args:
        own: (draws, units) IoU of each unit's own label.
        labels: (units,) those.
        min_iou: a detector lies strictly above it.
        confirmed: (draws,) from `drawn_confirmed`.
    """
    detects = own > min_iou
    kinds, kind = np.unique(labels, return_inverse=True)
    of_kind = np.zeros((len(labels), len(kinds)))
    of_kind[np.arange(len(labels)), kind] = 1
    unique = ((detects @ of_kind) > 0).sum(1)
    return Drawn(detects.sum(1).astype(float), unique.astype(float), own.mean(1), confirmed)


def drawn_confirmed(whole: Floats, held: Floats, min_iou: float) -> Floats:
    """(draws,) confirmed detectors: detectors on all pictures and on the half that did not choose the label.

    Args:
        whole: (draws, units) IoU of each unit's label, over both redrawn halves; of units that chance does not reach.
        held: (draws, units) IoU of the first half's label, over the redrawn second half; of the same units.
        min_iou: of a detector.
    """
    counted: Floats = ((whole > min_iou) & (held > min_iou)).sum(1).astype(float)
    return counted


def difference(values: tuple[float, float], drawn: tuple[Floats, Floats], *, whole: bool) -> tuple[float, float]:
    """95 % interval of the second value minus the first, over the same draws, freed of bias.

    Args:
        values: of the data, in the first run and in the second.
        drawn: (draws,) of each.
        whole: whether they are counts: the ends are then whole numbers, rounded outwards.
    """
    value, low, high = paired_interval((values[1], values[0]), (drawn[1], drawn[0]))
    if whole:
        low, high = np.floor(low), np.ceil(high)
    return float(min(low, value)), float(max(high, value))
