"""Page of located parts: errors over the number of boxes beside every rival's, what was chosen, and where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.part_errors import PartComparison, PartShift, PartSummary
from microtome.report import views
from microtome.report.charts import errors

SHOWN = 5  # pictures of a part
SHOWN_PARTS = 6  # with their errors above the page
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
        figures=_figures(found),
        sections=[
            views.Section(
                "Where they were found",
                [views.Text(_FOUND, "quiet"), views.Gallery([_card(part, found.size) for part in found.located], True)],
            ),
            views.Section("Error over the number of boxes", [views.Text(_WAYS, "quiet"), _charts(found)]),
            views.Section("Beside simpler ways", [views.Text(_SIMPLER, "quiet"), _rivals(found.against)]),
            *([views.Section("Do they follow what is shown?", [_follow(found.follow)])] if found.follow else []),
            views.Section("What was chosen", [_choices(found.choices)], folded=True),
            views.Section("Every figure", _every(found), folded=True),
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


_FOUND = (
    "Circle: where the part was found; cross: where it is annotated; below, the distance between them, by the "
    "picture's diagonal. Pictures that no box was drawn in, from the nearest to the farthest."
)
_WAYS = (
    "Mean distance to the annotated centre, by the picture's diagonal, in the pictures in which no box was drawn; 95 % "
    "intervals over pictures and draws of boxes. The blend, the best simpler way, and the mean position; all parts on "
    "one scale."
)
_SIMPLER = (
    "Blend: where it looks like the boxes, weighed against where they were. Exemplar: the cell that looks most like "
    "one boxed cell. Patterns, graph nodes: votes of units, or of the graph's nodes. Mean position: the mean "
    "annotated place, everywhere. Best filter: the one filter whose peak, moved by its mean displacement, is nearest "
    "in the annotated pictures. Top filters: the mean of the ten best."
)


def _headline(found: PartsFindings) -> str:
    best, most = found.against[0], _from_most(found)
    near, far = min(most, key=lambda row: row.error), max(most, key=lambda row: row.error)
    said = "nearer than" if best.high < 0 else "farther than" if best.low > 0 else "not surely nearer than"
    reach = f"{near.error:.3f} ({near.part})" + (f" to {far.error:.3f} ({far.part})" if near is not far else "")
    return (
        f"Shown a part in {near.boxes} boxes, the blend of how it looks and where it sits then finds it in new "
        f"pictures at {reach} of the diagonal from its annotated centre. Over all parts and numbers of boxes that is "
        f"{said} the best of {len({row.rival for row in found.against})} simpler ways, {best.rival.value} (difference "
        f"{_between(best)})."
    )


def _from_most(found: PartsFindings) -> list[PartSummary]:
    """The blend's errors from the largest number of boxes, part by part."""
    blend = [row for row in found.figures if row.method == Locator.BLEND]
    most = max(row.boxes for row in blend)
    return [row for row in blend if row.boxes == most]


def _figures(found: PartsFindings) -> views.Figures:
    """Errors of the blend, each with its interval."""
    return views.Figures(
        [
            (f"{row.part}, {row.boxes} boxes", f"{row.error:.3f}", f"95 %: {row.low:.3f} to {row.high:.3f}")
            for row in _from_most(found)[:SHOWN_PARTS]
        ]
    )


def _rivals(against: Sequence[PartComparison]) -> views.Table:
    columns = [("simpler way", False), ("blend minus it", True), ("surely nearer", True), ("surely farther", True)]
    columns += [("where it is ahead most", False)]
    rows = []
    for rival in dict.fromkeys(row.rival for row in against):
        together, *each = (row for row in against if row.rival == rival)
        sure = [row for row in each if row.holm is not None and row.holm <= SURE]
        nearer, farther = (sum(sign * row.difference < 0 for row in sure) for sign in (1, -1))
        worst = max(each, key=lambda row: row.difference)
        where = f"{worst.part}, {worst.boxes} boxes: {_between(worst)}"
        rows.append([rival.value, _between(together), str(nearer), str(farther), where])
    note = (
        "Mean over all parts and numbers of boxes of the blend's error less the simpler way's, below zero where the "
        "blend is nearer; 95 % intervals over pictures and draws of boxes, paired; the best one first. Surely: in how "
        "many combinations of part and number of boxes it is so with p ≤ 0.05, adjusted for their number by Holm's "
        "method. Ahead: where the blend's error less its own is greatest."
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


def _slopes(rows: Sequence[PartShift]) -> dict[tuple[str, Locator, int], str]:
    """In words, by part, way and number of boxes."""
    return {(row.part, row.method, row.boxes): f"{row.slope:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in rows}


def _follow(rows: Sequence[PartShift]) -> views.Table:
    cells = _slopes(rows)
    note = (
        "The same parts are looked for again with what the pictures show moved by known random offsets. Slope: how far "
        "the place that is found moves with it, 95 % over pictures, draws averaged: 1 follows all the way, 0 stays "
        "where it was, as the mean position does. Between them, a place is drawn to where the boxes were."
    )
    most = max(row.boxes for row in rows)
    ways = dict.fromkeys(row.method for row in rows if row.method != Locator.MEAN_POSITION)
    lines = [
        [part, *(cells.get((part, way, most), "–") for way in ways)] for part in dict.fromkeys(row.part for row in rows)
    ]
    return views.Table([(f"slope, {most} boxes", False), *((way.value, True) for way in ways)], lines, note)


def _by_boxes(cells: Mapping[tuple[str, Locator, int], str], what: str, note: str = "") -> views.Table:
    """A row per part and way, a column per number of boxes.

    Args:
        cells: in words, by part, way and number of boxes.
        what: they are.
        note: below it.
    """
    boxes = sorted({count for _, _, count in cells})
    rows = [
        [part, way.value, *(cells.get((part, way, count), "–") for count in boxes)]
        for part, way in dict.fromkeys((part, way) for part, way, _ in cells)
    ]
    columns = [("part", False), ("way", False), *((f"{what}, {count} boxes", True) for count in boxes)]
    return views.Table(columns, rows, note)


def _listed(values: Sequence[float]) -> str:
    """Each value, and how often, where more than once."""
    return ", ".join(
        f"{value:g}" + (f" × {count}" if count > 1 else "") for value, count in sorted(Counter(values).items())
    )


def _charts(found: PartsFindings) -> views.Charts:
    """The blend, the best simpler way, and what looks at nothing; all others are in the tables."""
    shown = dict.fromkeys([Locator.BLEND, found.against[0].rival, Locator.MEAN_POSITION])
    rows = [row for way in shown for row in found.figures if row.method == way]
    top = max(row.high for row in rows)
    return views.Charts([_chart(part, [row for row in rows if row.part == part], top) for part in found.parts])


def _chart(part: str, figures: Sequence[PartSummary], top: float) -> tuple[str, str, str]:
    rows = [
        {"x": row.boxes, "y": row.error, "low": row.low, "high": row.high, "line": row.method.value} for row in figures
    ]
    return errors(part, rows, "boxes", lead=Locator.BLEND.value, top=top)


def _every(found: PartsFindings) -> list[views.Part]:
    figures = found.figures
    keys = [(row.part, row.method, row.boxes) for row in figures]
    errors = [f"{row.error:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in figures]
    near = [f"{row.share:.0%} [{row.share_low:.0%}, {row.share_high:.0%}]" for row in figures]
    note = "95 % bootstrap intervals over pictures and draws of boxes."
    return [
        _by_boxes(dict(zip(keys, errors, strict=True)), "error"),
        _by_boxes(dict(zip(keys, near, strict=True)), "nearer than 0.1", note),
        *([_by_boxes(_slopes(found.follow), "slope")] if found.follow else []),
    ]


def _card(part: LocatedPart, size: tuple[int, int]) -> views.Card:
    spots = [_spot(picture, size) for picture in part.pictures]
    return views.Card(f"from {part.boxes} boxes", f"part/{part.part}", "", spots, label=part.part)


def _spot(picture: LocatedIn, size: tuple[int, int]) -> views.Spot:
    x, y = (round(value, 1) for value in picture.found)
    cross = (round(picture.truth[0], 1), round(picture.truth[1], 1))
    circle = (x, y, round(size[0] / 12, 1))
    return views.Spot(picture.thumb, picture.file, size, [circle], [cross], f"{picture.error:.2f}")
