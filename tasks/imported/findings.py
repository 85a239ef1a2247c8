"""What the report shows of published labels."""

from __future__ import annotations

from microtome.report.imported import ImportedLayer, ImportedRow, LabelRow, TalliedRow, TalliedUnitRow
from tasks.pages.shown import Shown
from tasks.result import StageResult


def findings(shown: Shown) -> list[ImportedLayer]:
    """Every layer."""
    made = shown.result("imported", StageResult)
    return [_layer(made, row) for row in made.typed("imported", ImportedRow)]


def _layer(made: StageResult, source: ImportedRow) -> ImportedLayer:
    name = source["layer"]
    labels = made.typed("labels", LabelRow, layer=name)
    if not made.artifact.has("units.parquet"):
        return ImportedLayer(source, None, [], labels)
    (tally,) = made.typed("layers", TalliedRow, layer=name)
    return ImportedLayer(source, tally, made.typed("units", TalliedUnitRow, layer=name), labels)
