"""What the report shows of location stability."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.quantify.stability_summary import FilterOnLandmark
from microtome.report.stability import (
    SHOWN_FILTERS,
    SHOWN_IMAGES,
    Pictured,
    Spotted,
    StabilityFindings,
    StableLayer,
    leading,
)
from tasks.pages.shown import Shown
from tasks.stability.result import Stability
from tasks.stability.work import Inputs


def findings(shown: Shown) -> StabilityFindings:
    """The audit's network: its layers, and the filters that follow a landmark best."""
    made, frame = shown.result("stability", Stability), shown.inputs("stability", Inputs).index.frame
    names = dict.fromkeys(item.layer for item in made.judged)
    return StabilityFindings(made.options.category, frame.size, [_layer(shown, made, name) for name in names])


def _layer(shown: Shown, made: Stability, name: str) -> StableLayer:
    rows = [item for item in made.judged if item.layer == name]
    chosen = leading(made.filters(name), SHOWN_FILTERS)
    return StableLayer(name, rows, pictured(shown, "stability", name, chosen), made.shift(name), made.filters(name))


def pictured(shown: Shown, job: str, layer: str, filters: Sequence[FilterOnLandmark]) -> list[Pictured]:
    """Filters with the pictures in which each is highest, among those that show its landmark.

    Args:
        shown: the report's.
        job: name of a stability job.
        layer: dotted name.
        filters: on their landmarks.
    """
    seen = shown.inputs(job, Inputs)
    marks = {(mark.image, mark.category, mark.landmark): (mark.x, mark.y) for mark in seen.landmarks.marks}
    sightings = shown.result(job, Stability).sightings(layer, {item.filter for item in filters})
    found = []
    for item in filters:
        where = item.category, item.landmark
        inside = [sighting for sighting in sightings[item.filter] if (sighting.image, *where) in marks]
        top = sorted(inside, key=lambda sighting: (-sighting.score, sighting.image))[:SHOWN_IMAGES]
        spots = [
            Spotted(shown.thumbnail(seen.index, s.image), seen.index.files[s.image], (s.x, s.y), marks[s.image, *where])
            for s in top
        ]
        found.append(Pictured(item, spots))
    return found
