"""What the report shows of drift."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.disentangle.names import INTERPRETABLE
from microtome.report.drift import (
    Drifted,
    DriftedLayer,
    DriftFindings,
    DriftLayerRow,
    DriftUnitRow,
    UnitPicture,
    UnitPictures,
)
from microtome.report.finetuning import BEFORE, NAMES
from tasks.drift.work import Inputs, SharedLayer, shared_layers
from tasks.pages.shown import Shown
from tasks.result import StageResult
from tasks.scores.findings import doubt_of_iou
from tasks.subject import Subject

NAME = "drift"


def findings(shown: Shown) -> DriftFindings:
    """The network itself first, then its controls."""
    pairs = [_pair(shown, job) for job in shown.variants(NAME)]
    doubt = doubt_of_iou(shown, pairs[0].layers[-1].row["layer"])
    return DriftFindings(pairs, shown.inputs(NAME, Inputs).index.frame.size, doubt)


def _pair(shown: Shown, job: str) -> Drifted:
    seen, made = shown.inputs(job, Inputs), shown.result(job, StageResult)
    layers = [_layer(shown, seen, made, layer) for layer in shared_layers(seen)]
    before, after = (maps.outside.get("network") for maps in (seen.activations_before, seen.activations_after))
    if isinstance(before, Subject) and isinstance(after, Subject):
        first, second = _names(before, after)
        return Drifted(first, second, layers)
    phase = next((phase for phase in NAMES if job == f"{NAME}:{phase}"), INTERPRETABLE)
    return Drifted(BEFORE, NAMES[phase], layers, phase)


def _names(before: Subject, after: Subject) -> list[str]:
    """What their weights are called: by file name, by the whole path where both have one name."""
    paths = [network.spec.weights or "random weights" for network in (before, after)]
    names = [path.rpartition("/")[2] for path in paths]
    return names if names[0] != names[1] else paths


def _layer(shown: Shown, seen: Inputs, made: StageResult, both: SharedLayer) -> DriftedLayer:
    (row,) = made.typed("drift_layers", DriftLayerRow, layer=both.before.name)
    units = made.typed("drift_units", DriftUnitRow, layer=both.before.name)
    before, after = (side.thresholds.top_images(side.name) for side in (both.before, both.after))
    wanted = [unit["unit"] for unit in units]
    some = {image for side in (before, after) for unit in wanted for image, _ in side[unit][: shown.top_images]}
    shown.thumbnails(seen.index, sorted(some))
    top = {unit: UnitPictures(_seen(shown, seen, before[unit]), _seen(shown, seen, after[unit])) for unit in wanted}
    return DriftedLayer(row, units, top)


def _seen(shown: Shown, seen: Inputs, top: Sequence[tuple[int, float]]) -> list[UnitPicture]:
    """The first of a unit's top images."""
    first = top[: shown.top_images]
    return [UnitPicture(shown.thumbnail(seen.index, image), seen.index.files[image], peak) for image, peak in first]
