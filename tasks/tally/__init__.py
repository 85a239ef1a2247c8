"""Stage `tally`: which pixels each unit lights, and on which concepts they fall, counted per image."""

from __future__ import annotations

from typing import Literal

from storage.tables import float64, int32, int64, string, table
from tasks.options import Lighting
from tasks.pace import Pace
from tasks.stage import Stage


class TallyOptions(Lighting):
    """How pixels are lit, and over which pictures activations are counted."""

    denominator: Literal["category", "all-images"] = "category"
    """Pictures whose lit pixels count in a concept's IoU: those annotated in its category, or all."""


def cost(options: TallyOptions, pace: Pace) -> float:
    """Maps are read, and pixels that units light are counted; each unit has a row for each concept."""
    lit = options.tail * pace.units * pace.size[0] * pace.size[1] / 4  # masks have half the input's sides
    return 1e-6 * pace.units * pace.concepts + pace.pictures * (1e-4 + 1.5e-9 * pace.values + 1.1e-8 * lit)


STAGE = Stage(
    name="tally",
    about="Counts, picture by picture, which pixels each unit lights and on which concepts they fall.",
    options=TallyOptions,
    work="tasks.tally.work:run",
    determined_by=frozenset({"device"}),
    threads="one",
    sharded="images",
    cost=cost,
    tables=(
        table(
            "iou",
            "A row per unit and concept: how well the one finds the other.",
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            concept_id=int32("number of the concept"),
            concept=string("its name"),
            category=string("in which it is scored"),
            intersection=int64("I: lit pixels that the concept labels, over all pictures"),
            activation=int64("A: lit pixels of the pictures in which anything of the category is annotated"),
            label_pixels=int64("L: pixels that the concept labels"),
            iou=float64("I / (A + L - I)"),
        ),
        table(
            "counts",
            "A row per picture, unit and concept that meet in it.",
            sharded=True,
            layer=string("dotted name"),
            image=int32("number of the picture"),
            unit=int32("number of the unit"),
            concept_id=int32("number of the concept"),
            intersection=int32("lit pixels that the concept labels"),
        ),
        table(
            "activated",
            "A row per picture and unit that lights anything in it.",
            sharded=True,
            layer=string("dotted name"),
            image=int32("number of the picture"),
            unit=int32("number of the unit"),
            pixels=int32("lit pixels"),
        ),
    ),
)
