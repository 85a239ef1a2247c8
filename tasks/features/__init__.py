"""Stage `features`: the picture that a unit answers to most, beside the natural pictures that it answers to most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from storage.tables import flag, float64, int32, string, table
from tasks.options import Count, DatasetName, Options
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.thresholds import seen


class FeaturesOptions(Options):
    """Feature visualisation."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose values a unit's picture is compared with."""
    units: Count = 16
    """How many units of each layer, drawn at random."""
    objective: Literal["channel", "neuron", "layer", "direction", "negative"] = "channel"
    """What the picture maximises."""
    steps: Count = 512
    """Steps of gradient ascent."""
    batch: Count = 8
    """Units that are optimised at once."""


def plan(audit: Planner, options: FeaturesOptions) -> Iterable[Job]:
    """Reads the network's maps for the units' top images."""
    yield audit.job(
        STAGE, options, {**seen(audit, options.dataset, "stages.features.dataset"), "network": audit.network}
    )


MOVED = 3e-7  # seconds in which a pixel of a picture in the making is shifted, turned and smoothed


def cost(options: FeaturesOptions, pace: Pace) -> float:
    """A step of each unit's picture: the network forward and backward, and what is done to the picture before."""
    steps = pace.layers * options.units * options.steps
    return pace.gradients(steps) + MOVED * steps * pace.size[0] * pace.size[1]


STAGE = Stage(
    name="features",
    about="Synthesises the picture that a unit answers to most.",
    options=FeaturesOptions,
    work="tasks.features.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device"}),
    threads="all",
    sharded="units",
    network="maps",
    cost=cost,
    page=PageOf(
        "tasks.features.findings:findings", "microtome.report.features:page", "microtome.report.features:of_units"
    ),
    starter="  # features: {units: 16}                     # synthetic pictures beside natural ones\n",
    metrics=(
        Metric("features", "ratio", keys=("layer", "unit")),
        Metric("features", "high_frequency", keys=("layer", "unit")),
    ),
    headlines=(Headline("features.ratio", "peak over the highest natural value, median", median=True),),
    tables=(
        table(
            "features",
            "A row per unit whose picture was made.",
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            objective=float64("value of the objective in the picture, without transforms"),
            transformed=float64("mean value over the last steps, with transforms"),
            natural_max=float64("highest value of the unit in any indexed picture"),
            ratio=float64("peak / natural_max; null where no picture lights the unit"),
            high_frequency=float64("share of the picture's energy above a quarter cycle per pixel"),
            unreached=flag("whether the gradient stayed exactly zero, so that no picture could be made"),
            file=string("of the stage, that holds the picture"),
            peak=float64("highest value of the unit in the synthetic picture"),
        ),
        table(
            "unit_crops",
            "A row per unit, top image and kind: a crop as large as the unit's field about its highest cell.",
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            image=int32("number of the picture"),
            kind=string(
                "natural; or deconvolution, what is handed down there; gradient in a network without deconvolution"
            ),
            x0=int32("left edge, in pixels of the frame"),
            y0=int32("upper edge"),
            x1=int32("right edge, exclusive"),
            y1=int32("lower edge, exclusive"),
            file=string("of the stage, that holds the crop"),
        ),
    ),
)
