"""Page of two runs beside each other: what differs in their figures, their concepts, their units and their making."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from urllib.parse import quote

from microtome.quantify.agreement import Agreement
from microtome.quantify.intervals import wilson
from microtome.report import views
from microtome.report.drift import Drifted, DriftedLayer, advice, change_tables, changed_gallery, changed_units

SHOWN_CONCEPTS = 25
SHOWN_SURE = 3  # figures that the verdict names beside the first
SHOWN_LISTED = 8  # units or concepts that a line lists
SHOWN_LABELS = 3  # layers whose labels the verdict tells of
SHOWN_TILES = 6
PER_CATEGORY = "unique detectors, per category"  # a headline of `dissection`


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def words(self) -> str:
        """For example `31 [29, 33]`."""
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


@dataclass(frozen=True)
class ComparedFigure:
    """A headline figure of both runs.

    Args:
        stage: that measured it.
        name: what it is.
        row: of which layer, method or the like.
        first, second: in each run.
        difference: second minus first; its interval is paired, over the same draws of pictures.
    """

    stage: str
    name: str
    row: str
    first: Figure
    second: Figure
    difference: Figure

    @property
    def counts(self) -> bool:
        """Whether it is a number of things, as far as its values tell."""
        return all(float(value).is_integer() for value in (self.first.value, self.second.value) if value is not None)

    @property
    def sure(self) -> bool:
        """Whether the difference's interval leaves zero out."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high


@dataclass(frozen=True)
class KeptLabels:
    """How many units of a layer carry the same label in both runs, and how many would without numbers meaning anything.

    Args:
        layer: its name.
        kept, units: how many do, of how many.
        by_chance: share of the pairs of different units that do, one unit of each run; None of a single unit.
        redrawn: share that does in the first run alone when its pictures are drawn anew; None where nobody drew.
        same: whether no unit differs in anything.
    """

    layer: str
    kept: int
    units: int
    by_chance: float | None
    redrawn: float | None
    same: bool

    @classmethod
    def of(cls, layer: DriftedLayer) -> KeptLabels:
        """Those of a layer."""
        row = layer.row
        chance, redrawn = (
            None if share is None else 1 - share for share in (row["random_share"], row["redrawn_share"])
        )
        kept = round((1 - row["changed_share"]) * row["units"])
        return cls(row["layer"], kept, row["units"], chance, redrawn, layer.same)

    @property
    def ends(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share, over the units."""
        return wilson(self.kept, self.units)

    @property
    def meaningless(self) -> bool:
        """Whether the share is not surely above chance: numbers then name no common unit, as far as labels tell."""
        return not self.same and self.by_chance is not None and self.ends[0] <= self.by_chance

    @property
    def words(self) -> str:
        """For example `3 of 4, 75% [30%, 95%]`."""
        low, high = self.ends
        return f"{self.kept} of {self.units}, {self.kept / self.units:.0%} [{low:.0%}, {high:.0%}]"


@dataclass(frozen=True)
class ConceptUnits:
    """A concept and the units that detect it, in each run; of these the confirmed ones, None where none was asked."""

    concept: str
    category: str
    first: Sequence[int]
    second: Sequence[int]
    confirmed: tuple[int, int] | None


@dataclass(frozen=True)
class LabelPair:
    """A unit, and what either run calls it."""

    unit: int
    first: str
    second: str


@dataclass(frozen=True)
class ComparedLayer:
    """A layer of both runs.

    Args:
        name: in both; two names where they differ.
        concepts: that a unit detects in either; None where a run does not say what is a detector.
        matched: its units, number by number; None where they cannot be matched, for the reason `why`, or where their
            labels alone are known.
        agreements: how far labels agree, unit by unit, where they alone are known.
        pairs: labels of some units, the first run's best first.
        left_out: concepts that are left out, in a sentence.
    """

    name: str
    concepts: Sequence[ConceptUnits] | None
    matched: DriftedLayer | None
    why: str = ""
    agreements: Sequence[Agreement] = ()
    pairs: Sequence[LabelPair] = ()
    left_out: str = ""


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs, in words.

    Args:
        name: what the page calls it.
        run: its id.
        facts: name and value.
        report: where its report lies, from the page; empty where there is none.
        described: its network and when it began.
        units: files of the report's pages of single units.
    """

    name: str
    run: str
    facts: Sequence[tuple[str, str]]
    report: str
    described: str = ""
    units: frozenset[str] = frozenset()

    def unit(self, key: views.UnitKey) -> str:
        """Where a unit's page lies, from the page; empty where there is none."""
        return self.report.removesuffix("index.html") + quote(key.page) if key.page in self.units else ""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Args:
        first, second: the runs.
        figures: headlines of every stage that both have, dissection's first.
        layers: that were dissected in both.
        differences: of configuration, data, code and versions: what, in the first run, in the second.
        cautions: what makes figures differ though nothing changed in the network.
        images: pictures of the dissection.
        size: (height, width) of the frame.
        imported: whether others published one of the runs, so that its pictures are not known.
    """

    first: ComparedRun
    second: ComparedRun
    figures: Sequence[ComparedFigure]
    layers: Sequence[ComparedLayer]
    differences: Sequence[tuple[str, str, str]]
    cautions: Sequence[str]
    images: int
    size: tuple[int, int]
    imported: bool = False


def number(value: float) -> str:
    """A figure in words: whole numbers as such, others to four digits, small ones to just three; with a true minus."""
    form = ",.0f" if value == int(value) else ".4g" if abs(value) >= 0.1 else "#.3g"
    return format(value, form).replace("-", "−")


def signed(value: float | None) -> str:
    """A difference in words, with a true minus."""
    if value is None:
        return "–"
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{number(abs(value)) if value == int(value) else format(abs(value), '.2g')}"


def difference_words(figure: ComparedFigure) -> str:
    """The difference and its interval, for example `−12 [−20, −4]`."""
    found = figure.difference
    if found.low is None or found.high is None:
        return signed(found.value)
    return f"{signed(found.value)} [{signed(found.low)}, {signed(found.high)}]"


def page(found: Comparison, file: str) -> views.Page:
    """The page.

    Args:
        found: what it shows.
        file: its name.
    """
    return views.Page(
        name="comparison",
        title=_title(found),
        page=file,
        headline=next(iter(sentences(found)), ""),
        figures=_tiles(found),
        links=[(f"report of {run.name}", run.report) for run in (found.first, found.second) if run.report],
        sections=[
            *_short(found),
            *([views.Section("Headline figures", [_figures(found)])] if found.figures else []),
            *_numbers(found),
            *(section for layer in found.layers for section in _layer(found, layer)),
            views.Section("The two runs", _runs(found)),
            *([] if found.imported else [views.Section("What differs in the making", [_differences(found)])]),
            _reading_labels() if found.imported else _reading(),
        ],
    )


def sentences(found: Comparison) -> list[str]:
    """The verdict: that two dissections do not measure alike, where they do not; the first figure that surely differs,
    or that both have; then what became of the units."""
    apart = [] if found.imported else found.cautions
    known = [figure for figure in found.figures if figure.difference.value is not None]
    lead = next((figure for figure in known if figure.sure), known[0] if known else None)
    told = [] if lead is None else [_verdict(found, lead), *_others(found, lead)]
    labels = _labels([layer.matched for layer in found.layers[:SHOWN_LABELS] if layer.matched])
    agreed = [_agreed(found, layer) for layer in found.layers if layer.agreements]
    return [*apart, *told, *labels, *agreed, *_gone(found)]


def _verdict(found: Comparison, figure: ComparedFigure) -> str:
    """What the leading figure says."""
    where = f" in {figure.row}" if figure.row else ""
    first, second = found.first.name, found.second.name
    both = f"{figure.first.words} in {first}, {figure.second.words} in {second}"
    apart = difference_words(figure)
    if figure.difference.value == 0 and figure.difference.low in (0, None):
        return f"As many {figure.name}{where} in both: {both}."
    if figure.difference.low is None:
        return f"{figure.name.capitalize()}{where}: {both}; the difference of {apart} has no interval."
    if not figure.sure:
        return f"No sure difference in {figure.name}{where}: {both}; difference {apart}, over the same pictures."
    more, fewer = ("more", "fewer") if figure.counts else ("a higher", "a lower")
    word = more if (figure.difference.value or 0) > 0 else fewer
    return (
        f"{_first(second)} has {word} {figure.name}{where} than {first}: {figure.second.words} against "
        f"{figure.first.words}, a difference of {apart} over the same pictures."
    )


def _first(name: str) -> str:
    """At the head of a sentence; an audit's own name stays as it is."""
    return name.capitalize() if name.startswith("run ") else name


def _others(found: Comparison, lead: ComparedFigure) -> list[str]:
    """Further figures that surely differ, and how many may be the same."""
    sure = [figure for figure in found.figures if figure.sure and figure is not lead]
    open_ = [figure for figure in found.figures if figure.difference.low is not None and not figure.sure]
    rest = [_undecided(open_)] if lead.sure and open_ else []
    if not sure:
        return rest
    named = [f"{figure.name}{f' of {figure.row}' if figure.row else ''} {difference_words(figure)}" for figure in sure]
    more = f"; and {len(named) - SHOWN_SURE} more" if len(named) > SHOWN_SURE else ""
    return [f"Surely different, too: {'; '.join(named[:SHOWN_SURE])}{more}.", *rest]


def _undecided(figures: Sequence[ComparedFigure]) -> str:
    """Figures whose difference may be none."""
    named = [f"{figure.name}{f' of {figure.row}' if figure.row else ''}" for figure in figures]
    more = f" and {len(named) - SHOWN_SURE} more" if len(named) > SHOWN_SURE else ""
    return f"No sure difference in {', '.join(named[:SHOWN_SURE])}{more}."


def _labels(layers: Sequence[DriftedLayer]) -> list[str]:
    """How many units kept their label, beside what pairs of other units share and what redrawn pictures leave."""
    every = [KeptLabels.of(layer) for layer in layers]
    told = []
    for kept in (kept for kept in every if not kept.meaningless):
        beside = [] if kept.by_chance is None else [f"{kept.by_chance:.0%} would if units were paired at random"]
        beside += [] if kept.redrawn is None else [f"{kept.redrawn:.0%} if only the first run's pictures were redrawn"]
        said = f"{kept.kept} of {kept.units} units of {kept.layer} ({kept.kept / kept.units:.0%}) carry the same label"
        told.append(f"{said} in both{'; ' + ', '.join(beside) if beside else ''}.")
    lost = [
        f"{kept.kept} of {kept.units} units of {kept.layer} ({kept.kept / kept.units:.0%}) carry the same label in "
        f"both, and {kept.by_chance:.0%} would if units were paired at random"
        for kept in every
        if kept.meaningless
    ]
    if lost:
        told.append(f"Unit numbers mean nothing between these two networks, as far as labels tell: {'; '.join(lost)}.")
    return told


def _agreed(found: Comparison, layer: ComparedLayer) -> str:
    """How many units carry one label in both runs, and how many would by chance."""
    same = layer.agreements[0]
    return (
        f"{same.agreeing} of {same.units:,} units of {layer.name} carry the same label in both, {same.value:.1%} "
        f"[{same.low:.1%}, {same.high:.1%}]; shuffled labels do in {same.chance:.2%}."
    )


def _gone(found: Comparison) -> list[str]:
    """Concepts that one run's units detect and the other's do not."""
    every = [concept for layer in found.layers for concept in layer.concepts or ()]
    first, second = (
        list(dict.fromkeys(concept.concept for concept in every if units(concept)))
        for units in (attrgetter("first"), attrgetter("second"))
    )
    alone = [(found.first.name, [name for name in first if name not in second])]
    alone.append((found.second.name, [name for name in second if name not in first]))
    return [f"Detected in {run} alone: {listed(names)}." for run, names in alone if names]


def listed(names: Sequence[object]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - SHOWN_LISTED} more" if len(names) > SHOWN_LISTED else ""
    return ", ".join(map(str, names[:SHOWN_LISTED])) + more


def _tiles(found: Comparison) -> views.Figures:
    """Figures whose difference has an interval, those that surely differ first; without any, what there is."""
    known = [figure for figure in found.figures if figure.difference.value is not None]
    told = [figure for figure in known if figure.difference.low is not None] or known
    told.sort(key=lambda figure: not figure.sure)
    return views.Figures(
        [
            (
                figure.name + (f", {figure.row}" if figure.row else ""),
                f"{_plain(figure.first)} → {_plain(figure.second)}",
                difference_words(figure) + _how_sure(figure),
            )
            for figure in told[:SHOWN_TILES]
        ]
    )


def _how_sure(figure: ComparedFigure) -> str:
    if figure.difference.low is None:
        return ", no interval"
    return "" if figure.sure or figure.difference.low == figure.difference.high == 0 else ", may be none"


def _title(found: Comparison) -> str:
    audits = {dict(run.facts).get("audit", run.name) for run in (found.first, found.second)}
    of = f"{audits.pop()}: " if len(audits) == 1 else ""
    return f"{of}{found.first.name} beside {found.second.name}"


def _short(found: Comparison) -> list[views.Section]:
    """Which run is which, and the verdict's further sentences."""
    runs = [run for run in (found.first, found.second) if run.described]
    who = [views.Text("\n".join(f"{run.name}: {run.described}" for run in runs), "quiet")] if runs else []
    more = sentences(found)[1:]
    told: list[views.Part] = [
        *(map(_caution, found.cautions) if found.imported else ()),
        *who,
        *([views.Listed(more)] if more else []),
    ]
    return [views.Section("In short", told)] if told else []


def _plain(figure: Figure) -> str:
    return "–" if figure.value is None else number(figure.value)


def _caution(text: str) -> views.Text:
    return views.Text(text, "advice")


def _runs(found: Comparison) -> list[views.Part]:
    names = [name for name, _ in found.first.facts]
    facts = [dict(run.facts) for run in (found.first, found.second)]
    lines = [[name, *(fact[name] for fact in facts)] for name in names]
    columns = [("", False), (found.first.name, False), (found.second.name, False)]
    note = f"Over the same {found.images:,} pictures." if found.images else ""
    return [views.Table(columns, lines, note)]


def _figures(found: Comparison) -> views.Table:
    columns = [("figure", False), ("of", False), (found.first.name, True), (found.second.name, True)]
    stages, widest = {figure.stage for figure in found.figures}, _widest(found.figures)
    lines: list[list[str | views.Strip]] = [
        [
            figure.name,
            ", ".join(part for part in (figure.stage if len(stages) > 1 else "", figure.row) if part),
            figure.first.words,
            figure.second.words,
            difference_words(figure),
            _strip(figure, widest[figure.stage, figure.name]) if figure.difference.low is not None else "",
        ]
        for figure in found.figures
    ]
    note = (
        f"95 % intervals. Difference: {found.second.name} minus {found.first.name}, where it has an interval over the "
        "same draws of pictures for both runs; without one nothing tells it from zero. Lines of "
        "one figure share a scale."
    )
    if any(figure.name == PER_CATEGORY for figure in found.figures):
        note += (
            f" {PER_CATEGORY.capitalize()}, have none: they count the best concept of every category, and the draws "
            "follow the one label of each unit."
        )
    if found.imported:
        note = "95 % intervals where an audit measured; what was imported has none, and so has no difference."
        return views.Table([*columns, ("difference", True)], [line[:-1] for line in lines], note)
    legend = [("dot", "difference"), ("range", "95 % interval"), ("aim", "no difference")]
    return views.Table([*columns, ("difference", True), ("", False)], lines, note, legend)


def _widest(figures: Sequence[ComparedFigure]) -> Mapping[tuple[str, str], float]:
    """Of each figure, by stage and name, how far any of its differences, or an end of its interval, lies from zero."""
    widest: dict[tuple[str, str], float] = defaultdict(float)
    for figure in figures:
        ends = (figure.difference.value, figure.difference.low, figure.difference.high)
        key = figure.stage, figure.name
        widest[key] = max(widest[key], *(abs(end) for end in ends if end is not None), 0.0)
    return widest


def _strip(figure: ComparedFigure, widest: float) -> views.Strip:
    """From -widest to +widest, no difference in the middle."""

    def place(value: float | None) -> float | None:
        return None if value is None else round(50 + 49 * value / (widest or 1.0), 2)

    found = figure.difference
    text = f"{figure.name}: difference {difference_words(figure)}"
    return views.Strip(place(found.value), place(found.low), place(found.high), [(50.0, "aim", "no difference")], text)


def _layer(found: Comparison, layer: ComparedLayer) -> list[views.Section]:
    if found.imported:
        return _labelled(found, layer)
    sections = [views.Section(f"Concepts gained and lost in {layer.name}", _concepts(found, layer))]
    if layer.matched is None:
        return [*sections, views.Section(f"Units of {layer.name}", [views.Text(layer.why, "quiet")])]
    kept = KeptLabels.of(layer.matched)
    pair = Drifted(found.first.name, found.second.name, [layer.matched])
    parts: list[views.Part] = [
        views.Text(f"Before: {pair.before}. After: {pair.after}.", "quiet"),
        *change_tables(layer.matched),
        *advice(pair),
    ]
    number_by_number = [views.Section(f"Units of {layer.name}, number by number", parts)]
    if not layer.matched.same:
        number_by_number += _changed(found, layer.matched)
    if not kept.meaningless:
        return [*sections, *number_by_number]
    inside = [part for section in number_by_number for part in section.parts]
    return [*sections, views.Section(f"Number by number anyway: units of {layer.name}", inside, folded=True)]


def _numbers(found: Comparison) -> list[views.Section]:
    """How many labels are the same, unit by unit, beside chance and beside the first run by itself."""
    every = [KeptLabels.of(layer.matched) for layer in found.layers if layer.matched and not found.imported]
    if not every:
        return []
    columns = [("layer", False), ("the same label in both, 95 %", True), ("", False)]
    columns += [("different units", True), ("pictures drawn anew", True)]
    note = (
        "Share of units that both runs give the same label, with Wilson's interval over the units. Different units: "
        "the same of all pairs of units with different numbers, which is what chance gives. Pictures drawn anew: share "
        "of labels that the first run alone keeps then, which is the most that can be expected."
    )
    legend = [("dot", "the same label in both"), ("range", "95 % interval"), ("chance", "different units")]
    table = views.Table(columns, [_kept(kept) for kept in every], note, [*legend, ("aim", "pictures drawn anew")])
    lost = [kept.layer for kept in every if kept.meaningless]
    said = views.Text(
        f"As far as labels tell, not surely in {listed(lost)}: there units of one number have no more in common than "
        "any two units. What goes number by number is folded away.",
        "advice",
    )
    return [views.Section("Does a number mean the same unit in both?", [*([said] if lost else []), table])]


def _kept(kept: KeptLabels) -> list[views.Cell]:
    """A line of a layer."""
    low, high = kept.ends
    marks = [
        (round(100 * share, 2), kind, f"{what} {share:.0%}")
        for share, kind, what in ((kept.by_chance, "chance", "different units"), (kept.redrawn, "aim", "drawn anew"))
        if share is not None
    ]
    share = round(100 * kept.kept / kept.units, 2)
    strip = views.Strip(share, round(100 * low, 2), round(100 * high, 2), marks, f"the same label {kept.words}")
    return [kept.layer, kept.words, strip, _percent(kept.by_chance), _percent(kept.redrawn)]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _changed(found: Comparison, layer: DriftedLayer) -> list[views.Section]:
    """The units that changed most, as a table and as pictures, with links to the pages of either report."""

    def links(key: views.UnitKey) -> list[tuple[str, str]]:
        both = (("before", found.first.unit(key)), ("after", found.second.unit(key)))
        return [(when, place) for when, place in both if place]

    def cell(key: views.UnitKey) -> views.Cell:
        return views.Links([(str(key.number), ""), *links(key)])

    gallery = changed_gallery(layer, found.size, wide=False)
    parts = [_with_links(part, links) if isinstance(part, views.Gallery) else part for part in gallery.parts]
    return [changed_units(layer, cell), replace(gallery, parts=parts)]


def _with_links(gallery: views.Gallery, links: Callable[[views.UnitKey], list[tuple[str, str]]]) -> views.Gallery:
    return replace(gallery, cards=[replace(card, links=links(card.unit)) for card in gallery.cards if card.unit])


def _labelled(found: Comparison, layer: ComparedLayer) -> list[views.Section]:
    """Of a layer whose labels alone are known: how far they agree, labels side by side, and concepts."""
    left_out = [views.Text(layer.left_out, "quiet")] if layer.left_out else []
    sections = [] if layer.concepts is None else [
        views.Section(f"Concepts of {layer.name} that both runs know", [*_concepts(found, layer), *left_out])
    ]  # fmt: skip
    if not layer.agreements:
        why = layer.why or "No unit has a label in both runs."
        return [*sections, views.Section(f"Labels of {layer.name}", [views.Text(why, "quiet")])]
    columns = [("unit", False), (found.first.name, False), (found.second.name, False)]
    pairs = [[str(pair.unit), pair.first, pair.second] for pair in layer.pairs]
    best = f"The units of {found.first.name}'s highest scores."
    return [
        views.Section(f"How far labels of {layer.name} agree", [_agreements(layer.agreements)]),
        views.Section(f"Labels of {layer.name}, unit by unit", [views.Table(columns, pairs, best)]),
        *sections,
    ]


AGREEMENT = ("what", "units", "agree", "share or mean, 95 %", "shuffled labels", "one shuffle in 20 exceeds", "p")
"""What `agreement_line` has."""


def agreement_line(found: Agreement) -> list[str]:
    """How far two methods agree, in words."""
    return [
        found.measure,
        f"{found.units:,}",
        "–" if found.agreeing is None else f"{found.agreeing:,}",
        f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]",
        f"{found.chance:.4f}",
        f"{found.chance_p95:.4f}",
        f"{found.p_value:.3g}",
    ]


def _agreements(found: Sequence[Agreement]) -> views.Table:
    columns = [(name, name != AGREEMENT[0]) for name in AGREEMENT]
    return views.Table(columns, list(map(agreement_line, found)), "Over the units that both runs label.")


def _concepts(found: Comparison, layer: ComparedLayer) -> list[views.Part]:
    moved = [concept for concept in layer.concepts or () if list(concept.first) != list(concept.second)]
    if not moved:
        return [views.Text("The same units detect the same concepts in both.", "quiet")]
    moved.sort(key=lambda concept: (-abs(len(concept.second) - len(concept.first)), concept.concept, concept.category))
    sure = all(concept.confirmed for concept in moved)
    columns = [("concept", False), ("category", False), ("units", True)]
    columns += [("of them confirmed", True)] if sure else []
    rest = f" The first {SHOWN_CONCEPTS} of {len(moved)} that changed." if len(moved) > SHOWN_CONCEPTS else ""
    lines = [_concept(found, layer.name, concept, sure) for concept in moved[:SHOWN_CONCEPTS]]
    note = (
        f"How many units detect each concept in {found.first.name} → in {found.second.name}, luck included. Concepts "
        "that the same units detect are left out."
    )
    named = [(f"in {run.name} alone", False) for run in (found.first, found.second)]
    return [views.Table([*columns, *named], lines, note + rest)]


def _concept(found: Comparison, layer: str, concept: ConceptUnits, sure: bool) -> list[views.Cell]:
    first, second = set(concept.first), set(concept.second)
    confirmed = [f"{concept.confirmed[0]} → {concept.confirmed[1]}"] if sure and concept.confirmed else []
    return [
        concept.concept,
        concept.category,
        f"{len(first)} → {len(second)}",
        *confirmed,
        _units(found.first, layer, sorted(first - second)),
        _units(found.second, layer, sorted(second - first)),
    ]


def _units(run: ComparedRun, layer: str, units: Sequence[int]) -> views.Links:
    """Some units, each with a link to its page, and how many more there are."""
    links = [(str(unit), run.unit(views.UnitKey(layer, unit))) for unit in units[:SHOWN_LISTED]]
    more = [(f"{len(units) - SHOWN_LISTED} more", "")] if len(units) > SHOWN_LISTED else []
    return views.Links([*links, *more])


def _differences(found: Comparison) -> views.Part:
    if not found.differences:
        return views.Text("Nothing: configuration, data, code and versions are the same.", "quiet")
    columns = [("what", False), (found.first.name, False), (found.second.name, False)]
    return views.Table(columns, [list(line) for line in found.differences], "All else is the same in both.")


def _reading_labels() -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "Units are matched by layer and number, counted from zero. The same label: the same words in small "
                "letters, without Broden's suffix of colours and scenes. A word in common: one that is no article, "
                "preposition or the like, a plural counted as its singular. Nearness in WordNet: 1 / (1 + steps "
                "between the nouns), 1 for the same; of a longer label any of its nouns. Shares have Wilson's "
                "interval, the mean that of resampled units."
            ),
            views.Text(
                "Shuffled labels: the labels of one run are dealt out anew among the units of the layer. Where "
                "agreement is not above that, the numbers may mean other units, or another network. Methods choose "
                "from different words, so few equal labels do not show that either is wrong."
            ),
        ],
    )


def _reading() -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "Both runs looked at the same pictures with the same annotations; runs that did not are refused. A "
                "paired interval draws those pictures anew, the same ones for both, so that what the draw alone does "
                "to both cancels out: runs of one network differ by exactly zero. The two intervals of a line may "
                "overlap where the difference is sure. A difference without an interval says nothing of how sure it is."
            ),
            views.Text(
                "In the draws each unit keeps the label that it has over all pictures, and thresholds stay as they "
                "are: the intervals of the differences know nothing of another choice of labels. Units are matched by "
                "layer and number, which means something where one network grew out of the other. Where the share of "
                "units with the same label is not surely above that of pairs of different units, it means nothing: "
                "the tables of single units are then folded away."
            ),
        ],
    )
