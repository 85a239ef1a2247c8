"""What the pages show, as frozen data: everything is chosen, ordered and worded before a template sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote

from microtome.report.overlay import SHEET


class UnitKey(NamedTuple):
    """A unit of the audit's network: its layer's dotted name, and its number. Pages name units so, to link to them."""

    layer: str
    number: int

    @property
    def page(self) -> str:
        """File of its page. What could mean something else in a path is written by its code, so that no two meet."""
        name = "".join(
            sign if (sign.isalnum() and sign.isascii()) or sign in "._-" else f"~{ord(sign):x}~" for sign in self.layer
        )
        return f"unit/{'~' if name.startswith('.') else ''}{name}/{self.number}.html"


@dataclass(frozen=True)
class Gate:
    """One demand of the audit; `verdict` is passed, failed, warned or not judged."""

    text: str
    value: str
    limit: str
    passed: bool
    note: str
    verdict: str = "passed"


@dataclass(frozen=True)
class Picture:
    """A top image of a unit on its card: path of the thumbnail, and the picture's own name."""

    thumb: str
    alt: str


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
    """A unit's card. Numbers are worded; `iou_sort` and `q_sort` order the cards; `confirmed` is None where unasked.

    Args:
        masks: path of a sheet that lies over the pictures, `SHEET` side by side, and dims what the unit does not light.
        causal: what the network loses without it, in a sentence; empty where nobody asked.
        doubt: what to hold against its label, and why it is no confirmed detector; empty where there is nothing.
        failed: names of the facts for which it is no confirmed detector.
        caveat: what to hold against a confirmed one, in a few words.
        instead: of one below the limit, what it answers to, in a sentence.
        besides: of a detector, how its label and what it lights overlap, and what else it may be called.
    """

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
    masks: str = ""
    causal: str = ""
    doubt: str = ""
    failed: Sequence[str] = ()
    caveat: str = ""
    instead: str = ""
    besides: str = ""

    @property
    def sure(self) -> float:
        """The lower end of its IoU's interval, or the IoU, on the line of its layer."""
        return self.scale.value if self.scale.low is None else self.scale.low

    @property
    def firm(self) -> bool:
        """Whether it is as sure a detector as this audit can tell."""
        return self.detector and self.confirmed is not False

    @property
    def state(self) -> str:
        """What becomes of its label, in words; of a unit that can have none why."""
        if self.reason:
            return self.reason.partition(":")[0]
        if not self.detector:
            return "below the limit"
        return {None: "detector", True: "confirmed detector", False: "detector, not confirmed"}[self.confirmed]

    @property
    def standing(self) -> str:
        """Its state, and what is to be held against it in a few words."""
        against = self.caveat or (f"fails {' and '.join(self.failed)}" if self.failed else "")
        return f"{self.state}; {against}" if against else self.state

    @property
    def mark(self) -> Badge | None:
        """Its standing, as a card shows it; None where there is nothing to tell beyond that it is a detector."""
        if self.confirmed and self.detector:
            return Badge(f"✓ confirmed{'; ' * bool(self.caveat)}{self.caveat}", "warned" if self.caveat else "good")
        if not self.detector:
            return Badge("below the limit", "quiet")
        return None if self.confirmed is None else Badge("? not confirmed", "warned")


class ConceptBar(NamedTuple):
    """Detectors of one concept: how many are confirmed, None where unasked, and how many there are, luck included."""

    concept: str
    confirmed: int | None
    detectors: int


@dataclass(frozen=True)
class ConceptBars:
    """Detectors per concept of one category; `most` is the number that fills the width, one for all categories, and
    `never` names the concepts of which no detector is confirmed."""

    title: str
    bars: Sequence[ConceptBar]
    most: int
    never: str = ""

    @property
    def asked(self) -> bool:
        """Whether anybody asked which of them are confirmed."""
        return bool(self.never) or any(bar.confirmed is not None for bar in self.bars)


@dataclass(frozen=True)
class Detected:
    """A layer's line on the overview.

    Args:
        what: is counted, for example confirmed detectors.
        count: how many there are, of how many units, with the interval.
        strip: the same on a line of all units.
        concepts: what they detect.
        rule: what the counted are, in a sentence.
        tile: the count as a figure with its interval; None where it is among the layer's figures.
    """

    what: str
    count: str
    strip: Strip
    concepts: str
    rule: str
    tile: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Layer:
    """A layer's page; `found` is its line on the overview, `least` what ≤ means before a q-value, empty where none
    stands there, `limit` the IoU above which a unit is a detector."""

    name: str
    page: str
    headline: str
    figures: Sequence[tuple[str, str, str]]
    charts: Sequence[ConceptBars]
    units: Sequence[Unit]
    categories: Sequence[str]
    advice: Sequence[str]
    mask: tuple[int, int]
    found: Detected | None = None
    least: str = ""
    limit: float = 0.0

    @property
    def brief(self) -> Sequence[tuple[str, str, str]]:
        """Its figures on the overview, what is surest first: without the last ones, and of each no more remarks than
        fit on a line or two."""
        first = [self.found.tile] if self.found and self.found.tile else []
        return [(name, value, _brief(note)) for name, value, note in [*first, *self.figures][:BRIEF]]

    @property
    def cover(self) -> Sequence[Unit]:
        """Units that stand for it elsewhere: the best of each concept by the lower end of its interval, confirmed ones
        first; then any others."""
        shown = sorted(
            (unit for unit in self.units if unit.pictures), key=lambda unit: (not unit.confirmed, -unit.sure)
        )
        best = {unit.concept: unit for unit in reversed(shown)}
        firsts = [unit for unit in shown if best[unit.concept] is unit]
        return [*firsts, *(unit for unit in shown if best[unit.concept] is not unit)][:COVER]


def _brief(note: str) -> str:
    """The first of some remarks, and those after it as long as they are short together."""
    told, *more = note.split("; ")
    for each in more:
        if len(f"{told}; {each}") > NOTED:
            break
        told = f"{told}; {each}"
    return told


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
class Links:
    """Where else a thing is shown: text and place, which may be empty."""

    links: Sequence[tuple[str, str]]
    kind: str = "links"


BRIEF = 4  # figures of a layer on the overview
NOTED = 45  # letters of what stands below each
RING = 36  # the height of a drawing on the overview, by the radius of a node's ring
COVER = 3  # pictures of a page, or units of a layer, on the overview


@dataclass(frozen=True)
class Badge:
    """What came of a test, coloured, and a value beside it.

    Args:
        text: a sign and a word, for example `✓ passed`.
        state: `good`, `bad`, `warned` or `unjudged`.
        value: in words; may be empty.
    """

    text: str
    state: str
    value: str = ""
    kind: str = "badge"


SEVERAL, MANY = 4, 6  # pictures from which on a card is wide, and beyond which it takes a row
UPRIGHT = 2  # rows of a table that had better be columns
LISTED = 100  # cells up to which a table stands as a list on a phone
MOST_ACROSS = 9  # pictures side by side on a card; of more a half
Cell = str | Strip | UnitKey | Links | Badge


@dataclass(frozen=True)
class Table:
    """A table. Cells are text, strips, links, badges or units, which are linked; the first of a row is its heading.

    Args:
        columns: heading, and whether the column holds numbers.
        rows: the cells.
        note: below it.
        legend: what its strips draw, and what that is: `dot`, `range`, or the kind of a mark.
        slim: so narrow that it stays a table on a phone, where others stand as a list.
        brief: that list is without the names of its columns, which go without saying.
    """

    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()
    slim: bool = False
    brief: bool = False
    kind: str = "table"

    @property
    def form(self) -> str:
        """How it stands on a phone, for the style: a long one stays a table, too, and scrolls sideways."""
        if self.slim:
            return "slim"
        listed = self.brief or len(self.rows) * len(self.columns) <= LISTED
        return f"stack{' brief' * self.brief}" if listed else ""


def upright(table: Table) -> Table:
    """A table of one or two rows as a line per column, of its name and what each row has; another one as it is."""
    if not 1 <= len(table.rows) <= UPRIGHT:
        return table
    (head, *names), (over, *cells) = table.columns, zip(*table.rows, strict=True)
    columns = [head, *((cell if isinstance(cell, str) else "", True) for cell in over)]
    rows = [[name, *line] for (name, _), line in zip(names, cells, strict=True)]
    return replace(table, columns=columns, rows=rows, slim=True)


@dataclass(frozen=True)
class Text:
    """A paragraph; `style` is `plain`, `quiet` or `advice`."""

    text: str
    style: str = "plain"
    kind: str = "text"


@dataclass(frozen=True)
class Listed:
    """Sentences, each a line of its own."""

    items: Sequence[str]
    kind: str = "list"


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
class TrendCard:
    """A figure over runs.

    Args:
        title: what it is.
        of: of which layer or the like; may be empty.
        marks: what its gates say.
        value: in the last run, with its interval.
        told: what became of it, in a sentence; may be empty.
        svg: the line.
        text: the line in words.
    """

    title: str
    of: str
    marks: Sequence[Badge]
    value: str
    told: str
    svg: str
    text: str


@dataclass(frozen=True)
class Trends:
    """Figures over runs, side by side; `legend` are kinds of what is drawn, and what each is: `line`, or a letter."""

    cards: Sequence[TrendCard]
    legend: Sequence[tuple[str, str]] = ()
    kind: str = "trends"


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
        boxes: x, y of the middle, width, height.
    """

    thumb: str
    alt: str
    size: tuple[int, int]
    circles: Sequence[tuple[float, float, float]]
    crosses: Sequence[tuple[float, float]]
    caption: str = ""
    boxes: Sequence[tuple[float, float, float, float]] = ()


@dataclass(frozen=True)
class Card:
    """Pictures of one thing, of a `unit` maybe; `links` lead to what it belongs to: text and place, which may be empty.

    `label` is what it shows, in a word; a card of a unit bears the unit's own label. `sheet` is a path, or data, of
    what lies over all of its pictures, `SHEET` side by side, and dims what a unit does not light; `place` is where its
    title leads, if not to itself.
    """

    title: str
    anchor: str
    note: str
    spots: Sequence[Spot]
    facts: Sequence[tuple[str, str, str]] = ()
    links: Sequence[tuple[str, str]] = ()
    unit: UnitKey | None = None
    label: str = ""
    sheet: str = ""
    place: str = ""

    @property
    def across(self) -> int:
        """How many of its pictures stand side by side where there is room: all, or half of many."""
        count = len(self.spots)
        return count if count <= MOST_ACROSS else -(-count // 2)


@dataclass(frozen=True)
class Plate:
    """A large picture, and what may be laid over it.

    Args:
        thumb: path of the picture; the large one lies beside it (`large_of`).
        file: the picture's own name.
        number: from one; zero where they are not counted.
        told: of the picture, in words.
        dim: SVG path of what the unit does not light, in mask pixels.
        outline: SVG path about the annotation, in mask pixels; empty where there is none.
        others: other units that are high in it, too.
    """

    thumb: str
    file: str
    number: int
    told: str
    dim: str
    outline: str
    others: Sequence[UnitKey] = ()


@dataclass(frozen=True)
class Plates:
    """Large pictures; `size` is (height, width) of the masks, `switches` whether those stand here that all obey."""

    plates: Sequence[Plate]
    size: tuple[int, int]
    concept: str
    switches: bool = True
    kind: str = "plates"


@dataclass(frozen=True)
class Gallery:
    """Cards side by side; `wide` ones are fewer in a row. Cards of many pictures are wide, too, or take a row each."""

    cards: Sequence[Card]
    wide: bool = False
    kind: str = "gallery"

    @property
    def form(self) -> str:
        """How its cards stand, for the style: every picture is to stay large enough to see what is in it."""
        most = max((card.across if card.across < MANY else len(card.spots) for card in self.cards), default=0)
        return " long" if most > MANY else " wide" if self.wide or most >= SEVERAL else ""


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
    """A tree as nested text that folds; the page draws beside it what is unfolded."""

    root: Branch
    kind: str = "outline"


class Joined(NamedTuple):
    """A line of a drawing from one place to another, and what it joins, in words."""

    x: float
    y: float
    to_x: float
    to_y: float
    name: str


class Word(NamedTuple):
    """A word at x, y of a drawing, written from there to the right or to the left, and what a line joins it to."""

    x: float
    y: float
    text: str
    to: tuple[float, float]
    rightwards: bool


@dataclass(frozen=True)
class Level:
    """A layer of a graph over a picture: its name and number, dots (x, y, name) and lines."""

    name: str
    number: int
    dots: Sequence[tuple[float, float, str]]
    links: Sequence[Joined]


@dataclass(frozen=True)
class Drawing:
    """A graph drawn over a picture, layers to be switched on and off; `size` is that of the coordinates.

    Args:
        thumb: path of the picture.
        alt: its name.
        size: (height, width).
        levels: the top layer first.
        words: what stands beside it.
        outline: the same as text; None where there is none.
    """

    thumb: str
    alt: str
    size: tuple[int, int]
    levels: Sequence[Level]
    words: Sequence[Word] = ()
    outline: Branch | None = None
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
        unit: that it is of, if it is of one; then it is linked.
    """

    name: str
    start: float
    width: float
    mark: float | None
    positive: bool
    text: str
    unit: UnitKey | None = None


@dataclass(frozen=True)
class SignedBars:
    """Signed bars under one heading, all on one scale."""

    title: str
    bars: Sequence[Bar]
    kind: str = "bars"


Part = (
    Table | Text | Listed | Links | Code | Figures | Charts | Trends | Gallery | Outline | Drawing | SignedBars | Plates
)


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; where `folded`, only the heading until it is clicked; `beside` the next one
    where there is room."""

    heading: str
    parts: Sequence[Part]
    folded: bool = False
    beside: bool = False


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
        title: above it, where that is not its name.
        links: beside the title, to the reports that it is about: text and place.
        covered: what its pictures on the overview show.
    """

    name: str
    page: str
    headline: str
    figures: Figures
    sections: Sequence[Section]
    queries: Sequence[tuple[str, str]] = ()
    subject: str = ""
    title: str = ""
    links: Sequence[tuple[str, str]] = ()
    covered: str = ""

    @property
    def cover(self) -> Sequence[Spot]:
        """Pictures that stand for it on the overview: of the first card that has several, or one of each card."""
        parts = [part for section in self.sections for part in section.parts]
        for part in parts:
            if isinstance(part, Drawing):
                radius = round(part.size[0] / RING, 1)
                dots = [(x, y, radius) for level in part.levels for x, y, _ in level.dots]
                return [Spot(part.thumb, part.alt, part.size, dots, ())]
            if isinstance(part, Gallery) and part.cards:
                cards = [card for card in part.cards if len(card.spots) >= COVER]
                return (
                    _various(cards[0].spots) if cards else [card.spots[0] for card in part.cards[:COVER] if card.spots]
                )
        return ()


def _various(spots: Sequence[Spot]) -> Sequence[Spot]:
    """Some of them, one of each caption before the next of any: before and after, not before alone. Of more captions
    than there is room for, the last is shown, too: methods stand from the plainest to the most elaborate."""
    first = {spot.caption: spot for spot in reversed(spots)}.values()
    unlike = [spot for spot in spots if spot in first]
    if len(unlike) > COVER:
        return [*unlike[: COVER - 1], unlike[-1]]
    return [*unlike, *(spot for spot in spots if spot not in first)][:COVER]


@dataclass(frozen=True)
class UnitPage:
    """The page of one unit.

    Args:
        key: which one.
        card: what its layer's page shows of it; None where it was not dissected.
        layer: file of its layer's page; empty where it was not dissected.
        headline: what is known of it in a sentence.
        figures: the numbers of its card, explained.
        sections: what each stage tells of it.
        previous, following: units of the same layer that have a page.
    """

    key: UnitKey
    card: Unit | None
    layer: str
    headline: str
    figures: Figures
    sections: Sequence[Section]
    previous: UnitKey | None
    following: UnitKey | None

    @property
    def label(self) -> str:
        """Its concept; nothing where there is none, or where it was not dissected."""
        return self.card.concept if self.card else ""


Told = Mapping[UnitKey, Sequence[Section]]
"""What a stage tells of single units: sections of their pages."""


def large_of(thumb: str) -> str:
    """Where the large picture lies that a thumbnail was made from."""
    folder, _, file = thumb.rpartition("/s/")
    return f"{folder}/l/{file.removesuffix('.webp')}.jpg" if folder else thumb


@dataclass(frozen=True)
class StageLine:
    """A stage of the run."""

    name: str
    seconds: str
    size: str
    digest: str


@dataclass(frozen=True)
class Conclusion:
    """What the overview says when the whole audit is done: the gates' verdict, and where everything comes from.

    `imported`: it is no audit, others published it.
    """

    gates: Sequence[Gate] = ()
    provenance: Sequence[tuple[str, str]] = ()
    stages: Sequence[StageLine] = ()
    configuration: str = ""
    imported: bool = False


@dataclass(frozen=True)
class Report:
    """The report, but for its `Conclusion`; `found` is the table that the overview begins with, None where no layer was
    dissected; `rule` says what it counts, and `baseline` what these counts are to be read beside."""

    title: str
    network: str
    dataset: str
    layers: Sequence[Layer]
    pages: Sequence[Page]
    footer: str
    units: Sequence[UnitPage] = ()
    baseline: str = ""
    found: Table | None = None
    rule: str = ""

    @cached_property
    def by_unit(self) -> Mapping[UnitKey, UnitPage]:
        """The units that have a page."""
        return {unit.key: unit for unit in self.units}

    @cached_property
    def listing(self) -> Mapping[str, object]:
        """All units, as the search reads them: layers as (name, folder, limit), units as lists of their values."""
        layers = {unit.key.layer: unit for unit in self.units}
        place = {name: number for number, name in enumerate(layers)}
        limits = {layer.name: layer.limit for layer in self.layers}
        return {
            "layers": [
                [name, quote(unit.key.page.rpartition("/")[0]), limits.get(name, 0.0)] for name, unit in layers.items()
            ],
            "units": [[place[unit.key.layer], unit.key.number, unit.label, *_listed(unit.card)] for unit in self.units],
        }


def _listed(card: Unit | None) -> list[str]:
    """What the listing says of a unit: category, state, and where they were measured IoU, interval, held out, q, by
    chance, the thumbnail of the picture in which it is highest, and the sheet of masks whose first lies over it, with
    its rows."""
    if card is None:
        return [""] * 10
    if card.reason:
        return [card.category, card.state, *[""] * 8]
    known = {name: value for name, value, _ in card.facts}
    measured = (known.get(name, "") for name in ("held out", "q", "by chance"))
    thumb = card.pictures[0].thumb if card.pictures else ""
    rows = str(-(-len(card.pictures) // SHEET)) if card.masks else ""
    return [card.category, card.standing, card.iou, card.interval, *measured, thumb, card.masks, rows]
