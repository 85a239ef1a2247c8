"""Stage `parts`: parts located from a few boxes in the other pictures, by their looks and place, beside every rival."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from storage.tables import float64, int32, string, table
from tasks.activations import maps
from tasks.graph import CategoryOptions, GraphOptions
from tasks.index import index
from tasks.landmarks import landmarks
from tasks.options import Count, Several
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage


class PartsOptions(CategoryOptions):
    """Parts mined from a few boxes."""

    filters: Count = 128
    """Filters of each layer that patterns are mined from, the most active first."""
    boxes: list[Several] = Field(default=[3, 6, 12], min_length=1)
    """Numbers of given boxes to learn a part from; each is tried."""
    draws: Count = 5
    """How often the boxes are drawn anew."""
    shift: Annotated[float, Field(ge=0, le=0.25)] = 0.15
    """How far what is shown is moved in the shift test, a half of it at least, in sides of the frame; 0 for no test."""


def plan(audit: Planner, options: PartsOptions) -> Iterable[Job]:
    """Of units, and of the graph's nodes where there is a graph of the same pictures."""
    indexed = index(audit, options.dataset, "stages.parts.dataset")
    reads: dict[str, Job | None] = {
        "index": indexed,
        "activations": maps(audit, indexed),
        "landmarks": landmarks(audit, indexed),
    }
    reads["moved"] = maps(audit, indexed, shift=options.shift) if options.shift else None
    graph = audit.asked(GraphOptions)
    same = graph is not None and (graph.dataset, graph.category) == (options.dataset, options.category)
    yield audit.job(STAGE, options, {**reads, "graph": audit.jobs["graph"] if same else None})


PARTS, OVER_A_PICTURE = 4, 2e-3
"""Parts that a data set is taken to have, and seconds in which one draw of boxes is looked for in a picture."""


def cost(options: PartsOptions, pace: Pace) -> float:
    """Each part from each number of boxes, several times."""
    minings = PARTS * len(options.boxes) * options.draws
    return 2 + OVER_A_PICTURE * minings * min(pace.pictures, options.images)


STAGE = Stage(
    name="parts",
    about="Locates object parts from a few boxes in the other pictures, by looks and place, beside every rival.",
    options=PartsOptions,
    work="tasks.parts.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device", "threads"}),
    threads="all",
    cost=cost,
    page=PageOf("tasks.parts.findings:findings", "microtome.report.parts:page"),
    starter="  # parts: {category: bird}                   # parts found from a few boxes\n",
    metrics=(
        Metric("part_summary", "error", "low", "high", keys=("part", "boxes", "method")),
        Metric("part_summary", "share", "share_low", "share_high", keys=("part", "boxes", "method")),
        Metric("part_comparisons", "difference", "low", "high", keys=("rival",), nullable=("part", "boxes")),
    ),
    headlines=(
        Headline(
            "part_comparisons.difference", "error of the blend less its rival's", rows={"part": None, "boxes": None}
        ),
    ),
    tables=(
        table(
            "parts",
            "A row per part, number of boxes and mined pattern, of the first draw.",
            part=string("name of the landmark"),
            boxes=int32("pictures that were annotated"),
            pattern=int32("number of the unit at a cell, through the layers, the top one first"),
            layer=string("dotted name"),
            filter=int32("number of the filter"),
            dx=float64("from the pattern to the part's centre, in widths of the picture"),
            dy=float64("from the pattern to the part's centre, in heights of the picture"),
            score=float64("mean response, less what its votes miss in the other annotated pictures"),
            template=int32("number of the annotated picture, from zero, that it was mined in"),
        ),
        table(
            "part_errors",
            "A row per part, number of boxes, method, draw and picture that was not annotated.",
            part=string("name of the landmark"),
            boxes=int32("pictures that were annotated"),
            method=string("blend, exemplar, patterns, graph nodes, mean position, best filter or top filters"),
            image=int32("number of the picture"),
            error=float64("distance to the annotated centre, in diagonals of the picture"),
            draw=int32("number of the draw of annotated pictures, from zero"),
            x=float64("where it was located, from the left, in pixels of the network's frame"),
            y=float64("where it was located, from the top, in pixels of the network's frame"),
        ),
        table(
            "part_summary",
            "A row per part, number of boxes and method: its errors over pictures, draws averaged.",
            part=string("name of the landmark"),
            boxes=int32("pictures that were annotated"),
            method=string("blend, exemplar, patterns, graph nodes, mean position, best filter or top filters"),
            error=float64("mean over pictures, in diagonals"),
            low=float64("95 % bootstrap interval of the error, over pictures and draws"),
            high=float64("95 % bootstrap interval of the error, over pictures and draws"),
            share=float64("of pictures in which the error is below 0.1"),
            share_low=float64("95 % interval of the share: Wilson's, by its spread over pictures and draws"),
            share_high=float64("95 % interval of the share: Wilson's, by its spread over pictures and draws"),
            images=int32("pictures in which it was looked for"),
        ),
        table(
            "part_shift",
            "A row per part, number of boxes and method of places that can be moved: the shift test, draws averaged.",
            part=string("name of the landmark"),
            boxes=int32("pictures that were annotated"),
            method=string("blend, exemplar, mean position, best filter or top filters"),
            slope=float64("of the place's displacement on that of what is shown: 1 follows, 0 is frozen"),
            low=float64("95 % bootstrap interval over pictures"),
            high=float64("95 % bootstrap interval over pictures"),
            r2=float64("share of the displacement that the offset explains"),
            images=int32("pictures in which it was looked for"),
        ),
        table(
            "part_choices",
            "A row per part, number of boxes and draw: what the blend chose by leaving each box out.",
            part=string("name of the landmark"),
            boxes=int32("pictures that were annotated"),
            draw=int32("number of the draw of annotated pictures, from zero"),
            beta=float64("how much looks count beside the place: 10 hardly, 240 almost alone"),
            spread=float64("deviation of the weights of what is about the part, in cells of the top layer"),
            x=float64("mean of the boxes' centres, from the left, in widths of the picture"),
            y=float64("mean of the boxes' centres, from the top, in heights of the picture"),
        ),
        table(
            "part_comparisons",
            "A row per rival, part and number of boxes, one per rival for all together: the blend's error less its.",
            part=string("name of the landmark; null for all"),
            boxes=int32("pictures that were annotated; null for all"),
            rival=string("exemplar, patterns, graph nodes, mean position, best filter or top filters"),
            difference=float64("mean of the blend's error minus the rival's, in diagonals: below zero it is nearer"),
            low=float64("95 % bootstrap interval over pictures and draws, paired"),
            high=float64("95 % bootstrap interval over pictures and draws, paired"),
            p_value=float64("of no difference, two-sided, from the resamples' deviation"),
            holm=float64("p_value adjusted for the rival's parts and numbers of boxes (Holm); null for all"),
        ),
    ),
)
