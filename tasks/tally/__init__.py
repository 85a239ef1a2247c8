"""Stage `tally`: which pixels each unit lights, and on which concepts they fall, counted per image."""

from __future__ import annotations

from typing import Literal

from storage.tables import float64, int32, int64, string, table
from tasks.options import Lighting
from tasks.stage import Stage


class TallyOptions(Lighting):
    """How pixels are lit, and over which pictures activations are counted."""

    denominator: Literal["category", "all-images"] = "category"
    """Pictures whose lit pixels count in a concept's IoU: those annotated in its category, or all."""


STAGE = Stage(
    name="tally",
    about="Counts, picture by picture, which pixels each unit lights and on which concepts they fall.",
    options=TallyOptions,
    work="tasks.tally.work:run",
    determined_by=frozenset({"device"}),
    threads="one",
    sharded="images",
    cost=lambda _, pace: pace.pictures * (pace.annotate + 1e-6 * pace.units),
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
