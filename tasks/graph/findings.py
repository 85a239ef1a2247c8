"""What the report shows of an explanatory graph."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from microtome.disentangle.graph_keys import Measure, Of
from microtome.report.graph import (
    SHOWN_IMAGES,
    SHOWN_PATCHES,
    GraphFindings,
    LayerFigure,
    OverPicture,
    Patch,
)
from microtome.report.views import UnitKey
from tasks.dissection.result import Dissection
from tasks.graph.drawn import DrawnGraph
from tasks.graph.work import Inputs
from tasks.index.result import Index
from tasks.pages.shown import Shown
from tasks.thumbnails import kept_thumbnails


def findings(shown: Shown) -> GraphFindings:
    """Its figures, the graph over some pictures that it was not learned from, and its strongest nodes."""
    made, index = shown.result("graph", DrawnGraph), shown.inputs("graph", Inputs).index
    graph = made.patterns
    return GraphFindings(
        graph=graph,
        figures=_figures(made),
        images=len(made.pictures),
        training=sum(row["split"] == "train" for row in made.pictures),
        over=list(islice(_over(shown, made), SHOWN_IMAGES)),
        patches={node.node: _patches(shown, made, index, node.node) for node in graph.chosen},
        units=_units(shown),
        size=index.frame.size,
        category=next((row["category"] for row in made.pictures), "all"),
    )


def _figures(made: DrawnGraph) -> list[LayerFigure]:
    rows = made.rows("graph_metrics")
    return [LayerFigure(**{**row, "metric": Measure(row["metric"]), "of": Of(row["of"])}) for row in rows]


def _over(shown: Shown, made: DrawnGraph) -> Iterator[OverPicture]:
    small = kept_thumbnails(made.artifact)
    for row, content in zip(made.pictures, small, strict=True):
        if row["split"] != "train":
            path = shown.picture(f"assets/graph/{row['image']:06d}.webp", content)
            yield OverPicture(path, row["file"], made.seen_in(row["image"]))


def _patches(shown: Shown, made: DrawnGraph, index: Index, node: int) -> list[Patch]:
    places = made.strongest_of(node, SHOWN_PATCHES)
    return [Patch(shown.thumbnail(index, image), index.files[image], place) for image, place in places]


def _units(shown: Shown) -> dict[UnitKey, str]:
    """What the report's dissection calls every filter that is a detector, as sure as it was asked to be."""
    if not shown.has("dissection"):
        return {}
    return {
        UnitKey(row["layer"], row["unit"]): str(row["concept"])
        for row in shown.result("dissection", Dissection).rows("units")
        if row["detector"] and row["confirmed"] is not False
    }
