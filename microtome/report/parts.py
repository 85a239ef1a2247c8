"""Page of mined parts: errors over the number of boxes, and where the parts were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microtome.disentangle.graph_keys import Locator
from microtome.report import views
from microtome.report.charts import lines

SHOWN = 5  # pictures of a part


@dataclass(frozen=True)
class PartFigure:
    """A row of the table `part_summary`."""

    part: str
    boxes: int
    method: Locator
    error: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float
    images: int


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
    """A part, located by patterns from so few boxes, in pictures from the best to the worst."""

    part: str
    boxes: int
    pictures: Sequence[LocatedIn]


@dataclass(frozen=True)
class PartsFindings:
    """What was found of mined parts.

    Args:
        figures: per part, number of boxes and method.
        located: pictures of each part.
        size: (height, width) of the network's input.
    """

    figures: Sequence[PartFigure]
    located: Sequence[LocatedPart]
    size: tuple[int, int]

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
            views.Section("Every figure", [_table(found.figures)]),
        ],
        queries=[
            ("Part errors", "select * from part_summary"),
            ("Patterns", "select * from parts order by score desc limit 20"),
        ],
    )


def _headline(found: PartsFindings) -> str:
    few = min(row.boxes for row in found.figures)
    better = sum(_patterns_are_nearer(found.figures, part, few) for part in found.parts)
    return (
        f"From {few} boxes, mined patterns find {better} of {len(found.parts)} parts more nearly than both baselines "
        "do: the mean annotated position, and the best single filter."
    )


def _patterns_are_nearer(figures: Sequence[PartFigure], part: str, boxes: int) -> bool:
    error = {row.method: row.error for row in figures if row.part == part and row.boxes == boxes}
    return error[Locator.PATTERNS] < min(error[Locator.MEAN_POSITION], error[Locator.BEST_FILTER])


def _charts(found: PartsFindings) -> views.Charts:
    return views.Charts([_chart(part, [row for row in found.figures if row.part == part]) for part in found.parts])


def _chart(part: str, figures: Sequence[PartFigure]) -> tuple[str, str, str]:
    rows = [{"x": row.boxes, "y": row.error, "line": row.method.value} for row in figures]
    return lines(f"{part}: error of the centre, by the diagonal", rows, "boxes")


def _table(figures: Sequence[PartFigure]) -> views.Table:
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
        "pictures, several draws of boxes averaged. Mean position: the mean annotated place, everywhere. Best filter: "
        "the one filter whose peak, moved by its mean displacement, is nearest in the annotated pictures."
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
