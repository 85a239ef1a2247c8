"""Page of attacks: what moves inside the network, and in what the audit says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from microtome.report import views
from microtome.visualize.measures import EXPLANATIONS, AttackMeasure, MeasureKind

FLIPPED = AttackMeasure(MeasureKind.FLIPPED)
CONTROL = "noise like "


class AttackKind(NamedTuple):
    """How pictures were changed, and how much, of 255."""

    name: str
    eps: float


class AttackRow(TypedDict):
    """What the page reads of a row of the table `adversarial`."""

    attack: str
    eps: float
    measure: str
    value: float
    low: float
    high: float
    n: int


class AttackedRow(TypedDict):
    """A row of the table `attacked_images`."""

    attack: str
    norm: str
    eps: float
    image: int
    before: int
    after: int
    file: str


@dataclass(frozen=True)
class AttackedPicture:
    """A picture before and after.

    Args:
        row: of the table `attacked_images`.
        file: its name.
        thumb: path of its thumbnail.
        changed, difference: paths.
    """

    row: AttackedRow
    file: str
    thumb: str
    changed: str
    difference: str


@dataclass(frozen=True)
class AttackFindings:
    """What attacks moved.

    Args:
        figures: rows of the table `adversarial`, by attack and measure, in the table's order.
        pictures: that are shown.
        size: (height, width) of the frame.
    """

    figures: Mapping[tuple[AttackKind, AttackMeasure], AttackRow]
    pictures: Sequence[AttackedPicture]
    size: tuple[int, int]

    @property
    def kinds(self) -> list[AttackKind]:
        """Attacks and controls, each once."""
        return list(dict.fromkeys(kind for kind, _ in self.figures))

    @property
    def measures(self) -> list[AttackMeasure]:
        """Each once."""
        return list(dict.fromkeys(measure for _, measure in self.figures))


def page(found: AttackFindings) -> views.Page:
    """The page."""
    tables = [
        _moved(found, [m for m in found.measures if m.kind not in EXPLANATIONS], "network"),
        _moved(found, [m for m in found.measures if m.kind in EXPLANATIONS], "explanations"),
    ]
    shown = [table for table in tables if len(table.columns) > 1]
    return views.Page(
        name="adversarial",
        page="adversarial.html",
        headline=_headline(found),
        figures=views.Figures(
            [
                (f"{kind.name} {kind.eps:g}/255", f"{found.figures[kind, FLIPPED]['value']:.0%}", "predictions flipped")
                for kind in found.kinds
                if not kind.name.startswith(CONTROL)
            ]
        ),
        sections=[views.Section("What moves", [*shown, _note()]), _attacked(found)],
        queries=[("Attacks", "select * from adversarial order by eps, attack")],
    )


def _headline(found: AttackFindings) -> str:
    flips = [(kind, found.figures[kind, FLIPPED]) for kind in found.kinds]
    strongest, row = max(flips, key=lambda item: (item[1]["value"], -item[0].eps))
    control = found.figures[AttackKind(f"{CONTROL}{strongest.name}", strongest.eps), FLIPPED]
    return (
        f"{strongest.name} at {strongest.eps:g}/255 flips {row['value']:.0%} of {row['n']} predictions; noise of the "
        f"same size {control['value']:.0%}."
    )


def _note() -> views.Text:
    return views.Text(
        "Means over pictures with 95 % intervals: of shares by Wilson, else by bootstrap. "
        "“Noise like”: every pixel moved as far, in a random "
        "direction: what does not exceed it is no effect of the attack. Tree and graph speak of their own category.",
        "quiet",
    )


def _moved(found: AttackFindings, measures: Sequence[AttackMeasure], what: str) -> views.Table:
    """A row per attack, a column per measure."""
    lines = []
    for kind in found.kinds:
        cells = [_cell(found.figures.get((kind, measure))) for measure in measures]
        lines.append([f"{kind.name}, {kind.eps:g}/255", *cells])
    return views.Table([(what, False), *((str(measure), True) for measure in measures)], lines)


def _cell(row: AttackRow | None) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" if row else "–"


def _attacked(found: AttackFindings) -> views.Section:
    text = "The difference is drawn at full contrast: grey is no change, the extremes are eps."
    cards = [_card(shown, found.size) for shown in found.pictures]
    return views.Section("Attacked pictures", [views.Text(text, "quiet"), views.Gallery(cards)])


def _card(shown: AttackedPicture, size: tuple[int, int]) -> views.Card:
    row = shown.row
    return views.Card(
        f"{row['attack']} {row['eps']:g}/255",
        f"attacked/{row['attack']}-{row['eps']:g}/{row['image']}".replace(" ", "-"),
        "held" if row["before"] == row["after"] else f"class {row['before']} → {row['after']}",
        [
            views.Spot(shown.thumb, shown.file, size, (), (), "before"),
            views.Spot(shown.changed, "attacked picture", size, (), (), "after"),
            views.Spot(shown.difference, "difference", size, (), (), "difference"),
        ],
    )
