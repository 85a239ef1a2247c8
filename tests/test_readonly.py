"""A workspace of another user's, who lets everybody read it and nobody write."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.claiming import claiming
from flows.plan import Plan, Request
from flows.run import carry_out, finish, session_of, start
from storage import RunRecord
from tests.conftest import NETWORK, clean_environment, soak, write_audit

OWNER = 12345  # a user number that is nobody's
NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}
_DROP, _OVERRIDE, _SEARCH, _OWNER = 24, 1, 2, 3  # PR_CAPBSET_DROP; the powers by which root ignores modes


def _obey_modes() -> None:
    for power in (_OVERRIDE, _SEARCH, _OWNER):
        ctypes.CDLL(None).prctl(_DROP, power, 0, 0, 0)


def stranger() -> dict[str, object]:
    """How to start a process that must obey the workspace's modes.

    As root, who ignores them: as `nobody`, or, where nobody can run this interpreter, as a root without that power.
    """
    if os.getuid() != 0:
        return {}
    try:
        subprocess.run([sys.executable, "-c", "import duckdb"], check=True, capture_output=True, **NOBODY)
    except (OSError, subprocess.CalledProcessError):
        return {"preexec_fn": _obey_modes}
    return NOBODY


def audited(file: Path, *overrides: str) -> RunRecord:
    """An audit carried out, without Prefect; gives its record."""
    plan = Plan(Request(file, overrides=overrides))
    with claiming(plan):
        session = session_of(plan)
        run = start(plan, session)
        done = {job.name: carry_out(job, session, refresh=False) for job in plan.jobs}
        return finish(plan, run, done, "done").run


def give_away(folder: Path) -> None:
    """To another user where that can be done; for nobody to write in any case."""
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
        if os.getuid() == 0:
            os.chown(place, OWNER, OWNER)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(place.relative_to(folder)): place.stat() for place in folder.rglob("*")}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


@pytest.fixture(scope="module")
def folder(broden) -> Iterator[Path]:
    """An audit that is done twice, in a folder that everybody can enter."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    shutil.copytree(broden, place / "data")
    (place / "nets.py").write_text(NETWORK)
    content = {
        "name": "tiny",
        "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": "data"},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}},
        "gates": [{"metric": "layers.detectors", "min": 0}],
    }
    file = write_audit(place / "audit.yaml", content)
    audited(file)
    audited(file, "stages.dissection.min_iou=0.05")
    give_away(place)
    yield place
    for inner in (place, *place.rglob("*")):
        if inner.is_dir():
            inner.chmod(0o755)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def microtome(folder) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs `microtome ...` there as a stranger; nothing in the folder may change by it."""
    home = Path(tempfile.mkdtemp())
    home.chmod(0o777)
    who = stranger()

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        before = contents(folder)
        process = subprocess.run(
            [sys.executable, "-P", "-m", "flows.cli", *map(str, arguments)],
            cwd=folder, env=clean_environment(home) | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
            capture_output=True, text=True, timeout=300, **who,
        )  # fmt: skip
        assert contents(folder) == before
        assert "Traceback" not in process.stderr
        return process

    run.home = home
    yield run
    shutil.rmtree(home)


def test_the_stranger_cannot_write_there(folder, microtome):
    code = "import pathlib; pathlib.Path('.microtome/runs/x').write_text('')"
    process = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, **stranger())
    assert "PermissionError" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs"], "tiny"),
        (["show"], "dissection"),
        (["show", "tiny"], "detectors"),
        (["sql", "select count(*) n from units"], "12"),
        (["sql", "select count(distinct run_id) n from units", "--run", "all"], "2"),
        (["plan", "audit.yaml"], "cached"),
        (["plan", "audit.yaml", "--set", "stages.dissection.min_iou=0.1"], "would run"),
        (["open"], "index.html"),
        (["gc", "--dry-run", "--keep", "1"], "would remove stages/"),
    ],
)
def test_reading_commands_work(microtome, arguments, words):
    process = microtome(*arguments)
    assert process.returncode == 0, process.stderr
    assert words in process.stdout
    assert process.stderr == ""


def test_two_runs_are_compared_and_a_report_is_written_elsewhere(folder, microtome):
    first, second = (line.split()[0] for line in microtome("runs").stdout.splitlines()[2:])
    assert "12 of 12 units of 4 (100%) carry the same label" in microtome("compare", first, second).stdout
    process = microtome("report", "--single-file", microtome.home / "report.html")
    assert process.returncode == 0, process.stderr
    assert "<html" in (microtome.home / "report.html").read_text()


@pytest.mark.parametrize("environment", [{}, {"PREFECT_API_URL": "http://127.0.0.1:1/api"}])
def test_an_audit_with_nothing_to_do_works_and_says_that_it_is_not_recorded(microtome, environment):
    process = microtome("audit", "audit.yaml", **environment)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("cached") == 8
    assert "this run is not recorded: the workspace cannot be written (Permission denied)" in process.stderr
    assert "passed  layers.detectors: min 0" in process.stdout
    assert len(microtome("runs").stdout.splitlines()) == 4


NOBODY_THERE = {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
CHANGED = ["audit", "audit.yaml", "--set", "stages.dissection.min_iou=0.1"]
REFUSED = [
    (CHANGED, "dissection, gates, pages, report must be run", {}),
    (CHANGED, "dissection, gates, pages, report must be run", NOBODY_THERE),
    (["audit", "audit.yaml", "--refresh", "index"], "index must be run", {}),
    (["rerun", "dissection", "audit.yaml"], "dissection must be run", NOBODY_THERE),
    (["audit", "audit.yaml", "--refresh", "index"], "index must be run", NOBODY_THERE),
    (["rerun", "dissection", "audit.yaml"], "dissection must be run", {}),
]


@pytest.mark.soak
@pytest.mark.parametrize(("arguments", "missing", "environment"), REFUSED[: soak(4, 6)])
def test_work_to_do_is_refused_before_it_begins(microtome, arguments, missing, environment):
    process = microtome(*arguments, **environment)
    assert process.returncode == 2, process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: workspace: must be writable, since ")
    assert missing in line


@pytest.mark.parametrize("command", [["gc", "--keep", "1"], ["explain", "tiny", "0"], ["lookup", "tiny", "0"]])
def test_commands_that_write_say_what_is_wrong(microtome, command):
    process = microtome(*command)
    assert process.returncode == 2
    assert process.stderr.startswith("error: --workspace: must be writable for this command, got ")
    assert len(process.stderr.splitlines()) == 1


def test_a_new_workspace_where_none_can_be_made(microtome):
    process = microtome("audit", "audit.yaml", "--workspace", "new")
    assert process.returncode == 2
    assert len(process.stderr.splitlines()) == 1
    assert "must be writable" in process.stderr


def test_work_in_a_workspace_whose_stages_are_of_another_user(folder, tmp_path, microtome):
    """The workspace itself can be written, one stage's folder cannot: found before the first stage, too."""
    shared = microtome.home / "shared"
    shutil.copytree(folder / ".microtome", shared)
    for place in (shared, *shared.rglob("*")):
        place.chmod(0o777 if place.is_dir() else 0o666)
    (shared / "stages/dissection").chmod(0o555)
    if os.getuid() == 0:
        os.chown(shared / "stages/dissection", OWNER, OWNER)
    more = ("--workspace", shared, "--set", "stages.dissection.tail=0.01")
    process = microtome("audit", "audit.yaml", *more)
    assert process.returncode == 2
    assert (
        "error: workspace: must be writable, since tally, dissection, gates, pages, report must be run"
        in process.stderr
    )
    records = [json.loads(file.read_text()) for file in (shared / "runs").glob("*/run.json")]
    assert {record["status"] for record in records} == {"done"}
