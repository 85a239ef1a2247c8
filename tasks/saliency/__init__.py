"""Stage `saliency`: what each method makes of the predicted class, for a sample of the pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from microtome.visualize.names import METHODS, MORE_THAN_ONCE, MethodName
from storage.tables import TableSchema, flag, float64, int32, string, table
from tasks.index import index
from tasks.options import LAYER, Count, DatasetName, Options, Word
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage

# One page shows the maps and the verdicts on them; either stage may be there without the other.
PAGE = PageOf("tasks.saliency.findings:findings", "microtome.report.saliency:page")


class SaliencyOptions(Options):
    """Saliency maps of the predicted class."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose pictures are drawn."""
    images: Count = 12
    """How many pictures, drawn at random."""
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] = METHODS
    """Attribution methods; those that the network cannot have are left out by name."""
    cam_layer: Annotated[Word | None, LAYER] = None
    """Layer of Grad-CAM, by dotted name; by default the last maps that the head reads."""


def plan(audit: Planner, options: SaliencyOptions) -> Iterable[Job]:
    """Of the audit's own network."""
    pictures = index(audit, options.dataset, "stages.saliency.dataset")
    yield audit.job(STAGE, options, {"index": pictures, "network": audit.network})


def methods_table(name: str) -> TableSchema:
    """A table of what is to be known of each wanted method."""
    return table(
        name,
        "A row per wanted method: whether this network can have it, and how it is made here.",
        method=string("its name"),
        drawn=flag("whether the network can have it"),
        note=string("why not; or its layer, baseline, noise, and the units that it leaves plain"),
    )


TRIED = 2 * 17  # passes of a picture for deletion and insertion by one map
RIVALS = 2 + 4  # orders of squares that are tried beside the methods': controls, and chance


def maps_cost(methods: Sequence[MethodName], pace: Pace) -> float:
    """Seconds for one picture's maps by all of some methods."""
    passes = (MORE_THAN_ONCE.get(name, (0, 1)) for name in methods)
    return sum(pace.passes(forward) + pace.gradients(both) for forward, both in passes)


def cost(options: SaliencyOptions, pace: Pace) -> float:
    """The maps, and what deletion and insertion try each of them with."""
    tried = pace.passes(TRIED * (len(options.methods) + RIVALS))
    return options.images * (maps_cost(options.methods, pace) + tried)


STAGE = Stage(
    name="saliency",
    about="Draws what each attribution method makes of the predicted class.",
    options=SaliencyOptions,
    work="tasks.saliency.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device"}),
    threads="all",
    network="answer",
    cost=cost,
    page=PAGE,
    starter="  # saliency: {images: 12}                    # maps of the predicted class, method by method\n",
    preflight="tasks.saliency.at_hand:preflight",
    metrics=(
        Metric("faithfulness", "value", "low", "high", keys=("method", "measure")),
        Metric("faithfulness", "apart", "apart_low", "apart_high", keys=("method", "measure")),
        Metric("faithfulness", "beyond", "beyond_low", "beyond_high", keys=("method", "measure")),
    ),
    headlines=(Headline("faithfulness.apart", "deletion less chance", rows={"measure": "deletion"}),),
    tables=(
        table(
            "saliency",
            "A row per picture and method: a map of the predicted class.",
            image=int32("number of the picture"),
            target=int32("class that the map is of"),
            target_name=string("its name, where the network or torchvision says it"),
            method=string("that made it"),
            scale=float64("99th percentile of its absolute values, at which pictures of it saturate"),
            file=string("of the stage, that holds the maps of the method"),
        ),
        methods_table("saliency_methods"),
        table(
            "faithfulness",
            "A row per method, or control, and measure of whether the network uses what a map marks.",
            method=string("that made the maps; edges of the picture and its centre are controls"),
            measure=string(
                "deletion, insertion: area under the class's probability while squares are blacked out, or brought "
                "back into a blurred picture, those marked most first; pointing: share of pictures whose highest pixel "
                "lies in the object's box or mask"
            ),
            value=float64("mean over the pictures"),
            low=float64("95 % interval over the pictures: Wilson's for pointing, else bootstrap"),
            high=float64("95 % interval over the pictures"),
            chance=float64("mean of the same in random order, or of a random pixel"),
            apart=float64("mean difference to chance, picture by picture"),
            apart_low=float64("95 % interval over the pictures: Newcombe's for pointing, else bootstrap"),
            apart_high=float64("95 % interval over the pictures: Newcombe's for pointing, else bootstrap"),
            better=flag("whether that interval lies on the good side of 0: below it for deletion, else above"),
            control=string("the control that is best by this measure: edges, or centre"),
            beyond=float64("mean difference to that control, picture by picture"),
            beyond_low=float64("95 % interval over the pictures: Newcombe's for pointing, else bootstrap"),
            beyond_high=float64("95 % interval over the pictures: Newcombe's for pointing, else bootstrap"),
            beats=flag("whether that interval lies on the good side of 0"),
            n=int32("pictures"),
        ),
    ),
)
