"""Stage `parts`: parts mined from a few boxes, located in the other pictures, beside two baselines."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from storage.tables import float64, int32, string, table
from tasks.activations import maps
from tasks.graph import CategoryOptions, GraphOptions
from tasks.index import index
from tasks.landmarks import landmarks
from tasks.options import Count, Several
from tasks.planning import Planner
from tasks.stage import Job, PageOf, Stage


class PartsOptions(CategoryOptions):
    """Parts mined from a few boxes."""

    filters: Count = 128
    """Filters of each layer that patterns are mined from, the most active first."""
    boxes: list[Several] = Field(default=[3, 6, 12], min_length=1)
    """Numbers of given boxes to learn a part from; each is tried."""
    draws: Count = 5
    """How often the boxes are drawn anew."""


def plan(audit: Planner, options: PartsOptions) -> Iterable[Job]:
    """Of units, and of the graph's nodes where there is a graph of the same pictures."""
    indexed = index(audit, options.dataset, "stages.parts.dataset")
    reads = {"index": indexed, "activations": maps(audit, indexed), "landmarks": landmarks(audit, indexed)}
    graph = audit.asked(GraphOptions)
    same = graph is not None and (graph.dataset, graph.category) == (options.dataset, options.category)
    yield audit.job(STAGE, options, {**reads, "graph": audit.jobs["graph"] if same else None})


STAGE = Stage(
    name="parts",
    about="Mines object parts from a few boxes and locates them in the other pictures, beside two baselines.",
    options=PartsOptions,
    work="tasks.parts.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device", "threads"}),
    threads="all",
    weight=0.05,
    page=PageOf("tasks.parts.findings:findings", "microtome.report.parts:page"),
    starter="  # parts: {category: bird}                   # parts found from a few boxes\n",
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
            method=string("patterns, graph nodes, mean position or best filter"),
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
            method=string("patterns, graph nodes, mean position or best filter"),
            error=float64("mean over pictures, in diagonals"),
            low=float64("95 % bootstrap interval of the error"),
            high=float64("95 % bootstrap interval of the error"),
            share=float64("of pictures in which the error is below 0.1"),
            share_low=float64("95 % bootstrap interval of the share"),
            share_high=float64("95 % bootstrap interval of the share"),
            images=int32("pictures in which it was looked for"),
        ),
    ),
)
