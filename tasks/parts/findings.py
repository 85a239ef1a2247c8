"""What the report shows of mined parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.part_errors import PartComparison, PartShift, PartSummary
from microtome.report.parts import SHOWN, Choice, LocatedIn, LocatedPart, PartsFindings
from storage.tables import ReadRow
from tasks.graph.category import shown_landmarks
from tasks.index.result import Index
from tasks.pages.shown import Shown
from tasks.parts.result import Parts
from tasks.parts.work import Inputs


def findings(shown: Shown) -> PartsFindings:
    """The errors, and some pictures of each part."""
    made, seen = shown.result("parts", Parts), shown.inputs("parts", Inputs)
    figures = [PartSummary(**{**row, "method": Locator(row["method"])}) for row in made.rows("part_summary")]
    against = [PartComparison(**{**row, "rival": Locator(row["rival"])}) for row in made.rows("part_comparisons")]
    choices = [Choice(row["part"], row["boxes"], row["beta"], row["spread"]) for row in made.rows("part_choices")]
    follow = [PartShift(**{**row, "method": Locator(row["method"])}) for row in made.rows("part_shift")]
    errors = made.rows("part_errors", method=Locator.BLEND, draw=0)
    marks = shown_landmarks(seen.landmarks, np.arange(seen.index.images))
    parts = dict.fromkeys(row.part for row in figures)
    located = [
        _located(shown, seen.index, [row for row in errors if row["part"] == part], marks[part]) for part in parts
    ]
    return PartsFindings(figures, against, choices, located, seen.index.frame.size, follow)


def _located(shown: Shown, index: Index, rows: Sequence[ReadRow], truth: NDArray[np.float64]) -> LocatedPart:
    """By the blend of the first draw from the fewest boxes, from the best picture to the worst."""
    few = min(row["boxes"] for row in rows)
    mine = sorted((row for row in rows if row["boxes"] == few), key=lambda row: row["error"])
    some = mine[:: max(1, len(mine) // SHOWN)][:SHOWN]
    pictures = [
        LocatedIn(
            shown.thumbnail(index, row["image"]),
            index.files[row["image"]],
            (row["x"], row["y"]),
            (float(truth[row["image"], 0]), float(truth[row["image"], 1])),
            row["error"],
        )
        for row in some
    ]
    return LocatedPart(rows[0]["part"], few, pictures)
