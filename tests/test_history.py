"""The runs of one audit as trends: charts and sentences from findings made by hand, and what is read from records."""

import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from flows.audit import _told
from flows.history import _gates, file_name, past
from microtome.errors import InputError
from microtome.report import views
from microtome.report.comparison import Figure
from microtome.report.history import (
    History,
    PastFigure,
    PastGate,
    PastRun,
    PastVerdict,
    UnfinishedRun,
    figure_line,
    figure_table,
    page,
    sentences,
)
from microtome.report.trends import HEIGHT, WIDTH, Point, Trend, drawn
from storage import RunRecord, RunStore, open_files
from tests.conftest import opened
from tests.test_pages_stability import parts_of

EVIL = "<img src=x onerror=alert(1)> \"'\n"


def run(number: int, pictures: str = "p") -> PastRun:
    return PastRun(f"run-{number}", f"day {number}", f"day {number} noon", "done", "net", [], [], pictures)


def verdict(value: float, limit: float | None, said: str, note: str = "") -> PastVerdict:
    return PastVerdict(Figure(value, value - 1, value + 1), limit, said, note)


STOPPED = UnfinishedRun("run-s", "day 1 night", "killed", "net", "", 1)
FAILED = UnfinishedRun("run-f", "day 9", "failed", "net", f"stage tree: {EVIL}", 3)


def history(**changes) -> History:
    figure = PastFigure("dissection", "detectors", "4", [Figure(31, 29, 33), Figure(30, 28, 32), Figure(27, 25, 29)])
    gone = PastFigure("tree", EVIL, "", [None, Figure(0.5), None])
    gate = PastGate(EVIL, [None, verdict(30, 28, "passed"), verdict(27, 28, "failed", EVIL)])
    whole = History("nightly", [run(1), run(2), run(3)], [gate], [figure, gone], [STOPPED, FAILED])
    return replace(whole, **changes)


def shapes(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.get("class") for element in root.iter() if element.get("class") and element is not root]


def test_a_trend_has_a_line_a_band_a_limit_and_crosses():
    points = [Point(1, 0.5, 1.5, 1.2, missed=True, text=EVIL), Point(2, 1, 3, 1.2), Point(3, 2, 4, 1.2)]
    svg = drawn(Trend(points), (EVIL, "b"))
    assert shapes(svg) == ["axis", "band", "limit", "line", "missed", "dot", "dot"]
    titles = [element.text for element in ElementTree.fromstring(svg).iter("title")]
    assert titles[0] == EVIL
    numbers = list(ElementTree.fromstring(svg).iter("circle"))
    assert all(0 <= float(dot.get("cx")) <= WIDTH and 0 <= float(dot.get("cy")) <= HEIGHT for dot in numbers)


def test_a_line_is_broken_where_nothing_was_measured_and_where_the_pictures_changed():
    points = [Point(1), Point(2), Point(None), Point(3), Point(4), Point(5)]
    assert shapes(drawn(Trend(points), ("", ""))).count("line") == 2
    assert shapes(drawn(Trend(points, [5]), ("", ""))) == ["axis", "break", "line", "line", *["dot"] * 5]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([47, 46, 48], [0, 20, 40, 60]), ([5], [0, 2, 4, 6]), ([1, 2], [0, 1, 2]),
        ([0.036, 0.041], [0, 0.02, 0.04, 0.06]),

        ([0], [0, 1]), ([0.5], [0, 0.2, 0.4, 0.6]), ([-3, 2], [-4, -2, 0, 2]), ([-0.5], [-0.6, -0.4, -0.2, 0]),
        ([1200], [0, 500, 1000, 1500]), ([1], [0, 1]), ([4], [0, 1, 2, 3, 4]), ([1e-7], [0, 5e-8, 1e-7]),
    ],
)  # fmt: skip
def test_an_axis_holds_zero_and_has_whole_ticks_for_counts(values, ticks):
    trend = Trend([Point(value) for value in values])
    assert trend.ticks == pytest.approx(ticks)
    words = [text.text for text in ElementTree.fromstring(drawn(trend, ("", ""))).iter("text")]
    assert words[: len(ticks)] == [f"{tick:,.6g}".replace("-", "−") for tick in trend.ticks]


@pytest.mark.parametrize("points", [[], [Point(None)], [Point(3, 3, 3)], [Point(0)], [Point(-5, limit=-5), Point(-5)]])
def test_a_trend_of_next_to_nothing_is_drawn(points):
    svg = drawn(Trend(points), ("a", "b"))
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg


def test_what_is_said():
    told = list(sentences(history()))
    assert told == [
        f"The latest run, on day 9, failed (stage tree: {EVIL}); what follows is of the finished ones.",
        f"In the last run the one gate missed its limit: {EVIL}, got 27 [26, 28].",
        "Detectors, 4 fell since the run before, from 30 [28, 32] to 27 [25, 29]: outside of the 95 % interval that it "
        "had.",
        "3 finished runs of nightly from day 1 to day 3; 2 more did not finish.",
    ]
    calm = replace(history(), figures=[PastFigure("a", "b", "c", [Figure(1, 0, 2)] * 3)], gates=[], unfinished=[])
    assert next(sentences(calm)) == "No figure changed since the run before: the one that both have is what it was."
    moved = [PastFigure("a", "b", "c", [None, Figure(1, 0, 2), Figure(2, 0, 3)]), PastFigure("a", "d", "", [None] * 3)]
    moved += [PastFigure("a", "e", "", [None, Figure(1), Figure(2)])]
    assert next(sentences(replace(calm, figures=moved))) == (
        "No clear change since the run before: 2 of 2 figures moved, none of them out of the 95 % interval that it "
        "had; 1 of them has no interval."
    )
    risen = [PastFigure("a", "b", "c", [None, Figure(1, 0, 2), Figure(3, 0, 3)])] * 3
    assert next(sentences(replace(calm, figures=risen))).startswith("B, c rose since the run before, from 1 [0, 2] to")
    assert next(sentences(replace(calm, figures=risen))).endswith("that it had; so did 2 more figures.")
    two = replace(calm, gates=[history().gates[0], PastGate("g", [verdict(1, 2, "failed")] * 3)])
    assert f"2 of 2 gates missed their limits: {EVIL}, got 27 [26, 28]; g, got 1 [0, 2]." in next(sentences(two))


def test_charts_are_of_what_moved_and_say_when():
    view = page(history(), "h.html")
    charts = parts_of(view, "charts")
    assert [title for title, _, _ in charts[-1].charts] == ["detectors, 4"]
    assert any("One figure has the same value in every run" in text.text for text in parts_of(view, "text"))
    assert ">day 1<" in charts[-1].charts[0][1]
    same = [replace(run(number), day="1 May 2026", moment=f"1 May 2026, 12:3{number} UTC") for number in range(3)]
    view = page(replace(history(), runs=same), "h.html")
    assert ">12:30 UTC<" in parts_of(view, "charts")[-1].charts[0][1]
    assert any("all of 1 May 2026" in text.text for text in parts_of(view, "text"))
    view = page(replace(history(), runs=[replace(each, moment="1 May 2026, 12:30 UTC") for each in same]), "h.html")
    assert all(f">{word}<" in parts_of(view, "charts")[-1].charts[0][1] for word in ("first", "last"))


def test_the_last_runs_report_stands_above():
    runs = [run(1), run(2), replace(run(3), report="../r/index.html", comparison="compare-a-b.html")]
    assert page(replace(history(), runs=runs), "h.html").links == [
        ("report of the last run", "../r/index.html"),
        ("comparison with the run before", "compare-a-b.html"),
    ]
    assert page(history(), "h.html").links == []


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
    same = replace(run(1), day="1 May 2026", times=2, last="1 May 2026, 12:30 UTC")
    one = History("nightly", [same], gates[:1], [PastFigure("s", "n", "r", [Figure(2, 1, 3)])])
    assert list(sentences(one)) == [
        "Nothing changed between the 2 finished runs of nightly on 1 May 2026: every stage measured the same.",
        "In the last run the one gate passed.",
    ]
    assert "1 of 2 gates passed, the others were not judged" in list(sentences(replace(one, gates=gates)))[1]
    view = page(one, "h.html")
    assert parts_of(view, "charts") == []  # a dot is no trend
    assert parts_of(view, "table")[-1].rows[0][1] == "day 1 noon (2 runs, the last on 1 May 2026, 12:30 UTC)"


def test_a_run_that_failed_or_still_runs_is_said():
    going = replace(FAILED, status="running", why="")
    assert list(sentences(history(unfinished=[going])))[-1].startswith(
        "A run that began on day 9 has not ended yet, and"
    )
    killed = replace(FAILED, status="killed", why="x" * 200)
    told = next(sentences(history(unfinished=[killed])))
    assert told.startswith(f"The latest run, on day 9, was killed ({'x' * 119}…); what")
    assert "9" not in next(sentences(history(unfinished=[STOPPED])))  # others finished since


def test_other_pictures_are_no_change_of_the_network():
    moved = history(runs=[run(1), run(2), run(3, "q")])
    assert moved.breaks == [2]
    assert "The last run looked at other pictures than the run before" in list(sentences(moved))[2]


def test_a_single_run():
    one = History("a", [run(1)], [], [PastFigure("s", "n", "r", [Figure(2, 1, 3)])])
    assert list(sentences(one)) == ["a has one finished run, on day 1: there is no trend yet."]
    assert figure_line(one.figures[0]) == ["n", "s, r", "1", "2 [1, 3]", "–", "2 [1, 3]", "–", "2", "2"]
    assert figure_table(one) == (["figure", "of", "last"], [["n", "s, r", "2 [1, 3]"]])
    view = page(one, "h.html")
    assert parts_of(view, "charts") == []
    assert parts_of(view, "table")[0].columns == [("figure", False), ("r", True)]
    assert list(map(list, parts_of(view, "table")[0].rows)) == [["n", "2 [1, 3]"]]
    assert len(parts_of(view, "table")[-1].columns) == 5  # nothing is other than in a run before
    many = [PastFigure("s", "n", str(row), [Figure(1)]) for row in range(5)]  # too many to stand side by side
    assert len(parts_of(page(replace(one, figures=many), "h.html"), "table")[0].rows) == 5
    two = replace(one, runs=[run(1), run(2)], figures=[PastFigure("s", "n", "", [Figure(2), Figure(3)])])
    assert figure_table(two) == (["figure", "of", "before", "last", "change"], [["n", "s", "2", "3", "+1"]])


def test_a_line_of_the_table():
    assert figure_line(history().figures[0]) == [
        "detectors", "dissection, 4", "3", "31 [29, 33]", "30 [28, 32]", "27 [25, 29]", "−3", "27", "31",
    ]  # fmt: skip
    assert figure_line(history().figures[1])[2:] == ["1", "0.5", "0.5", "–", "–", "0.5", "0.5"]


def test_the_page():
    view = page(history(), "h.html")
    gates, figures, runs = parts_of(view, "table")
    failed = views.Badge("✗ failed", "bad")
    assert list(gates.rows[0]) == [EVIL, failed, "27 [26, 28]", "28", "1 of 2", EVIL]
    assert len(figures.rows) == 2
    assert [name for name, _ in figures.columns] == ["figure", "of", "first", "before", "last", "change"]
    assert [row[0].links[0][0] for row in runs.rows] == ["run-f", "run-3", "run-2", "run-s", "run-1"]
    assert [row[2] for row in runs.rows] == [f"failed: stage tree: {EVIL}", "done", "done", "killed", "done"]
    assert [part.text for part in parts_of(view, "code")] == ["microtome compare run-2 run-3"]
    known = replace(run(3), report="../stages/report/a/index.html", comparison="compare-run-2-run-3.html")
    told = page(history(runs=[run(1), run(2), known]), "h.html")
    assert parts_of(told, "table")[-1].rows[1][-1] == views.Links(
        [("report", known.report), ("comparison with the run before", known.comparison)]
    )
    assert parts_of(told, "code") == []
    assert view.figures.items == []  # the tables say it
    assert view.headline.startswith("The latest run, on day 9, failed")
    assert parts_of(view, "list")[0].items == list(sentences(history()))[1:]
    many = history(runs=[run(n) for n in range(40)], gates=[], figures=[PastFigure("s", "n", "r", [Figure(1)] * 40)])
    assert parts_of(page(many, "h.html"), "table")[-1].note.startswith("The latest 30 of 42.")


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
        ["seed: 0, now 1", "files of the network"],
        ["files of the network"],
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
    assert [(run.run, run.times, run.day) for run in found.runs] == [
        ("run-2", 2, "10 September 2001"), ("run-4", 1, "13 September 2001"), ("run-5", 1, "14 September 2001"),
    ]  # fmt: skip
    assert found.runs[0].last == "11 September 2001, 01:46 UTC"
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
