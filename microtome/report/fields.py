"""Page of occlusion: measured receptive fields, and pictures stripped to what their prediction needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from microtome.report import views
from microtome.report.words import median, worded

PAGE = "fields.html"
COVERED = 3  # pictures beside a map
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
class CoveredPicture:
    """A picture over which a field was measured: path of the thumbnail, its name, x, y of the unit's highest cell."""

    thumb: str
    file: str
    at: tuple[float, float]


@dataclass(frozen=True)
class MeasuredField:
    """A unit's measured field.

    Args:
        row: of the table `occlusion`.
        picture: path of its shaded map.
        size: (height, width) of the map.
        covered: some of the pictures over which it was measured.
    """

    row: OcclusionRow
    picture: str
    size: tuple[int, int]
    covered: Sequence[CoveredPicture] = ()

    @property
    def key(self) -> views.UnitKey:
        """The unit."""
        return views.UnitKey(self.row["layer"], self.row["unit"])


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
    sections = [_fields(found)]
    if found.stripped:
        sections.append(_minimal(found))
    return views.Page(
        name="fields",
        subject="receptive fields",
        title="Receptive fields",
        page=PAGE,
        headline=_headline(_by_layer(rows)),
        figures=views.Figures([]),
        sections=sections,
        queries=[("Receptive fields", "select * from occlusion"), ("Minimal images", "select * from minimal_images")],
    )


def _by_layer(rows: Sequence[OcclusionRow]) -> dict[str, list[OcclusionRow]]:
    found: dict[str, list[OcclusionRow]] = {}
    for row in rows:
        found.setdefault(row["layer"], []).append(row)
    return found


def _wide(rows: Sequence[OcclusionRow]) -> list[float]:
    """Mean of width and height of each field, in pixels."""
    return [(row["size_x"] + row["size_y"]) / 2 for row in rows]


def _headline(layers: Mapping[str, Sequence[OcclusionRow]]) -> str:
    """How wide the units of each layer see: a layer's figure is that of some units, and it says of how many."""
    told = []
    for name, rows in layers.items():
        sizes = _wide(rows)
        units = (
            f"median of {len(rows)} units, {min(sizes):.0f} to {max(sizes):.0f}" if len(rows) > 1 else "one unit alone"
        )
        told.append(f"{worded(median(sizes), '.0f')} of {rows[0]['theoretical']:g} possible in {name} ({units})")
    return f"Where a picture is covered, units answer to so many pixels across: {'; '.join(told)}."


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


def of_units(found: FieldFindings) -> views.Told:
    """The measured field, beside the pictures over which it was measured."""
    told: dict[views.UnitKey, list[views.Section]] = {}
    for field in found.fields:
        card, row = _card(field, found.size), field.row
        links = [("on the page of fields", f"{PAGE}#{card.anchor}")]
        own = replace(card, unit=None, title=f"over {row['images']} pictures", links=links)
        text = views.Text(
            f"{row['size_x']} × {row['size_y']} pixels; its layer could see {row['theoretical']:g}. {_READING}", "quiet"
        )
        told[field.key] = [views.Section("Its measured receptive field", [text, views.Gallery([own], True)])]
    return told


_READING = (
    "A small square covers one place of a picture after another: where the unit's answer changes, it looks. In the "
    "map, dark is where covering mattered, and the circle is what the layer's kernels and strides would let it see. In "
    "the pictures, in which the unit is highest, the circle is as large as the measured field."
)


def _fields(found: FieldFindings) -> views.Section:
    cards = views.Gallery([_card(field, found.size) for field in found.fields], True)
    note = "The covering square's own width is taken off. A unit at the edge of a picture shows part of its field."
    return views.Section("Receptive fields", [views.Text(f"{_READING} {note}", "quiet"), cards])


def _card(field: MeasuredField, size: tuple[int, int]) -> views.Card:
    row, (height, width) = field.row, field.size
    circle = (width / 2, height / 2, row["theoretical"] / 2)
    spots = [
        views.Spot(field.picture, f"where covering mattered to unit {row['unit']}", field.size, [circle], (), "map")
    ]
    radius = (row["size_x"] + row["size_y"]) / 4
    spots += [views.Spot(item.thumb, item.file, size, [(*item.at, radius)], ()) for item in field.covered]
    name, anchor = f"{row['layer']} unit {row['unit']}", f"field/{row['layer']}/{row['unit']}"
    facts = [
        ("measured", f"{row['size_x']} × {row['size_y']} px", "size of the field by covering, over its top pictures"),
        ("theoretical", f"{row['theoretical']:g} px", "size of the field by the layers' kernels and strides"),
        ("pictures", str(row["images"]), "over which it was measured"),
    ]
    return views.Card(name, anchor, "", spots, facts, unit=field.key)


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
                (
                    "score",
                    f"{shown.row['whole_score']:.2f} → {shown.row['score']:.2f}",
                    "of the predicted class, before softmax",
                ),
            ],
        )
        for shown in found.stripped
    ]
    text = (
        "A picture is cut into segments of similar colour; they go, what costs the prediction least first, until "
        "the next would change it. What is left suffices for the prediction, and may show what it rests on."
    )
    return views.Section("Minimal images", [views.Text(text, "quiet"), views.Gallery(cards)])
