"""What the report shows of saliency maps, and of the tests that they have to pass."""

from __future__ import annotations

from microtome.datasets.source import webp
from microtome.report.saliency import ReliabilityRow, SaliencyFindings, SaliencyMaps, colours
from tasks.report.shown import Shown
from tasks.result import StageResult
from tasks.saliency.result import Saliency
from tasks.saliency.work import Inputs


def findings(shown: Shown) -> SaliencyFindings:
    """Maps and verdicts, whichever of them the audit has."""
    tests = (
        shown.result("reliability", StageResult).typed("reliability", ReliabilityRow)
        if shown.has("reliability")
        else []
    )
    return SaliencyFindings(tests, _pictures(shown) if shown.has("saliency") else [])


def _pictures(shown: Shown) -> list[SaliencyMaps]:
    made, index = shown.result("saliency", Saliency), shown.inputs("saliency", Inputs).index
    maps = made.maps
    found = []
    for place, image in enumerate(made.images):
        paths = {
            method: shown.picture(
                f"assets/saliency/{image:06d}-{method.replace(' ', '-')}.webp", webp(colours(values[place]))
            )
            for method, values in maps.items()
        }
        thumb = shown.thumbnail(index, image)
        found.append(SaliencyMaps(image, index.files[image], thumb, index.frame.size, paths))
    return found
