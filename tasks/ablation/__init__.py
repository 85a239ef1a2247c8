"""Stage `ablation`: whether the network uses its units, by taking their values away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from storage.tables import Column, TableSchema, flag, float64, int32, integers, string
from tasks.index import index
from tasks.labelling import DissectionOptions
from tasks.options import DatasetName, Options, Several
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.tally import STAGE as TALLY
from tasks.tally import TallyOptions
from tasks.thresholds import seen


class AblationOptions(Options):
    """Whether the network uses its units; their labels and sizes are those of the audit's dissection."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose pictures the network decides without its units."""
    images: Several = 500
    """How many pictures, drawn at random."""
    remove: Literal["zero", "mean", "resampled"] = "zero"
    """What removed values become: zero, the unit's mean, or the unit's values in another picture."""


class PlannedAblation(AblationOptions):
    """What the audit's dissection says of detectors."""

    min_iou: float


def ablation(audit: Planner, options: AblationOptions) -> Job:
    """The audit's one job of this stage: labels and values of the dissection's pictures, and the pictures to decide."""
    judged = audit.asked(DissectionOptions) or DissectionOptions()
    reads = seen(audit, judged.dataset, "stages.dissection.dataset")
    tally = audit.job(TALLY, judged.narrowed(TallyOptions), reads)
    pictures = index(audit, options.dataset, "stages.ablation.dataset")
    planned = PlannedAblation(**options.model_dump(), min_iou=judged.min_iou)
    return audit.job(STAGE, planned, {**reads, "tally": tally, "pictures": pictures, "network": audit.network})


def plan(audit: Planner, options: AblationOptions) -> Iterable[Job]:
    """Of the audit's own network."""
    yield ablation(audit, options)


def cost(options: AblationOptions, pace: Pace) -> float:
    """Every unit is removed once and kept once; of a pass, the part above the layer counts, half of it in the mean."""
    return min(options.images, pace.pictures) * pace.units * pace.forward


def _ends(name: str, meaning: str) -> dict[str, Column]:
    """A mean and its interval."""
    low, high = (float64(f"95 % bootstrap interval over the pictures, of {name}") for _ in range(2))
    return {name: float64(meaning), f"{name}_low": low, f"{name}_high": high}


_EFFECT = {
    **_ends("drop", "mean drop of the class's log-odds, in nats: what its pictures lose"),
    **_ends("random", "the same without units of the same size, the control; null where there are none"),
    **_ends("beyond", "mean of drop - random, picture by picture"),
    "p_value": float64("of beyond being none: Student's paired t over the pictures, two-sided"),
}
_DECIDED = {
    "probability_drop": float64("mean drop of the class's probability"),
    "probability_random": float64("the same of the control"),
    **_ends(
        "accuracy_drop", "drop of the share of pictures decided as labelled; null where no output bears their label"
    ),
    "flipped": float64("share of pictures whose highest class becomes another"),
}
_REGAINED = {
    **_ends("regained", "share of the log-odds that comes back with all else at its mean; null where none was lost"),
    "regained_random": float64("the same of the control"),
}

STAGE = Stage(
    name="ablation",
    about="Takes units away, one by one and by concept, and measures what the network's decisions lose.",
    options=AblationOptions,
    work="tasks.ablation.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device"}),
    threads="one",
    sharded="images",
    network="answer",
    cost=cost,
    page=PageOf(
        "tasks.ablation.findings:findings", "microtome.report.ablation:page", "microtome.report.ablation:of_units"
    ),
    starter="  # ablation: {images: 500}                     # does the network use a unit: what is lost without it\n",
    metrics=(
        Metric("ablation_layers", "used_share", "used_low", "used_high", keys=("layer",)),
        Metric("ablation_layers", "bystander_share", "bystander_low", "bystander_high", keys=("layer",)),
        Metric("ablation_layers", "detector_drop", "detector_low", "detector_high", keys=("layer",)),
        Metric("ablation_layers", "accuracy", "accuracy_low", "accuracy_high", keys=("layer",)),
        Metric("ablation_layers", "nothing", keys=("layer",)),
    ),
    headlines=(
        Headline("ablation_layers.used_share", "share of units that the network uses"),
        Headline("ablation_layers.bystander_share", "share of detectors that are bystanders"),
    ),
    tables=(
        TableSchema(
            "ablation_units",
            "A row per unit: what the class that needs it most loses without it, in pictures that did not choose it.",
            {
                "layer": string("dotted name"),
                "unit": int32("number of the unit, from zero"),
                "concept": string("label of the dissection, where the unit is a detector"),
                "size": float64(
                    "root mean square of what removal takes from its values, over the dissection's pictures"
                ),
                "matched": int32("units of the same size, of no or another concept, that are its control"),
                "class_name": string(
                    "class that loses most in one half of the pictures; null for all pictures together"
                ),
                "images": int32("pictures of the class in the other half, which all of this row is measured in"),
                "score": float64("mean log-odds of the class with everything in its place"),
                **_EFFECT,
                "q_value": float64("false discovery rate of p_value over the layer's units (Benjamini-Hochberg)"),
                "used": flag("whether q_value is at most 0.05, and beyond above zero"),
                "surpassed": float64("share of the control's units that drop less here"),
                "own_random": float64("mean drop of the control's units, each of the class that needs it most"),
                **_DECIDED,
                **_REGAINED,
            },
        ),
        TableSchema(
            "ablation_classes",
            "A row per unit and class: what all of its pictures lose without the unit.",
            {
                "layer": string("dotted name"),
                "unit": int32("number of the unit"),
                "class_name": string("class of the pictures; null for all pictures together"),
                "images": int32("its pictures"),
                **_EFFECT,
                "q_value": float64(
                    "false discovery rate of p_value over the layer's units and classes (Benjamini-Hochberg)"
                ),
                **_DECIDED,
            },
        ),
        TableSchema(
            "ablation_groups",
            "A row per concept of several detectors and class: what its pictures lose without all of them.",
            {
                "layer": string("dotted name"),
                "concept": string("that all of the group detect"),
                "category": string("of the concept"),
                "units": int32("detectors of the concept"),
                "members": integers("their numbers"),
                "class_name": string("class of the pictures; null for all pictures together"),
                "images": int32("its pictures"),
                "score": float64("mean log-odds of the class with everything in its place"),
                **_EFFECT,
                "q_value": float64(
                    "false discovery rate of p_value over the layer's groups and classes (Benjamini-Hochberg)"
                ),
                **_DECIDED,
                **_REGAINED,
            },
        ),
        TableSchema(
            "ablation_layers",
            "A row per layer.",
            {
                "layer": string("dotted name"),
                "units": int32("in the layer"),
                "images": int32("pictures that were decided"),
                "labelled": int32("of these, those whose label an output of the network bears"),
                "classes": int32("classes of enough pictures"),
                "remove": string("option"),
                "whole": string(
                    "why the whole network was run for each removal; null where only what lies above the layer was"
                ),
                "nothing": float64("largest change of a picture's log-odds when nothing is removed: 0"),
                "accuracy": float64("share of labelled pictures decided as labelled; null where there are none"),
                "accuracy_low": float64("95 % interval over the pictures (Wilson)"),
                "accuracy_high": float64("95 % interval over the pictures (Wilson)"),
                "score": float64("mean log-odds of the pictures' classes"),
                "used": int32("units that are used: q_value at most 0.05, and beyond above zero"),
                "used_share": float64("used / units"),
                "used_low": float64("95 % interval of a share of units (Wilson)"),
                "used_high": float64("95 % interval of a share of units (Wilson)"),
                "detectors": int32("units whose best IoU lies above min_iou"),
                "bystanders": int32("detectors that are not used"),
                "bystander_share": float64("bystanders / detectors; null where there are none"),
                "bystander_low": float64("95 % interval of a share of units (Wilson)"),
                "bystander_high": float64("95 % interval of a share of units (Wilson)"),
                "detector_drop": float64("mean drop of the detectors, each of the class that needs it most"),
                "detector_low": float64("95 % bootstrap interval over the detectors"),
                "detector_high": float64("95 % bootstrap interval over the detectors"),
                "detector_random": float64("mean drop of their controls, of the detectors' classes"),
                "detector_apart": float64(
                    "detector_drop, less that of their controls, each of the class that needs it most"
                ),
                "apart_low": float64("95 % bootstrap interval over the detectors"),
                "apart_high": float64("95 % bootstrap interval over the detectors"),
                "groups": int32("concepts of several detectors"),
            },
        ),
    ),
)
