"""What the pages show, as frozen data: everything is chosen, ordered and worded before a template sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """One demand of the audit."""

    text: str
    value: str
    limit: str
    passed: bool
    note: str


@dataclass(frozen=True)
class Picture:
    """A top image of a unit.

    Args:
        thumb: path of the thumbnail, relative to the report.
        alt: what it shows, in words.
        dim: SVG path of everything that the unit does not light, in mask pixels.
        peak: the unit's highest activation in it.
    """

    thumb: str
    alt: str
    dim: str
    peak: str


@dataclass(frozen=True)
class IouScale:
    """A unit's IoU on a line from 0 to 100: where the dot, the interval, the null and the threshold lie."""

    value: float
    low: float | None
    high: float | None
    null: float | None
    limit: float


@dataclass(frozen=True)
class Unit:
    """A unit's card. Numbers are worded; `iou_sort` and `q_sort` order the cards; `confirmed` is None where unasked."""

    number: int
    anchor: str
    concept: str
    category: str
    detector: bool
    confirmed: bool | None
    iou: str
    interval: str
    facts: Sequence[tuple[str, str, str]]
    scale: IouScale
    pictures: Sequence[Picture]
    reason: str
    iou_sort: float
    q_sort: float


@dataclass(frozen=True)
class Chart:
    """A chart as SVG, and the same in words."""

    title: str
    svg: str
    rows: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Layer:
    """A layer's page."""

    name: str
    page: str
    headline: str
    figures: Sequence[tuple[str, str, str]]
    charts: Sequence[Chart]
    units: Sequence[Unit]
    categories: Sequence[str]
    advice: Sequence[str]
    mask: tuple[int, int]


@dataclass(frozen=True)
class Strip:
    """A value with its interval on a line from 0 to 100, and marks of what it has to beat.

    Args:
        value, low, high: places on the line.
        marks: place, kind (`chance`, `limit`) and what it is, in words.
        text: the whole in words.
    """

    value: float | None
    low: float | None
    high: float | None
    marks: Sequence[tuple[float, str, str]]
    text: str


@dataclass(frozen=True)
class Table:
    """A table. Cells are text or strips; the first of each row is its heading.

    Args:
        columns: heading, and whether the column holds numbers.
        rows: the cells.
        note: below it.
    """

    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str | Strip]]
    note: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Text:
    """A paragraph; `style` is `plain`, `quiet` or `advice`."""

    text: str
    style: str = "plain"
    kind: str = "text"


@dataclass(frozen=True)
class Code:
    """Something to copy."""

    text: str
    kind: str = "code"


@dataclass(frozen=True)
class Figures:
    """Big numbers: name, value, remark."""

    items: Sequence[tuple[str, str, str]]
    kind: str = "figures"


@dataclass(frozen=True)
class Charts:
    """Charts side by side, each as SVG and in words."""

    charts: Sequence[tuple[str, str, str]]
    kind: str = "charts"


@dataclass(frozen=True)
class Spot:
    """A picture with circles (what a filter looks at) and crosses (where it should look).

    Args:
        thumb: path of the thumbnail.
        alt: in words.
        size: (height, width) of the coordinates.
        circles: x, y, radius.
        crosses: x, y.
        caption: below the picture.
    """

    thumb: str
    alt: str
    size: tuple[int, int]
    circles: Sequence[tuple[float, float, float]]
    crosses: Sequence[tuple[float, float]]
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """Pictures of one thing; `links` lead to what it belongs to: text and place."""

    title: str
    anchor: str
    note: str
    spots: Sequence[Spot]
    facts: Sequence[tuple[str, str, str]] = ()
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Gallery:
    """Cards side by side; `wide` ones take a row each and show as many pictures as fit."""

    cards: Sequence[Card]
    wide: bool = False
    kind: str = "gallery"


@dataclass(frozen=True)
class Branch:
    """A node of a tree: label, remark, anchor of its card (or nothing), branches below, whether they are shown."""

    label: str
    note: str
    anchor: str
    below: Sequence[Branch]
    open: bool = False


@dataclass(frozen=True)
class Outline:
    """A tree as nested text that folds; where `drawn`, the page draws beside it what is unfolded."""

    root: Branch
    drawn: bool = True
    kind: str = "outline"


@dataclass(frozen=True)
class Level:
    """A layer of a graph over a picture: its name and number, dots (x, y, anchor) and lines (x, y, x, y)."""

    name: str
    number: int
    dots: Sequence[tuple[float, float, str]]
    links: Sequence[tuple[float, ...]]


@dataclass(frozen=True)
class Drawing:
    """A graph drawn over a picture, layers to be switched on and off; `size` is that of the coordinates."""

    thumb: str
    alt: str
    size: tuple[int, int]
    levels: Sequence[Level]
    kind: str = "drawing"


@dataclass(frozen=True)
class Bar:
    """A signed value on a line from 0 to 100 with its zero somewhere on it, and a mark to compare with.

    Args:
        name: what.
        start, width: of the bar.
        mark: place of what it is compared with, or None.
        positive: its sign.
        text: the value in words.
    """

    name: str
    start: float
    width: float
    mark: float | None
    positive: bool
    text: str


@dataclass(frozen=True)
class SignedBars:
    """Signed bars under one heading, all on one scale."""

    title: str
    bars: Sequence[Bar]
    note: str = ""
    kind: str = "bars"


Part = Table | Text | Code | Figures | Charts | Gallery | Outline | Drawing | SignedBars


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """A page of a method.

    Args:
        name: in the navigation.
        page: file name.
        headline: the result in a sentence or two.
        figures: for the overview too.
        sections: the rest.
        queries: what, and the query for `microtome sql` that gives it.
        subject: the name as it stands in a sentence, where it takes an article.
    """

    name: str
    page: str
    headline: str
    figures: Figures
    sections: Sequence[Section]
    queries: Sequence[tuple[str, str]] = ()
    subject: str = ""


@dataclass(frozen=True)
class StageLine:
    """A stage of the run."""

    name: str
    seconds: str
    size: str
    digest: str


@dataclass(frozen=True)
class Report:
    """The whole report."""

    title: str
    network: str
    dataset: str
    gates: Sequence[Gate]
    layers: Sequence[Layer]
    pages: Sequence[Page]
    provenance: Sequence[tuple[str, str]]
    stages: Sequence[StageLine]
    configuration: str
    footer: str
