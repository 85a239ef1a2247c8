"""Stage `null`: what IoU each unit reaches when pictures and annotations do not belong together."""

from __future__ import annotations

from storage.tables import float64, int32, string, table
from tasks.options import Resamples
from tasks.pace import Pace
from tasks.stage import Stage
from tasks.tally import TallyOptions


class NullOptions(TallyOptions):
    """How often annotations are exchanged among pictures."""

    permutations: Resamples = 200
    """How often annotations are exchanged among pictures, for p-values; 0 for none."""


def cost(options: NullOptions, pace: Pace) -> float:
    """Words are counted picture by picture, once for every permutation; then each is compared concept by concept."""
    counted = pace.pictures * (2e-4 + 1.3e-8 * pace.units * options.permutations)
    return 1 + counted + 2e-8 * pace.units * pace.concepts * options.permutations


STAGE = Stage(
    name="null",
    about="Exchanges annotations among pictures, and counts what IoU chance alone reaches.",
    options=NullOptions,
    work="tasks.null.work:run",
    sharded="permutations",
    determined_by=frozenset({"seed"}),
    cost=cost,
    tables=(
        table(
            "null",
            "A row per unit and permutation; SQL calls it `_null`, null being a word of its own.",
            sharded=True,
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            permutation=int32("number of the exchange, from zero"),
            best_iou=float64("best IoU over all concepts, annotations exchanged among the pictures of a stratum"),
            best_iou_across=float64("the same, annotations exchanged among all pictures, across strata"),
        ),
    ),
)
