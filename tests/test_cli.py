"""The command line as a user has it: processes, exit statuses, one clear error each, real Prefect servers."""

import errno
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tasks.session import Session
from tests.commands import left
from tests.conftest import asked, change_audit, clean_environment, write_audit

ROOT = Path(__file__).parent.parent


WATCH = """
import os, socket
def note(host):
    if str(host) not in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "None", ""):
        open(os.environ["WATCHED"], "a").write(f"{host}\\n")
looked_up, connected = socket.getaddrinfo, socket.socket.connect
def getaddrinfo(host, *rest, **more):
    note(host.decode() if isinstance(host, bytes) else host)
    return looked_up(host, *rest, **more)
def connect(self, address):
    if isinstance(address, tuple):
        note(address[0])
    return connected(self, address)
socket.getaddrinfo, socket.socket.connect = getaddrinfo, connect
open(os.environ["WATCHED"] + ".on", "a").write("on\\n")
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Path:
    """A folder whose sitecustomize notes every host that a Python process, or its children, tries to reach."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, broden, command, watched):
    """An audit that ran in an empty home with Prefect's embedded server: folder and the finished process."""
    from tests.conftest import NETWORK

    folder = tmp_path_factory.mktemp("finished")
    (folder / "nets.py").write_text(NETWORK)
    content = {
        "name": "tiny",
        "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 50, "permutations": 20}},
        "gates": [{"metric": "layers.detectors", "min": 0}],
    }
    write_audit(folder / "audit.yaml", content)
    environment = {"PYTHONPATH": f"{watched}:{ROOT}", "WATCHED": str(watched / "hosts")}
    return folder, command("audit", "audit.yaml", cwd=folder, env=environment)


def test_an_audit_from_nothing(finished):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    assert "passed  layers.detectors: min 0" in process.stdout
    report = next(line.split()[1] for line in process.stdout.splitlines() if line.startswith("report"))
    assert Path(report).is_file()
    for stage in ("index", "activations", "thresholds", "tally", "null", "dissection", "gates", "pages", "report"):
        assert f"{stage:<12} done in" in process.stderr
    assert "Traceback" not in process.stderr
    assert (folder / ".microtome/prefect").is_dir()


def test_no_outbound_call_is_tried(finished, watched):
    """Neither by the audit nor by the embedded server, which is a process of its own."""
    assert (watched / "hosts.on").read_text().count("on") >= 2
    assert not (watched / "hosts").exists(), (watched / "hosts").read_text()


def test_prefect_keeps_no_result_and_no_pickle(finished):
    folder, _ = finished
    home = folder / ".microtome/prefect"
    assert not [file for file in (home / "storage").rglob("*") if file.is_file()]
    assert not [file for file in folder.rglob("*") if file.suffix in (".pkl", ".pickle")]


def test_the_second_audit_starts_nothing_and_is_quick(finished, command):
    folder, _ = finished
    before = (folder / ".microtome/prefect").stat().st_mtime_ns
    process = command("audit", "audit.yaml", cwd=folder)
    assert process.returncode == 0
    assert process.stderr.count("cached") == 9
    assert "done in" not in process.stderr
    assert (folder / ".microtome/prefect").stat().st_mtime_ns == before


def test_only_refresh_and_rerun(finished, command, server):
    folder, _ = finished
    refreshed = command("audit", "audit.yaml", "--refresh", "thresholds", "--only", "thresholds", cwd=folder)
    assert refreshed.returncode == 0
    assert "thresholds   done in" in refreshed.stderr
    assert "dissection" not in refreshed.stderr
    again = command("rerun", "dissection", "audit.yaml", cwd=folder, env=server)
    assert again.returncode == 0
    assert "dissection   done in" in again.stderr
    assert "null         cached" in again.stderr
    run_id = next(line.split()[1] for line in again.stdout.splitlines() if line.startswith("run"))
    opened = left("open", run_id, "--workspace", folder / ".microtome")
    assert opened.returncode == 2
    assert f"run {run_id}: has no report, it was done; name another of `microtome runs`" in opened.stderr
    explained = left("explain", run_id, "0", "--workspace", folder / ".microtome")
    assert explained.returncode == 2
    assert "has no finished stage 'tree'; ask for it under `stages:`" in explained.stderr
    other = ("--set", "stages.dissection.tail=0.002")
    missing = command("rerun", "dissection", "audit.yaml", *other, cwd=folder, env=server)
    assert missing.returncode == 2
    assert "its inputs must be done, got none of tally, null" in missing.stderr


def test_plan_foresees(finished, command):
    folder, _ = finished
    process = left("plan", folder / "audit.yaml", "--set", "execution.precision=float16")
    rows = {line.split()[0]: line for line in process.stdout.splitlines()}
    assert "cached" in rows["index"]
    assert f"would run  {70 * 12 * 16 * 16 * 2 / 1e6:.1f} MB" in rows["activations"]
    assert "(as last time)" in rows["activations"]
    first = command("plan", "audit.yaml", "--workspace", "elsewhere", cwd=folder)
    start, *stages = first.stdout.splitlines()[2:]
    assert start.split() == ["start", "10", "(imports,", "a", "Prefect", "server)"]
    told = {line.split()[0]: line.split("would run")[1].split() for line in stages}
    assert set(told) == set(rows) - {"stage", "-----------", "start"}
    assert all(line[-4].isdigit() and line[-3:] == ["(by", "a", "probe)"] for line in told.values())


def test_sql_in_every_format(finished, command, tmp_path):
    folder, _ = finished
    query = "select unit, iou, detector from units where unit < 3 order by unit"
    where = ("--workspace", folder / ".microtome")
    rows = json.loads(command("sql", query, "--format", "json", cwd=folder).stdout)
    assert [row["unit"] for row in rows] == [0, 1, 2]
    lines = left("sql", query, "--format", "csv", *where).stdout.splitlines()
    assert lines[0] == "unit,iou,detector"
    assert float(lines[1].split(",")[1]) == rows[0]["iou"]
    assert "----" in left("sql", query, *where).stdout
    binary = subprocess.run(
        [sys.executable, "-m", "flows.cli", "sql", query, "--format", "parquet"],
        cwd=folder, capture_output=True, check=True, env=clean_environment(tmp_path),
    ).stdout  # fmt: skip
    assert binary[:4] == b"PAR1"
    wrong = left("sql", "select nothing from units", *where)
    assert wrong.returncode == 2
    assert "nothing" in wrong.stderr
    counted = "select count(distinct run_id) n from units"
    runs = json.loads(left("sql", counted, "--run", "all", "--format", "json", *where).stdout)
    assert runs[0]["n"] >= 2


def test_reading_commands(finished, command):
    folder, _ = finished
    where = ("--workspace", folder / ".microtome")
    listed = command("runs", cwd=folder).stdout.splitlines()
    first = listed[2].split()[0]
    assert "tiny" in listed[2]
    assert "dissection" in left("show", first, *where).stdout
    compared = left("compare", first, "tiny", *where).stdout
    assert "12 of 12 units of 4 (100%) carry the same label in both" in compared
    assert left("open", first, *where).stdout.strip().endswith("index.html")
    single = command("report", first, "--single-file", "one.html", cwd=folder)
    assert single.returncode == 0
    assert "data:image/webp;base64," in (folder / "one.html").read_text()
    assert left("show", "nonsense", *where).returncode == 2


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("exp", ["explain"]), ("rerun th", ["thresholds"]), ("audit --only th", ["thresholds"]), ("show ti", ["tiny"])],
)
def test_a_shell_completes_commands_stages_and_runs(finished, command, typed, completed):
    words = ["microtome", *typed.split(" ")]
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    said = command(cwd=finished[0], env={**asked, "_MICROTOME_COMPLETE": "bash_complete"})
    assert said.stdout.split() == [f"plain,{word}" for word in completed]
    assert said.stderr == ""


def test_gc_keeps_what_runs_use(finished, command, server):
    folder, _ = finished
    tail = ("--only", "tally", "--set", "stages.dissection.tail=0.004")
    extra = command("audit", "audit.yaml", *tail, cwd=folder, env=server)
    assert extra.returncode == 0
    would = left("gc", "--keep", "50", "--dry-run", "--workspace", folder / ".microtome").stdout
    assert would == ""
    for record in sorted((folder / ".microtome/runs").iterdir())[-1:]:
        shutil.rmtree(record)
    removed = command("gc", "--keep", "50", cwd=folder).stdout
    assert removed.count("removed stages/tally") == 1
    assert left("audit", folder / "audit.yaml").stderr.count("cached") == 9


def test_no_damage_of_every_small_file_at_once_stops_an_audit(finished, command, server):
    folder, _ = finished
    shutil.copytree(folder / ".microtome", folder / "damaged", ignore=shutil.ignore_patterns("prefect"))
    small = [file for file in (folder / "damaged").rglob("*.json") if file.name in ("run.json", "manifest.json",
             ".verified.json", "digests.json") or file.parent.name == "inputs"]  # fmt: skip
    for place, file in enumerate(small):
        file.write_bytes([b"", b"{", b"[]", b"null", b"3", b"\xff"][place % 6])
    listed = left("runs", "--workspace", folder / "damaged")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("tiny") == 0
    assert listed.stderr.count("this run record is damaged: ") == len(list((folder / ".microtome/runs").iterdir()))
    again = command("audit", "audit.yaml", "--workspace", "damaged", cwd=folder, env=server)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("this manifest is damaged: ") == again.stderr.count("done in") == 9
    assert "Traceback" not in listed.stderr + again.stderr
    checked = left("verify", "--workspace", folder / "damaged")
    assert checked.returncode == 0, checked.stdout


def test_a_failed_gate_is_exit_status_one(finished, command, server):
    folder, _ = finished
    gates = "gates=[{metric: layers.detectors, min: 99}, {metric: layers.detectors, min: 98, warn: true}]"
    files = ("--junit", "gates.xml", "--json", "gates.json")
    process = command("audit", "audit.yaml", "--set", gates, *files, cwd=folder, env=server)
    assert process.returncode == 1
    assert "FAILED  layers.detectors: min 99" in process.stdout
    assert "warning  layers.detectors: min 98, warns only" in process.stdout
    cases = ElementTree.parse(folder / "gates.xml").findall("testsuite/testcase")
    assert [[child.tag for child in case] for case in cases] == [["failure"], ["system-out"]]
    plain = json.loads((folder / "gates.json").read_text())
    assert (plain["status"], [gate["verdict"] for gate in plain["gates"]]) == ("gate failed", ["failed", "warned"])
    nowhere = left("audit", folder / "audit.yaml", "--junit", "no/gates.xml")
    assert (nowhere.returncode, "--junit: must be a file in a folder that is there" in nowhere.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["audit", "gone.yaml"], "cannot be read"),
        (["audit", "audit.yaml", "--set", "network.layers=[44]"], "input should be a valid string"),
        (["audit", "audit.yaml", "--set", "network.layers=['44']"], "no layer '44'"),
        (["audit", "audit.yaml", "--set", "network.weights=gone.pth"], "no such file"),
        (["audit", "audit.yaml", "--set", "stages.dissection.tial=1"], "did you mean 'tail'"),
        (["audit", "audit.yaml", "--set", "dataset.root=nowhere"], "no such folder"),
        (["audit", "audit.yaml", "--only", "dissecton"], "did you mean 'dissection'"),
        (["audit", "audit.yaml", "--device", "cuda"], "got no CUDA device"),
        (["audit"], "Missing argument"),
        (["adit", "audit.yaml"], "No such command"),
        (["runs", "--workspace", "gone"], "no such folder, got 'gone'; it lies beside the audit's file"),
        (["gc", "--keep", "0"], "0 is not in the range x>=1"),
        (["gc", "--keep", "-1"], "-1 is not in the range x>=1"),
    ],
)
def test_bad_usage_is_exit_status_two_with_one_clear_error(finished, monkeypatch, arguments, words):
    if "cuda" in arguments and Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.chdir(finished[0])
    ended = left(*arguments)
    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("arguments", "words"), [(["audit", "gone.yaml"], "cannot be read"), (["audit"], "Missing")])
def test_bad_usage_is_the_exit_status_of_the_process(finished, command, arguments, words):
    process = command(*arguments, cwd=finished[0])
    assert process.returncode == 2, process.stderr
    assert words in process.stderr
    assert "Traceback" not in process.stderr


def test_a_workspace_that_lies_beside_an_audit_file_elsewhere_is_named(tmp_path, monkeypatch):
    from flows.cli import _open
    from microtome.errors import InputError

    (tmp_path / "examples/.microtome").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/.microtome").touch()  # a file is no workspace
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"got '\.microtome'; there is 'examples/\.microtome'$"):
        _open(".microtome")


def test_faults_of_the_data_are_all_listed_with_exit_status_two(finished, command, broden, tmp_path, server):
    """A missing picture and a cut mask, found by the first stage, inside Prefect."""
    folder, _ = finished
    shutil.copytree(broden, tmp_path / "damaged")
    (tmp_path / "damaged/images/3.jpg").unlink()
    mask = tmp_path / "damaged/images/5_part_0.png"
    mask.write_bytes(mask.read_bytes()[:60])
    root = f"dataset.root={tmp_path / 'damaged'}"
    process = command("audit", "audit.yaml", "--set", root, cwd=folder, env=server)
    assert process.returncode == 2
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "index.csv:5: " in errors[0]
    assert "3.jpg: no such picture" in errors[0]
    assert "index.csv:7: part: " in errors[1]
    assert "Traceback" not in process.stderr


def test_a_full_disk_is_one_clear_error(audit_file, monkeypatch):
    """The disk fills while the tally is written: exit status 3, nothing half-written, what was finished is kept."""
    from flows.plan import Plan, Request
    from flows.run import StageFailed, carry_out
    from storage.files import HashingSink
    from tests.test_pipeline import Silent, run

    run(audit_file, until="thresholds")
    plan = Plan(Request(audit_file))
    session = Session(plan.files, plan.settings, Silent())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HashingSink, "write", full)
    with pytest.raises(StageFailed, match="stage tally failed: the disk is full"):
        carry_out(plan.job("tally"), session, refresh=False)
    assert plan.files.names(plan.job("tally").key.folder) == []
    assert session.store.find(plan.job("thresholds").key) is not None


def test_debug_shows_where(finished, command):
    assert "Traceback" in command("audit", "gone.yaml", "--debug", cwd=finished[0]).stderr


def test_own_code_that_fails_in_a_stage_is_exit_status_two_with_its_line_and_keeps_what_is_done(
    command, finished, server
):
    folder, _ = finished
    code = "\ndef late():\n    net = tiny()\n    net.register_forward_pre_hook(boom)\n    return net\n"
    code += (
        "calls = []\ndef boom(*_):\n    calls.append(1)\n    if len(calls) > 8:\n        raise ValueError('no more')\n"
    )
    (folder / "late_nets.py").write_text((folder / "nets.py").read_text() + code)
    process = command("audit", "audit.yaml", "--set", "network.load=late_nets:late", cwd=folder, env=server)
    assert process.returncode == 2, process.stderr
    assert "network.load: the code that it names failed: ValueError: no more" in process.stderr
    assert "late_nets.py, line " in process.stderr
    assert "Traceback" not in process.stderr
    assert "index        cached" in process.stderr


def test_init_writes_a_file_that_plans(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert left("init").stdout.strip() == "audit.yaml"
    assert left("init").returncode == 2
    assert left("init", "new/folder/audit.yaml").returncode == 0
    assert (tmp_path / "new/folder/audit.yaml").read_text() == (tmp_path / "audit.yaml").read_text()
    change_audit(tmp_path / "audit.yaml", dataset={"format": "creatures", "count": 3, "size": 224})
    assert "would run" in left("plan", "audit.yaml").stdout


def test_against_a_running_server(finished, command, server):
    """Task runs have useful names; what was done already shows as Cached; nothing goes to an embedded server."""
    folder, _ = finished
    before = {run["id"] for kind in ("task", "flow") for run in asked(server, f"{kind}_runs/filter", {})}
    process = command("audit", "audit.yaml", "--set", "stages.dissection.min_iou=0.07", cwd=folder, env=server)
    assert process.returncode == 0, process.stderr
    tasks = [run for run in asked(server, "task_runs/filter", {}) if run["id"] not in before]
    states = {run["name"]: run["state_name"] for run in tasks}
    assert states["index"] == states["null"] == "Cached"
    assert states["dissection"] == states["report"] == "Completed"
    flows = {run["id"]: run["state_type"] for run in asked(server, "flow_runs/filter", {}) if run["id"] not in before}
    assert list(flows.values()) == ["COMPLETED"]


def test_deployments_point_at_flows_that_are_there():
    import importlib

    import yaml

    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    names = [deployment["name"] for deployment in content["deployments"]]
    assert len(set(names)) == len(names)
    for deployment in content["deployments"]:
        file, _, name = deployment["entrypoint"].partition(":")
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        assert hasattr(module, name), deployment["entrypoint"]
        handed_out = name == "stage"  # whose file is named by the audit that hands it out
        assert handed_out == ("parameters" not in deployment)
        assert handed_out or os.path.exists(ROOT / deployment["parameters"]["file"])
