"""Stage `reliability`: which saliency methods pass the tests that their pictures have to pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from microtome.visualize.names import REDRAWN, TESTED, MethodName
from storage.tables import flag, float64, int32, string, table
from tasks.index import index
from tasks.options import LAYER, DatasetName, Options, Positive, Several, Share, Word
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.saliency import PAGE, maps_cost, methods_table
from tasks.stage import Headline, Job, Metric, Stage


class ReliabilityOptions(Options):
    """Tests that a saliency method has to pass."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose pictures the methods are tested on."""
    images: Several = 16
    """How many pictures, drawn at random."""
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] = TESTED
    """Attribution methods; those that the network cannot have are left out by name."""
    cam_layer: Annotated[Word | None, LAYER] = None
    """Layer of Grad-CAM, by dotted name; by default the last maps that the head reads."""
    randomised: Several = 5
    """How many steps of randomisation are shown, the first and the last among them, evenly spread over the layers."""
    invariance_error: Positive = 1e-3
    """Greatest error over the pictures with which a method passes input invariance."""
    randomised_cosine: Share = 0.2
    """Greatest mean cosine, with maps of the network whose last layer is drawn anew, with which a method passes."""
    class_cosine: Share = 0.8
    """Greatest mean cosine, between maps for two classes, with which a method passes."""


def plan(audit: Planner, options: ReliabilityOptions) -> Iterable[Job]:
    """Of the audit's own network."""
    pictures = index(audit, options.dataset, "stages.reliability.dataset")
    yield audit.job(STAGE, options, {"index": pictures, "network": audit.network})


SHIFTS = 4
DOUBLE = 2  # times that a pass in float64 takes as long as one in float32


def cost(options: ReliabilityOptions, pace: Pace) -> float:
    """Maps of the network and its twins: shifted ones in float64, randomised ones from both ends; of two classes."""
    maps = DOUBLE * (SHIFTS + 1) + 2 * options.randomised + REDRAWN - 1 + 2
    return options.images * maps * maps_cost(options.methods, pace)


STAGE = Stage(
    name="reliability",
    about="Tests which attribution methods can be trusted on this network.",
    options=ReliabilityOptions,
    work="tasks.reliability.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device"}),
    threads="all",
    sharded="methods",
    network="answer",
    cost=cost,
    page=PAGE,
    preflight="tasks.reliability.work:preflight",
    starter="  # reliability: {images: 16}                 # and which of these methods can be trusted\n",
    metrics=(Metric("reliability", "value", "low", "high", keys=("method", "test", "shift_or_layer")),),
    headlines=(
        Headline(
            "reliability.value",
            "likeness to maps of a network whose last layer is drawn anew",
            rows={"test": "randomisation from the output, cosine", "passed": (True, False)},
        ),
        Headline("reliability.value", "likeness of maps for two classes", rows={"test": "class sensitivity"}),
    ),
    tables=(
        table(
            "reliability",
            "A row per method, test and what was changed for it.",
            method=string("under test"),
            test=string("input invariance, randomisation from either end with its measure, class sensitivity, control"),
            shift_or_layer=string("shift of the pixels, layer drawn anew, or control"),
            value=float64("mean over the pictures"),
            low=float64("95 % bootstrap interval over the pictures, and over the draws"),
            high=float64("95 % bootstrap interval over the pictures, and over the draws"),
            n=int32("pictures"),
            draws=int32("of the layer, anew each time, over which it is a mean, too"),
            passed=flag("whether the test was passed; null where nothing is judged, or the test is void"),
        ),
        methods_table("reliability_methods"),
    ),
)
