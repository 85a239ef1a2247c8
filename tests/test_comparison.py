"""Two runs beside each other: what may be compared, pairs of figures by hand, the page, and the command."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from flows.compare import comparison
from flows.matching import matching
from flows.plan import Plan, Request
from flows.reports import find_page, publish
from microtome.errors import InputError
from microtome.report import views
from microtome.report.comparison import (
    BestUnit,
    ComparedFigure,
    ComparedLayer,
    ComparedRun,
    Comparison,
    ConceptUnits,
    Figure,
    KeptLabels,
    MovedConcept,
    difference_words,
    most_moved,
    number,
    page,
    sentences,
)
from microtome.report.drift import DriftedLayer, UnitPicture, UnitPictures
from microtome.report.single import alone
from microtome.report.words import change
from storage import RunRecord, RunStore, open_files
from tasks.comparison import Side, check_comparable, compared_figures, matched_rows
from tests.conftest import change_audit, opened
from tests.test_pages_stability import parts_of
from tests.test_readonly import audited

EVIL = "<img src=x onerror=alert(1)> \"'\n"


def figure(stage: str, name: str, row: str, value, low=None, high=None) -> dict:
    return {"stage": stage, "figure": name, "row": row, "value": value, "low": low, "high": high}


def test_rows_are_matched_by_name_then_in_order():
    assert matched_rows(["a", "b"], ["b", "a"]) == [("a", "a"), ("b", "b")]
    assert matched_rows(["features.12"], ["layer4"]) == [("features.12", "layer4")]
    assert matched_rows(["a", "b"], ["a"]) == [("a", "a"), ("b", None)]
    assert matched_rows(["a", "x"], ["a", "y", "z"]) == [("a", "a"), ("x", None), (None, "y"), (None, "z")]


def test_figures_of_stages_that_both_have():
    first = [figure("dissection", "detectors", "a", 31, 29, 33), figure("tree", "fidelity", "", 0.9)]
    second = [figure("dissection", "detectors", "b", 27, 25, 30), figure("parts", "error", "x", 1)]
    (found,) = compared_figures(first, second, {("dissection", "detectors", "a"): (-6, -2)})
    assert (found.row, found.first.words, found.second.words) == ("a / b", "31 [29, 33]", "27 [25, 30]")
    assert difference_words(found) == "−4 [−6, −2]"
    assert found.sure
    (gone,) = compared_figures(first[:1], [figure("dissection", "detectors", "a", None)], {})
    assert (gone.second.words, difference_words(gone), gone.sure) == ("–", "–", False)


@pytest.mark.parametrize(
    ("value", "words", "apart"),
    [
        (31.0, "31", "+31"), (0, "0", "0"), (-3, "−3", "−3"), (0.98765, "0.9877", "+0.99"),
        (12345, "12,345", "+12,345"), (0.036283, "0.0363", "+0.036"), (0.015, "0.0150", "+0.015"),
        (-0.00021, "−0.000210", "−0.00021"),
    ],
)  # fmt: skip
def test_numbers_in_words(value, words, apart):
    assert (number(value), change(value)) == (words, apart)


@pytest.mark.parametrize(
    ("values", "words", "apart"),
    [
        ((31, 29, 33), "31 [29, 33]", "+31 [+29, +33]"),
        ((0.9, 0.87654, 0.92), "0.9000 [0.8765, 0.9200]", "+0.90 [+0.88, +0.92]"),
        ((0.0188, 0.01, 0.0202), "0.0188 [0.0100, 0.0202]", "+0.019 [+0.010, +0.020]"),
        ((-0.0042, -0.01, 0), "−0.0042 [−0.0100, 0.0000]", "−0.004 [−0.010, 0]"),
        ((1234.5, 1000, 1500), "1,234 [1,000, 1,500]", "+1,234 [+1,000, +1,500]"),
        ((0, 0, 0), "0 [0, 0]", "0 [0, 0]"),
    ],
)
def test_a_value_has_as_many_digits_as_its_interval(values, words, apart):
    assert (Figure(*values).words, change(*values)) == (words, apart)


ROW = {
    "layer": EVIL, "units": 4, "images": 70, "changed_share": 0.25, "changed_low": None, "changed_high": None,
    "random_share": 0.9, "redrawn_share": 0.1, "detectors_before": 2, "detectors_after": 1, "kept": 1, "lost": 1,
    "gained": 0, "kept_share": 0.5, "kept_low": 0.2, "kept_high": 0.8, "lost_share": 0.5, "gained_share": 0.0,
    "change": -0.01, "change_low": -0.02, "change_high": 0.0, "best_change": 0.0, "best_change_low": -0.01,
    "best_change_high": 0.01, "risen": 0, "fallen": 1, "threshold_change": 0.3, "min_iou": 0.04, "bootstrap": 1000,
    "bootstrap_needed": 1000,
}  # fmt: skip
UNIT = {
    "unit": 3, "concept_before": EVIL, "concept_after": None, "changed": True, "iou_before": 0.1, "iou_after": 0.0,
    "kept_iou": 0.02, "change": -0.08, "change_low": -0.1, "change_high": -0.05, "q_value": 0.01, "best_change": -0.1,
    "threshold_before": 1.0, "threshold_after": 2.0, "threshold_change": 0.5,
}  # fmt: skip


def found(*figures: ComparedFigure, **changes) -> Comparison:
    picture = UnitPicture("data:image/webp;base64,", EVIL, 1.0)
    layer = DriftedLayer(ROW, [UNIT], {3: UnitPictures([picture] * 5, [picture] * 5)})
    concepts = [
        ConceptUnits(EVIL, "part", [3], [], (1, 0)),
        ConceptUnits("head", "part", [1, 2], [2], (2, 1)),
        ConceptUnits("sky", "scene", [7], [7], (1, 1)),
        ConceptUnits("leg", "part", [], [0], (0, 0)),
    ]
    runs = [ComparedRun(name, f"run {name}", [("network", EVIL)], "../x/index.html") for name in ("old", "new")]
    whole = Comparison(
        *runs, list(figures), [ComparedLayer(EVIL, concepts, layer)], [("network.weights", EVIL, "b")], [], 70, (64, 64)
    )
    return replace(whole, **changes)


def detectors(first: float, second: float, low: float | None, high: float | None) -> ComparedFigure:
    return ComparedFigure(
        "dissection", "detectors", "4", Figure(first), Figure(second), Figure(second - first, low, high)
    )


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (
            detectors(31, 27, -6, -2),
            "new has fewer detectors in 4 than old: 27 against 31, a difference of −4 [−6, −2] over the same",
        ),
        (
            detectors(0.27, 0.31, 0.02, 0.06),
            "new has a higher detectors in 4 than old: 0.31 against 0.27, a difference",
        ),
        (detectors(27, 31, 2, 6), "new has more detectors in 4 than old: 31 against 27, a difference of +4 [+2, +6]"),
        (
            detectors(31, 30, -4, 2),
            "No sure difference in detectors in 4: 31 in old, 30 in new; difference −1 [−4, +2]",
        ),
        (detectors(31, 31, 0, 0), "As many detectors in 4 in both: 31 in old, 31 in new."),
        (detectors(31, 30, None, None), "Detectors in 4: 31 in old, 30 in new; the difference of −1 has no interval."),
    ],
)
def test_the_verdict(figure, words):
    assert sentences(found(figure))[0].startswith(words)


def test_figures_that_surely_differ_are_named():
    more = [replace(detectors(3, 9, 5, 7), name=name) for name in ("a", "b, luck included", "c", "d")]
    told = sentences(found(detectors(31, 31, 0, 0), detectors(27, 31, 2, 6), detectors(1, 2, -1, 3), *more))
    assert told[0] == (
        "Over these pictures new surely differs from old in 5 of 7 figures: detectors, a, b (luck included), c, d of 4."
    )
    still = sentences(found(detectors(27, 31, 2, 6), more[0], replace(detectors(31, 31, 0, 0), row="9")))
    assert still[0].endswith("detectors, a of 4. In the dissection of 9 nothing surely differs.")
    assert told[1].startswith("new has more detectors in 4 than old: 31 against 27")  # what surely differs comes first
    both = found(detectors(27, 31, 2, 6), replace(more[0], row="9"), replace(more[0], row="", stage="tree"))
    assert sentences(both)[0] == (
        "Over these pictures new surely differs from old in 3 of 3 figures: detectors of 4; a of 9; a."
    )
    rows = [replace(more[0], row=str(n)) for n in range(5)]
    assert sentences(found(*rows, replace(detectors(1, 1, 0, 0), name="a")))[0].endswith(
        "5 of 6 figures: a in 5 of 6 rows."
    )
    many = sentences(found(*(replace(more[0], row=str(n), name=str(n)) for n in range(9))))
    assert many[0].endswith("5 of 5; and 3 more.")


def test_one_figure_that_surely_differs_is_the_verdict():
    one = detectors(27, 31, 2, 6)
    assert sentences(found(one))[1].startswith("3 of 4 units")  # with no others
    same = replace(detectors(1, 2, -1, 3), name="a")
    assert sentences(found(one, same))[1] == "The other figure that can be judged may be the same in both."
    assert sentences(found(one, same, same))[1].startswith("The other 2 figures that can be judged may be")


def test_a_control_of_one_is_said_to_be_one():
    whole = found(detectors(27, 31, 2, 6))
    one_random = replace(whole.first, random=True)
    one = sentences(replace(whole, first=one_random))
    assert one[1].startswith("old is one random initialisation: another would give other figures, and the intervals")
    both = replace(whole, first=replace(whole.first, random=True), second=replace(whole.second, random=True))
    assert sentences(both)[1].startswith("Both are random initialisations: another")
    several = replace(found(detectors(27, 31, 2, 6), replace(detectors(3, 9, 5, 7), name="a")), first=one_random)
    assert sentences(several)[0].startswith("Over these pictures, and with this one random initialisation, new surely")
    assert not any("initialisation" in sentence for sentence in sentences(whole))


def test_figures_of_other_stages_that_may_be_the_same_are_folded():
    figures = [detectors(1, 2, -1, 3), *(replace(detectors(1, 2, -1, 3), stage="tree", name=n) for n in "ab")]
    figures.append(replace(detectors(27, 31, 2, 6), stage="tree", name="c"))
    view = page(found(*figures), "c.html")
    sections = {section.heading: section for section in view.sections}
    assert [row[0] for row in sections["Headline figures of dissection"].parts[0].rows] == ["detectors"]
    assert [row[0] for row in sections["Headline figures of tree"].parts[0].rows] == ["c"]
    folded = sections["2 more figures that may be the same, or have no interval"]
    assert folded.folded
    assert [row[0] for row in folded.parts[0].rows] == ["a", "b"]
    alone = page(found(figures[1]), "c.html")
    assert [section.folded for section in alone.sections if section.heading == "Headline figures"] == [False]


def test_what_became_of_units_and_concepts():
    told = sentences(found())
    assert told[0] == (
        f"3 of 4 units of {EVIL} (75%) carry the same label in both; 10% would if units were paired at random, 90% if "
        "only the first run's pictures were redrawn."
    )
    assert told[1:] == [f"Concepts detected in old alone: {EVIL}; in new alone: leg."]


def test_numbers_that_mean_nothing_are_said_to_and_folded_away():
    lost = replace(found().layers[0], matched=DriftedLayer({**ROW, "random_share": 0.6}, [UNIT], {}))
    both = found(layers=[lost, replace(lost, name="other")])
    kept = KeptLabels.of(lost.matched)
    assert (kept.meaningless, kept.words) == (True, "3 of 4, 75% [30%, 95%]")
    assert sentences(both)[0] == (
        f"Unit numbers mean nothing between these two networks: 3 of 4 units of {EVIL} and 3 of 4 units of {EVIL} "
        "carry the same label in both, about as many as if units were paired at random (40% and 40%)."
    )
    view = page(both, "c.html")
    assert [section.folded for section in view.sections if section.heading.endswith("by number anyway")] == [True] * 2
    warned = next(part.text for part in parts_of(view, "text") if part.style == "advice")
    assert warned.startswith(f"As far as labels tell, not surely in {EVIL}, {EVIL}: there units of one number")
    (numbers,) = [section for section in view.sections if section.heading.startswith("Do numbers mean")]
    assert [row[0] for row in numbers.parts[1].rows] == [EVIL, EVIL]
    same = {**UNIT, "changed": False, "iou_after": 0.1, "threshold_after": 1.0}
    assert not KeptLabels.of(DriftedLayer({**ROW, "changed_share": 0, "random_share": 0}, [same], {})).meaningless
    assert not KeptLabels.of(DriftedLayer({**ROW, "random_share": None}, [UNIT], {})).meaningless
    folded = [section.heading for section in page(found(), "c.html").sections if section.folded]
    assert folded == ["The two runs", "How to read this"]


def test_units_lead_to_their_pages_in_either_report():
    key = views.UnitKey("a/b", 3)
    run = ComparedRun("old", "1", [], "../x/index.html", "net", frozenset([key.page]))
    assert run.unit(key) == "../x/unit/a~2f~b/3.html"
    assert run.unit(views.UnitKey("a/b", 4)) == ""
    made = found()
    first = replace(made.first, units=frozenset([views.UnitKey(EVIL, 3).page]))
    view = page(replace(made, first=first), "c.html")
    place = first.unit(views.UnitKey(EVIL, 3))
    assert parts_of(view, "table")[0].rows[0][-1] == views.Links([("−3", place)])
    assert parts_of(view, "table")[-3].rows[0][0] == views.Links([("3", ""), ("before", place)])
    assert parts_of(view, "gallery")[0].cards[0].links == [("before", place)]


def test_a_concept_that_another_layer_detects_is_not_gone():
    both = [ComparedLayer("a", [ConceptUnits("head", "part", [1], [], None)], None, "why"),
            ComparedLayer("b", [ConceptUnits("head", "part", [], [2], None)], None, "why")]  # fmt: skip
    assert sentences(found(layers=both)) == []


def test_the_page():
    view = page(
        found(detectors(31, 27, -6, -2), detectors(3, 4, None, None), cautions=["they measure otherwise"]), "c.html"
    )
    assert view.figures.items == []  # the table says them
    figures, concepts, *_ = parts_of(view, "table")
    assert [cell for cell in figures.rows[0] if isinstance(cell, str)][2:] == ["31 → 27", "−4 [−6, −2]"]
    strip = figures.rows[0][-1]
    assert (strip.value, strip.low, strip.high) == (pytest.approx(50 - 49 * 4 / 6, abs=0.01), 1.0, 33.67)
    assert figures.rows[1][-1] == ""  # nothing to tell it from zero by
    assert [row[0] for row in concepts.rows] == [EVIL, "head", "leg"]
    assert list(concepts.rows[1][1:]) == ["2 → 1", "2 → 1", views.Links([("−1", "")])]
    assert (figures.form, concepts.form) == ("stack brief", "slim")
    assert view.headline == "they measure otherwise"  # before any figure is said to differ
    (told,) = [part for section in view.sections for part in section.parts if isinstance(part, views.Listed)]
    assert told.items[0].startswith("new has fewer detectors in 4 than old")
    assert "\n" not in view.headline.replace(EVIL, "")
    (gallery,) = parts_of(view, "gallery")
    assert [spot.caption for spot in gallery.cards[0].spots] == ["before"] * 5 + ["after"] * 5
    assert view.links[0] == ("report of old", "../x/index.html")


def test_concepts_of_one_name_are_told_apart_by_their_category():
    twice = [ConceptUnits("door", "part", [1], [], None), ConceptUnits("door", "object", [], [2, 3, 4, 5, 6, 7], None)]
    view = page(found(layers=[ComparedLayer("a", [*twice, ConceptUnits("sky", "scene", [8], [], None)], None)]), "c")
    rows = parts_of(view, "table")[0].rows
    assert [row[0] for row in rows] == ["door (object)", "door (part)", "sky"]
    assert [text for text, _ in rows[0][-1].links] == ["+2", "3", "4", "5", "2 more"]


def test_the_concepts_that_moved_most():
    def units(name, first, second, confirmed=None):
        return ConceptUnits(name, "c", range(first), range(second), confirmed)

    layers = [
        ComparedLayer("low", [units("wing", 0, 1), units("sun", 2, 0), units("sky", 3, 3)], None),
        ComparedLayer("high", [units("wing", 1, 4), units("leg", 9, 9, (1, 3)), units("tail", 0, 1),
                               units("head", 0, 9)], None),
        ComparedLayer("bare", None, None),
    ]  # fmt: skip
    moved = [(item.layer, item.concept.concept, item.change) for item in most_moved(layers)]
    assert moved == [("high", "leg", 2), ("high", "head", 9), ("high", "wing", 3), ("low", "sun", -2)]


def test_the_best_units_of_moved_concepts_are_shown():
    gone, _, _, come = found().layers[0].concepts
    seen = [UnitPicture("data:,", "a.png", 1.0)] * 5
    best = [
        BestUnit(MovedConcept("4", replace(come, confirmed=None)), 0, Figure(0.2, 0.1, 0.3), seen, "data:sheet"),
        BestUnit(MovedConcept("4", gone), 3, Figure(0.2), seen, ""),
    ]
    key = views.UnitKey("4", 0)
    second = replace(found().second, units=frozenset([key.page]))
    view = page(found(best=best, second=second), "c.html")
    gained, lost = (
        section
        for section in view.sections
        if section.heading.startswith("Concepts ") and section.heading.endswith(" most")
    )
    assert [section.heading for section in (gained, lost)] == ["Concepts gained most", "Concepts lost most"]
    assert (gained.beside, lost.beside) == (True, False)
    (card,) = gained.parts[1].cards
    assert (card.title, card.label, card.note) == ("unit 0 of 4", "leg", "0 → 1 detectors")
    assert (card.facts[0][1], card.sheet, card.place) == ("0.200 [0.100, 0.300]", "data:sheet", "../x/unit/4/0.html")
    (card,) = lost.parts[1].cards
    assert (card.note, card.facts[0][1], card.place) == ("1 → 0 confirmed detectors", "0.200", "")
    shown = alone(view, "t", run="r")
    assert '<img class="m" src="data:sheet"' in shown
    assert '<a href="../x/unit/4/0.html">unit 0 of 4</a>' in shown


def test_units_that_cannot_be_matched_say_why():
    view = page(found(layers=[ComparedLayer("a / b", [], None, "Units are not matched.")], differences=[]), "c.html")
    texts = [part.text for part in parts_of(view, "text")]
    assert {"Units are not matched.", "The same units detect the same concepts in both."} <= set(texts)
    assert "Nothing: configuration, data, code and versions are the same." in texts


@pytest.fixture(scope="module")
def two(tmp_path_factory, broden):
    """Two audits of one data set, of networks that differ; and the files of their workspace."""
    from tests.conftest import NETWORK, write_audit

    folder = tmp_path_factory.mktemp("two")
    (folder / "nets.py").write_text(NETWORK)
    content = {
        "name": "first",
        "network": {"load": "nets:tiny", "layers": ["1", "4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 30, "permutations": 20, "min_iou": 0.001}, "report": {"top_images": 2}},
    }
    file = write_audit(folder / "audit.yaml", content)
    first = audited(file)
    change_audit(file, name="second")
    second = audited(file, "network.arguments={seed: 1}")
    return file, Plan(Request(file)).files, first, second


def test_a_run_beside_itself_differs_by_exactly_nothing(two):
    _, files, first, _ = two
    same = comparison(files, first, first)
    assert {difference_words(f) for f in same.figures} == {"0 [0, 0]", "0"}
    papers = "different concepts, as papers count"  # records keep it under another name
    assert [f.name for f in same.figures if f.difference.low is None] == [papers] * 2
    assert same.best == []
    assert all(layer.matched.same for layer in same.layers)
    assert sentences(same)[0].startswith("As many confirmed detectors in 1 in both")
    assert same.differences == []
    assert (same.first.name, same.second.name) == ("run 1", "run 2")
    assert page(same, "c.html").title == "first: run 1 beside run 2"
    assert not any(KeptLabels.of(layer.matched).meaningless for layer in same.layers)


def test_a_record_of_an_earlier_version_is_compared_by_the_names_of_now(two):
    _, files, first, second = two
    old = {"different concepts": "unique detectors, per unit",
           "different concepts, as papers count": "unique detectors, per category"}  # fmt: skip
    figures = tuple({**figure, "figure": old.get(figure["figure"], figure["figure"])} for figure in first.figures)
    assert {figure["figure"] for figure in figures} & set(old.values())
    made = comparison(files, replace(first, figures=figures), second)
    assert made.figures == comparison(files, first, second).figures
    assert any(figure.name == "different concepts" and figure.difference.low is not None for figure in made.figures)


def looked(files, name, **audit):
    """A run that looked at pictures of some content, with a seed and options."""
    store = RunStore(files)
    run = RunRecord.start(name, "net", {"audit": {"seed": audit.get("seed", 0), "stages": audit.get("stages", {})}})
    stages = {"index": {"folder": f"stages/index/{audit.get('pictures', 'a')}"}}
    run = replace(run, started=float(len(store.all())), status="done", stages=stages)
    store.save(run)
    return run


def test_of_two_audits_the_latest_runs_that_looked_alike_are_compared(tmp_path, capsys):
    files = open_files(str(tmp_path))
    old, other = looked(files, "a"), looked(files, "b", pictures="b")
    seeded, alike = looked(files, "a", seed=1), looked(files, "b")
    newest = looked(files, "a", pictures="c")
    assert matching(files, (newest, alike), ("a", "b")) == (old, alike)
    said = capsys.readouterr().err
    assert f"of a the run {old.run_id} is compared: the latest, {newest.run_id}, looked at" in said
    assert "of b" not in said
    assert matching(files, (newest, alike), (newest.run_id, "b")) == (newest, alike)  # what was named stays
    assert matching(files, (seeded, newest), ("a", "a")) == (seeded, newest)
    assert matching(files, (newest, other), ("a", other.run_id)) == (newest, other)  # none looked alike
    assert capsys.readouterr().err == ""


def test_two_runs_differ_in_what_they_differ(two):
    _, files, first, second = two
    made = comparison(files, first, second)
    rows = Side.of(files, second, print).dissection.rows("layers")
    name = "detectors, luck included"
    values = {f.row: f for f in made.figures if f.name == name}
    for row in rows:
        assert values[row["layer"]].second == Figure(row["detectors"], row["detectors_low"], row["detectors_high"])
        apart = values[row["layer"]].difference
        assert apart.low <= apart.value <= apart.high
        assert apart.low == int(apart.low)
    assert [layer.name for layer in made.layers] == ["1", "4"]
    assert [what for what, *_ in made.differences] == ["network.arguments.seed", "network, by content"]
    top = made.layers[1].matched.top
    assert top
    assert all(spot.thumb.startswith("data:image/webp;base64,") for unit in top.values() for spot in unit.before[:2])
    assert made.images == 70
    assert made.first.described.startswith("tiny with random weights, begun on ")
    assert made.second.described.startswith("tiny (seed 1) with random weights, begun on ")
    assert {best.moved.concept.concept for best in made.best}
    for best in made.best:
        of = best.moved.concept.second if best.moved.change > 0 else best.moved.concept.first
        assert best.unit in of
        assert best.sheet.startswith("data:image/png;base64,")
    assert made.first.unit(views.UnitKey("4", 0)) == made.first.report.replace("index.html", "unit/4/0.html")
    assert page(made, "c.html").title == "first beside second"
    told = publish(files, page(made, "compare-x.html"), "t", "f")
    assert find_page(files, "compare") == told


def test_unlike_layers_are_set_beside_each_other_but_not_matched(two):
    file, files, first, _ = two
    change_audit(file, name="other", network={"load": "nets:tiny", "layers": ["1", "3"], "input": {"size": [64, 64]}})
    third = audited(file)
    made = comparison(files, first, third)
    assert [layer.name for layer in made.layers] == ["1", "4 / 3"]
    assert made.layers[1].matched is None
    assert "not matched: numbers of different layers share no meaning" in made.layers[1].why


def test_options_that_measure_otherwise_are_a_caution(two):
    file, files, first, _ = two
    change_audit(file, name="strict", network={"load": "nets:tiny", "layers": ["1", "4"], "input": {"size": [64, 64]}})
    third = audited(file, "stages.dissection.min_iou=0.05", "seed=7")
    made = comparison(files, first, third)
    (caution,) = made.cautions
    assert "min_iou is 0.001 in the first run and 0.05 in the second; unit by unit both are counted by" in caution
    confirmed = next(f for f in made.figures if f.name == "confirmed detectors")
    assert confirmed.difference.low is None  # other halves chose the labels
    assert {"seed", "stages.dissection.min_iou"} <= {what for what, *_ in made.differences}


def test_other_pictures_and_other_concepts_are_refused(two, tmp_path):
    file, files, first, _ = two
    change_audit(file, name="fewer", network={"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}})
    fewer = audited(file, "dataset.limit=30", "stages.report=false")
    with pytest.raises(InputError, match=r"both runs must have seen the same pictures, got 70 in .*, 30 of them"):
        comparison(files, first, fewer)
    sides = [Side.of(files, run, print) for run in (first, fewer)]
    gone = replace(sides[1], stages={}, run=replace(fewer, figures=(), stages={}))
    with pytest.raises(InputError, match=r"must have a stage in common that measures something, got diss.* and no"):
        check_comparable(sides[0], gone)


def test_concepts_that_differ_are_named(two):
    from tasks.comparison import _apart
    from tasks.index.result import ConceptTable

    _, files, first, _ = two
    index = Side.of(files, first, print).index
    names = index.concepts

    class Other:
        concepts = ConceptTable(names.number, ["beak", *names.name[1:]], names.category, names.categories)
        table, frame = index.table, index.frame

    fault = _apart(index, Other(), ("one", "two"))
    assert f"same concepts, got {len(names.name)} in one and {len(names.name)} in two" in fault
    assert f"in one alone: {names.name[0]}; in two alone: beak" in fault


def test_the_command(two, command):
    file, _, first, second = two
    process = command("compare", first.run_id, "second", cwd=file.parent)
    assert process.returncode == 0, process.stderr
    assert re.search(r"\d+ of 12 units of 4 .*carry|\d+ of 8 units of 1 .*carry", process.stdout)
    place = Path(re.search(r"page +(.*)", process.stdout)[1])
    assert place.name == f"compare-{first.run_id}-{second.run_id}.html"
    assert command("open", "compare", cwd=file.parent).stdout.strip() == str(place)
    refused = command("compare", "first", "fewer", cwd=file.parent)
    assert refused.returncode == 2
    assert "must have seen the same pictures, got 70" in refused.stderr
    assert refused.stdout == ""
    history = command("history", "first", cwd=file.parent)
    assert history.returncode == 0, history.stderr
    assert "first has one finished run" in history.stdout
    assert Path(re.search(r"page +(.*)", history.stdout)[1]).is_file()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser, tmp_path, scheme):
    files = open_files(str(tmp_path))
    told = publish(files, page(found(detectors(31, 27, -6, -2)), "compare-a-b.html"), EVIL, EVIL)
    for width in (1440, 390):
        tab, heard = opened(browser, told, width)
        tab.emulate_media(color_scheme=scheme)
        assert heard == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("img[src=x]").count() == 0
        assert "<img src=x onerror=alert(1)>" in tab.inner_text("main")
        tab.close()


def test_nothing_is_written_where_the_workspace_is_only_read(two, monkeypatch):
    _, files, first, _ = two
    monkeypatch.setattr(files, "writable", lambda name: False)
    assert publish(files, page(found(), "c.html"), "t", "f") is None
    assert RunStore(files).find(first.run_id) == first
