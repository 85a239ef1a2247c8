"""Page of occlusion: measured receptive fields, and pictures stripped to what their prediction needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from microtome.report import views
from microtome.report.words import median, worded

REACH = 0.75  # of the theoretical field: what lies farther out cannot matter


class OcclusionRow(TypedDict):
    """A row of the table `occlusion`."""

    layer: str
    unit: int
    size_x: int
    size_y: int
    theoretical: float
    images: int
    file: str


class MinimalRow(TypedDict):
    """A row of the table `minimal_images`."""

    image: int
    segments: int
    kept: int
    score: float
    whole_score: float
    area: float
    file: str


@dataclass(frozen=True)
class MeasuredField:
    """A unit's measured field.

    Args:
        row: of the table `occlusion`.
        picture: path of its shaded map.
        size: (height, width) of the map.
    """

    row: OcclusionRow
    picture: str
    size: tuple[int, int]


@dataclass(frozen=True)
class StrippedPicture:
    """A picture and what is left of it.

    Args:
        row: of the table `minimal_images`.
        file: its name.
        thumb: path of its thumbnail.
        left: path of what is left.
    """

    row: MinimalRow
    file: str
    thumb: str
    left: str


@dataclass(frozen=True)
class FieldFindings:
    """Measured fields, stripped pictures, and (height, width) of the frame."""

    fields: Sequence[MeasuredField]
    stripped: Sequence[StrippedPicture]
    size: tuple[int, int]


def page(found: FieldFindings) -> views.Page:
    """The page."""
    rows = [field.row for field in found.fields]
    measured = median([(row["size_x"] + row["size_y"]) / 2 for row in rows])
    sections = [_fields(found.fields)]
    if found.stripped:
        sections.append(_minimal(found))
    return views.Page(
        name="fields",
        page="fields.html",
        headline=f"Measured by covering pictures up, a unit looks at {worded(measured, '.0f')} pixels (median), of the "
        f"{max(row['theoretical'] for row in rows):g} that its layer could see.",
        figures=views.Figures(
            [("units measured", str(len(rows)), ""), ("median field", worded(measured, ".0f"), "pixels")]
        ),
        sections=sections,
        queries=[("Receptive fields", "select * from occlusion"), ("Minimal images", "select * from minimal_images")],
    )


def middle_of(heat: NDArray[np.float32], theoretical: float) -> NDArray[np.float32]:
    """The part of a discrepancy map that a unit can see.

    Args:
        heat: (rows, columns), the unit's cell in the middle.
        theoretical: size of its field.
    """
    reach = int(REACH * theoretical)
    return heat[tuple(slice(max(0, side // 2 - reach), side // 2 + reach + 1) for side in heat.shape)]


def shaded(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(rows, columns, 3) grey: dark where covering mattered."""
    scale = float(np.abs(heat).max()) or 1.0
    shade = (255 * (1 - np.clip(heat / scale, 0, 1))).astype(np.uint8)
    return np.repeat(shade[..., None], 3, 2)


def _fields(fields: Sequence[MeasuredField]) -> views.Section:
    lines = [
        [
            f"{row['layer']} unit {row['unit']}",
            f"{row['size_x']} × {row['size_y']} px",
            f"{row['theoretical']:g} px",
            str(row["images"]),
        ]
        for row in (field.row for field in fields)
    ]
    columns = [("unit", False), ("field, measured", True), ("theoretical", True), ("pictures", True)]
    note = "The occluder's own width is taken off. A unit at the edge shows part of its field."
    return views.Section(
        "Receptive fields", [views.Table(columns, lines, note), views.Gallery([_card(field) for field in fields])]
    )


def _card(field: MeasuredField) -> views.Card:
    row, (height, width) = field.row, field.size
    circle = (width / 2, height / 2, row["theoretical"] / 2)
    spot = views.Spot(
        field.picture, f"mean discrepancy of unit {row['unit']}", field.size, [circle], (), "dark: it matters"
    )
    name, anchor = f"{row['layer']} unit {row['unit']}", f"field/{row['layer']}/{row['unit']}"
    return views.Card(name, anchor, "circle: theoretical field", [spot])


def _minimal(found: FieldFindings) -> views.Section:
    cards = [
        views.Card(
            shown.file,
            f"minimal/{shown.row['image']}",
            f"{shown.row['kept']} of {shown.row['segments']} segments",
            [
                views.Spot(shown.thumb, shown.file, found.size, (), (), "whole"),
                views.Spot(shown.left, "what is left", found.size, (), (), "minimal"),
            ],
            [
                ("area left", f"{shown.row['area']:.0%}", "share of the picture"),
                ("logit", f"{shown.row['whole_score']:.2f} → {shown.row['score']:.2f}", "of the predicted class"),
            ],
        )
        for shown in found.stripped
    ]
    text = "Segments are removed, the one that costs the prediction least first, until the next would flip it."
    return views.Section("Minimal images", [views.Text(text, "quiet"), views.Gallery(cards)])
