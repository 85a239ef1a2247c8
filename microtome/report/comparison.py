"""Page of two runs beside each other: what differs in their figures, their concepts, their units and their making."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from urllib.parse import quote

from microtome.quantify.agreement import Agreement
from microtome.quantify.intervals import wilson
from microtome.report import views
from microtome.report.drift import (
    Drifted,
    DriftedLayer,
    UnitPicture,
    advice,
    change_tables,
    changed_gallery,
    changed_units,
)
from microtome.report.words import change, decimals, interval, overlap

SHOWN_CONCEPTS = 25
SHOWN_MOVED = 3  # concepts gained, and lost, with pictures
SHOWN_LISTED = 8  # concepts that a line lists
SHOWN_UNITS = 4  # units that a line of a table lists
SHOWN_NAMED = 6  # kinds of figures that surely differ
FEW_ROWS = 2  # of a figure that the verdict names
SHOWN_LABELS = 3  # layers whose labels the verdict tells of


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def words(self) -> str:
        """For example `31 [29, 33]`, all three with as many digits behind the point."""
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return number(self.value)
        known = self.value, self.low, self.high
        places = decimals(known, 4 if max(map(abs, known)) >= 0.1 else 3)
        value, low, high = (f"{each:,.{places}f}".replace("-", "−") for each in known)
        return f"{value} [{low}, {high}]"


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
class MovedConcept:
    """A concept that more, or fewer, units of a layer detect in the second run than in the first."""

    layer: str
    concept: ConceptUnits

    @property
    def sure(self) -> bool:
        """Whether it moved among confirmed detectors."""
        return self.concept.confirmed is not None and self.concept.confirmed[0] != self.concept.confirmed[1]

    @property
    def counts(self) -> tuple[int, int]:
        """Units that detect it: confirmed ones where these moved."""
        if self.concept.confirmed is not None and self.sure:
            return self.concept.confirmed
        return len(self.concept.first), len(self.concept.second)

    @property
    def change(self) -> int:
        """By how many."""
        first, second = self.counts
        return second - first


@dataclass(frozen=True)
class BestUnit:
    """The best unit of a moved concept in the run that has more of them; if it can be, one that the other has not.

    Args:
        moved: the concept.
        unit: its number.
        iou: with its interval.
        pictures: in which it is highest.
        sheet: what it does not light in them, as a sheet that lies over them; empty where no report has it.
    """

    moved: MovedConcept
    unit: int
    iou: Figure
    pictures: Sequence[UnitPicture]
    sheet: str


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
        random: whether its weights are random ones.
    """

    name: str
    run: str
    facts: Sequence[tuple[str, str]]
    report: str
    described: str = ""
    units: frozenset[str] = frozenset()
    random: bool = False

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
        best: a unit of each of the concepts that were gained most, or lost, with pictures.
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
    best: Sequence[BestUnit] = ()


def most_moved(layers: Sequence[ComparedLayer]) -> list[MovedConcept]:
    """The concepts that were gained most, then those that were lost most, each in the layer where it moved most: those
    of confirmed detectors before those of any.
    """
    every = [MovedConcept(layer.name, concept) for layer in layers for concept in layer.concepts or ()]
    every.sort(key=lambda moved: (not moved.sure, -abs(moved.change)))
    found: list[MovedConcept] = []
    for sign in (1, -1):
        named = {moved.concept.concept: moved for moved in reversed(every) if sign * moved.change > 0}
        found += sorted(named.values(), key=every.index)[:SHOWN_MOVED]
    return found


def number(value: float) -> str:
    """A figure in words: whole numbers as such, others to four digits, small ones to just three; with a true minus."""
    form = ",.0f" if value == int(value) else ".4g" if abs(value) >= 0.1 else "#.3g"
    return format(value, form).replace("-", "−")


def difference_words(figure: ComparedFigure) -> str:
    """The difference and its interval, for example `−12 [−20, −4]`."""
    return change(figure.difference.value, figure.difference.low, figure.difference.high)


def page(found: Comparison, file: str) -> views.Page:
    """The page.

    Args:
        found: what it shows.
        file: its name.
    """
    imported = found.imported
    differences = [] if imported else [views.Section("What differs in the making", [_differences(found)])]
    return views.Page(
        name="comparison",
        title=_title(found),
        page=file,
        headline=next(iter(sentences(found)), ""),
        figures=views.Figures([]),
        links=[(f"report of {run.name}", run.report) for run in (found.first, found.second) if run.report],
        sections=[
            *_short(found),
            *_moved(found),
            *_headlines(found),
            *([section for layer in found.layers for section in _labelled(found, layer)] if imported else _all(found)),
            *differences,
            views.Section("The two runs", _runs(found), folded=True),
            _reading_labels() if imported else _reading(),
        ],
    )


def _all(found: Comparison) -> list[views.Section]:
    """Concepts, then units number by number, of every layer."""
    concepts = [
        views.Section(f"Concepts of {layer.name}", _concepts(found, layer), beside=place % 2 == 0)
        for place, layer in enumerate(found.layers)
    ]
    if len(concepts) % 2:
        concepts[-1] = replace(concepts[-1], beside=False)
    return [*concepts, *_numbers(found), *(section for layer in found.layers for section in _units_of(found, layer))]


def sentences(found: Comparison) -> list[str]:
    """The verdict: that two dissections do not measure alike, where they do not; which figures surely differ; the first
    of them in numbers, or the first that both have; that a control is of one only; then what became of the units."""
    apart = [] if found.imported else found.cautions
    known = [figure for figure in found.figures if figure.difference.value is not None]
    lead = next((figure for figure in known if figure.sure), known[0] if known else None)
    told = [] if lead is None else [*_which(found), _verdict(found, lead), *_others(found, lead)]
    labels = _labels([layer.matched for layer in found.layers[:SHOWN_LABELS] if layer.matched])
    agreed = [_agreed(found, layer) for layer in found.layers if layer.agreements]
    return [*apart, *told, *_control(found), *labels, *agreed, *_gone(found)]


def _which(found: Comparison) -> list[str]:
    """Which figures surely differ, by name, where they are several."""
    judged = [figure for figure in found.figures if figure.difference.low is not None]
    sure = [figure for figure in judged if figure.sure]
    if len(sure) < 2:
        return []
    names = _named_together(sure, judged)
    more = f"; and {len(names) - SHOWN_NAMED} more" if len(names) > SHOWN_NAMED else ""
    told = "; ".join(names[:SHOWN_NAMED])
    random = [run for run in (found.first, found.second) if run.random]
    over = f"Over these pictures{', and with this one random initialisation,' if len(random) == 1 else ''}"
    return [
        f"{over} {found.second.name} surely differs from {found.first.name} in {len(sure)} of {len(judged)} figures: "
        f"{told}{more}.{_unmoved(judged)}"
    ]


def _unmoved(judged: Sequence[ComparedFigure]) -> str:
    """In which dissected layers no figure surely differs, in a sentence; empty where there is none."""
    rows: dict[str, list[bool]] = defaultdict(list)
    for figure in judged:
        if figure.stage == "dissection" and figure.row:
            rows[figure.row].append(figure.sure)
    still = [row for row, sure in rows.items() if not any(sure)]
    return f" In the dissection of {' and '.join(still)} nothing surely differs." if still else ""


def _named_together(sure: Sequence[ComparedFigure], judged: Sequence[ComparedFigure]) -> list[str]:
    """Figures by name: those of the same few rows together, one of many rows with how many these are."""
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for figure in sure:
        rows[figure.stage, figure.name].append(figure.row)
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    counted = []
    for (stage, name), found in rows.items():
        if len(found) <= FEW_ROWS:
            together[tuple(found)].append(_plain(name))
        else:
            every = sum((figure.stage, figure.name) == (stage, name) for figure in judged)
            share = f"all {every}" if len(found) == every else f"{len(found)} of {every}"
            counted.append(f"{_plain(name)} in {share} rows")
    few = [", ".join(names) + (f" of {' and '.join(of)}" if any(of) else "") for of, names in together.items()]
    return [*few, *counted]


def _plain(name: str) -> str:
    """A figure's name that can stand in a list: what follows its comma in brackets."""
    head, comma, rest = name.partition(", ")
    return f"{head} ({rest})" if comma else name


def _control(found: Comparison) -> list[str]:
    """What a network with random weights is worth as a control, where there is one of them only."""
    random = [run.name for run in (found.first, found.second) if run.random]
    if not random:
        return []
    what = (
        f"{_first(random[0])} is one random initialisation" if len(random) == 1 else "Both are random initialisations"
    )
    return [
        f"{what}: another would give other figures, and the intervals, which are over pictures, do not hold how far "
        "these spread. Whether a difference is more than that, audits of more of them tell, each with another “seed”."
    ]


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
    """How many further figures may be the same, where no sentence counts those that differ."""
    others = [figure for figure in found.figures if figure is not lead and figure.difference.low is not None]
    if not others or not lead.sure or any(figure.sure for figure in others):
        return []
    return ["The other figure that can be judged may be the same in both."] if len(others) == 1 else [
        f"The other {len(others)} figures that can be judged may be the same in both."
    ]  # fmt: skip


def _labels(layers: Sequence[DriftedLayer]) -> list[str]:
    """How many units kept their label, beside what pairs of other units share and what redrawn pictures leave."""
    every = [KeptLabels.of(layer) for layer in layers]
    told = []
    for kept in (kept for kept in every if not kept.meaningless):
        beside = [] if kept.by_chance is None else [f"{kept.by_chance:.0%} would if units were paired at random"]
        beside += [] if kept.redrawn is None else [f"{kept.redrawn:.0%} if only the first run's pictures were redrawn"]
        said = f"{kept.kept} of {kept.units} units of {kept.layer} ({kept.kept / kept.units:.0%}) carry the same label"
        told.append(f"{said} in both{'; ' + ', '.join(beside) if beside else ''}.")
    lost = [kept for kept in every if kept.meaningless]
    if lost:
        few = " and ".join(f"{kept.kept} of {kept.units} units of {kept.layer}" for kept in lost)
        chance = " and ".join(f"{kept.by_chance:.0%}" for kept in lost)
        told.append(
            f"Unit numbers mean nothing between these two networks: {few} carry the same label in both, about as many "
            f"as if units were paired at random ({chance})."
        )
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
    told = "; ".join(f"in {run} alone: {listed(names)}" for run, names in alone if names)
    return [f"Concepts detected {told}."] if told else []


def listed(names: Sequence[object]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - SHOWN_LISTED} more" if len(names) > SHOWN_LISTED else ""
    return ", ".join(map(str, names[:SHOWN_LISTED])) + more


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


def _moved(found: Comparison) -> list[views.Section]:
    """The best unit of each concept that was gained most, and lost."""
    gained = [best for best in found.best if best.moved.change > 0]
    lost = [best for best in found.best if best.moved.change < 0]
    sections = []
    for title, run, some in (("gained", found.second, gained), ("lost", found.first, lost)):
        if some:
            text = views.Text(f"The best unit of each in {run.name}. What it does not light is dimmed.", "quiet")
            cards = views.Gallery([_best(run, best) for best in some])
            sections.append(
                views.Section(f"Concepts {title} most", [text, cards], beside=some is gained and bool(lost))
            )
    return sections


def _overlap(iou: Figure) -> str:
    return f"{overlap(iou.value)} {interval(iou.value or 0.0, iou.low, iou.high)}".strip()


def _best(run: ComparedRun, best: BestUnit) -> views.Card:
    moved = best.moved
    key = views.UnitKey(moved.layer, best.unit)
    first, second = moved.counts
    what = "confirmed detectors" if moved.sure else "detectors"
    return views.Card(
        f"unit {best.unit} of {moved.layer}",
        f"moved/{moved.layer}/{best.unit}",
        f"{first} → {second} {what}",
        [views.Spot(seen.thumb, f"{seen.file}, peak {seen.peak:.3g}", (1, 1), (), ()) for seen in best.pictures],
        [("IoU", _overlap(best.iou), "of the concept, in this run")],
        label=moved.concept.concept,
        sheet=best.sheet,
        place=run.unit(key),
    )


def _caution(text: str) -> views.Text:
    return views.Text(text, "advice")


def _runs(found: Comparison) -> list[views.Part]:
    names = [name for name, _ in found.first.facts]
    facts = [dict(run.facts) for run in (found.first, found.second)]
    lines = [[name, *(fact[name] for fact in facts)] for name in names]
    columns = [("", False), (found.first.name, False), (found.second.name, False)]
    note = f"Over the same {found.images:,} pictures." if found.images else ""
    return [views.Table(columns, lines, note)]


def _headlines(found: Comparison) -> list[views.Section]:
    """Figures that surely differ, and all of the dissection, by stage; folded the others, which may be the same."""
    shown: dict[str, list[ComparedFigure]] = defaultdict(list)
    others = []
    for figure in found.figures:
        if figure.sure or figure.stage in ("", "dissection"):
            shown[figure.stage].append(figure)
        else:
            others.append(figure)
    if not shown:
        return [views.Section("Headline figures", [_figures(found, others)])] if others else []
    several = len(others) > 1
    rest = (
        f"{len(others)} more figure{'s' * several} that may be the same, or {'have' if several else 'has'} no interval"
    )
    return [
        *(
            views.Section(f"Headline figures{f' of {stage}' * (len(shown) > 1)}", [_figures(found, figures)])
            for stage, figures in shown.items()
        ),
        *([views.Section(rest, [_figures(found, others)], folded=True)] if others else []),
    ]


def _figures(found: Comparison, figures: Sequence[ComparedFigure]) -> views.Table:
    columns = [("figure", False), ("of", False), (f"{found.first.name} → {found.second.name}", True)]
    columns += [("difference", True)]
    stages, widest = {figure.stage for figure in figures}, _widest(found.figures)
    lines: list[list[str | views.Strip]] = [
        [
            figure.name,
            ", ".join(part for part in (figure.stage if len(stages) > 1 else "", figure.row) if part),
            f"{figure.first.words} → {figure.second.words}",
            difference_words(figure),
            _strip(figure, widest[figure.stage, figure.name]) if figure.difference.low is not None else "",
        ]
        for figure in figures
    ]
    if found.imported:
        note = "95 % intervals where an audit measured; what was imported has none, and so has no difference."
        return views.Table(columns, [line[:-1] for line in lines], note)
    note = (
        f"In brackets 95 % intervals; that of a difference, {found.second.name} minus {found.first.name}, is over the "
        "same draws of pictures for both runs. A difference without one may be none. Lines of one figure share a scale."
    )
    legend = [("dot", "difference"), ("range", "95 % interval"), ("aim", "no difference")]
    return views.Table([*columns, ("", False)], lines, note, legend, brief=True)


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


def _units_of(found: Comparison, layer: ComparedLayer) -> list[views.Section]:
    """Units number by number; folded where their numbers mean nothing."""
    if layer.matched is None:
        return [views.Section(f"Units of {layer.name}", [views.Text(layer.why, "quiet")])]
    pair = Drifted(found.first.name, found.second.name, [layer.matched])
    parts: list[views.Part] = [
        views.Text(f"Before: {pair.before}. After: {pair.after}.", "quiet"),
        *change_tables(layer.matched),
        *advice(pair),
    ]
    sections = [views.Section(f"Units of {layer.name} by number", parts)]
    if not layer.matched.same:
        sections += _changed(found, layer.matched)
    if not KeptLabels.of(layer.matched).meaningless:
        return sections
    inside = [part for section in sections for part in section.parts]
    return [views.Section(f"Units of {layer.name} by number anyway", inside, folded=True)]


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
    return [views.Section("Do numbers mean the same units?", [*([said] if lost else []), table])]


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
    """The units that changed most, as pictures and as a table, with links to the pages of either report."""

    def links(key: views.UnitKey) -> list[tuple[str, str]]:
        both = (("before", found.first.unit(key)), ("after", found.second.unit(key)))
        return [(when, place) for when, place in both if place]

    def cell(key: views.UnitKey) -> views.Cell:
        return views.Links([(str(key.number), ""), *links(key)])

    gallery = changed_gallery(layer, found.size)
    parts = [_with_links(part, links) if isinstance(part, views.Gallery) else part for part in gallery.parts]
    return [replace(gallery, parts=parts), changed_units(layer, cell)]


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
    columns = [("concept", False), ("detectors", True), *([("confirmed", True)] if sure else [])]
    rest = f" The first {SHOWN_CONCEPTS} of {len(moved)} that changed." if len(moved) > SHOWN_CONCEPTS else ""
    names = Counter(concept.concept for concept in layer.concepts or ())
    lines = [
        [_named(concept, names), *_concept(found, layer.name, concept, sure)] for concept in moved[:SHOWN_CONCEPTS]
    ]
    note = (
        f"Units that detect each concept in {found.first.name} → in {found.second.name}, luck included, and those of "
        "them that are confirmed. Concepts that the same units detect are left out."
    )
    return [views.Table([*columns, ("− lost, + gained units", False)], lines, note + rest, slim=True)]


def _concept(found: Comparison, layer: str, concept: ConceptUnits, sure: bool) -> list[views.Cell]:
    first, second = set(concept.first), set(concept.second)
    confirmed = [f"{concept.confirmed[0]} → {concept.confirmed[1]}"] if sure and concept.confirmed else []
    lost = _units(found.first, layer, "−", sorted(first - second))
    gained = _units(found.second, layer, "+", sorted(second - first))
    return [f"{len(first)} → {len(second)}", *confirmed, views.Links([*lost, *gained])]


def _named(concept: ConceptUnits, names: Mapping[str, int]) -> str:
    """A concept; with its category where others have one of that name."""
    return f"{concept.concept} ({concept.category})" if names[concept.concept] > 1 else concept.concept


def _units(run: ComparedRun, layer: str, sign: str, units: Sequence[int]) -> list[tuple[str, str]]:
    """Some units, the sign before the first, each with a link to its page, and how many more there are."""
    links = [
        (f"{'' if place else sign}{unit}", run.unit(views.UnitKey(layer, unit)))
        for place, unit in enumerate(units[:SHOWN_UNITS])
    ]
    return [*links, *([(f"{len(units) - SHOWN_UNITS} more", "")] if len(units) > SHOWN_UNITS else [])]


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
        folded=True,
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
        folded=True,
    )
