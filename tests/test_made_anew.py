"""A finished stage that is made anew is not lost where that fails: the one before comes back, whatever happened."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.collect import collect
from storage import StageKey, StageStore, open_files
from storage.stages import PUT_BY
from tests.commands import audited
from tests.conftest import clean_environment
from tests.stores import BUCKET, rclone_store

KEY = StageKey("probe", "code", {"x": 1})


@pytest.fixture(scope="module")
def rclone(tmp_path_factory):
    yield from rclone_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(params=["folder", "bucket"])
def files(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return open_files(str(tmp_path / "w"))
    for name, value in request.getfixturevalue("rclone").environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_files(f"s3://{BUCKET}/{request.node.name.partition('[')[0]}")


def finish(store: StageStore, value: int) -> None:
    draft = store.draft(KEY, ())
    draft.write("value.json", json.dumps(value).encode())
    draft.write("folder/other.json", b"2")
    draft.commit(environment={})


def test_what_was_put_by_comes_back_unless_the_stage_was_made_anew(files):
    store = StageStore(files)
    finish(store, 1)
    store.put_by(KEY)
    assert store.find(KEY) is None
    store.draft(KEY, ()).write("value.json", b"half")  # and killed
    again = StageStore(files)
    again.bring_back(KEY)
    found = again.find(KEY)
    assert (found.json("value.json"), found.json("folder/other.json")) == (1, 2)
    again.put_by(KEY)
    finish(again, 3)
    again.bring_back(KEY)
    assert again.find(KEY).json("value.json") == 3
    assert files.names(PUT_BY) == []


def test_a_move_that_was_killed_half_way_loses_nothing(files):
    store = StageStore(files)
    finish(store, 1)
    files.copy(f"{KEY.folder}/value.json", f"{KEY.put_by}/value.json")  # killed before the manifest was put by
    store.bring_back(KEY)
    assert store.find(KEY).json("value.json") == 1
    store.put_by(KEY)
    files.copy(f"{KEY.put_by}/value.json", f"{KEY.folder}/value.json")  # killed before the manifest came back
    store.bring_back(KEY)
    assert store.find(KEY).json("value.json") == 1


def test_what_is_put_by_is_collected_with_its_stage(tmp_path):
    files = open_files(str(tmp_path))
    finish(StageStore(files), 1)
    StageStore(files).put_by(KEY)
    removed = [name for name, _ in collect(files, 1, dry_run=False, waiting=lambda: None)]
    assert removed == [KEY.put_by]
    assert files.names(PUT_BY) == []


REFRESH = """
import os, signal
from pathlib import Path
from flows.claiming import claiming
from flows.plan import Plan, Request
from flows.run import carry_out, session_of, start
import tasks.thresholds.work as work
def ended(*given):
    os.kill(os.getpid(), signal.SIGKILL)
work.run = ended
plan = Plan(Request(Path("audit.yaml"), ("thresholds",), ("thresholds",)))
with claiming(plan):
    session = session_of(plan)
    start(plan, session)
    for job in plan.jobs:
        carry_out(job, session, refresh=job.called(("thresholds",)))
"""


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_killed_refresh_leaves_the_next_audit_cached(finished_workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(finished_workspace)
    shutil.rmtree(".microtome", ignore_errors=True)
    shutil.copytree("whole", ".microtome")
    before = bytes_of(Path(".microtome/stages"))
    killed = subprocess.run([sys.executable, "-c", REFRESH], env=clean_environment(tmp_path), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(Path(".microtome", PUT_BY).rglob("manifest.json"))
    audited(Path("audit.yaml"))
    after = bytes_of(Path(".microtome/stages"))
    assert {name for name in before if after.get(name) != before[name] and not name.endswith(".verified.json")} == set()
    assert bytes_of(Path(".microtome", PUT_BY)) == {}
