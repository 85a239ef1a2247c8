"""A disk that is full in mid-stage: said, nothing half-written, what was finished is kept and gone on from."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows.plan import Plan, Request
from flows.run import StageFailed, carry_out
from storage import Artifact, RunRecord, RunStore, StageKey, StageStore, open_files
from tasks.session import Session
from tests.conftest import NETWORK, clean_environment, contents, count, every_stage, long_form, soak, write_audit
from tests.test_deaths import SLOW
from tests.test_pipeline import Silent

PAGE = 4096


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", "size=64m", "microtome-test", str(place)]
    if os.getuid() != 0 or subprocess.run(call, capture_output=True).returncode != 0:
        pytest.skip("a small disk can only be mounted by root: tests/test_cli.py fills one through the file interface")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, leave: int) -> None:
    """Take all of a disk but so many bytes."""
    with (disk / "ballast").open("wb") as ballast:
        while (rest := free(disk) - leave) >= PAGE:
            ballast.write(bytes(min(rest, 1 << 20)))
            ballast.flush()


class Filling(Silent):
    """Progress that fills the disk when a stage has begun: what a stage foresees at its start has been seen by then."""

    def __init__(self, disk: Path, leave: int):
        super().__init__()
        self._fill = lambda: fill(disk, leave)

    def begin(self, *_):
        self._fill()


def taken(artifact: Artifact) -> int:
    """Bytes that a stage takes of a disk, which gives whole pages, and a page to a folder."""
    place = Path(artifact.files.location(artifact.folder))
    return sum(found.stat().st_blocks * 512 or PAGE for found in place.rglob("*"))


@pytest.mark.slow
@pytest.mark.soak
def test_a_disk_that_is_full_in_the_middle_of_a_stage(tmp_path, disk, everything, monkeypatch):
    """Each of some stages (all in the long form) is left half of the bytes that it needs, then all of them.

    The others are copied there, finished.
    """
    monkeypatch.setattr("storage.files.LocalFiles.free", lambda _: None)  # others fill the disk, after it was looked at
    file = every_stage(tmp_path)
    plan = Plan(Request(file, overrides=(f"workspace={disk / 'w'}",)))
    names = [job.name for job in plan.jobs]
    chosen = random.Random(0).sample(names, soak(3, len(names)))
    for job in plan.jobs:
        made = everything[job.name]
        if job.name not in chosen:
            shutil.copytree(made.files.location(made.folder), disk / "w" / job.key.folder)
            continue
        leave = taken(made) // 2
        if job.name == "gates":
            fill(disk, leave)
        with pytest.raises(StageFailed, match=rf"^stage {job.name} failed: the disk is full; free some space"):
            carry_out(job, Session(plan.files, plan.settings, Filling(disk, leave)), refresh=False)
        count("stages whose disk was full")
        (disk / "ballast").unlink()
        assert not list(disk.rglob("*.part"))
        assert not (disk / "w" / job.key.folder / "manifest.json").exists()
        again = carry_out(job, Session(plan.files, plan.settings, heard := Silent()), refresh=False)[0]
        assert contents(again) == contents(made), job.name
        assert heard.heard == []
    cached = [carry_out(job, Session(plan.files, plan.settings, Silent()), refresh=False)[1] for job in plan.jobs]
    assert all(cached)


@pytest.mark.soak
@long_form
def test_a_full_disk_takes_prefects_database_along_and_is_still_one_sentence(tmp_path, disk, broden):
    """As a user has it: the embedded server's database lies in the workspace, which is full."""
    (tmp_path / "nets.py").write_text(NETWORK + SLOW)
    content = {
        "name": "tiny",
        "network": {"load": "nets:slow", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}},
        "workspace": str(disk),
    }
    write_audit(tmp_path / "audit.yaml", content)
    superseded = StageStore(open_files(str(disk))).draft(StageKey("index", "code"), ()).commit(environment={})
    call = [sys.executable, "-m", "flows.cli", "audit", "audit.yaml"]
    more = {"cwd": tmp_path, "env": clean_environment(tmp_path), "text": True, "stderr": subprocess.PIPE}
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, **more)
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("activations  70"):
            fill(disk, 0)
    assert process.wait(120) == 3, said
    assert "error: stage activations failed: the disk is full; free some space and run it again" in said
    assert "Traceback" not in said
    assert statuses(disk) == ["failed"]
    tidied = subprocess.run([*call[:3], "gc", "--workspace", str(disk)], stdout=subprocess.PIPE, **more)
    assert tidied.returncode == 0, tidied.stderr  # what makes room must not need any
    assert f"removed {superseded.folder}" in tidied.stdout
    (disk / "ballast").unlink()
    again = subprocess.run(call, stdout=subprocess.PIPE, **more)
    assert again.returncode == 0, again.stderr
    assert statuses(disk) == ["done", "failed"]


def statuses(disk: Path) -> list[str]:
    return sorted(json.loads(file.read_text())["status"] for file in disk.glob("runs/*/run.json"))


def run_with_stages(name: str) -> RunRecord:
    """As large a record as that of an audit with every stage."""
    stages = {f"stage-{n}": {"folder": f"stages/index/{n:032x}", "cached": True, "seconds": 1.0} for n in range(40)}
    return replace(RunRecord.start(name, "net", {}), stages=stages)


def test_how_a_run_ended_is_recorded_on_a_full_disk(disk):
    """In room that was kept, even if it is to the last page, and nobody else can take it; a dead one's, too."""
    files = open_files(str(disk))
    store, run, dead = RunStore(files), RunRecord.start("one", "net", {}), RunRecord.start("dead", "net", {})
    store.begin(run)
    store.begin(dead)
    fill(disk, 0)
    with pytest.raises(OSError, match="No space left"):
        store.save(run.ended("failed"))
    store.end(replace(run_with_stages("one"), run_id=run.run_id).ended("failed"))
    store.end(replace(dead, status="killed"))
    assert {found.name: found.status for found in store.all()} == {"one": "failed", "dead": "killed"}
    assert sorted(files.names("runs")) == sorted(f"runs/{found.run_id}/run.json" for found in (run, dead))


def test_a_run_for_which_there_is_no_room_does_not_begin(disk):
    """The room for its end is asked for, too: nothing says `running` that nobody could end."""
    files = open_files(str(disk))
    fill(disk, 3 * PAGE)
    with pytest.raises(OSError, match="No space left"):
        RunStore(files).begin(RunRecord.start("one", "net", {}))
    assert files.names("") == ["ballast"]
    assert files.unfinished("") == []
