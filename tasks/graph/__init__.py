"""Stage `graph`: the explanatory graph of some layers, and every picture looked up in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from microtome.errors import InputError
from storage.tables import flag, float32, float64, int32, string, table
from tasks.activations import maps
from tasks.index import check_category, index
from tasks.landmarks import landmarks
from tasks.options import MANY, Count, DatasetName, Options, Resamples
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Headline, Job, Metric, PageOf, Stage


class CategoryOptions(Options):
    """The pictures of one category of a data set."""

    dataset: DatasetName = "main"
    """Data set of the audit file whose pictures are looked at."""
    category: str | None = None
    """Category that the pictures show; may be left out where there is one."""
    images: Annotated[int, Field(ge=10, le=MANY)] = 200
    """At most so many pictures."""


class GraphOptions(CategoryOptions):
    """The explanatory graph of the audit's layers."""

    rule: Literal["anchors", "paper"] = "anchors"
    """What positions are relative to: `anchors`, patches that are found anywhere in a picture; or the frame, as in the
    `paper`, whose nodes hardly follow what is shown."""
    filters: Count | None = 64
    """Filters of each layer that nodes are learnt from, the most active first; nothing for all."""
    rounds: Count = 10
    """Rounds of expectation and maximisation."""
    permutations: Resamples = 200
    """Exchanges of positions among pictures, for the null of a node that tracks a landmark; 0 for none."""
    shift: Annotated[float, Field(ge=0, le=0.25)] = 0.15
    """How far what is shown is moved, a half of it at least, in sides of the frame: in copies that anchors are learned
    from, and in the shift test; 0, for none, with `rule: paper` only."""


def plan(audit: Planner, options: GraphOptions) -> Iterable[Job]:
    """Maps of the audit's network, and landmarks where the data set has any."""
    hung = options.rule == "anchors"
    if hung and not options.shift:
        raise InputError("stages.graph.shift: must be above 0 where nodes hang on anchors, got 0; or set rule: paper")
    indexed = index(audit, options.dataset, "stages.graph.dataset")
    check_category(indexed, options.category, "stages.graph.category")
    activations, marks = maps(audit, indexed), landmarks(audit, indexed)
    moved = maps(audit, indexed, shift=options.shift) if options.shift and (marks or hung) else None
    reads = {"index": indexed, "activations": activations, "landmarks": marks, "moved": moved}
    yield audit.job(STAGE, options, reads)


OF_A_FILTER = 2e-3  # seconds in which nodes are learnt from a filter's map of a picture, and looked up in it


def cost(options: GraphOptions, pace: Pace) -> float:
    """The filters of each layer, in every picture."""
    filters = min(pace.units, pace.layers * options.filters) if options.filters else pace.units
    return 3 + OF_A_FILTER * filters * min(pace.pictures, options.images)


STAGE = Stage(
    name="graph",
    about="Learns which part patterns the filters answer to, as an explanatory graph, and looks every picture up.",
    options=GraphOptions,
    work="tasks.graph.work:run",
    plan=plan,
    determined_by=frozenset({"seed", "device", "threads"}),
    threads="all",
    cost=cost,
    page=PageOf("tasks.graph.findings:findings", "microtome.report.graph:page", "microtome.report.graph:of_units"),
    starter="  # graph: {category: bird}                   # part patterns that the filters answer to\n",
    metrics=(Metric("graph_metrics", "value", "low", "high", keys=("layer", "metric", "of"), nullable=("round",)),),
    headlines=(
        Headline(
            "graph_metrics.value",
            "location instability",
            rows={"metric": "instability", "of": ("nodes", "nodes minus filters"), "round": None},
        ),
        Headline(
            "graph_metrics.value",
            "share of nodes that follow what is shown",
            rows={"metric": "follows when moved", "of": "nodes", "round": None},
        ),
    ),
    tables=(
        table(
            "graph_nodes",
            "A row per node: a part pattern of a filter.",
            layer=string("dotted name"),
            filter=int32("number of the filter that owns it"),
            node=int32("number of the node, from zero through all layers, the top one first"),
            x=float64("where it is expected, from the left, in widths of the picture"),
            y=float64("where it is expected, from the top, in heights of the picture"),
            sigma=float64("deviation of its place, in sides of the picture"),
            score=float64("mean over the pictures of its score"),
            home_x=float64("mean inferred x over the pictures that the graph was learned from, and their moved copies"),
            home_y=float64("mean inferred y over the same"),
            chosen=flag("shown and judged: chosen in the training pictures, as one that follows what is shown"),
            purity=float64(
                "share of its 20 strongest held-out pictures in which it is on one part; null without parts"
            ),
            concept=string("that part"),
        ),
        table(
            "graph_anchors",
            "A row per anchor: a patch of the top layer that its nodes hang on; none with `rule: paper`.",
            anchor=int32("number of the anchor, the one whose place is least in doubt first"),
            home_x=float64("mean x in the training pictures and their moved copies, in widths of the picture"),
            home_y=float64("mean y, in heights of the picture"),
            slope=float64("of its displacement on the offset of what is shown, in the training pictures"),
            sigma=float64("deviation of its place along one axis, in sides of the picture"),
        ),
        table(
            "graph_edges",
            "A row per node and parent of it in the layer above. Parents of the top layer's nodes are anchors.",
            child=int32("number of the node"),
            parent=int32("number of its parent"),
            weight=float64("share of the node's affinity"),
            dx=float64("the node's x minus the parent's"),
            dy=float64("the node's y minus the parent's"),
        ),
        table(
            "graph_inferences",
            "A row per picture and node: where the node is in it.",
            image=int32("number of the picture"),
            node=int32("number of the node"),
            x=float32("from the left, in widths of the picture"),
            y=float32("from the top, in heights of the picture"),
            score=float32("how strongly; scales differ between layers"),
        ),
        table(
            "graph_images",
            "A row per picture that was looked up.",
            image=int32("number of the picture"),
            file=string("its name"),
            split=string("train where the graph was learned from it, else val"),
            category=string("that the graph is about, or all"),
        ),
        table(
            "graph_metrics",
            "A row per layer and figure, in pictures that the graph was not learned from: how steady chosen nodes are "
            "beside raw filters and frozen positions. The log-likelihood is of the training pictures.",
            layer=string("dotted name"),
            metric=string(
                "log-likelihood, instability, beats best constant, tracks a landmark, either, own spread, instability "
                "frozen at its own mean, slope when moved, follows when moved, instability of those that follow"
            ),
            of=string(
                "whose: training, nodes, filters, filters chosen alike (as many, by the same evidence), nodes minus "
                "either, nodes minus themselves frozen, random, centre, best constant"
            ),
            round=int32("of training; null for the others"),
            value=float64("the figure"),
            low=float64("95 % interval over pictures, where it has one"),
            high=float64("95 % interval over pictures, where it has one"),
            n=int32("how many it is the mean of"),
        ),
    ),
)
