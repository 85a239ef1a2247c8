"""Stage `redrawn`: counts of detectors in resamples of the pictures that estimate every threshold anew."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from storage.tables import int32, string, table
from tasks.options import Resamples
from tasks.stage import Stage
from tasks.tally import TallyOptions


class RedrawnOptions(TallyOptions):
    """How often pictures are drawn with thresholds of their own, and what a detector is."""

    min_iou: Annotated[float, Field(ge=0, lt=1)] = 0.04
    """A detector's IoU lies above it."""
    redrawn: Resamples = 0
    """Resamples that also estimate each threshold anew, for second intervals of the counts; 0 for none."""


STAGE = Stage(
    name="redrawn",
    about="Draws the pictures again, estimates every threshold anew, and counts the detectors.",
    options=RedrawnOptions,
    work="tasks.redrawn.work:run",
    determined_by=frozenset({"seed", "device"}),
    threads="one",
    cost=lambda options, pace: (options.redrawn > 0) * pace.pictures * (pace.annotate + 2e-6 * pace.units),
    tables=(
        table(
            "redrawn",
            "A row per layer and resample: what is detected by the resample's own thresholds, labels held.",
            sharded=True,
            layer=string("dotted name"),
            resample=int32("number of the resample, from zero: the same pictures as the dissection's of that number"),
            detectors=int32("units whose label's IoU lies above min_iou"),
            unique_per_category=int32("concepts that are the label of a detector in their own category"),
            unique_per_unit=int32("concepts that are the label of a detector"),
        ),
    ),
)
