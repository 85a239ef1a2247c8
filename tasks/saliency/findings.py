"""What the report shows of saliency maps, and of the tests that they have to pass."""

from __future__ import annotations

from collections.abc import Mapping

from microtome.datasets.source import webp
from microtome.report.saliency import (
    JUDGED,
    FaithfulnessRow,
    MethodRow,
    ReliabilityRow,
    SaliencyFindings,
    SaliencyMaps,
    colours,
)
from tasks.pages.shown import Shown
from tasks.reliability import ReliabilityOptions
from tasks.result import StageResult
from tasks.saliency.result import Saliency
from tasks.saliency.work import Inputs


def findings(shown: Shown) -> SaliencyFindings:
    """Maps and verdicts, whichever of them the audit has."""
    stages = [name for name in ("saliency", "reliability") if shown.has(name)]
    results = {name: shown.result(name, StageResult) for name in stages}
    notes = {row["method"]: row for name in stages for row in results[name].typed(f"{name}_methods", MethodRow)}
    tests = results["reliability"].typed("reliability", ReliabilityRow) if "reliability" in stages else []
    scores = results["saliency"].typed("faithfulness", FaithfulnessRow) if "saliency" in stages else []
    pictures = _pictures(shown) if "saliency" in stages else []
    return SaliencyFindings(tests, pictures, list(notes.values()), scores, _limits(results))


def _limits(results: Mapping[str, StageResult]) -> dict[str, float]:
    if "reliability" not in results:
        return {}
    options = ReliabilityOptions.model_validate(results["reliability"].parameters)
    limits = (options.invariance_error, options.randomised_cosine, options.class_cosine)
    return dict(zip(JUDGED, limits, strict=True))


def _pictures(shown: Shown) -> list[SaliencyMaps]:
    made, index = shown.result("saliency", Saliency), shown.inputs("saliency", Inputs).index
    maps = made.maps
    called = {row["image"]: row["target_name"] or "" for row in made.rows("saliency")}
    found = []
    for place, image in enumerate(made.images):
        paths = {
            method: shown.picture(
                f"assets/saliency/{image:06d}-{method.replace(' ', '-')}.webp", webp(colours(values[place]))
            )
            for method, values in maps.items()
        }
        thumb = shown.thumbnail(index, image)
        found.append(SaliencyMaps(image, index.files[image], thumb, index.frame.size, paths, called[image]))
    return found
