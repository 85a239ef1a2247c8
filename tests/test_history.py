"""The runs of one audit as trends: charts and sentences from findings made by hand, and what is read from records."""

import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.audit import _told
from flows.history import _gates, file_name, past
from microtome.errors import InputError
from microtome.report import views
from microtome.report.comparison import Figure
from microtome.report.history import (
    Change,
    History,
    PastFigure,
    PastGate,
    PastRun,
    PastVerdict,
    Step,
    UnfinishedRun,
    figure_line,
    figure_table,
    page,
    sentences,
)
from microtome.report.trends import HEIGHT, WIDTH, Point, Run, Trend, drawn
from storage import RunRecord, RunStore, open_files
from storage.runs import StageRun
from tests.conftest import opened
from tests.test_pages_stability import parts_of

EVIL = "<img src=x onerror=alert(1)> \"'\n"


MAY = 1777593600.0  # 1 May 2026


def run(number: int, pictures: str = "p", *, hours: float = 0.0) -> PastRun:
    """One at noon of a day in May, or some hours after that of the first."""
    started = MAY + 43200 + (3600 * hours if hours else 86400 * (number - 1))
    return PastRun(f"run-{number}", started, "done", "net", pictures=pictures)


def dated(points: list[Point], **changes) -> Trend:
    return Trend(points, [Run("1 May", f"{number % 24:02d}:00") for number in range(len(points))], **changes)


def verdict(value: float, limit: float | None, said: str, note: str = "") -> PastVerdict:
    return PastVerdict(Figure(value, value - 1, value + 1), limit, said, note)


STOPPED = UnfinishedRun("run-s", "day 1 night", "killed", "net", "", 1)
FAILED = UnfinishedRun("run-f", "9 May", "failed", "net", f"stage tree: {EVIL}", 3)


def history(**changes) -> History:
    figure = PastFigure("dissection", "detectors", "4", [Figure(31, 29, 33), Figure(30, 28, 32), Figure(27, 25, 29)])
    gone = PastFigure("tree", EVIL, "", [None, Figure(0.5), None])
    gate = PastGate(f"{EVIL}: min 28", [None, verdict(30, 28, "passed"), verdict(27, 28, "failed", EVIL)], 0)
    whole = History("nightly", [run(1), run(2), run(3)], [gate], [figure, gone], [STOPPED, FAILED])
    return replace(whole, **changes)


def shapes(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.get("class") for element in root.iter() if element.get("class") and element is not root]


def test_a_trend_has_a_line_a_band_limits_and_crosses():
    points = [Point(1, 0.5, 1.5, missed=True, text=EVIL), Point(2, 1, 3, sure=True), Point(3, 2, 4)]
    runs = [Run(EVIL, "12:00"), Run(EVIL, "13:00", [("N", EVIL), ("S", "seed")]), Run(EVIL, "14:00")]
    svg = drawn(Trend(points, runs, limits=[[1.2] * 3, [None, 2, 3]]))
    kept = [shape for shape in shapes(svg) if shape not in ("axis", "grid", "day")]
    assert kept == ["mark", "mark", "band", *["limit"] * 3, "line", "missed", "moved", "dot", "dot"]
    titles = [element.text for element in ElementTree.fromstring(svg).iter("title")]
    assert titles[:3] == [EVIL, "seed", EVIL]
    numbers = list(ElementTree.fromstring(svg).iter("circle"))
    assert all(0 <= float(dot.get("cx")) <= WIDTH and 0 <= float(dot.get("cy")) <= HEIGHT for dot in numbers)


def test_a_line_is_broken_where_nothing_was_measured_and_where_the_pictures_changed():
    points = [Point(1), Point(2), Point(None), Point(3), Point(4), Point(5)]
    assert shapes(drawn(dated(points))).count("line") == 2
    broken = shapes(drawn(dated(points, breaks=[5])))
    assert (broken.count("break"), broken.count("line"), broken.count("dot")) == (1, 2, 5)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([47, 46, 48], [46, 47, 48]), ([5], [0, 2, 4, 6]), ([1, 2], [0, 1, 2]), ([36, 41], [36, 38, 40, 42]),
        ([0.036, 0.041], [0.036, 0.038, 0.04, 0.042]), ([0.01, 0.041], [0, 0.02, 0.04, 0.06]),

        ([0], [0, 1]), ([0.5], [0, 0.2, 0.4, 0.6]), ([-3, 2], [-4, -2, 0, 2]), ([-0.5], [-0.6, -0.4, -0.2, 0]),
        ([1200], [0, 500, 1000, 1500]), ([1], [0, 1]), ([4], [0, 1, 2, 3, 4]), ([1e-7], [0, 5e-8, 1e-7]),
    ],
)  # fmt: skip
def test_an_axis_begins_at_zero_unless_all_is_far_from_it_and_has_whole_ticks_for_counts(values, ticks):
    trend = dated([Point(value) for value in values])
    assert trend.ticks == pytest.approx(ticks)
    words = [text.text for text in ElementTree.fromstring(drawn(trend)).iter("text")]
    assert words[: len(ticks)] == [f"{tick:,.6g}".replace("-", "−") for tick in trend.ticks]


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=5))
def test_an_axis_has_six_ticks_at_most_and_holds_all(values):
    values = [round(value, 6) for value in values]
    ticks = dated([Point(value) for value in values]).ticks
    assert 2 <= len(ticks) <= 6
    span = ticks[-1] - ticks[0]
    assert ticks[0] - 1e-6 * span <= min(values) <= max(values) <= ticks[-1] + 1e-6 * span


@pytest.mark.parametrize("count", [1, 5, 9, 30, 200])
def test_words_below_an_axis_stand_apart_and_the_last_run_has_some(count):
    runs = [Run(f"{1 + number % 28} May", f"{number % 24:02d}:00") for number in range(count)]
    svg = ElementTree.fromstring(drawn(Trend([Point(1.0)] * count, runs)))
    below = [text for text in svg.iter("text") if ":" in text.text]
    places = [float(text.get("x")) for text in below]
    assert below[-1].text == runs[-1].hour
    assert all(right - left >= 33 for left, right in pairwise(places))
    assert count > 5 or len(below) == count


@pytest.mark.parametrize("points", [[], [Point(None)], [Point(3, 3, 3)], [Point(0)], [Point(-5), Point(-5)]])
def test_a_trend_of_next_to_nothing_is_drawn(points):
    svg = drawn(dated(points, limits=[[-5.0] * len(points)]))
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg


def test_what_is_said():
    told = list(sentences(history()))
    assert told == [
        f"The latest run, on 9 May, failed (stage tree: {EVIL}); what follows is of the finished ones.",
        "Since the run before, 1 of 1 figures surely moved (0 up, 1 down); in the last run the one gate failed.",
        f"The gate {EVIL}: min 28: failed, got 27 [26, 28], after passing.",
        "Detectors of 4 surely fell, from 30 [28, 32] to 27 [25, 29]: −3.0 [−5.8, −0.2].",
        "Nothing that the records know of changed in the making since then.",
        "3 finished runs of nightly from 1 May 2026 to 3 May 2026; 2 more did not finish.",
    ]
    calm = replace(history(), figures=[PastFigure("a", "b", "c", [Figure(1, 0, 2)] * 3)], gates=[], unfinished=[])
    assert next(sentences(calm)) == "Since the run before, none of 1 figures changed."
    bare = [PastFigure("a", "b", "c", [None, Figure(1, 0, 2), Figure(2, 0, 3)]), PastFigure("a", "d", "", [None] * 3)]
    bare += [PastFigure("a", "e", "", [None, Figure(1), Figure(2)])]
    assert next(sentences(replace(calm, figures=bare))) == (
        "Since the run before, no figure surely moved (2 of 2 did a little; 1 of them has no interval)."
    )
    risen = PastFigure("a", "b", "c", [None, Figure(1, 0, 2), Figure(4, 3, 5)])
    more = [PastFigure("a", "b", str(n), [None, Figure(1, 0, 2), Figure(3 + n, 2 + n, 4 + n)]) for n in range(4)]
    told = list(sentences(replace(calm, figures=[*more, risen])))
    assert told[0].startswith("Since the run before, 5 of 5 figures surely moved (")
    assert told[1] == "B of 3 surely rose, from 1 [0, 2] to 6 [5, 7]: +5.0 [+3.6, +6.4]."  # the surest first
    assert told[4] == "2 more figures surely moved."
    again = replace(run(3), times=2, ended=MAY + 5 * 86400)
    told = next(sentences(replace(calm, figures=[risen], runs=[run(1), run(2), again])))
    assert told.startswith("Since the last run that measured otherwise, on 2 May 2026, 1 of 1 figures surely moved")


def test_gates_are_counted_and_say_for_how_long_they_fail():
    calm = replace(history(), figures=[], unfinished=[])

    def told(*gates: list[str]) -> list[str]:
        past = [PastGate(f"g{n}", [verdict(1, 2, said) for said in every]) for n, every in enumerate(gates)]
        return list(sentences(replace(calm, gates=past)))

    assert told(["failed"] * 3, ["passed"] * 3)[0].endswith("in the last run 1 of 2 gates failed.")
    assert told(["failed"] * 3, ["warned"] * 3)[0].endswith(
        "in the last run 1 of 2 gates failed and 1 of 2 gates warned."
    )
    assert told(["failed"] * 3)[1] == "The gate g0: failed, got 1 [0, 2], as in the 2 runs before."
    assert told(["passed", "failed", "failed"])[1].endswith(", as in the run before.")
    assert told(["passed"] * 3)[0].endswith("in the last run the one gate passed.")
    assert told(["passed"] * 3, ["passed"] * 3)[0].endswith("in the last run all 2 gates passed.")
    assert told(["passed"] * 3, ["not judged"] * 3)[0].endswith("no gate failed, and 1 of 2 could not be judged.")
    assert told(*[["failed"] * 3] * 5)[4] == "2 more gates missed their limits."


def test_what_surely_moved_is_put_together_from_both_intervals():
    """By hand: 10 [8, 13] to 20 [16, 22], 10 - sqrt(4^2 + 3^2) = 5 and 10 + sqrt(2^2 + 2^2)."""
    step = Step.between(Figure(10, 8, 13), Figure(20, 16, 22))
    assert (step.apart.value, step.apart.low, step.apart.high) == pytest.approx((10, 5, 10 + 8**0.5))
    assert step.sure
    assert not Step.between(Figure(10, 8, 13), Figure(12, 11, 14)).sure
    assert not Step.between(Figure(10), Figure(20)).sure
    assert Step.between(Figure(None), Figure(20)) is None
    assert Step.between(None, Figure(20)) is None


def test_charts_come_in_the_order_in_which_they_matter():
    values = [Figure(10, 9, 11), Figure(10, 9, 11), Figure(10, 9, 11)]
    still, judged = PastFigure("a", "still", "", values), PastFigure("dissection", "judged", "l", values)
    slow = PastFigure("a", "slow", "", [Figure(10, 9, 11), Figure(11.2, 10.2, 12.2), Figure(12.4, 11.4, 13.4)])
    little = PastFigure("a", "little", "", [*values[:2], Figure(10.5, 9.5, 11.5)])
    sure = PastFigure("tree", "sure", "r", [*values[:2], Figure(15, 14, 16)])
    gates = [
        PastGate("x of l: min 12, certain", [verdict(10, 12, "failed")] * 3, 1),
        PastGate("other.one: max drop 0.1", [verdict(3, 2, "passed", "before: 3")] * 3),
    ]
    view = page(history(gates=gates, figures=[still, judged, slow, little, sure], unfinished=[]), "h.html")
    found = {section.heading: (section.folded, section.parts) for section in view.sections}
    shown = {
        heading: [card.title for part in parts if isinstance(part, views.Trends) for card in part.cards]
        for heading, (_, parts) in found.items()
    }
    assert {heading: titles for heading, titles in shown.items() if titles} == {
        "Missed gates and what surely moved": ["judged", "sure"],
        "Other gates": ["other.one"],
        "Surely moved since the first of these runs": ["slow"],
        "1 figure that moved, not surely": ["little"],
    }
    assert found["1 figure that moved, not surely"][0]
    assert found["1 figure that never changed"][0]
    (first, moved), (gate,), *_ = (part.cards for _, parts in found.values() for part in parts if part.kind == "trends")
    assert first.marks == [views.Badge("✗ failed", "bad", "min 12, certain, missed in 3 of 3 runs")]
    assert first.told == "As it was in the run before, 10 [9, 11]."
    assert (moved.of, moved.value) == ("r · tree", "15 [14, 16]")
    assert moved.told == "+5.0 [+3.6, +6.4] since the run before, surely, from 10 [9, 11]."
    assert gate.marks == [views.Badge("✓ passed", "good", "max drop 0.1 (limit 2); before: 3")]
    slowly = next(part.cards[0] for part in found["Surely moved since the first of these runs"][1])
    assert slowly.told == "+2.4 [+1.0, +3.8] since 1 May 2026, 12:00 UTC, surely, from 10 [9, 11]."


def test_marks_below_the_axis_tell_what_changed():
    changes = [Change("code", "code of tally"), Change("network", "files of the network"), Change("gates", "gates: a")]
    runs = [run(1), replace(run(2), changed=changes), run(3)]
    assert [each.marks for each in runs] == [
        [], [("N", "network: files of the network"), ("C", "code: code of tally")], [],
    ]  # fmt: skip
    legend = parts_of(page(history(runs=runs), "h.html"), "trends")[0].legend
    assert legend[-2:] == [("N", "another network than before"), ("C", "other code than before")]
    assert [kind for kind, _ in legend[:-2]] == ["dot", "band", "moved", "limit", "missed"]
    assert [(each.day, each.hour) for each in history().below] == [
        ("1 May", "12:00"), ("2 May", "12:00"), ("3 May", "12:00"),
    ]  # fmt: skip
    years = history(runs=[replace(run(1), started=MAY - 365 * 86400), run(2), run(3)])
    assert [(each.day, each.hour) for each in years.below] == [("1 May", "2025"), ("2 May", "2026"), ("3 May", "2026")]


def test_a_run_that_measured_by_other_settings_is_no_finding(tmp_path):
    """A count that fell since its limit was raised: the limit is named first, nothing is said to have fallen."""
    store = RunStore(open_files(str(tmp_path)))
    for number, limit in ((5, 0.04), (5, 0.04), (3, 0.06), (2, 0.06)):
        options = {"dissection": {"min_iou": limit}, "tree": {"category": "bird"}}
        kept = record(number, run_id=f"{len(store.all())}", started=float(len(store.all())))
        index = {"index": {"folder": "stages/index/a"}}
        store.save(replace(kept, stages=index, about={"audit": {"stages": options}}))
    found = past(open_files(str(tmp_path)), "nightly")
    assert [run.otherwise for run in found.runs] == [[], ["stages.dissection.min_iou was 0.04 and is 0.06"], []]
    assert found.breaks == [1]
    until = replace(
        found, runs=found.runs[:2], figures=[replace(f, values=f.values[:2]) for f in found.figures], gates=[]
    )
    assert next(sentences(until)) == (
        "The last run measured by other settings than the run before (stages.dissection.min_iou was 0.04 and is 0.06): "
        "what differs between them may come from that alone."
    )


def test_runs_that_gave_the_same_results_say_that_nothing_changed():
    gates = [PastGate("g", [verdict(3, 2, "passed")]), PastGate("h", [verdict(3, 2, "not judged")])]
    same = replace(run(1), times=2, ended=MAY + 45000)
    one = History("nightly", [same], gates[:1], [PastFigure("s", "n", "r", [Figure(2, 1, 3)])])
    assert list(sentences(one)) == [
        "Nothing changed between the 2 finished runs of nightly on 1 May 2026: every stage measured the same.",
        "In the last run the one gate passed.",
    ]
    assert "1 of 2 could not be judged" in list(sentences(replace(one, gates=gates)))[1]
    view = page(one, "h.html")
    assert parts_of(view, "trends") == []  # a dot is no trend
    assert parts_of(view, "table")[-1].rows[0][1] == "1 May 2026, 12:00 UTC (2 runs to 1 May 2026, 12:30 UTC)"


def test_a_run_that_failed_or_still_runs_is_said():
    going = replace(FAILED, status="running", why="")
    assert list(sentences(history(unfinished=[going])))[-1].startswith(
        "A run that began on 9 May has not ended yet, and"
    )
    killed = replace(FAILED, status="killed", why="x" * 200)
    told = next(sentences(history(unfinished=[killed])))
    assert told.startswith(f"The latest run, on 9 May, was killed ({'x' * 119}…); what")
    assert "9" not in next(sentences(history(unfinished=[STOPPED])))  # others finished since


def test_other_pictures_are_no_change_of_the_network():
    moved = history(runs=[run(1), run(2), run(3, "q")])
    assert moved.breaks == [2]
    assert list(sentences(moved))[1].startswith("The last run looked at other pictures than the run before")
    assert moved.sure == []
    line = figure_table(moved)[1][0]
    assert line[6] == "–"  # the change


def test_a_single_run():
    one = History("a", [run(1)], [], [PastFigure("s", "n", "r", [Figure(2, 1, 3)])])
    assert list(sentences(one)) == ["a has one finished run, on 1 May 2026: there is no trend yet."]
    assert figure_line(one.figures[0]) == ["n", "r · s", "1", "2 [1, 3]", "–", "2 [1, 3]", "–", "2", "2"]
    assert figure_table(one) == (["figure", "of", "last"], [["n", "r · s", "2 [1, 3]"]])
    view = page(one, "h.html")
    assert parts_of(view, "trends") == []
    assert parts_of(view, "table")[0].columns == [("figure", False), ("r", True)]
    assert list(map(list, parts_of(view, "table")[0].rows)) == [["n", "2 [1, 3]"]]
    assert len(parts_of(view, "table")[-1].columns) == 5  # nothing is other than in a run before
    many = [PastFigure("s", "n", str(row), [Figure(1)]) for row in range(5)]  # too many to stand side by side
    assert len(parts_of(page(replace(one, figures=many), "h.html"), "table")[0].rows) == 5
    two = replace(one, runs=[run(1), run(2)], figures=[PastFigure("s", "n", "", [Figure(2), Figure(3)])])
    assert figure_table(two) == (["figure", "of", "before", "last", "change"], [["n", "s", "2", "3", "+1"]])


def test_a_line_of_the_table():
    assert figure_line(history().figures[0]) == [
        "detectors", "4", "3", "31 [29, 33]", "30 [28, 32]", "27 [25, 29]", "−3.0 [−5.8, −0.2]", "27", "31",
    ]  # fmt: skip
    assert figure_line(history().figures[1])[2:] == ["1", "0.5", "0.5", "–", "–", "0.5", "0.5"]


def test_the_page():
    view = page(history(), "h.html")
    runs, still, moved = parts_of(view, "table")
    cards = [card for part in parts_of(view, "trends") for card in part.cards]
    assert [(card.title, card.of) for card in cards] == [("detectors", "4")]  # which the gate judges
    assert cards[0].marks == [views.Badge("✗ failed", "bad", f"min 28, missed in 1 of 2 runs; {EVIL}")]
    assert list(still.rows[0]) == [EVIL, "tree", "0.5"]
    assert [name for name, _ in moved.columns] == ["figure", "of", "first", "before", "last", "change"]
    assert [row[0] for row in moved.rows] == ["detectors"]
    assert [row[0].links[0][0] for row in runs.rows] == ["run-f", "run-3", "run-2", "run-s", "run-1"]
    assert [row[2] for row in runs.rows] == [f"failed: stage tree: {EVIL}", "done", "done", "killed", "done"]
    assert [part.text for part in parts_of(view, "code")] == ["microtome compare run-2 run-3"]
    known = replace(run(3), report="../stages/report/a/index.html", comparison="compare-run-2-run-3.html")
    told = page(history(runs=[run(1), run(2), known]), "h.html")
    links = [("report of the last run", known.report), ("comparison with the run before", known.comparison)]
    assert told.links == links
    assert parts_of(told, "table")[0].rows[1][-1] == views.Links([("report", known.report), links[1]])
    assert parts_of(told, "code") == view.links == []
    assert view.figures.items == []  # the cards say it
    assert view.headline.startswith("The latest run, on 9 May, failed")
    said = list(sentences(history()))
    assert parts_of(view, "list")[0].items == [*said[1:3], *said[4:]]  # but for what a card tells
    runs, figures = [run(n) for n in range(1, 41)], [PastFigure("s", "n", "r", [Figure(1)] * 40)]
    many = page(history(runs=runs, gates=[], figures=figures), "h.html")
    assert parts_of(many, "table")[0].note.startswith("The latest 30 of 42.")


def test_many_figures_that_moved_are_folded():
    values = [Figure(1, 0, 2), Figure(1, 0, 2), Figure(9, 8, 10)]
    view = page(history(figures=[PastFigure("a", "b", str(n), values) for n in range(15)], gates=[]), "h.html")
    cards = [(section.folded, len(part.cards)) for section in view.sections for part in section.parts
             if isinstance(part, views.Trends)]  # fmt: skip
    assert cards == [(False, 12), (True, 3)]
    assert view.sections[2].heading == "3 more figures that surely moved"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser, tmp_path, scheme):
    from flows.reports import publish

    place = publish(open_files(str(tmp_path)), page(history(), "history-x.html"), EVIL, EVIL)
    for width in (1440, 390):
        tab, heard = opened(browser, place, width)
        tab.emulate_media(color_scheme=scheme)
        assert heard == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.locator("img").count() == 0
        assert "<img src=x onerror=alert(1)>" in tab.inner_text("main")
        tab.close()


def record(number: int, **changes) -> RunRecord:
    figures = ({"stage": "dissection", "figure": "detectors", "row": "4", "value": number, "low": None, "high": None},)
    gates = ({"gate": "g", "value": float(number), "limit": 2.0, "passed": number >= 2},)
    base = RunRecord(f"run-{number}", "nightly", "net", 1e9 + 86400 * number, 1.0, "done", gates=gates, figures=figures)
    return replace(base, **changes)


def test_records_become_trends(tmp_path):
    store = RunStore(open_files(str(tmp_path)))
    index = {"index": {"folder": "stages/index/a"}}
    for kept in (
        record(1, stages=index, about={"audit": {"seed": 0}}, inputs={"network": "inputs/a"}),
        record(2, stages=index, about={"audit": {"seed": 1}}, inputs={"network": "inputs/b"}),
        record(3, stages={"index": {"folder": "stages/index/b"}}, gates=(), about={"audit": {"seed": 1}}),
        record(4, status="failed", about={"failure": "stage tree: no bird"}),
        record(5, name="other"),
    ):
        store.save(kept)
    found = past(open_files(str(tmp_path)), "nightly")
    assert [line.run for line in found.runs] == ["run-1", "run-2", "run-3"]
    assert [line.changed for line in found.runs] == [
        [],
        [Change("settings", "seed: 0, now 1"), Change("network", "files of the network")],
        [Change("network", "files of the network")],
    ]
    assert found.breaks == [2]
    assert [(run.run, run.status, run.why, run.after) for run in found.unfinished] == [
        ("run-4", "failed", "stage tree: no bird", 3)
    ]
    assert [value.value for value in found.figures[0].values] == [1, 2, 3]
    assert [verdict and verdict.verdict for verdict in found.gates[0].verdicts] == ["failed", "passed", None]
    with pytest.raises(InputError, match="no audit has that name here; did you mean 'nightly'"):
        past(open_files(str(tmp_path)), "nihgtly")
    store.save(record(6, name="young", status="running"))
    with pytest.raises(InputError, match="got 'young': it has no finished run; the latest, run-6, is running"):
        past(open_files(str(tmp_path)), "young")
    store.save(record(7, name="young", status="failed", about={"failure": "stage tree: no bird"}))
    with pytest.raises(InputError, match="the latest, run-7, ended as failed: stage tree: no bird"):
        past(open_files(str(tmp_path)), "young")


def test_code_that_changed_is_told(tmp_path):
    """Of stages that measure, where both records know it."""
    store = RunStore(open_files(str(tmp_path)))

    def made(number: int, **code: str) -> RunRecord:
        stages = {name: StageRun(folder=f"stages/{name}/{number}", code=digest) for name, digest in code.items()}
        stages["index"] = StageRun(folder="stages/index/a")
        return record(number, stages=stages)

    for kept in (made(1, tally="a", pages="a"), made(2, tally="a", pages="b"), made(3, tally="b", tree="a", pages="b")):
        store.save(kept)
    found = past(open_files(str(tmp_path)), "nightly")
    assert [run.changed for run in found.runs] == [[], [], [Change("code", "code of tally")]]


def test_old_and_new_names_of_a_figure_are_one(tmp_path):
    """Records of earlier versions called different concepts unique detectors."""
    store = RunStore(open_files(str(tmp_path)))
    for number, name in enumerate(("unique detectors, per unit", "different concepts"), 1):
        one = {"stage": "dissection", "figure": name, "row": "4", "value": number, "low": None, "high": None}
        store.save(record(number, figures=(one,)))
    found = past(open_files(str(tmp_path)), "nightly")
    assert [(each.name, [value.value for value in each.values]) for each in found.figures] == [
        ("different concepts", [1, 2])
    ]


def test_a_gate_is_drawn_with_the_figure_that_it_judges(tmp_path):
    store = RunStore(open_files(str(tmp_path)))
    for number in (1, 2):
        figures = tuple(
            {"stage": stage, "figure": name, "row": row, "value": number, "low": None, "high": None}
            for stage, name, row in (
                ("dissection", "detectors, luck included", "b"), ("dissection", "detectors, luck included", "a"),
                ("stability", "location deviation", "a, bird"),
            )
        )  # fmt: skip
        titles = {
            "layers.detectors of a: min 1": number, "layers.detectors of b: min 1": 7,
            "layers.dead of a: max 3": number,
            "stability_layers.deviation of a, category bird: max 3, certain": number,
        }  # fmt: skip
        gates = tuple({"gate": t, "value": float(v), "limit": 1.0, "passed": True} for t, v in titles.items())
        store.save(record(number, figures=figures, gates=gates))
    found = past(open_files(str(tmp_path)), "nightly")
    assert {gate.gate.partition(":")[0]: gate.figure for gate in found.gates} == {
        "layers.detectors of a": 1,
        "layers.detectors of b": None,  # another value than the figure's
        "layers.dead of a": None,  # no headline
        "stability_layers.deviation of a, category bird": 2,
    }


def test_a_record_keeps_why_its_run_failed():
    about = _told(record(1, about={"file": "a"}), ValueError("\nstage tree: no bird\nTraceback")).about
    assert about == {"file": "a", "failure": "stage tree: no bird"}
    assert len(_told(record(1), ValueError("x" * 9999)).about["failure"]) == 300


def test_runs_of_the_same_results_are_one_and_lead_to_what_there_is(tmp_path):
    files = open_files(str(tmp_path))
    stages = [{name: {"folder": f"stages/{name}/{run}"} for name in ("index", "report")} for run in "ab"]
    again = {**stages[0], "report": {"folder": "stages/report/c"}}
    for kept in (
        record(1, stages=stages[0]),
        record(2, stages=again, figures=record(1).figures, gates=record(1).gates),
        record(3, status="killed", stages=stages[1]),
        record(4, stages=stages[1]),
        record(5, stages=stages[0], figures=record(1).figures, gates=record(1).gates),
    ):
        RunStore(files).save(kept)
    for run in "ac":
        files.write(f"stages/report/{run}/index.html", b"x")
    files.write("reports/compare-run-4-run-1.html", b"x")
    found = past(files, "nightly")
    assert [(run.run, run.times, below.day) for run, below in zip(found.runs, found.below, strict=True)] == [
        ("run-2", 2, "10 Sep"), ("run-4", 1, "13 Sep"), ("run-5", 1, "14 Sep"),
    ]  # fmt: skip
    assert found.runs[0].begun == "10 September 2001, 01:46 UTC (2 runs to 11 September 2001, 01:46 UTC)"
    assert [run.report for run in found.runs] == [
        "../stages/report/c/index.html", "", "../stages/report/a/index.html",
    ]  # fmt: skip
    assert [run.comparison for run in found.runs] == ["", "compare-run-4-run-1.html", ""]
    assert [(run.why, run.after) for run in found.unfinished] == [("after index, report", 1)]


def test_older_records_are_read_from_their_stages(finished_workspace, tmp_path):
    """A record without figures, as version 1 wrote them."""
    files = open_files(str(shutil.copytree(finished_workspace / "whole", tmp_path / "copy")))
    known = RunStore(files).find("tiny")
    store = RunStore(files)
    store.save(replace(known, run_id="older", name="older", figures=()))
    found = past(files, "older")
    assert [figure.name for figure in found.figures][:2] == ["confirmed detectors", "detectors, luck included"]


@pytest.mark.parametrize("name", ["nightly", "a b/../c", EVIL.strip(), "é" * 90, "..", "con"])
def test_a_page_has_a_file_name_of_its_own(name):
    plain = file_name(name)
    assert "/" not in plain
    assert plain.isascii()
    assert (plain == name) == (name in ("nightly", "..", "con"))
    assert len(plain) <= 100


def test_a_limit_that_was_moved_makes_no_other_gate():
    """Unless there are two of one kind, which only their limits tell apart."""

    def titles(*gates: tuple[str, ...]) -> list[tuple[str, int]]:
        runs = [
            record(n, gates=tuple({"gate": title, "value": 1.0, "limit": 1.0, "passed": True} for title in some))
            for n, some in enumerate(gates)
        ]
        return [(gate.gate, sum(verdict is not None for verdict in gate.verdicts)) for gate in _gates(runs)]

    a = "layers.detectors of a: b"
    assert titles((f"{a}: min 10",), (f"{a}: min 12, certain",)) == [(f"{a}: min 12, certain", 2)]
    assert titles((f"{a}: min 10",), (f"{a}: max 10, warns only",)) == [
        (f"{a}: max 10, warns only", 1),
        (f"{a}: min 10", 1),
    ]
    drop = f"{a}: max drop 0.1"
    assert titles((drop,), (f"{drop} since v1",)) == [(f"{drop} since v1", 1), (drop, 1)]
    two = (f"{a}: min 10", f"{a}: min 12, warns only")
    assert titles(two, two) == [(two[0], 2), (two[1], 2)]
