"""Stage `thresholds`: each unit's exact tail, moments and top images."""

from __future__ import annotations

from storage.tables import float32, float64, floats, int32, int64, integers, string, table
from tasks.activations import maps
from tasks.index import index
from tasks.options import Lighting, Options, Share
from tasks.planning import Planner
from tasks.stage import Job, Stage

KEPT_TAIL = 0.01


class ThresholdsOptions(Options):
    """How much of each unit's tail is kept."""

    keep: Share


STAGE = Stage(
    name="thresholds",
    about="Finds each unit's exact tail, moments and top images, in one pass over the stored maps.",
    options=ThresholdsOptions,
    work="tasks.thresholds.work:run",
    sharded="images",
    cost=lambda _, pace: 1.5e-8 * pace.pictures * pace.values,
    tables=(
        table(
            "thresholds",
            "A row per unit and tail: the value that the unit exceeds in that share of its places.",
            layer=string("dotted name"),
            unit=int32("number of the unit, from zero"),
            tail=float64("share of values strictly above the threshold"),
            threshold=float32("order statistic of the unit's values, exact"),
            samples=int64("values that the unit has: pictures times cells"),
            min=float32("smallest value"),
            max=float32("largest value"),
            mean=float64("of all values"),
            std=float64("of all values"),
            zero_share=float64("share of values that are zero"),
        ),
        table(
            "tails",
            "A row per unit: its largest values, so that any smaller tail is a look into them.",
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            values=floats("the largest values, the highest first"),
        ),
        table(
            "histograms",
            "A row per unit: how often it has which values, in up to 128 bins of one width, a power of two.",
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            start=float64("where the first bin begins, a multiple of width; a bin holds its beginning, not its end"),
            width=float64("of each bin"),
            counts=integers("values in each bin, from the first to the last that holds any"),
        ),
        table(
            "top_images",
            "A row per unit and rank: the pictures in which the unit is highest.",
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            rank=int32("from zero, the highest first"),
            image=int32("number of the picture"),
            peak=float32("highest value of the unit in the picture"),
        ),
    ),
)


def seen(audit: Planner, dataset: str, key: str) -> dict[str, Job]:
    """A data set's index, the network's maps of it, and their thresholds, by the names of a stage's `Inputs`.

    Args:
        audit: the audit.
        dataset: its name in the audit file.
        key: of the audit file that names it, for the error.
    """
    indexed = index(audit, dataset, key)
    activations = maps(audit, indexed)
    return {"index": indexed, "activations": activations, "thresholds": thresholds(audit, indexed, activations)}


def thresholds(audit: Planner, index: Job, activations: Job) -> Job:
    """The thresholds of an audit's layers: one job for all who ask, with a tail as long as the audit's own needs."""
    lighting = audit.asked(Lighting)
    keep = max(KEPT_TAIL, lighting.tail if lighting else 0.0)
    reads = {"index": index, "activations": activations}
    return audit.add(audit.job(STAGE, ThresholdsOptions(keep=keep), reads, variant=index.variant))
