"""`microtome verify` and `audit --verify`: what size and time of change do not tell."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.commands import audited, status


@pytest.fixture
def folder(finished_workspace, tmp_path, monkeypatch) -> Path:
    """A finished workspace and its data set, to be damaged."""
    for name in ("data", "nets.py", "audit.yaml"):
        place = finished_workspace / name
        (shutil.copytree if place.is_dir() else shutil.copy2)(place, tmp_path / name)
    shutil.copytree(finished_workspace / "whole", tmp_path / ".microtome")
    monkeypatch.chdir(tmp_path)
    audited(Path("audit.yaml"))  # whose inputs are those of this folder
    return tmp_path


def flip(file: Path) -> None:
    """Flip one bit in the middle of a file; its size and time of change stay."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def only(folder: Path, pattern: str) -> Path:
    (file,) = (folder / ".microtome/stages").glob(pattern)
    return file


def test_a_good_workspace_is_good(folder):
    ended, out, _ = status("verify")
    assert ended == 0
    assert out == "9 stages and 62 input files read, faults found: 0\n"


@pytest.mark.parametrize(
    "pattern", ["dissection/*/units.parquet", "activations/*/layer-*/*.parquet", "report/*/index.html"]
)
@pytest.mark.parametrize("name", [(), ("tiny",)])
def test_a_flipped_bit_that_no_time_tells_is_found_and_made_good(folder, pattern, name):
    file = only(folder, pattern)
    whole = file.read_bytes()
    flip(file)
    assert "made again" not in audited(Path("audit.yaml"))
    assert file.read_bytes() != whole
    ended, out, _ = status("verify", *name)
    stage = file.relative_to(folder / ".microtome").as_posix()
    assert ended == 1
    assert f"{stage} was altered; the stage runs again" in out.splitlines()
    assert out.endswith("faults found: 1\n")
    assert status("verify", "tiny")[1].startswith("stages/" + pattern.partition("/")[0])  # until it is made again
    said = audited(Path("audit.yaml"))
    assert said.count("done in") == 1
    assert file.read_bytes() == whole or pattern.startswith("report")
    assert status("verify")[0] == 0


def test_audit_verify_makes_damaged_stages_again(folder):
    flip(only(folder, "dissection/*/units.parquet"))
    said = audited(Path("audit.yaml"), verify=True)
    assert "units.parquet was altered; the stage runs again" in said
    assert [line.split()[0] for line in said.splitlines() if "done in" in line] == ["dissection"]
    assert status("audit", "audit.yaml", "--verify")[0] == 0
    assert status("verify")[0] == 0


def test_audit_verify_reads_every_stage_once(folder):
    ended, _, said = status("audit", "audit.yaml", "--verify")
    assert ended == 0
    assert [line for line in said.splitlines() if "stages read" in line] == ["verify       9 stages read"]


def test_inputs_that_changed_or_went_are_named(folder):
    picture, mask, table = (folder / "data/images" / name for name in ("0.jpg", "1_part_0.png", "../label.csv"))
    picture.write_bytes(picture.read_bytes() + b"x")
    mask.unlink()
    mask.mkdir()
    ended, out, _ = status("verify")
    assert ended == 1
    assert out.splitlines()[:2] == [
        f"data set main: {picture.resolve()} changed since it was read",
        f"data set main: {mask.resolve()} is gone since it was read",
    ]
    assert str(table) not in out
    assert out.endswith("faults found: 2\n")


def test_many_changed_inputs_are_counted(folder):
    for picture in (folder / "data/images").glob("*.png"):
        picture.write_bytes(b"")
    ended, out, _ = status("verify", "tiny")
    count = len(list((folder / "data/images").glob("*.png")))
    assert ended == 1
    assert f"data set main: ... and {count - 20} more files" in out.splitlines()


def test_an_input_that_changed_without_its_time_telling_is_found(folder):
    """No clock can be turned back for ctime, so the memo is made to say what it would after rotten bits."""
    picture = (folder / "data/images/3.jpg").resolve()
    memo = folder / ".microtome/digests.json"
    old = hashlib.sha256(picture.read_bytes()).hexdigest()
    flip(picture)
    found = picture.stat()
    stamps = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    known = json.loads(memo.read_text()) if memo.exists() else {}  # files just written are not remembered
    memo.write_text(json.dumps(known | {str(picture): [*stamps, old], "seal": None}))
    assert "done in" not in audited(Path("audit.yaml"))
    said = audited(Path("audit.yaml"), verify=True)
    assert f"{picture}: was altered, though its size and times stayed" in said
    assert "index        done in" in said


def test_a_damaged_record_and_a_missing_list_are_faults_and_a_newer_record_is_none(folder):
    first, second, _ = sorted((folder / ".microtome/runs").iterdir())
    (first / "run.json").write_text("{")
    (second / "run.json").write_text('{"layout": 7}')
    for listed in (folder / ".microtome/inputs").iterdir():
        listed.unlink()
    ended, out, said = status("verify")
    assert ended == 1
    assert f"runs/{first.name}/run.json: this run record is damaged" in out
    assert "data set main: whether it changed cannot be told" in out
    assert out.endswith("9 stages and 0 input files read, faults found: 2\n")
    assert f"runs/{second.name}/run.json: this run record was written by a newer version" in said


def test_names_of_files_cannot_steer_the_terminal(folder):
    manifest = only(folder, "tally/*/manifest.json")
    content = json.loads(manifest.read_text())
    content["files"]["a\x1b[31m\nb"] = {"bytes": 1, "sha256": "0" * 64, "rows": None}
    manifest.write_text(json.dumps(content | {"seal": None}))
    ended, out, _ = status("verify")
    assert ended == 1
    assert "/a\\x1b[31m\\nb is missing; the stage runs again" in out


def test_gc_keeps_what_damaged_and_newer_records_name(folder):
    """Which stages they use nobody knows; what they name as text they may well need."""
    records = sorted((folder / ".microtome/runs").iterdir())
    for record in records[:-1]:
        shutil.rmtree(record)
    file = records[-1] / "run.json"
    named = json.loads(file.read_text())["stages"]
    content = file.read_text()
    file.write_text(content[: content.index(named["tally"]["folder"]) + 60])  # names index, activations ... tally
    assert "removed" in status("gc")[1]
    kept = sorted(path.name for path in (folder / ".microtome/stages").iterdir() if list(path.iterdir()))
    assert kept == ["activations", "index", "tally", "thresholds"]


@pytest.mark.parametrize("command", [("show",), ("sql", "select count(*) n from units"), ("compare", "tiny", "tiny")])
def test_rows_that_are_missing_are_said(folder, command):
    only(folder, "dissection/*/manifest.json").write_text("[]")
    ended, _, said = status(*command)
    assert ended == 0
    assert "/manifest.json: this manifest is damaged: Input should be an object" in said
    assert "stage dissection is damaged" in said
    assert "its rows are missing here until the audit runs again" in said


@pytest.mark.parametrize("command", [("show",), ("sql", "select count(*) n from units")])
@pytest.mark.parametrize("table", ["layers", "units"])
def test_a_table_that_was_altered_behind_the_clock_is_said(folder, command, table):
    """Its end, which tells where its rows are: found when it is opened, and its stage is marked."""
    file = only(folder, f"dissection/*/{table}.parquet")
    before = file.stat()
    file.write_bytes(file.read_bytes()[:-300] + bytes(300))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    ended, _, said = status(*command)
    assert ended == 0
    assert f"stage dissection is damaged: stages/dissection/{file.parent.name}/{table}.parquet was altered" in said
    assert not file.with_name("manifest.json").exists()
    audited(Path("audit.yaml"))
    assert status(*command)[2] == ""


def test_compare_names_a_table_that_was_altered_behind_the_clock(folder):
    file = only(folder, "dissection/*/units.parquet")
    before = file.stat()
    file.write_bytes(file.read_bytes()[:-300] + bytes(300))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    ended, _, said = status("compare", "tiny", "tiny")
    assert ended == 2
    assert "a table cannot be read: " in said
    assert "`microtome verify` marks its stage" in said
    assert status("verify")[0] == 1
    audited(Path("audit.yaml"))
    assert status("compare", "tiny", "tiny")[0] == 0


def test_rows_that_were_altered_behind_the_clock_are_one_sentence(folder):
    """Not the end but a page of values, which is read with the query."""
    file = only(folder, "dissection/*/layers.parquet")
    before, content = file.stat(), file.read_bytes()
    file.write_bytes(content[:4] + bytes(200) + content[204:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    for command in (("show",), ("compare", "tiny", "tiny"), ("sql", "select * from layers")):
        ended, _, said = status(*command)
        assert ended == 2
        assert len(said.strip().splitlines()) == 1
    assert "a table cannot be read: " in status("show")[2]


def test_a_report_that_is_gone_is_one_sentence(folder):
    only(folder, "report/*/index.html").unlink()
    ended, _, said = status("open")
    assert ended == 2
    assert "its report is not there any more; run the audit again" in said


def test_a_run_is_named_or_refused(folder):
    assert status("verify", "nonsense")[0] == 2
    assert status("verify", sorted((folder / ".microtome/runs").iterdir())[0].name)[0] in (0, 1)
