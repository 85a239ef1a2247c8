"""Page of occlusion: measured receptive fields, and pictures stripped to what their prediction needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from microtome.quantify.intervals import share_interval
from microtome.report import views
from microtome.report.words import median, percent, worded
from microtome.visualize.names import REMOVALS

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
    whole: int
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
    target: int
    target_name: str | None
    kept_at_random: float


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
    """Measured fields, stripped pictures, (height, width) of the frame, and the covering square's side in pixels."""

    fields: Sequence[MeasuredField]
    stripped: Sequence[StrippedPicture]
    size: tuple[int, int]
    occluder: int


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
        whole = [row for row in rows if row["whole"]]
        sizes, cut = _wide(whole), len(rows) - len(whole)
        if not whole:
            told.append(
                f"How far units of {name} look is not sure: the picture's edge cuts the field of each of {len(rows)}."
            )
            continue
        units = (
            f"median of {len(whole)} units, {min(sizes):.0f} to {max(sizes):.0f}"
            if len(whole) > 1
            else "one unit alone"
        )
        left = f"; {cut} more left out, whose field the picture's edge cuts in every picture" if cut else ""
        told.append(
            f"Units of {name} look at about {worded(median(sizes), '.0f')} of the {rows[0]['theoretical']:g} pixels "
            f"across that they could ({units}{left})."
        )
    return " ".join(told)


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
        card, row = _card(field, found), field.row
        links = [("on the page of fields", f"{PAGE}#{card.anchor}")]
        own = replace(card, unit=None, title=f"over {row['images']} pictures", links=links)
        text = views.Text(f"{_measured(row)}; its layer could see {row['theoretical']:g}. {_READING}", "quiet")
        told[field.key] = [views.Section("Its measured receptive field", [text, views.Gallery([own], True)])]
    return told


_READING = (
    "A small square covers one place of a picture after another: where the unit's answer changes, it looks. In the "
    "map, dark is where covering mattered; the frame holds every place from which the covering square can touch what "
    "the layer's kernels and strides let it see. In the pictures, in which the unit is highest, the frame is as large "
    "as the measured field, about the unit's place."
)
_CUT = "cut by the edge"


def _fields(found: FieldFindings) -> views.Section:
    cards = views.Gallery([_card(field, found) for field in found.fields], True)
    note = (
        "The covering square's own width is taken off the measured size. Where the picture's edge cuts a field in "
        "every picture, as of units that are highest at the edge, it may be larger."
    )
    return views.Section("Receptive fields", [views.Text(f"{_READING} {note}", "quiet"), cards])


def _card(field: MeasuredField, found: FieldFindings) -> views.Card:
    row, (height, width) = field.row, field.size
    reach = row["theoretical"] + found.occluder - 1
    frame = (width / 2, height / 2, min(reach, width), min(reach, height))
    what = f"where covering mattered to unit {row['unit']}"
    spots = [views.Spot(field.picture, what, field.size, (), (), "map", [frame])]
    seen = (row["size_x"], row["size_y"])
    spots += [views.Spot(item.thumb, item.file, found.size, (), (), "", [(*item.at, *seen)]) for item in field.covered]
    name, anchor = f"{row['layer']} unit {row['unit']}", f"field/{row['layer']}/{row['unit']}"
    facts = [
        ("measured", _measured(row), "size of the field by covering, over its top pictures"),
        ("theoretical", f"{row['theoretical']:g} px", "size of the field by the layers' kernels and strides"),
        ("pictures", f"{row['images']}, {row['whole']} show it whole", "over which it was measured"),
    ]
    return views.Card(name, anchor, "" if row["whole"] else _CUT, spots, facts, unit=field.key)


def _measured(row: OcclusionRow) -> str:
    least = "" if row["whole"] else "at least "
    return f"{least}{row['size_x']} × {row['size_y']} px"


def _minimal(found: FieldFindings) -> views.Section:
    cards = [_stripped_card(shown, found.size) for shown in found.stripped]
    share, low, high = share_interval(np.array([shown.row["kept_at_random"] for shown in found.stripped]))
    text = (
        "A picture is cut into segments of similar colour; they go, what costs the prediction least first, until the "
        "next would change it. What is left suffices for the prediction, and may show what it rests on. As a control "
        f"as many segments of each picture go at random: the prediction stays in {percent(share)} of the draws "
        f"[{percent(low)}, {percent(high)}] (95 % over {len(cards)} pictures). Where it stays as often as not, what is "
        "left says little."
    )
    return views.Section("Minimal images", [views.Text(text, "quiet"), views.Gallery(cards)])


def _stripped_card(shown: StrippedPicture, size: tuple[int, int]) -> views.Card:
    row = shown.row
    name = row["target_name"] or f"class {row['target']}"
    often = row["kept_at_random"] >= 0.5
    kept = f"{percent(row['kept_at_random'])}{', so what is left says little' if often else ''}"
    return views.Card(
        shown.file,
        f"minimal/{row['image']}",
        f"{row['kept']} of {row['segments']} segments",
        [
            views.Spot(shown.thumb, shown.file, size, (), (), "whole"),
            views.Spot(shown.left, "what is left", size, (), (), "minimal"),
        ],
        [
            ("answer", name, "the predicted class, of the whole picture and of what is left"),
            ("area left", f"{row['area']:.0%}", "share of the picture"),
            ("score", f"{row['whole_score']:.2f} → {row['score']:.2f}", "of the predicted class, before softmax"),
            ("kept at random", kept, f"of {REMOVALS} draws in which as many segments go at random"),
        ],
    )
