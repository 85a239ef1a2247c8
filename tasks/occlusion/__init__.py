"""Stage `occlusion`: how large units' fields really are, and which parts of a picture its prediction needs."""

from __future__ import annotations

from collections.abc import Iterable

from microtome.visualize.names import REMOVALS
from storage.tables import float64, int32, string, table
from tasks.options import Count, DatasetName, Number, Options, Several
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage
from tasks.thresholds import seen


class OcclusionOptions(Options):
    """Empirical receptive fields, minimal images."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose pictures are covered."""
    units: Count = 8
    """How many units of each layer, drawn at random."""
    top_images: Count = 10
    """Pictures of each unit: those that excite it most."""
    width: Count = 11
    """Side of the covering square, in pixels."""
    stride: Count = 3
    """Step of the covering square, in pixels."""
    minimal_images: Number = 8
    """How many pictures are reduced to the least that keeps their class; 0 for none."""
    segments: Several = 40
    """About how many segments a picture is cut into."""


def plan(audit: Planner, options: OcclusionOptions) -> Iterable[Job]:
    """Reads the network's maps for the units' top images."""
    yield audit.job(
        STAGE, options, {**seen(audit, options.dataset, "stages.occlusion.dataset"), "network": audit.network}
    )


def cost(options: OcclusionOptions, pace: Pace) -> float:
    """A pass for each place of the square that touches a unit's field, for each segment that might go next, and for
    each draw of those that go at random."""
    covered = options.units * options.top_images * pace.touching(options.width, options.stride)
    return pace.passes(covered + options.minimal_images * (options.segments**2 / 2 + REMOVALS))


STAGE = Stage(
    name="occlusion",
    about="Measures receptive fields with an occluder, and strips pictures to what their prediction needs.",
    options=OcclusionOptions,
    work="tasks.occlusion.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device"}),
    threads="all",
    sharded="units and pictures",
    network="answer",
    cost=cost,
    page=PageOf(
        "tasks.occlusion.findings:findings", "microtome.report.fields:page", "microtome.report.fields:of_units"
    ),
    starter="  # occlusion: {units: 8}                     # measured receptive fields, minimal images\n",
    metrics=(Metric("minimal_images", "area", keys=("image",)),),
    headlines=(Headline("minimal_images.area", "share of a picture that its prediction needs, median", median=True),),
    tables=(
        table(
            "occlusion",
            "A row per unit whose receptive field was measured.",
            layer=string("dotted name"),
            unit=int32("number of the unit"),
            size_x=int32("width of the measured field, in pixels"),
            size_y=int32("height of the measured field, in pixels"),
            theoretical=float64("size of the field by the layers' kernels and strides, in pixels"),
            images=int32("top images over which it was measured"),
            whole=int32("of these, in which the picture's edge does not cut it; where 0, the size is a lower bound"),
            file=string("of the stage, that holds the mean discrepancy map"),
        ),
        table(
            "minimal_images",
            "A row per picture stripped to what its prediction needs.",
            image=int32("number of the picture"),
            segments=int32("that it was cut into"),
            kept=int32("segments that are left"),
            score=float64("logit of the predicted class in what is left"),
            whole_score=float64("logit in the whole picture"),
            area=float64("share of the pixels that are left"),
            file=string("of the stage, that holds what is left"),
            target=int32("number of the predicted class"),
            target_name=string("its name; null where nobody says"),
            kept_at_random=float64(
                f"share of {REMOVALS} draws in which as many segments, removed at random, leave the prediction"
            ),
        ),
    ),
)
