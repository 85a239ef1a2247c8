"""Network Dissection (Bau et al. 2017; Zhou et al. 2017): integer pixel counts, and the scores that follow from them.

    IoU_{k,c} = I / (A + L - I)

I = sum |M_k & L_c|, L = sum |L_c|, A = sum of |M_k| over the images in which anything of c's category is annotated.
Counts are kept per image, in sparse form: any resampling, split or threshold on the IoU is then a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from microtome.quantify.upsample import Lit

NEAREST = 10  # concepts of each unit that get an interval


@dataclass(frozen=True)
class Labels:
    """Annotations of a batch, at segmentation resolution, in the numbering of the data set's concept table.

    Args:
        planes: (images, planes, pixels); 0 for none, else 1 + index into the picture's `present`.
        present: per picture, the concepts that occur in its planes (indices into the concept table).
        whole: per picture, the concepts that label all of it.
    """

    planes: NDArray[np.uint16]
    present: Sequence[NDArray[np.int64]]
    whole: Sequence[NDArray[np.int64]]

    def part(self, images: slice) -> Labels:
        """Some of the pictures."""
        return Labels(self.planes[images], self.present[images], self.whole[images])

    def masks(self, image: int, concepts: Sequence[int]) -> NDArray[np.bool_]:
        """(concepts, pixels) where one picture shows each concept: in its planes, or, of the whole picture, all of it.

        Args:
            image: place in the batch.
            concepts: indices into the concept table.
        """
        planes, present, whole = self.planes[image], self.present[image], self.whole[image]
        found = np.zeros((len(concepts), planes.shape[1]), bool)
        for mask, concept in zip(found, concepts, strict=True):
            for local in np.flatnonzero(present == concept):
                mask |= (planes == local + 1).any(0)
            mask |= concept in whole
        return found


@dataclass(frozen=True)
class Counts:
    """Sparse counts of a batch; `image` counts from the batch's first. Sorted by image, unit, concept."""

    image: NDArray[np.int64]
    unit: NDArray[np.int64]
    concept: NDArray[np.int64]
    intersection: NDArray[np.int64]
    activated: NDArray[np.int64]
    """(images, units) pixels lit."""


def tally(lit: Lit, labels: Labels) -> Counts:
    """Count the lit pixels of each unit on each concept, per image.

    A pixel that carries a label in two planes must have it in one only (the index sees to that), so that it counts
    once. A label of the whole picture meets every lit pixel.

    Args:
        lit: the lit pixels of a batch.
        labels: the batch's annotations.
    """
    from microtome.quantify.counting import counted  # here, since who reads results compiles nothing

    numbered = _numbered(labels)
    activated = np.zeros((len(labels.present), lit.units), np.int64)
    own = np.zeros(1 + max(int(part.max(initial=0)) for part in (labels.planes, numbered[1])), np.int64)
    pixels = lit.map.cpu().numpy(), lit.place.cpu().numpy(), lit.pixels
    return Counts(*counted(pixels, np.ascontiguousarray(labels.planes), numbered, (own, activated)), activated)


def _numbered(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Concepts of each picture and their local numbers, as `counted` takes them."""
    most = max((len(own) + len(whole) for own, whole in zip(labels.present, labels.whole, strict=True)), default=0)
    concepts, local = np.zeros((len(labels.present), most), np.int64), np.full((len(labels.present), most), -1)
    for image, (own, whole) in enumerate(zip(labels.present, labels.whole, strict=True)):
        found = np.concatenate([own, whole]).astype(np.int64)
        order = np.argsort(found, kind="stable")
        concepts[image, : len(found)] = found[order]
        local[image, : len(found)] = np.concatenate([np.arange(1, len(own) + 1), np.zeros(len(whole), int)])[order]
    return concepts, local


def iou(
    intersection: NDArray[np.int64], activation: NDArray[np.int64], label_pixels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Intersection over union from integer counts; an empty union gives 0.

    Args:
        intersection: (units, concepts).
        activation: (units, concepts), A as each concept's category sees it.
        label_pixels: (concepts,).
    """
    union = activation + label_pixels - intersection
    scores: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)
    return scores


@dataclass(frozen=True)
class Best:
    """Each unit's labels. Concepts are indices into the concept table.

    Args:
        concept: (units,) the unit's label: its best concept of all. Ties: the lowest number.
        iou: (units,) its IoU.
        by_category: (units, categories) the unit's best concept within each category; -1 where a category is empty.
        nearest: (units, up to NEAREST) the concepts of the highest IoU, the label first.
    """

    concept: NDArray[np.int64]
    iou: NDArray[np.float64]
    by_category: NDArray[np.int64]
    nearest: NDArray[np.int64]


@dataclass(frozen=True)
class DetectorCount:
    """How many units detect something, and how many different things.

    Args:
        units: units whose label lies above the threshold.
        per_category: in each category the distinct labels that are some unit's best in that category and above the
            threshold, summed over categories: the papers' figures.
        per_unit: distinct labels of the detecting units, one label per unit.
    """

    units: int
    per_category: int
    per_unit: int


def best(scores: NDArray[np.float64], category: NDArray[np.int64]) -> Best:
    """Label each unit with its best concept, over all and within each category.

    Args:
        scores: (units, concepts) IoU.
        category: (concepts,) number of each concept's category.
    """
    label = scores.argmax(1)
    inside = np.full((len(scores), int(category.max()) + 1), -1)
    for number in range(inside.shape[1]):
        columns = np.flatnonzero(category == number)
        if len(columns):
            inside[:, number] = columns[scores[:, columns].argmax(1)]
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
    return Best(label, np.take_along_axis(scores, label[:, None], 1)[:, 0], inside, nearest)


def detected(scores: NDArray[np.float64], min_iou: float) -> NDArray[np.int64]:
    """(units,) the concept that each detects, the first of equals; -1 of units that are no detectors.

    Args:
        scores: (units, concepts) IoU; NaN where it is undefined, as of a concept without a pixel.
        min_iou: the threshold, 0 or above.
    """
    iou = np.nan_to_num(scores)
    found: NDArray[np.int64] = np.where(iou.max(1) > min_iou, iou.argmax(1), -1)
    return found


def detectors(scores: NDArray[np.float64], labels: Best, min_iou: float) -> DetectorCount:
    """Count detectors under given labels, whose IoU must lie strictly above `min_iou`.

    Args:
        scores: (units, concepts) IoU, of the data set or of a resample of it.
        labels: of the data set.
        min_iou: the threshold.
    """
    unit = np.arange(len(scores))
    inside = scores[unit[:, None], labels.by_category]
    return detected_concepts(scores[unit, labels.concept], inside, labels, min_iou)


def detected_concepts(
    own: NDArray[np.float64], inside: NDArray[np.float64], labels: Best, min_iou: float
) -> DetectorCount:
    """As `detectors`, from the IoUs of the labels alone.

    Args:
        own: (units,) of each unit's label.
        inside: (units, categories) of its best concept within each; whatever where a category is empty.
        labels, min_iou: as there.
    """
    detects = own > min_iou
    above = (inside > min_iou) & (labels.by_category >= 0)
    # A concept has one category, so distinct labels over all categories are the sum of each category's.
    return DetectorCount(
        int(detects.sum()), len(np.unique(labels.by_category[above])), len(np.unique(labels.concept[detects]))
    )
