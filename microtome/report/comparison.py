"""Page of two runs beside each other: what differs in their figures, their concepts, their units and their making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from microtome.quantify.agreement import Agreement
from microtome.report import views
from microtome.report.drift import Drifted, DriftedLayer, advice, changed_gallery, changed_units, layer_tables, named

SHOWN_CONCEPTS = 25
SHOWN_SURE = 3  # figures that the verdict names beside the first
SHOWN_LISTED = 8  # units or concepts that a line lists
SHOWN_LABELS = 3  # layers whose labels the verdict tells of
SHOWN_TILES = 6


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
    """

    name: str
    run: str
    facts: Sequence[tuple[str, str]]
    report: str


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
        title=f"{found.first.name} beside {found.second.name}",
        page=file,
        headline="\n".join(sentences(found)),
        figures=_tiles(found),
        sections=[
            views.Section("The two runs", [*map(_caution, found.cautions), *_runs(found)]),
            *([views.Section("Headline figures", [_figures(found)])] if found.figures else []),
            *(section for layer in found.layers for section in _layer(found, layer)),
            *([] if found.imported else [views.Section("What differs in the making", [_differences(found)])]),
            _reading_labels() if found.imported else _reading(),
        ],
    )


def sentences(found: Comparison) -> list[str]:
    """The verdict: the first figure that surely differs, or that both have; then what became of the units."""
    known = [figure for figure in found.figures if figure.difference.value is not None]
    lead = next((figure for figure in known if figure.sure), known[0] if known else None)
    told = [] if lead is None else [_verdict(found, lead), *_others(found, lead)]
    labels = [_labels(found, layer) for layer in found.layers[:SHOWN_LABELS] if layer.matched]
    agreed = [_agreed(found, layer) for layer in found.layers if layer.agreements]
    return [*told, *labels, *agreed, *_gone(found)]


def _verdict(found: Comparison, figure: ComparedFigure) -> str:
    """What the leading figure says."""
    where = f" in {figure.row}" if figure.row else ""
    both = f"{figure.first.words} in {found.first.name}, {figure.second.words} in {found.second.name}"
    apart = difference_words(figure)
    if figure.difference.value == 0 and figure.difference.low in (0, None):
        return f"As many {figure.name}{where} in both: {both}."
    if figure.difference.low is None:
        return f"{figure.name.capitalize()}{where}: {both}; the difference of {apart} has no interval."
    if not figure.sure:
        return f"No sure difference in {figure.name}{where}: {both}; difference {apart}, over the same pictures."
    more, fewer = ("More", "Fewer") if figure.counts else ("Higher", "Lower")
    word = more if (figure.difference.value or 0) > 0 else fewer
    return f"{word} {figure.name}{where} in {found.second.name}: {both}; difference {apart}, over the same pictures."


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


def _labels(found: Comparison, layer: ComparedLayer) -> str:
    """How many units kept their label, beside what redrawn pictures leave and what pairs of other units share."""
    row = layer.matched.row if layer.matched else None
    if row is None:
        return ""
    kept = round((1 - row["changed_share"]) * row["units"])
    redrawn, random = row["redrawn_share"], row["random_share"]
    beside = [] if random is None else [f"{1 - random:.0%} of pairs of different units do"]
    beside += [] if redrawn is None else [f"{1 - redrawn:.0%} would in {found.first.name} alone over redrawn pictures"]
    of = f"{kept} of {row['units']} units of {layer.name} ({kept / row['units']:.0%}) carry the same label in both"
    return f"{of}{'; ' + ', '.join(beside) if beside else ''}."


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
    shown = [figure for figure in found.figures if figure.difference.value is not None][:SHOWN_TILES]
    return views.Figures(
        [
            (
                figure.name + (f", {figure.row}" if figure.row else ""),
                f"{_plain(figure.first)} → {_plain(figure.second)}",
                difference_words(figure) + ("" if figure.difference.low is not None else ", no interval"),
            )
            for figure in shown
        ]
    )


def _plain(figure: Figure) -> str:
    return "–" if figure.value is None else number(figure.value)


def _caution(text: str) -> views.Text:
    return views.Text(text, "advice")


def _runs(found: Comparison) -> list[views.Part]:
    names = [name for name, _ in found.first.facts]
    facts = [dict(run.facts) for run in (found.first, found.second)]
    lines = [[name, *(fact[name] for fact in facts)] for name in names]
    links = [(f"report of {run.name}", run.report) for run in (found.first, found.second) if run.report]
    columns = [("", False), (found.first.name, False), (found.second.name, False)]
    note = f"Over the same {found.images:,} pictures." if found.images else ""
    return [views.Table(columns, lines, note), *([views.Links(links)] if links else [])]


def _figures(found: Comparison) -> views.Table:
    columns = [("figure", False), ("of", False), (found.first.name, True), (found.second.name, True)]
    lines: list[list[str | views.Strip]] = [
        [
            figure.name,
            ", ".join(part for part in (figure.stage, figure.row) if part),
            figure.first.words,
            figure.second.words,
            difference_words(figure),
            _strip(figure) if figure.difference.low is not None else "",  # else nothing to tell it from zero by
        ]
        for figure in found.figures
    ]
    note = (
        f"95 % intervals. Difference: {found.second.name} minus {found.first.name}, where it has an interval over the "
        "same draws of pictures for both runs. On each line, which has a scale of its own: the difference and its "
        "interval; the green mark is no difference."
    )
    if found.imported:
        note = "95 % intervals where an audit measured; what was imported has none, and so has no difference."
        return views.Table([*columns, ("difference", True)], [line[:-1] for line in lines], note)
    return views.Table([*columns, ("difference", True), ("", False)], lines, note)


def _strip(figure: ComparedFigure) -> views.Strip:
    ends = [end for end in (figure.difference.value, figure.difference.low, figure.difference.high) if end is not None]
    widest = max(map(abs, ends), default=0.0) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(50 + 49 * value / widest, 2)

    found = figure.difference
    text = f"{figure.name}: difference {difference_words(figure)}"
    return views.Strip(place(found.value), place(found.low), place(found.high), [(50.0, "aim", "no difference")], text)


def _layer(found: Comparison, layer: ComparedLayer) -> list[views.Section]:
    if found.imported:
        return _labelled(found, layer)
    sections = [views.Section(f"Concepts gained and lost in {layer.name}", _concepts(found, layer))]
    if layer.matched is None:
        return [*sections, views.Section(f"Units of {layer.name}", [views.Text(layer.why, "quiet")])]
    pair = Drifted(found.first.name, found.second.name, [layer.matched])
    parts: list[views.Part] = [named(pair), *layer_tables([pair]), *advice(pair)]
    sections.append(views.Section(f"Units of {layer.name}, number by number", parts))
    if not layer.matched.same:
        sections += [changed_units(layer.matched), changed_gallery(layer.matched, found.size, wide=False)]
    return sections


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
    columns = [("concept", False), ("category", False), (found.first.name, True), (found.second.name, True)]
    columns += [("change", True)] + ([("of them confirmed", True)] if sure else [])
    rest = f" The first {SHOWN_CONCEPTS} of {len(moved)} that changed." if len(moved) > SHOWN_CONCEPTS else ""
    lines = [_concept(concept, sure) for concept in moved[:SHOWN_CONCEPTS]]
    note = "How many units detect each concept, luck included. Concepts that the same units detect are left out."
    named = [(f"units in {run.name} alone", False) for run in (found.first, found.second)]
    return [views.Table([*columns, *named], lines, note + rest)]


def _concept(concept: ConceptUnits, sure: bool) -> list[str]:
    first, second = set(concept.first), set(concept.second)
    confirmed = [f"{concept.confirmed[0]} → {concept.confirmed[1]}"] if sure and concept.confirmed else []
    return [
        concept.concept,
        concept.category,
        str(len(first)),
        str(len(second)),
        signed(len(second) - len(first)),
        *confirmed,
        listed(sorted(first - second)) or "–",
        listed(sorted(second - first)) or "–",
    ]


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
                "layer and number, which means something where one network grew out of the other; random pairs say "
                "whether it does."
            ),
        ],
    )
