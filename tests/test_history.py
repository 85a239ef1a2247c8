"""The runs of one audit as trends: charts and sentences from findings made by hand, and what is read from records."""

import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from flows.history import _gates, file_name, past
from microtome.errors import InputError
from microtome.report.comparison import Figure
from microtome.report.history import History, PastFigure, PastGate, PastRun, PastVerdict, figure_line, page, sentences
from microtome.report.trends import HEIGHT, WIDTH, Point, Trend, drawn
from storage import RunRecord, RunStore, open_files
from tests.conftest import opened
from tests.test_pages_stability import parts_of

EVIL = "<img src=x onerror=alert(1)> \"'\n"


def run(number: int, pictures: str = "p") -> PastRun:
    return PastRun(f"run-{number}", f"day {number}", f"day {number} noon", "done", "net", [], pictures)


def verdict(value: float, limit: float | None, said: str, note: str = "") -> PastVerdict:
    return PastVerdict(Figure(value, value - 1, value + 1), limit, said, note)


def history(**changes) -> History:
    figure = PastFigure("dissection", "detectors", "4", [Figure(31, 29, 33), Figure(30, 28, 32), Figure(27, 25, 29)])
    gone = PastFigure("tree", EVIL, "", [None, Figure(0.5), None])
    gate = PastGate(EVIL, [None, verdict(30, 28, "passed"), verdict(27, 28, "failed", EVIL)])
    whole = History("nightly", [run(1), run(2), run(3)], [gate], [figure, gone], 2)
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


@pytest.mark.parametrize("points", [[], [Point(None)], [Point(3, 3, 3)], [Point(0)], [Point(-5, limit=-5), Point(-5)]])
def test_a_trend_of_next_to_nothing_is_drawn(points):
    svg = drawn(Trend(points), ("a", "b"))
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    assert "inf" not in svg


def test_what_is_said():
    told = list(sentences(history()))
    assert told[0] == f"In the last run the one gate missed its limit: {EVIL}, got 27 [26, 28]."
    assert told[2] == "3 finished runs of nightly from day 1 to day 3."
    assert told[1].startswith(
        "Detectors, 4: the last run lies outside of the interval of the run before, 30 [28, 32] then"
    )
    calm = replace(history(), figures=[PastFigure("a", "b", "c", [Figure(1, 0, 2)] * 3)], gates=[])
    assert next(sentences(calm)) == "No figure of 1 with a 95 % interval left it since the run before."
    two = replace(history(), gates=[history().gates[0], PastGate("g", [verdict(1, 2, "failed")] * 3)])
    assert f"2 of 2 gates missed their limits: {EVIL}, got 27 [26, 28]; g, got 1 [0, 2]." in next(sentences(two))


def test_other_pictures_are_no_change_of_the_network():
    moved = history(runs=[run(1), run(2), run(3, "q")])
    assert moved.breaks == [2]
    assert "The last run looked at other pictures than the run before" in list(sentences(moved))[1]


def test_a_single_run():
    one = History("a", [run(1)], [], [PastFigure("s", "n", "r", [Figure(2, 1, 3)])], 0)
    assert list(sentences(one)) == ["One finished run of a on day 1: there is no trend yet."]
    assert figure_line(one.figures[0]) == ["n", "s, r", "1", "2 [1, 3]", "–", "2 [1, 3]", "–", "2", "2"]
    assert len(parts_of(page(one, "h.html"), "charts")) == 1


def test_a_line_of_the_table():
    assert figure_line(history().figures[0]) == [
        "detectors", "dissection, 4", "3", "31 [29, 33]", "30 [28, 32]", "27 [25, 29]", "−3", "27", "31",
    ]  # fmt: skip
    assert figure_line(history().figures[1])[2:] == ["1", "0.5", "0.5", "–", "–", "0.5", "0.5"]


def test_the_page():
    view = page(history(), "h.html")
    gates, figures, runs = parts_of(view, "table")
    assert list(gates.rows[0]) == [EVIL, "failed", "27 [26, 28]", "28", "1 of 2", EVIL]
    assert len(figures.rows) == 2
    assert [row[0] for row in runs.rows] == ["run-3", "run-2", "run-1"]
    assert runs.note == "2 more did not finish, and are not shown."
    assert view.figures.items == [("detectors, 4", "27", "95 %: 25 to 29")]
    many = history(runs=[run(n) for n in range(40)], gates=[], figures=[PastFigure("s", "n", "r", [Figure(1)] * 40)])
    assert parts_of(page(many, "h.html"), "table")[-1].note.startswith("The latest 30 of 40.")


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
        record(4, status="failed"),
        record(5, name="other"),
    ):
        store.save(kept)
    found = past(open_files(str(tmp_path)), "nightly")
    assert [line.run for line in found.runs] == ["run-1", "run-2", "run-3"]
    assert [line.changed for line in found.runs] == [[], ["seed", "files of the network"], ["files of the network"]]
    assert (found.unfinished, found.breaks) == (1, [2])
    assert [value.value for value in found.figures[0].values] == [1, 2, 3]
    assert [verdict and verdict.verdict for verdict in found.gates[0].verdicts] == ["failed", "passed", None]
    with pytest.raises(InputError, match="no audit has that name here; did you mean 'nightly'"):
        past(open_files(str(tmp_path)), "nihgtly")
    store.save(record(6, name="young", status="running"))
    with pytest.raises(InputError, match="got 'young': it has no finished run"):
        past(open_files(str(tmp_path)), "young")


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
