"""How much a formula is worth: against the best single concept, held out, over resamples, and as it grows longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.dissection import iou
from microtome.quantify.drift import Estimate
from microtome.quantify.intervals import expanded_ends

Floats = NDArray[np.float64]
PENALTIES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)  # IoU that each concept after the first must gain


def iou_under(counts: NDArray[np.int64], weights: NDArray[np.int32]) -> Floats:
    """(weightings,) IoU with pictures taken so many times.

    Args:
        counts: (3, images) I, A and L, as of `FormulaSearch.by_image`.
        weights: (weightings, images).
    """
    # float64 holds these integers exactly, and its product is the fast one
    both, lit, labelled = (counts.astype(np.float64) @ weights.T.astype(np.float64)).astype(np.int64)
    return iou(both, lit, labelled)


def estimate(value: float, drawn: Floats, images: int) -> Estimate:
    """A value with the interval that its resamples give it; without one where there are none.

    Args:
        value: of the data.
        drawn: (resamples,).
        images: that each resample is drawn from.
    """
    if not len(drawn):
        return Estimate(value)
    low, high = np.quantile(drawn, expanded_ends(images))
    return Estimate(value, float(low), float(high))


def chosen(iou_by_length: Floats, lengths: NDArray[np.int64], penalty: float) -> NDArray[np.int64]:
    """(units,) which of a unit's best formulas of up to one, two, three concepts is taken at a price for each concept.

    The one of the highest IoU - penalty (length - 1), the shorter of equal ones.

    Args:
        iou_by_length: (units, 3).
        lengths: (units, 3) concepts that each formula has.
        penalty: IoU that a concept after the first must gain.
    """
    worth = iou_by_length - penalty * (lengths - 1)
    taken: NDArray[np.int64] = worth.argmax(1)
    return taken


@dataclass(frozen=True)
class CurvePoint:
    """What a length penalty does.

    Args:
        penalty: IoU that a concept after the first must gain.
        length: mean number of concepts.
        chosen_iou: mean IoU on the half on which formulas are chosen.
        heldout: mean IoU on the other half.
        gain: mean of the other half's IoU minus that of the single concept chosen on the same half.
    """

    penalty: float
    length: float
    chosen_iou: float
    heldout: Estimate
    gain: Estimate


@dataclass(frozen=True)
class Halves:
    """Formulas of up to one, two and three concepts, chosen on one half of the pictures and judged on the other.

    Args:
        iou: (units, 3) on the half that chose.
        lengths: (units, 3) concepts that each has.
        heldout: (units, 3) on the other half.
        drawn: (units, 3, resamples) the same under resamples of the other half.
        images: of the other half.
    """

    iou: Floats
    lengths: NDArray[np.int64]
    heldout: Floats
    drawn: Floats
    images: int

    def point(self, penalty: float) -> CurvePoint:
        """At one penalty."""
        taken = chosen(self.iou, self.lengths, penalty)
        unit = np.arange(len(taken))
        held, drawn = self.heldout[unit, taken], self.drawn[unit, taken]
        apart, apart_drawn = held - self.heldout[:, 0], drawn - self.drawn[:, 0]
        return CurvePoint(
            penalty,
            float(self.lengths[unit, taken].mean()),
            float(self.iou[unit, taken].mean()),
            estimate(float(held.mean()), drawn.mean(0), self.images),
            estimate(float(apart.mean()), apart_drawn.mean(0), self.images),
        )

    def curve(self, penalties: Sequence[float] = PENALTIES) -> list[CurvePoint]:
        """At every penalty."""
        return [self.point(penalty) for penalty in penalties]
