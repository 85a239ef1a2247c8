"""Page of location stability: each layer beside its baselines, and the filters that follow a landmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from microtome.quantify.shift import ShiftSummary
from microtome.quantify.significance import LEVEL
from microtome.quantify.stability_summary import FilterOnLandmark, Judged, LayerSummary, Rule
from microtome.report import views
from microtome.report.words import worded

SHOWN_FILTERS, SHOWN_IMAGES = 8, 5
TOLD_LANDMARKS = 5  # of a filter, on its own page
PAGE = "stability.html"
ADVISED = 0.05  # share of tied or silent inferences from which the report advises another layer

_RULES: Mapping[Rule, str] = {
    "lowest": "each filter in the category in which it is steadiest, as the literature has it, and the held place "
    "likewise: that flatters both",
    "highest-activation": "each filter in the category that excites it most; of places that look at nothing, the mean",
    "mean": "the mean over categories",
}

MOSTLY = 0.5  # share of a filter's movement that a landmark explains, from which it is said to follow it


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
    """The filters that follow a landmark best, each on its best one; those that are sure to do so first, and of these
    the best of each landmark before the next of any."""
    tested = [(item.r2, item) for item in filters if item.r2 is not None]
    tested.sort(key=lambda pair: (not sure(pair[1]), -pair[0], pair[1].filter))
    best: dict[int, FilterOnLandmark] = {}
    for _, item in tested:
        best.setdefault(item.filter, item)
    first: dict[tuple[str, str], FilterOnLandmark] = {}
    for item in best.values():
        first.setdefault((item.category, item.landmark), item)
    ranked = sorted(best.values(), key=lambda item: not (sure(item) and first[item.category, item.landmark] is item))
    return ranked[:count]


def sure(found: FilterOnLandmark) -> bool:
    """Whether a filter surely follows a landmark, of all filters and landmarks that were asked."""
    return found.q_all is not None and found.q_all <= LEVEL


def page(findings: StabilityFindings) -> views.Page:
    """The page."""
    heads = [(_leading_row(layer, findings.rule), layer) for layer in findings.layers]
    row, layer = min(heads, key=lambda head: head[0].summary.deviation or 9)
    return views.Page(
        name="location stability",
        page=PAGE,
        headline=_headline(row, layer),
        covered=_covered(findings.layers[0]),
        figures=_figures(row, layer),
        sections=[
            *(
                section
                for place, layer in enumerate(findings.layers)
                for section in _sections(layer, findings.rule, place == 0)
            ),
            *(_gallery(layer, findings.size) for layer in findings.layers),
            *_more_of_shift([layer for layer in findings.layers if layer.shift]),
            _reading(),
        ],
        queries=[
            ("Stability of layers", "select * from stability_layers"),
            ("The shift test", "select * from stability_shift"),
            ("Stability of filters", "select * from stability order by r2 desc"),
            ("Inferred positions", "select * from inferences join landmarks using (image) where filter = 0"),
        ],
    )


def _leading_row(layer: StableLayer, rule: Rule) -> Judged:
    """What a layer is judged by: all categories by the audit's rule, or its only category."""
    return next((row for row in layer.rows if row.rule == rule), layer.rows[0])


def _together(layer: StableLayer) -> ShiftSummary | None:
    """The shift test over all categories; None where there was none."""
    return list(layer.shift.values())[-1] if layer.shift else None


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
    return 1.0 if item.q_all is None else item.q_all, 9.0 if item.deviation is None else item.deviation


def _of_unit(items: Sequence[FilterOnLandmark], card: views.Card | None) -> views.Section:
    some = sorted(items, key=_surest)[:TOLD_LANDMARKS]
    columns = [("landmark", False), ("of", False), ("D", True), ("R²", True), ("q", True)]
    lines: list[Sequence[views.Cell]] = [
        [
            item.landmark,
            item.category,
            worded(item.deviation, ".3f"),
            worded(item.r2, ".2f"),
            worded(item.q_all, ".2g"),
        ]
        for item in some
    ]
    note = (
        "In the pictures in which it is highest: D, how much the distance from its highest cell to the landmark "
        "varies in shares of the picture's diagonal; R², the share of its own movement that the landmark's explains "
        "(a filter that always answers in one place has none); q, the share of false discoveries if it is believed to "
        "follow, over all filters and landmarks of the layer."
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
    """What moves with the picture first, where that was asked: steadiness alone says nothing."""
    found, tested = row.summary, _together(layer)
    whole = _apart(row.layer, found.deviation, found.best_constant)
    sure_of = _share(found, found.sure_tracking_share)
    tracked = f"From picture to picture {sure_of} surely follow a landmark, if only a little."
    if tested is None or tested.slope is None:
        return f"{whole} {tracked}"
    return f"{_moving(row.layer, tested)} {tracked} {whole}{_of_sure(tested)}"


def _apart(layer: str, deviation: float | None, held: float) -> str:
    """How steady filters are, beside one place that is held for every picture."""
    if deviation is None:
        return f"No filter of {layer} is high in pictures enough for its distance to a landmark to be judged."
    times = f"{deviation / held:.{1 if deviation >= held else 2}f} times as much as" if held else "more than"
    return (
        f"The distance of the filters of {layer} to landmarks varies {times} that of one place held for every picture "
        f"({deviation:.4f} and {held:.4f} of the picture's diagonal)."
    )


def _covered(layer: StableLayer) -> str:
    """What is marked in the pictures that stand for the page on the overview, those of the first card with several."""
    item = next((item for item in layer.filters if len(item.spots) >= views.COVER), None)
    if item is None:
        return ""
    found = item.found
    return (
        f"Filter {found.filter} of {layer.name}: rings where it is highest, crosses on the {found.landmark} of "
        f"{found.category}. Shown since the two go together best: R² {worded(found.r2, '.2f')}."
    )


def _moving(layer: str, found: ShiftSummary) -> str:
    return (
        f"When what is shown is moved, {found.sure:,} of {found.filters:,} filters of {layer} surely go along more "
        f"than half of the way (mean slope over all {slope(found)}; 1 goes all the way, 0 stays where it was)."
    )


def _of_sure(found: ShiftSummary) -> str:
    """Steadiness is claimed of filters that follow alone."""
    if found.sure_deviation is None:
        return " Of none of them can it be said that it is steady on anything."
    return (
        f" Of those that move with the picture it varies by {found.sure_deviation:.4f}, and would by "
        f"{worded(found.sure_frozen, '.4f')} if each stood still at its own mean place."
    )


def slope(found: ShiftSummary) -> str:
    """Mean slope with its interval."""
    return worded(found.slope, ".2f") + _ends(found.low, found.high)


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _more_of_shift(layers: Sequence[StableLayer]) -> list[views.Section]:
    """What the shift test found besides; nothing where there was none."""
    columns = [
        ("layer", False),
        ("R²", True),
        ("window inside", True),
        ("slope there", True),
        ("slope elsewhere", True),
        ("D of those that move along", True),
        ("theirs, if frozen", True),
        ("of them follow a landmark", True),
        ("D of all, if frozen", True),
    ]
    note = (
        "R²: share of the filters' movement that the offset explains. Window inside: share of pictures in which the "
        "moved window stayed in the picture; elsewhere the picture goes on mirrored at its border. If frozen: D if "
        "each filter stood at its own mean place in every picture. All are means over filters and categories; each "
        "category has a line in the table stability_shift."
    )
    rows = [_shift_line(layer.name, found) for layer in layers if (found := _together(layer))]
    table = views.upright(views.Table(columns, rows, note))
    return [views.Section("More of the shift test", [table], folded=True)] if rows else []


def _shift_line(name: str, found: ShiftSummary) -> list[views.Cell]:
    return [
        name,
        worded(found.r2, ".2f"),
        f"{found.inside_share:.0%}",
        worded(found.slope_inside, ".2f"),
        worded(found.slope_mirrored, ".2f"),
        worded(found.sure_deviation, ".4f"),
        worded(found.sure_frozen, ".4f"),
        worded(found.sure_tracking, ".0%"),
        worded(found.frozen, ".4f"),
    ]


def _figures(row: Judged, layer: StableLayer) -> views.Figures:
    """The layer that heads the page, under the rule of its line below: who follows first, then how steady all are."""
    found, tested = row.summary, _together(layer)
    between = "" if found.low is None else f"95 %: {found.low:.4f} to {found.high:.4f}"
    moving = (
        [] if tested is None else [("go along with a shift", f"{tested.sure} of {tested.filters}", "filters, surely")]
    )
    return views.Figures(
        [
            *moving,
            ("follow a landmark", _share(found, found.sure_tracking_share), "filters, surely"),
            ("instability D", worded(found.deviation, ".4f"), between),
            (
                "steadier than a held place",
                _share(found, found.beating_share),
                f"filters; its D {found.best_constant:.4f}",
            ),
        ]
    )


def _share(found: LayerSummary, share: float | None) -> str:
    """A share of the filters as a number of them."""
    judged = found.filters - found.null_filters
    return "–" if share is None else f"{round(share * judged)} of {judged}"


def _sections(layer: StableLayer, rule: Rule, told: bool) -> list[views.Section]:
    """A layer: how steady its filters are, and beside it which of them follow; told how to read it, or not again."""
    head = _leading_row(layer, rule)
    rows = [head, *(row for row in layer.rows if row.rule is None and row is not head)]
    return [
        views.Section(
            f"How steady the filters of {layer.name} are", [_table(rows, told), *_advice(layer.rows)], beside=True
        ),
        views.Section(f"Which filters of {layer.name} follow", [_following(layer, rows, told)]),
    ]


_FOLLOW = (
    "Landmark: filters that follow one, whose place moves with it from picture to picture, more than after exchanges "
    "of the pictures. "
)
_MOVE = (
    "Slope: each picture is looked at again with its crop window moved by a known random offset; how far filters go "
    "along, mean over them, 95 % over pictures. Along: filters whose own slope surely lies above 0.5. "
)
_SURELY = (
    "Surely: of the filters that count at most 5 % are false discoveries, however many filters, landmarks and "
    "categories were asked."
)


def _following(layer: StableLayer, rows: Sequence[Judged], told: bool) -> views.Table:
    """Who follows a landmark, and who moves along in the shift test: a line per category, all together first."""
    moved = bool(layer.shift)
    columns = [("category", False), ("landmark", True)]
    columns += [("slope, 95 %", True), ("along", True)] if moved else []
    judged = {row.summary.filters - row.summary.null_filters for row in rows}
    lines: list[Sequence[views.Cell]] = []
    for row in rows:
        tested = layer.shift.get(row.category) if row.category else _together(layer)
        line = [_over(row), _share(row.summary, row.summary.sure_tracking_share)]
        line += [slope(tested), f"{tested.sure} of {tested.filters}"] if tested else []
        lines.append([cell.partition(" of ")[0] for cell in line] if len(judged) == 1 < len(rows) else line)
    counted = f"Counted are filters, of {max(judged)}. " if len(judged) == 1 < len(rows) else ""
    several = "All categories: in one of them at least. " if len(rows) > 1 else ""
    note = f"{counted}{_FOLLOW}{_MOVE * moved}{several}{_SURELY}" if told else ""
    return views.Table(columns, lines, note, slim=True) if several else views.upright(views.Table(columns, lines, note))


def _over(row: Judged) -> str:
    """What a summary is over, in words."""
    return "all categories" if row.category is None else row.category


def interval(found: LayerSummary) -> str:
    """Of the deviation; nothing where nothing was resampled."""
    return "" if found.low is None else f"[{found.low:.4f}, {found.high:.4f}]"


def _table(rows: Sequence[Judged], told: bool) -> views.Table:
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
    if rows[0].rule:
        note += f"All categories: {_RULES[rows[0].rule]}. "
    left = max(row.summary.null_filters for row in rows)
    if left:
        note += f"Of {rows[0].summary.filters} filters up to {left} are left out: silent, or of too few pictures."
    columns = [("category", False), ("D, 95 %", True), ("", False), ("held place", True)]
    return views.Table(
        columns, [_line(row, widest) for row in rows], note.strip() if told else "", legend if told else ()
    )


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
    return [_over(row), with_interval(found), _strip(found, widest), f"{found.best_constant:.4f}"]


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
    "share of the filter's movement that the landmark's explains."
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
        f"{_how(found)} {found.landmark} of {found.category}",
        [_spot(found, spotted, size) for spotted in item.spots],
        [
            ("D", worded(found.deviation, ".3f"), "deviation of the distance to the landmark"),
            ("R²", worded(found.r2, ".2f"), "share of the filter's movement that the landmark explains"),
        ],
    )


def _how(found: FilterOnLandmark) -> str:
    """How a filter goes with a landmark: that it surely does may be a little."""
    if not sure(found):
        return "most with, not surely:"
    return "follows" if found.r2 is not None and found.r2 >= MOSTLY else "partly follows"


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
                "moves with the landmark (R² of its position regressed on the landmark's, by permutation). The shift "
                "test asks the same without landmarks: nothing that stands still can pass it."
            ),
            views.Text(
                "Hundreds of filters are asked of every landmark in every category: by luck alone some would pass. So "
                "a filter and its landmark count at a false discovery rate of 5 % (Benjamini and Hochberg) among all "
                "such pairs of the layer, and among its filters, each with the p-value that Simes' rule makes of its "
                "own; in the shift test likewise, with categories for landmarks."
            ),
            views.Text(
                "Intervals are 95 % bootstrap intervals over pictures. The table stability_layers pools the "
                "categories in two other ways, too."
            ),
        ],
        folded=True,
    )
