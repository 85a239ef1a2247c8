"""Page of feature visualisation: synthetic pictures beside natural ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from microtome.quantify.intervals import wilson
from microtome.report import views
from microtome.report.words import figured, median, worded

NATURAL_IMAGES, CROPS = 4, 4
PAGE = "features.html"
CAPTIONS = {"natural": "crop", "deconvolution": "led back", "gradient": "gradient"}


@dataclass(frozen=True)
class NaturalImage:
    """A picture in which a unit is high: path of the thumbnail, and the picture's name."""

    thumb: str
    file: str


@dataclass(frozen=True)
class UnitCrop:
    """A crop about a unit's highest cell.

    Args:
        path: of the crop.
        kind: `natural`, `deconvolution`, or `gradient`, which stands in where a network has no deconvolution.
        file: the picture's name.
        size: (height, width) in pixels.
    """

    path: str
    kind: str
    file: str
    size: tuple[int, int]


class FeatureRow(TypedDict):
    """What the page reads of a row of the table `features`."""

    layer: str
    unit: int
    natural_max: float
    ratio: float | None
    high_frequency: float
    unreached: bool
    file: str


@dataclass(frozen=True)
class SyntheticUnit:
    """A unit and its pictures.

    Args:
        row: of the table `features`.
        picture: path of the synthetic picture.
        natural: the pictures in which the unit is highest.
        crops: about its highest cells.
    """

    row: FeatureRow
    picture: str
    natural: Sequence[NaturalImage]
    crops: Sequence[UnitCrop]


@dataclass(frozen=True)
class FeatureFindings:
    """The units whose pictures were made, and (height, width) of the frame."""

    units: Sequence[SyntheticUnit]
    size: tuple[int, int]


def page(found: FeatureFindings) -> views.Page:
    """The page."""
    rows = [unit.row for unit in found.units]
    beyond = [row for row in rows if (row["ratio"] or 0) > 1]
    cards = [_card(unit, found.size) for unit in found.units]
    return views.Page(
        name="features",
        page=PAGE,
        headline=_headline(rows, len(beyond)),
        figures=views.Figures([]),
        sections=[views.Section("Units", [*_reading(), views.Gallery(cards, True)])],
        queries=[("Synthetic pictures", "select * from features order by ratio desc")],
    )


def of_units(found: FeatureFindings) -> views.Told:
    """The synthetic picture, beside natural ones."""
    told: dict[views.UnitKey, list[views.Section]] = {}
    for unit in found.units:
        card = _card(unit, found.size)
        own = replace(
            card, unit=None, title="made for this unit", links=[("on the page of features", f"{PAGE}#{card.anchor}")]
        )
        told[_key(unit)] = [views.Section("Its synthetic picture", [*_reading(), views.Gallery([own], True)])]
    return told


def _headline(rows: Sequence[FeatureRow], beyond: int) -> str:
    """How far beyond natural pictures made ones go: what a unit can answer to is not what it meets."""
    ratios = [row["ratio"] for row in rows if not row["unreached"] and row["ratio"] is not None]
    missed = sum(row["unreached"] for row in rows)
    reaches = "it" if missed == 1 else "them"
    lost = f"For {missed} unit{'s' * (missed > 1)} none could be made: no gradient reaches {reaches}." if missed else ""
    if not ratios:
        return lost or "No unit has a natural activation to compare with."
    low, high = wilson(beyond, len(ratios))
    far = f"reach {worded(median(ratios), '.2f')} times their unit's highest natural activation"
    ends = f" (median of {len(ratios)} units; {min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    above = (
        f"{beyond} of {len(ratios)} exceed it ({low:.0%} to {high:.0%} of units drawn like these, 95 %): they lie "
        "beyond anything in these pictures."
    )
    return " ".join(filter(None, [f"Made pictures {far}{ends}.", above, lost]))


def _reading() -> list[views.Text]:
    return [
        views.Text(
            "First a picture made from noise, step by step, so that the unit answers to it as strongly as it can; then "
            "the natural pictures in which it is highest; then crops about its highest cell there, each with what the "
            "unit's signal leads back to when it is sent backwards through the network (deconvolution, or the gradient "
            "where a network has none). Ratio: the unit's peak in the made picture over its highest natural one. Fine "
            "detail: share of the made picture's energy in patterns finer than four pixels.",
            "quiet",
        ),
        views.Text(
            "People predict a unit's answers better from natural pictures than from made ones (92 % are right, with "
            "made ones 82 %: arXiv 2010.12606). A made one shows what a unit can answer to, not what it usually sees.",
            "quiet",
        ),
    ]


def _detail(row: FeatureRow) -> str:
    return "–" if row["unreached"] else f"{row['high_frequency']:.0%}"


def _key(unit: SyntheticUnit) -> views.UnitKey:
    return views.UnitKey(unit.row["layer"], unit.row["unit"])


def _card(unit: SyntheticUnit, size: tuple[int, int]) -> views.Card:
    row = unit.row
    made = views.Spot(unit.picture, f"synthetic picture of unit {row['unit']}", size, (), (), "made")
    spots = [] if row["unreached"] else [made]  # what no gradient reaches stayed grey
    spots += [views.Spot(item.thumb, item.file, size, (), (), "natural") for item in unit.natural]
    for crop in unit.crops[:CROPS]:
        caption = CAPTIONS[crop.kind]
        spots.append(views.Spot(crop.path, f"{crop.kind} crop of {crop.file}", crop.size, (), (), caption))
    facts = [
        (
            "ratio",
            worded(None if row["unreached"] else row["ratio"], ".2f"),
            "peak in the synthetic picture over the highest natural one",
        ),
        ("fine detail", _detail(row), "energy above a quarter cycle per pixel"),
        ("natural peak", figured(row["natural_max"]), "highest activation over the data set"),
    ]
    note = "no picture could be made: no gradient reaches it" if row["unreached"] else ""
    name, anchor = f"{row['layer']} unit {row['unit']}", f"features/{row['layer']}/{row['unit']}"
    return views.Card(name, anchor, note, spots, facts, unit=_key(unit))
