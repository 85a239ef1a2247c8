"""Page of location stability: each layer beside its baselines, and the filters that follow a landmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from microtome.quantify.shift import ShiftSummary
from microtome.quantify.stability_summary import FilterOnLandmark, Judged, LayerSummary, Rule
from microtome.report import views
from microtome.report.words import worded

SHOWN_FILTERS, SHOWN_IMAGES = 12, 5
TOLD_LANDMARKS = 5  # of a filter, on its own page
NARROW = 3  # columns of a table that fits beside another
PAGE = "stability.html"
ADVISED = 0.05  # share of tied or silent inferences from which the report advises another layer

_COLUMNS = [
    ("category", False),
    ("D, 95 %", True),
    ("", False),
    ("random places", True),
    ("centre", True),
    ("best held place", True),
    ("steadier than it", True),
    ("track a landmark", True),
    ("left out", True),
]


@dataclass(frozen=True)
class Spotted:
    """A picture in which a filter is high.

    Args:
        thumb: path of the thumbnail.
        file: name of the picture.
        at: x, y where the filter is highest, in the frame.
        landmark: x, y of its landmark.
    """

    thumb: str
    file: str
    at: tuple[float, float]
    landmark: tuple[float, float]


@dataclass(frozen=True)
class Pictured:
    """A filter on a landmark, and the pictures in which it is highest."""

    found: FilterOnLandmark
    spots: Sequence[Spotted]


@dataclass(frozen=True)
class StableLayer:
    """A layer: over each category and pooled, the filters that are shown of it, and the shift test by category.

    The shift test over several categories is named "all: mean", and comes last; none where it was not asked for.
    `every` is each filter on each landmark.
    """

    name: str
    rows: Sequence[Judged]
    filters: Sequence[Pictured]
    shift: Mapping[str, ShiftSummary] = field(default_factory=dict)
    every: Sequence[FilterOnLandmark] = ()


@dataclass(frozen=True)
class StabilityFindings:
    """What the stage found.

    Args:
        rule: by which several categories are pooled for the headline.
        size: (height, width) of the frame.
        layers: one at least.
    """

    rule: Rule
    size: tuple[int, int]
    layers: Sequence[StableLayer]


def leading(filters: Sequence[FilterOnLandmark], count: int) -> list[FilterOnLandmark]:
    """The filters that follow a landmark best, each on its best one; those that are sure to do so first."""
    tested = [(item.r2, item) for item in filters if item.r2 is not None]
    tested.sort(key=lambda pair: (pair[1].q_value is None or pair[1].q_value > 0.05, -pair[0], pair[1].filter))
    best: dict[int, FilterOnLandmark] = {}
    for _, item in tested:
        best.setdefault(item.filter, item)
    return list(best.values())[:count]


def page(findings: StabilityFindings) -> views.Page:
    """The page."""
    rows = [row for layer in findings.layers for row in layer.rows]
    summaries = [row for row in rows if row.rule == findings.rule] or [row for row in rows if row.rule is None]
    best = min(summaries, key=lambda row: row.summary.deviation or 9)
    return views.Page(
        name="location stability",
        page=PAGE,
        headline=_headline(best, next(layer for layer in findings.layers if layer.name == best.layer)),
        figures=_figures(best.summary),
        sections=[
            *_beside(_steady(findings.layers), _follow([layer for layer in findings.layers if layer.shift])),
            *(_gallery(layer, findings.size) for layer in findings.layers),
            _reading(),
        ],
        queries=[
            ("Stability of layers", "select * from stability_layers"),
            ("The shift test", "select * from stability_shift"),
            ("Stability of filters", "select * from stability order by r2 desc"),
            ("Inferred positions", "select * from inferences join landmarks using (image) where filter = 0"),
        ],
    )


def of_units(found: StabilityFindings) -> views.Told:
    """How steadily each filter sits on its landmarks; where it is high, of those that are shown."""
    told: dict[views.UnitKey, list[views.Section]] = {}
    for layer in found.layers:
        shown = zip(layer.filters, cards(layer.name, layer.filters, found.size), strict=True)
        cards_of = {item.found.filter: card for item, card in shown}
        by_filter: dict[int, list[FilterOnLandmark]] = {}
        for item in layer.every:
            by_filter.setdefault(item.filter, []).append(item)
        for number, items in by_filter.items():
            told[views.UnitKey(layer.name, number)] = [_of_unit(items, cards_of.get(number))]
    return told


def _surest(item: FilterOnLandmark) -> tuple[float, float]:
    """What sorts landmarks that a filter surely follows first, then those beside which it is steadiest."""
    return 1.0 if item.q_value is None else item.q_value, 9.0 if item.deviation is None else item.deviation


def _of_unit(items: Sequence[FilterOnLandmark], card: views.Card | None) -> views.Section:
    some = sorted(items, key=_surest)[:TOLD_LANDMARKS]
    columns = [("landmark", False), ("of", False), ("D", True), ("R²", True), ("q", True)]
    lines: list[Sequence[views.Cell]] = [
        [
            item.landmark,
            item.category,
            worded(item.deviation, ".3f"),
            worded(item.r2, ".2f"),
            worded(item.q_value, ".2g"),
        ]
        for item in some
    ]
    note = (
        "In the pictures in which it is highest: D, how much the distance from its highest cell to the landmark varies "
        "in shares of the picture's diagonal; R², the share of its own movement that the landmark's explains (a filter "
        "that always answers in one place has none); q, the share of false discoveries if it is believed to follow."
    )
    parts: list[views.Part] = [views.Table(columns, lines, note)]
    if card:
        parts.append(
            views.Gallery([replace(card, unit=None, links=[("among those that follow best", f"{PAGE}#{card.anchor}")])])
        )
    return views.Section(
        "Does it follow a landmark?", [*parts, views.Links([("The page of location stability", PAGE)])]
    )


def _headline(row: Judged, layer: StableLayer) -> str:
    found = row.summary
    tested = list(layer.shift.values())[-1] if layer.shift else None
    if tested and tested.low is not None:  # of whom it is sure that they follow, resamples alone can say
        return _headline_of_shift(
            row, tested, "pairs of a filter and a category" if len(layer.shift) > 1 else "filters"
        )
    less = "less than" if (found.deviation or 9) < found.best_constant else "no less than"
    return (
        f"The distance of the filters of {row.layer} to landmarks varies by {worded(found.deviation, '.4f')} of the "
        f"picture's diagonal, {less} that of one place held for every picture ({found.best_constant:.4f}); "
        f"{worded(found.tracking_share, '.0%')} of them surely follow a landmark."
    )


def _headline_of_shift(row: Judged, found: ShiftSummary, whose: str) -> str:
    """Steadiness is claimed of filters that follow alone."""
    said = (
        f"When what is shown is moved, {found.follow:,} of {found.positions:,} {whose} of {row.layer} surely move with "
        "it "
        f"(the mean slope over all is {slope(found)}; 1 follows all the way, 0 stays where it was). "
    )
    if not found.follow:
        return said + "Of none can it be said that it is steady on anything."
    whole, held = row.summary.deviation, row.summary.best_constant
    steadier = "are steadier" if whole is not None and whole < held else "are no steadier"
    return said + (
        f"The distance of those to landmarks varies by {worded(found.following_deviation, '.4f')} of the picture's "
        f"diagonal; frozen, each at its own mean place, theirs would by {worded(found.following_frozen, '.4f')}. All "
        f"filters together ({worded(whole, '.4f')}) {steadier} than one place held for every picture ({held:.4f})."
    )


def slope(found: ShiftSummary) -> str:
    """Mean slope with its interval."""
    return worded(found.slope, ".2f") + _ends(found.low, found.high)


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _follow(layers: Sequence[StableLayer]) -> list[views.Section]:
    """The shift test; nothing where there was none."""
    columns = [
        ("layer, category", False),
        ("surely follow", True),
        ("slope, 95 %", True),
        ("R²", True),
        ("window inside", True),
        ("slope there, elsewhere", True),
        ("D of those that follow", True),
        ("theirs, if frozen", True),
        ("of them track a landmark", True),
        ("D of all, if frozen", True),
    ]
    note = (
        "Each picture is looked at again with its crop window moved by a known random offset. Slope: how far a filter "
        "moves with what is shown, mean over filters, 95 % over pictures; R²: share of its movement that the offset "
        "explains. It surely follows if the interval of its own slope lies above 0.5; of many with a slope of "
        "just 0.5, 2.5 % would by luck. Window inside: share of pictures "
        "in which the moved window stayed in the picture; elsewhere the picture goes on mirrored at its border. If "
        "frozen: D if each filter stood at its own mean place in every picture."
    )
    rows = [_follow_line(f"{layer.name}, {name}", found) for layer in layers for name, found in layer.shift.items()]
    table = views.upright(views.Table(columns, rows, note))
    return [views.Section("Do the filters follow what is shown?", [table])] if rows else []


def _follow_line(name: str, found: ShiftSummary) -> list[str | views.Strip]:
    return [
        name,
        f"{found.follow} of {found.positions}",
        slope(found),
        worded(found.r2, ".2f"),
        f"{found.inside_share:.0%}",
        f"{worded(found.slope_inside, '.2f')}, {worded(found.slope_mirrored, '.2f')}",
        worded(found.following_deviation, ".4f"),
        worded(found.following_frozen, ".4f"),
        worded(found.following_tracking, ".0%"),
        worded(found.frozen, ".4f"),
    ]


def _figures(found: LayerSummary) -> views.Figures:
    """What the headline does not say of the filters: how many are steadier than a place that looks at nothing."""
    between = "" if found.low is None else f"95 %: {found.low:.4f} to {found.high:.4f}"
    judged = found.filters - found.null_filters
    return views.Figures(
        [
            ("instability D", worded(found.deviation, ".4f"), between),
            (
                "steadier than a held place",
                _share(found.beating_share, judged),
                f"filters; its D {found.best_constant:.4f}",
            ),
            ("track a landmark", _share(found.tracking_share, judged), "filters, q ≤ 0.05"),
            ("own movement", f"{found.spread:.3f}", f"of the diagonal; {found.entropy:.2f} bits of place"),
        ]
    )


def _share(share: float | None, judged: int) -> str:
    """A share of the filters as a number of them."""
    return "–" if share is None else f"{round(share * judged)} of {judged}"


def _steady(layers: Sequence[StableLayer]) -> list[views.Section]:
    return [
        views.Section(f"How steady the filters of {layer.name} are", [_table(layer.rows), *_advice(layer.rows)])
        for layer in layers
    ]


def _beside(steady: Sequence[views.Section], follow: Sequence[views.Section]) -> list[views.Section]:
    """The layers and the shift test two by two, where all are narrow."""
    sections = [*steady, *follow]
    tables = [part for section in sections for part in section.parts if isinstance(part, views.Table)]
    narrow = all(len(table.columns) <= NARROW for table in tables)
    return [
        replace(section, beside=narrow and place % 2 == 0 and place + 1 < len(sections))
        for place, section in enumerate(sections)
    ]


def _over(row: Judged) -> str:
    """What a summary is over, in words."""
    return f"all: {row.rule}" if row.category is None else row.category


def interval(found: LayerSummary) -> str:
    """Of the deviation; nothing where nothing was resampled."""
    return "" if found.low is None else f"[{found.low:.4f}, {found.high:.4f}]"


def _table(rows: Sequence[Judged]) -> views.Table:
    """Deviations beside baselines: of a single category a line each, of several a column each."""
    ends = [value or 0 for row in rows for value in (row.summary.high, row.summary.deviation, row.summary.random)]
    widest = max(ends) * 1.05
    note = (
        "D: how much the distance from where a filter is highest to a landmark varies, over the pictures in which it "
        "is highest, by the picture's diagonal; mean over landmarks and filters; low is steady. "
    )
    legend = [("dot", "D"), ("range", "95 % interval"), ("chance", "random places")]
    legend.append(("aim", "the best place held for every picture"))
    if len(rows) == 1:
        return views.Table(
            [("", False), ("D, 95 %", True), ("", False)], _places(rows[0], widest), note + _PLACES, legend[:2]
        )
    note += "Steadier than it, track a landmark: shares of the filters. Left out: silent ones, or of too few pictures."
    return views.Table(_COLUMNS, [_line(row, widest) for row in rows], note, legend)


_PLACES = "The lines below the filters look at nothing: what is as steady as they are says nothing of a picture."


def _places(row: Judged, widest: float) -> list[Sequence[views.Cell]]:
    """The filters of a single category, and places that look at nothing, the steadiest first."""
    found = row.summary
    left = f" ({found.null_filters} left out)" if found.null_filters else ""
    over = f"{found.filters - found.null_filters} filters on {_over(row)}{left}"
    blind = [("the best cell, held for every picture", found.best_constant)]
    blind += [("the exact centre of every picture", found.centre), ("random cells", found.random)]
    lines: list[Sequence[views.Cell]] = [
        [over, with_interval(found), views.Strip(*ends_on(found, widest), [], f"D {with_interval(found)}")]
    ]
    for name, value in sorted(blind, key=lambda place: place[1]):
        strip = views.Strip(round(100 * value / widest, 2), None, None, [], f"{name} {value:.4f}")
        lines.append([name, f"{value:.4f}", strip])
    return lines


def ends_on(found: LayerSummary, widest: float) -> tuple[float | None, float | None, float | None]:
    """Value and interval on a line from 0 to 100."""
    value, low, high = (
        None if each is None else round(100 * each / widest, 2) for each in (found.deviation, found.low, found.high)
    )
    return value, low, high


def with_interval(found: LayerSummary) -> str:
    """The deviation and its interval."""
    return f"{worded(found.deviation, '.4f')} {interval(found)}".strip()


def _line(row: Judged, widest: float) -> list[views.Cell]:
    found = row.summary
    return [
        _over(row),
        with_interval(found),
        _strip(found, widest),
        f"{found.random:.4f}",
        f"{found.centre:.4f}",
        f"{found.best_constant:.4f}",
        worded(found.beating_share, ".0%"),
        worded(found.tracking_share, ".0%"),
        str(found.null_filters),
    ]


def _strip(found: LayerSummary, widest: float) -> views.Strip:
    marks = [
        (round(100 * found.random / widest, 2), "chance", f"random places {found.random:.4f}"),
        (round(100 * found.best_constant / widest, 2), "aim", f"best held place {found.best_constant:.4f}"),
    ]
    return views.Strip(*ends_on(found, widest), marks, f"D {worded(found.deviation, '.4f')}, 95 % {interval(found)}")


def _advice(rows: Sequence[Judged]) -> list[views.Text]:
    worst = max(rows, key=lambda row: row.summary.tied_share + row.summary.silent_share)
    tied, silent, over = worst.summary.tied_share, worst.summary.silent_share, _over(worst)
    texts = []
    if tied > ADVISED:
        texts.append(
            f"In {tied:.0%} of all pairs of a filter and a picture of {over} several cells are equally high, and the "
            "first counts: look at the layer before the activation instead."
        )
    if silent > ADVISED:
        texts.append(
            f"In {silent:.0%} of all pairs of a filter and a picture of {over} the filter is silent, and its first "
            "cell counts: the option firing_only: true leaves these out, the layer before the activation has none."
        )
    return [views.Text(text, "advice") for text in texts]


CARDS = (
    "The pictures in which each filter is highest, of those that show its landmark. Circle: where the filter is "
    "highest; cross: the landmark. D: how much the distance between them varies, by the picture's diagonal. R²: "
    "share of the filter's movement that the landmark's explains. q: share of false discoveries among those believed "
    "to follow."
)


def _gallery(layer: StableLayer, size: tuple[int, int]) -> views.Section:
    return gallery(f"Filters of {layer.name} that follow a landmark best", cards(layer.name, layer.filters, size))


def gallery(title: str, shown: Sequence[views.Card]) -> views.Section:
    """Filters with what they look at."""
    return views.Section(title, [views.Text(CARDS, "quiet"), views.Gallery(shown)])


def cards(layer: str, filters: Sequence[Pictured], size: tuple[int, int], prefix: str = "") -> list[views.Card]:
    """A card per filter.

    Args:
        layer: its name.
        filters: on their landmarks.
        size: (height, width) of the frame.
        prefix: of the anchors.
    """
    made = [_card(f"{prefix}{layer}/{item.found.filter}", item, size) for item in filters]
    if prefix:  # of another network than the audit's own
        return made
    return [
        replace(card, unit=views.UnitKey(layer, item.found.filter)) for card, item in zip(made, filters, strict=True)
    ]


def _card(anchor: str, item: Pictured, size: tuple[int, int]) -> views.Card:
    found = item.found
    return views.Card(
        f"filter {found.filter}",
        anchor,
        f"follows {found.landmark} of {found.category}",
        [_spot(found, spotted, size) for spotted in item.spots],
        [
            ("D", worded(found.deviation, ".3f"), "deviation of the distance to the landmark"),
            ("R²", worded(found.r2, ".2f"), "share of the filter's movement that the landmark explains"),
            ("q", worded(found.q_value, ".2g"), "false discovery rate over the layer's filters"),
        ],
    )


def _spot(found: FilterOnLandmark, spotted: Spotted, size: tuple[int, int]) -> views.Spot:
    (x, y), (mark_x, mark_y) = spotted.at, spotted.landmark
    return views.Spot(
        spotted.thumb,
        f"{spotted.file}: filter {found.filter} and {found.landmark}",
        size,
        [(round(x, 1), round(y, 1), round(size[0] / 9, 1))],
        [(round(mark_x, 1), round(mark_y, 1))],
    )


def _reading() -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "In every picture a filter is highest in one cell, a place of its map; D is the standard deviation, "
                "over the pictures in which it is highest, of the distance from that cell's receptive field to a "
                "landmark, in shares of the picture's diagonal. Low means steady. It does not mean that the filter "
                "looks at the part: a filter that always answers at the same place is steadier still. So two more "
                "figures stand beside it: whether D lies below that of the best held place, and whether the filter "
                "moves with the landmark (tracking: R² of its position regressed on the landmark's, by permutation, "
                "false discovery rate 5 %). The shift test asks the same without landmarks: nothing that stands "
                "still can pass it."
            ),
            views.Text(
                "Intervals are 95 % bootstrap intervals over pictures. With several categories, “all: lowest” judges "
                "each filter in the category in which it is steadiest, as the literature does; that flatters every "
                "filter, and the baselines in that row are flattered alike."
            ),
        ],
        folded=True,
    )
