"""Page of located parts: errors over the number of boxes beside every rival's, what was chosen, and where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.part_errors import PartComparison, PartShift, PartSummary
from microtome.report import views
from microtome.report.charts import lines

SHOWN = 5  # pictures of a part
SURE = 0.05


@dataclass(frozen=True)
class Choice:
    """What the blend chose for a part from one draw of so many boxes: weight of looks, and cells about the part."""

    part: str
    boxes: int
    beta: float
    spread: float


@dataclass(frozen=True)
class LocatedIn:
    """A picture in which a part was located.

    Args:
        thumb: path of the thumbnail.
        file: name of the picture.
        found: x, y in pixels of the network's frame.
        truth: where it is annotated.
        error: distance between them, in diagonals.
    """

    thumb: str
    file: str
    found: tuple[float, float]
    truth: tuple[float, float]
    error: float


@dataclass(frozen=True)
class LocatedPart:
    """A part, located by the blend from so few boxes, in pictures from the best to the worst."""

    part: str
    boxes: int
    pictures: Sequence[LocatedIn]


@dataclass(frozen=True)
class PartsFindings:
    """What was found of parts.

    Args:
        figures: per part, number of boxes and method.
        against: the blend beside its rivals, as of `comparisons`.
        choices: of the blend, per part, number of boxes and draw.
        located: pictures of each part.
        size: (height, width) of the network's input.
        follow: the shift test; empty without one.
    """

    figures: Sequence[PartSummary]
    against: Sequence[PartComparison]
    choices: Sequence[Choice]
    located: Sequence[LocatedPart]
    size: tuple[int, int]
    follow: Sequence[PartShift] = ()

    @property
    def parts(self) -> list[str]:
        """Names."""
        return list(dict.fromkeys(row.part for row in self.figures))


def page(found: PartsFindings) -> views.Page:
    """The page."""
    return views.Page(
        name="parts",
        page="parts.html",
        headline=_headline(found),
        figures=views.Figures(
            [("parts", str(len(found.parts)), ""), ("pictures", str(found.figures[0].images), "to find them in")]
        ),
        sections=[
            views.Section("Error over the number of boxes", [_charts(found)]),
            views.Section(
                "Where they were found",
                [views.Gallery([_card(part, found.size) for part in found.located], True)],
            ),
            views.Section("Beside its rivals", [_rivals(found.against)]),
            views.Section("What was chosen", [_choices(found.choices)]),
            *([views.Section("Do they follow what is shown?", [_follow(found.follow)])] if found.follow else []),
            views.Section("Every figure", [_table(found.figures)]),
        ],
        queries=[
            ("Part errors", "select * from part_summary"),
            (
                "The blend beside its rivals",
                "select * from part_comparisons where part is not null order by difference",
            ),
            ("Patterns", "select * from parts order by score desc limit 20"),
        ],
    )


def _headline(found: PartsFindings) -> str:
    best = found.against[0]
    errors = [row.error for row in found.figures if row.method == Locator.BLEND]
    said = "nearer than" if best.high < 0 else "farther than" if best.low > 0 else "no surer than"
    return (
        f"Looks and place together miss the parts by {sum(errors) / len(errors):.3f} of the diagonal on average: "
        f"{said} the best single rival, {best.rival.value} ({_between(best)})."
    )


def _rivals(against: Sequence[PartComparison]) -> views.Table:
    columns = [("rival", False), ("blend − rival", True), ("nearer", True), ("farther", True), ("farthest in", False)]
    rows = []
    for rival in dict.fromkeys(row.rival for row in against):
        together, *each = (row for row in against if row.rival == rival)
        sure = [row for row in each if row.holm is not None and row.holm <= SURE]
        nearer, farther = (sum(sign * row.difference < 0 for row in sure) for sign in (1, -1))
        worst = max(each, key=lambda row: row.difference)
        where = f"{worst.part}, {worst.boxes} boxes: {_between(worst)}"
        rows.append([rival.value, _between(together), str(nearer), str(farther), where])
    note = (
        "Mean over all parts and numbers of boxes of the blend's error less the rival's, below zero where the blend is "
        "nearer; 95 % intervals over pictures and draws of boxes, paired; the best rival first. Nearer, farther: parts "
        "and numbers of boxes in which it is so with p ≤ 0.05, adjusted by Holm's method."
    )
    return views.Table(columns, rows, note)


def _between(row: PartComparison) -> str:
    return f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"


def _choices(choices: Sequence[Choice]) -> views.Table:
    columns = [("part", False), ("boxes", True), ("weight of looks", False), ("cells about the part", False)]
    rows = []
    for part, boxes in dict.fromkeys((row.part, row.boxes) for row in choices):
        mine = [row for row in choices if (row.part, row.boxes) == (part, boxes)]
        rows.append([part, str(boxes), _listed([row.beta for row in mine]), _listed([row.spread for row in mine])])
    note = (
        "Chosen for each draw of boxes, by leaving each box out and finding it from the others. Weight of looks: at 10 "
        "a part is put where the boxes were, at 240 where something looks most like them; 60 where boxes do not say. "
        "Cells: how far about the part what is there counts, as a deviation."
    )
    return views.Table(columns, rows, note)


def _follow(rows: Sequence[PartShift]) -> views.Table:
    columns = [("part", False), ("boxes", True), ("method", False), ("slope", True), ("R²", True)]
    lines = [
        [
            row.part,
            str(row.boxes),
            row.method.value,
            f"{row.slope:.2f} [{row.low:.2f}, {row.high:.2f}]",
            f"{row.r2:.2f}",
        ]
        for row in rows
    ]
    note = (
        "The same parts are looked for again with what the pictures show moved by known random offsets. Slope: of a "
        "located place's displacement on that offset, 95 % over pictures, draws averaged: 1 follows, 0 is frozen, as "
        "the mean position is. Between them, a place is drawn to where the boxes were."
    )
    return views.Table(columns, lines, note)


def _listed(values: Sequence[float]) -> str:
    """Each value, and how often, where more than once."""
    return ", ".join(
        f"{value:g}" + (f" × {count}" if count > 1 else "") for value, count in sorted(Counter(values).items())
    )


def _charts(found: PartsFindings) -> views.Charts:
    return views.Charts([_chart(part, [row for row in found.figures if row.part == part]) for part in found.parts])


def _chart(part: str, figures: Sequence[PartSummary]) -> tuple[str, str, str]:
    rows = [{"x": row.boxes, "y": row.error, "line": row.method.value} for row in figures]
    return lines(f"{part}: error of the centre, by the diagonal", rows, "boxes")


def _table(figures: Sequence[PartSummary]) -> views.Table:
    columns = [("part", False), ("boxes", True), ("method", False), ("error", True), ("nearer than 0.1", True)]
    rows = [
        [
            row.part,
            str(row.boxes),
            row.method.value,
            f"{row.error:.3f} [{row.low:.3f}, {row.high:.3f}]",
            f"{row.share:.0%} [{row.share_low:.0%}, {row.share_high:.0%}]",
        ]
        for row in figures
    ]
    note = (
        "Mean distance to the annotated centre, in the pictures that were not annotated; 95 % bootstrap intervals over "
        "pictures and draws of boxes. Blend: where it looks like the boxes, weighed against where they were. Exemplar: "
        "the cell that looks most like one boxed cell. Patterns, graph nodes: votes of units, or of the graph's nodes. "
        "Mean position: the mean annotated place, everywhere. Best filter: the one filter whose peak, moved by its "
        "mean displacement, is nearest in the annotated pictures. Top filters: the mean of the ten best."
    )
    return views.Table(columns, rows, note)


def _card(part: LocatedPart, size: tuple[int, int]) -> views.Card:
    spots = [_spot(picture, size) for picture in part.pictures]
    return views.Card(part.part, f"part/{part.part}", f"from {part.boxes} boxes, from the best to the worst", spots)


def _spot(picture: LocatedIn, size: tuple[int, int]) -> views.Spot:
    x, y = (round(value, 1) for value in picture.found)
    cross = (round(picture.truth[0], 1), round(picture.truth[1], 1))
    circle = (x, y, round(size[0] / 12, 1))
    return views.Spot(picture.thumb, picture.file, size, [circle], [cross], f"{picture.error:.2f}")
