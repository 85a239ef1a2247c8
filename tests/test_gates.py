"""Gates: every rule by toys worked out by hand, and what machines are told of them."""

import errno
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from flows.verdicts import Verdicts, as_json, gate_lines, junit
from microtome.errors import InputError
from storage import RunRecord, RunStore, open_files
from storage.runs import verdict
from tasks.gates import GateModel
from tasks.gates.work import Measured, judge, title
from tests.conftest import change_audit
from tests.test_pipeline import run
from tests.test_readonly import audited

EVIL = "<img src=x onerror=alert(1)> \"'\x01\n"


def gate(**said) -> GateModel:
    return GateModel.model_validate({"metric": "layers.detectors", **said})


def verdict_of(value, low=None, high=None, *, before=None, **said) -> str:
    earlier = None if before is None else Measured(before, pictures="p")
    return judge(gate(**said), Measured(value, low, high, "p"), earlier)["verdict"]


@pytest.mark.parametrize(
    ("limit", "value", "plain", "certain"),
    [  # the interval is [value - 2, value + 2]
        ({"min": 32}, 31, "failed", "failed"),  # `certain` once let this pass, since 33 >= 32
        ({"min": 32}, 32, "passed", "failed"),
        ({"min": 32}, 33, "passed", "failed"),
        ({"min": 32}, 34, "passed", "passed"),
        ({"max": 32}, 33, "failed", "failed"),
        ({"max": 32}, 32, "passed", "failed"),
        ({"max": 32}, 31, "passed", "failed"),
        ({"max": 32}, 30, "passed", "passed"),
        ({"max_drop": 0.25}, 29, "failed", "failed"),  # of 40: the limit is 30
        ({"max_drop": 0.25}, 30, "passed", "failed"),
        ({"max_drop": 0.25}, 32, "passed", "passed"),
    ],
)
def test_certain_means_that_the_whole_interval_lies_on_the_good_side(limit, value, plain, certain):
    before = 40 if "max_drop" in limit else None
    assert verdict_of(value, value - 2, value + 2, before=before, **limit) == plain
    assert verdict_of(value, value - 2, value + 2, before=before, certain=True, **limit) == certain


def test_a_gate_that_only_warns_lets_the_audit_pass():
    row = judge(gate(min=3, warn=True), Measured(2), None)
    assert (row["verdict"], row["passed"]) == ("warned", True)
    assert judge(gate(min=3, warn=True), Measured(3), None)["verdict"] == "passed"
    assert not judge(gate(min=3), Measured(2), None)["passed"]


def test_a_drop_without_a_baseline_judged_nothing_and_says_so():
    row = judge(gate(max_drop=0.1), Measured(5), None)
    assert (row["verdict"], row["passed"], row["limit"]) == ("not judged", True, None)
    assert row["note"] == "judged nothing: there is no earlier run to compare with"
    lost = judge(gate(max_drop=0.1), Measured(5), Measured(None, why="it had no such layer"))
    assert lost["note"] == "judged nothing: it had no such layer"


def test_a_drop_is_a_share_of_what_was_before_below_zero_too():
    assert judge(gate(max_drop=0.5), Measured(5), Measured(8))["limit"] == 4
    assert judge(gate(max_drop=0.5), Measured(0), Measured(0))["verdict"] == "passed"
    row = judge(gate(max_drop=0.5), Measured(-0.4), Measured(-0.2))  # it fell by 0.2, and may by 0.1
    assert (row["limit"], row["verdict"]) == (pytest.approx(-0.3), "failed")


def test_a_baseline_over_other_pictures_is_named():
    note = judge(gate(max_drop=0.5), Measured(5, pictures="p"), Measured(158, pictures="q"))["note"]
    assert note == "before: 158, over other pictures"


@pytest.mark.parametrize("limit", [{"min": 0}, {"max": 9}, {"max_drop": 0.1}])
def test_what_was_not_measured_keeps_no_limit(limit):
    row = judge(gate(**limit), Measured(None, why="it is null"), Measured(3))
    assert (row["verdict"], row["value"], row["note"]) == ("failed", None, "it is null")


def test_nothing_is_certain_without_an_interval():
    row = judge(gate(min=3, certain=True), Measured(9), None)
    assert row["verdict"] == "failed"
    assert "no interval here, so nothing is certain" in row["note"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"min": 3}, "layers.detectors: min 3"),
        ({"max": 0.5, "layer": "a.1", "certain": True}, "layers.detectors of a.1: max 0.5, certain"),
        ({"max_drop": 0.1, "baseline": "v1", "warn": True}, "layers.detectors: max drop 0.1 since v1, warns only"),
        ({"min": 1, "where": {"layer": "a", "unit": 3, "of": None}}, "layers.detectors of a, unit 3, of none: min 1"),
    ],
)
def test_a_gate_in_words(said, words):
    assert title(gate(**said)) == words


def judged(audit_file: Path, *gates: dict, **changes) -> list[dict]:
    change_audit(audit_file, gates=list(gates), **changes)
    return run(audit_file)["gates"][0].table("gates").to_pylist()


def test_one_row_of_a_table_of_many_is_judged(audit_file):
    stages = {"dissection": {"bootstrap": 0, "permutations": 0}, "report": False}
    one = {"metric": "units.iou", "where": {"unit": 7}, "min": 0}
    none = {"metric": "units.iou", "where": {"unit": 99}, "min": 0}
    asked = {"metric": "layers.confirmed", "min": 0}
    sure = {"metric": "layers.detectors", "min": 0, "certain": True}
    rows = judged(audit_file, one, none, asked, sure, stages=stages)
    units = run(audit_file)["dissection"][0].table("units").to_pylist()
    assert (rows[0]["value"], rows[0]["passed"]) == (units[7]["iou"], True)
    assert [row["verdict"] for row in rows[1:]] == ["failed"] * 3
    assert rows[1]["note"] == "it must mean one row of units, got 0: none has unit 99; there are 0 to 11"
    assert rows[2]["note"] == "layers.confirmed is null: the stage could not measure it, or was not asked to"
    assert "nothing is certain" in rows[3]["note"]


def test_every_gate_has_the_baseline_that_it_names(audit_file):
    """The last run, and one that is named; each in its own gate, and the last one that has the stage."""
    drop = {"metric": "layers.mean_iou", "max_drop": 0.5}
    stages = {"dissection": {"bootstrap": 0, "permutations": 0}, "report": False}
    change_audit(audit_file, name="v1", stages=stages)
    first = audited(audit_file, "network.arguments={seed: 1}")
    change_audit(audit_file, name="tiny", gates=[drop, drop | {"baseline": "v1"}])
    second = audited(audit_file)
    assert [row["verdict"] for row in second.gates] == ["not judged", "passed"]
    third = audited(audit_file, "network.arguments={seed: 2}")
    figures = [next(f["value"] for f in r.figures if f["figure"].startswith("mean IoU")) for r in (second, first)]
    assert [row["note"] for row in third.gates] == [f"before: {value:g}" for value in figures]
    change_audit(audit_file, gates=[drop | {"baseline": "v2"}])
    with pytest.raises(InputError, match=r"gates.baseline: no run 'v2' in this workspace"):
        audited(audit_file)


def record(*gates: dict) -> RunRecord:
    figures = ({"stage": "dissection", "figure": "detectors", "row": EVIL, "value": 3, "low": None, "high": None},)
    return RunRecord("20260101-000000-abc", EVIL, "net", 1.0, 2.5, "gate failed", gates=gates, figures=figures)


GATES = (
    {"gate": "a: min 1", "value": 2.0, "low": 1.0, "high": 3.0, "limit": 1.0, "verdict": "passed", "passed": True},
    {"gate": EVIL, "value": None, "limit": None, "verdict": "failed", "passed": False, "note": EVIL},
    {"gate": "c: max 1", "value": 2.0, "limit": 1.0, "verdict": "warned", "passed": True, "note": ""},
    {"gate": "d: max drop 0.1", "value": 2.0, "limit": None, "verdict": "not judged", "passed": True, "note": "why"},
    {"gate": "e: of an old record", "value": 2.0, "limit": 3.0, "passed": False},
)


def test_junit_has_a_case_per_gate():
    suite = ElementTree.fromstring(junit(record(*GATES))).find("testsuite")
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time", "timestamp")}
    assert counts == {
        "tests": "5", "failures": "2", "errors": "0", "skipped": "1",
        "time": "2.500", "timestamp": "1970-01-01T00:00:01",
    }  # fmt: skip
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["failure"], ["system-out"], ["skipped"], ["failure"],
    ]  # fmt: skip
    assert cases[0][0].text == "2 [1, 3], limit 1"
    assert cases[1].get("name") == EVIL.replace("\x01", "\ufffd")
    assert cases[2][0].text == "warning: 2, limit 1"
    assert cases[3][0].get("message") == "2 (why)"


def test_json_has_gates_and_figures():
    plain = json.loads(json.dumps(as_json(record(*GATES))))
    assert [gate["verdict"] for gate in plain["gates"]] == ["passed", "failed", "warned", "not judged", "failed"]
    assert (plain["audit"], plain["status"], plain["started"]) == (EVIL, "gate failed", "1970-01-01T00:00:01+00:00")
    assert plain["figures"][0]["value"] == 3


def test_people_read_a_line_per_gate():
    assert [line.split("  ")[0] for line in gate_lines(GATES)] == [
        "passed",
        "FAILED",
        "warning",
        "not judged",
        "FAILED",
    ]


def test_an_audit_that_came_to_no_verdict_is_no_success(tmp_path):
    verdicts = Verdicts(tmp_path / "junit.xml", tmp_path / "verdict.json")
    verdicts.write(record(GATES[0]))
    with pytest.raises(InputError), verdicts.told(Path("audit.yaml")):
        raise InputError(["one", "two"])
    suite = ElementTree.fromstring((tmp_path / "junit.xml").read_bytes()).find("testsuite")
    assert (suite.get("errors"), suite.find("testcase/error").get("message")) == ("1", "one\ntwo")
    assert json.loads((tmp_path / "verdict.json").read_text())["status"] == "failed"


def test_where_no_verdict_can_be_written_is_said_before_hours_of_work(tmp_path):
    with pytest.raises(InputError, match="--junit: must be a file in a folder that is there"):
        Verdicts(tmp_path / "no/junit.xml").check()
    with pytest.raises(InputError, match="--json: must be a file"):
        Verdicts(None, tmp_path).check()


def test_a_record_keeps_verdicts_and_figures_and_old_ones_are_read(audit_file):
    stages = {"dissection": {"bootstrap": 20, "permutations": 5}, "report": False}
    change_audit(audit_file, stages=stages, gates=[{"metric": "layers.detectors", "min": 99, "warn": True}])
    found = audited(audit_file)
    assert found.status == "done"
    assert [verdict(row) for row in found.gates] == ["warned"]
    names = {(figure["stage"], figure["figure"], figure["row"]) for figure in found.figures}
    assert ("dissection", "confirmed detectors", "4") in names
    assert len(found.figures) == 5
    assert RunStore(_files(audit_file)).find(found.run_id) == found


def _files(audit_file):
    from flows.plan import Plan, Request

    return Plan(Request(audit_file)).files


def test_a_record_for_which_there_is_no_room_goes_without_its_figures(tmp_path, monkeypatch):
    files = open_files(str(tmp_path))
    store, run = RunStore(files), RunRecord.start("a", "net", {})
    store.begin(run)
    write = files.write_reserved

    def full(name: str, content: bytes) -> None:
        if len(content) > 2000:
            raise OSError(errno.ENOSPC, "full")
        write(name, content)

    monkeypatch.setattr(files, "write_reserved", full)
    figure = {"stage": "dissection", "figure": "detectors", "row": "4", "value": 3, "low": None, "high": None}
    store.end(run.ended("done", figures=(figure,) * 50))
    assert (store.find(run.run_id).status, store.find(run.run_id).figures) == ("done", ())
    store.end(run.ended("done", figures=(figure,)))
    assert store.find(run.run_id).figures == (figure,)
