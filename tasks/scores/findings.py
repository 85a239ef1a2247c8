"""What the report shows of scores."""

from __future__ import annotations

from microtome.report.scores import (
    ScoreAgreementRow,
    ScoredLayer,
    ScoreLabelRow,
    ScoreLayerRow,
    ScoreTestRow,
    said,
)
from tasks.pages.shown import Shown
from tasks.result import StageResult


def findings(shown: Shown) -> list[ScoredLayer]:
    """Every layer."""
    made = shown.result("scores", StageResult)
    return [
        ScoredLayer(
            row,
            made.typed("score_tests", ScoreTestRow, layer=row["layer"]),
            made.typed("score_agreement", ScoreAgreementRow, layer=row["layer"]),
            made.typed("score_labels", ScoreLabelRow, layer=row["layer"], labels="own"),
        )
        for row in made.typed("score_layers", ScoreLayerRow)
    ]


def doubt_of_iou(shown: Shown, layer: str) -> str:
    """That IoU over pixels does not pass both label tests, for pages that print it.

    Empty where it passes, and where nobody tested it.
    """
    if not shown.has("scores"):
        return ""
    made = shown.result("scores", StageResult)
    rows = made.typed("score_tests", ScoreTestRow, layer=layer, level="pixels", metric="iou")
    found = {row["labels"]: row for row in rows}
    if not found or found["iou"]["verdict"] == "passes":
        return ""
    return f"{said(found['iou'], found['detectors'])} The page of scores has all metrics."
