"""Files, stages, tensors, catalogue: atomic, verified, exact."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import RunRecord, RunStore, StageKey, StageStore, open_files
from storage.catalogue import connect
from storage.digests import FileDigests
from storage.tables import flag, float64, string, table
from storage.tensors import TensorWriter, read_tensors


@pytest.fixture
def files(tmp_path):
    return open_files(str(tmp_path))


GATES = table(
    "gates",
    "A row per gate.",
    gate=string("what"),
    value=float64("got"),
    limit=float64("wanted"),
    passed=flag("or not"),
)
UNITS = table("units", "A row per unit.", layer=string("its layer"))
KEY = StageKey("thresholds", "code", {"keep": 0.01}, {"index": "abc"})


def finish(files, key=KEY, value=1):
    draft = StageStore(files).draft(key, ())
    draft.write("value.json", json.dumps(value).encode())
    return draft.commit(environment={})


def test_a_file_appears_whole_or_not_at_all(files):
    def break_off():
        with files.publish("a/b") as sink:
            sink.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert files.names("") == []
    assert not list(os.scandir(files.location("a")))


@pytest.mark.parametrize("names", [True, False])
def test_a_stage_takes_over_a_file_of_another_as_it_is(files, monkeypatch, names):
    """As a second name of the same file; by its bytes where the file system has no such names."""
    if not names:
        monkeypatch.setattr(os, "link", refuse)
    made = finish(files)
    key = StageKey("report", "code")
    for _ in range(2):  # whoever comes second changes nothing
        draft = StageStore(files).draft(key, ())
        draft.take(made, "value.json")
    taken = draft.commit(environment={})
    assert taken.read("value.json") == made.read("value.json")
    assert taken.manifest["files"] == made.manifest["files"]
    assert StageStore(files).verify(key.folder) == []
    places = [Path(files.location(f"{folder}/value.json")) for folder in (made.folder, taken.folder)]
    assert places[0].samefile(places[1]) is names
    assert files.unfinished("") == []
    files.remove(made.folder)
    assert StageStore(files).find(key).read("value.json") == b"1"


def refuse(*_, **__):
    raise OSError(errno.EPERM, "no hard links here")


def test_a_file_that_is_gone_is_not_taken_over(files):
    made = finish(files)
    files.remove(f"{made.folder}/value.json")
    draft = StageStore(files).draft(StageKey("report", "code"), ())
    with pytest.raises(FileNotFoundError):
        draft.take(made, "value.json")


def test_a_stage_is_visible_only_with_its_manifest(files):
    draft = StageStore(files).draft(KEY, ())
    draft.write("value.json", b"1")
    assert StageStore(files).find(KEY) is None
    draft.commit(environment={})
    found = StageStore(files).find(KEY)
    assert found.json("value.json") == 1
    assert found.manifest["inputs"] == {"index": "abc"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("1x"), "has 2 bytes instead of 1"),
        (lambda path: path.write_text("2"), "was altered"),
    ],
)
def test_a_damaged_stage_is_not_found_and_says_so(files, change, said):
    finish(files)
    change(Path(files.location(f"{KEY.folder}/value.json")))
    heard = []
    assert StageStore(files, heard.append).find(KEY) is None
    assert said in heard[0]
    assert "runs again" in heard[0]


def test_touching_a_file_without_changing_it_is_no_damage(files):
    finish(files)
    os.utime(files.location(f"{KEY.folder}/value.json"), (1, 1))
    assert StageStore(files).find(KEY) is not None


def test_a_restart_takes_up_finished_files_and_no_others(files):
    draft = StageStore(files).draft(KEY, ())
    draft.write("done", b"123")
    draft.write("shortened", b"12345")
    with open(files.location(f"{KEY.folder}/shortened"), "w") as stream:
        stream.write("12")
    with open(files.location(f"{KEY.folder}/unchecked"), "w") as stream:
        stream.write("killed before its checksum")
    assert StageStore(files).draft(KEY, ()).finished() == ["done"]


def test_two_writers_of_one_stage_are_harmless(files):
    one, two = StageStore(files).draft(KEY, ()), StageStore(files).draft(KEY, ())
    for draft in (one, two):
        draft.write("value.json", b"1")
    one.commit(environment={})
    two.commit(environment={})
    assert StageStore(files).find(KEY).json("value.json") == 1


@pytest.mark.parametrize("field", ["stage", "code", "parameters", "inputs"])
def test_everything_is_in_the_digest(field):
    changed = {"stage": "tally", "code": "other", "parameters": {"keep": 0.02}, "inputs": {"index": "abd"}}[field]
    values = {"stage": KEY.stage, "code": KEY.code, "parameters": KEY.parameters, "inputs": KEY.inputs}
    assert StageKey(**{**values, field: changed}).digest != KEY.digest
    assert StageKey(**values).digest == KEY.digest


def test_digests_are_remembered_and_follow_the_content(files, tmp_path):
    file = tmp_path / "data.bin"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    digests = FileDigests(files)
    first = digests.of(file)
    digests.save()
    assert FileDigests(files).of(file) == first
    file.write_bytes(b"two")
    assert FileDigests(files).of(file) != first
    assert FileDigests(files).of(tmp_path / "gone") == "missing"


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensors_come_back_bit_for_bit(tmp_path, compression, dtype):
    data = np.random.default_rng(0).standard_normal((7, 3, 2, 4)).astype(dtype)
    with open(tmp_path / "t", "wb") as sink:
        writer = TensorWriter(sink, (3, 2, 4), dtype, compression=compression, about={})
        writer.write(10, data[:4])
        writer.write(14, data[4:])
        writer.close()
    blocks = list(read_tensors(pa.OSFile(str(tmp_path / "t"))))
    assert [block.first for block in blocks] == [10, 14]
    assert np.concatenate([block.tensors for block in blocks]).tobytes() == data.tobytes()
    assert [block.first for block in read_tensors(pa.OSFile(str(tmp_path / "t")), [1])] == [14]


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    with open(tmp_path / "t", "wb") as sink:
        writer = TensorWriter(sink, (3,), "float32", compression="none", about={})
        with pytest.raises(ValueError, match=r"\(images, \*\(3,\)\), got \(2, 4\)"):
            writer.write(0, np.zeros((2, 4)))
        writer.close()


def test_tables_keep_the_contract(tmp_path):
    columns = {"gate": ["x"], "value": [1], "limit": [None], "passed": [True]}
    assert GATES.conform(columns).schema.field("value").type == pa.float64()
    with pytest.raises(ValueError, match="must have the columns"):
        GATES.conform({"gate": ["x"]})
    with pytest.raises(ValueError, match="must be one of gates"):
        StageStore(open_files(str(tmp_path))).draft(KEY, (GATES,)).table("gate", columns)


def run_with_gates(files, name, gate):
    key = StageKey("gates", "code", {"gate": gate})
    draft = StageStore(files).draft(key, (GATES,))
    draft.table("gates", {"gate": [gate], "value": [1.0], "limit": [0.5], "passed": [True]})
    artifact = draft.commit(environment={})
    run = RunRecord.start(name, "net", {}).ended("done", stages={"gates": {"folder": artifact.folder}})
    RunStore(files).save(run)
    return run


def test_views_show_each_run_its_own_rows_even_with_odd_names(tmp_path):
    files = open_files(str(tmp_path / 'it\'s a "folder"'))
    one, two = run_with_gates(files, "one", "a'; drop table x; --"), run_with_gates(files, "two", "b")
    again = RunRecord.start("again", "net", {}).ended("done", stages=two.stages)
    connection = connect(files, [one, two, again], (GATES, UNITS))
    rows = connection.execute("select run_id, gate from gates").fetchall()
    assert sorted(rows) == sorted([(one.run_id, "a'; drop table x; --"), (two.run_id, "b"), (again.run_id, "b")])
    assert connection.execute("select count(*) from units").fetchall() == [(0,)]
    assert connection.execute("select name from runs order by name").fetchall() == [("again",), ("one",), ("two",)]


def test_runs_are_found_by_id_start_and_audit_name(files):
    one, two = run_with_gates(files, "one", "a"), run_with_gates(files, "two", "b")
    store = RunStore(files)
    assert store.find().run_id in (one.run_id, two.run_id)
    assert store.find("one").run_id == one.run_id
    assert store.find(two.run_id).name == "two"
    assert store.find("2") is None
    assert store.find("nothing") is None


def test_no_pickle_in_parquet(files):
    run_with_gates(files, "one", "a")
    (name,) = [name for name in files.names("stages") if name.endswith(".parquet")]
    assert not pq.read_schema(files.location(name)).metadata


def test_a_file_replaced_at_equal_size_and_time_is_read_again(files, tmp_path):
    """mtime can be set; ctime and inode tell."""
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    os.utime(file, (1, 1))
    time.sleep(2.1)  # younger files are not remembered at all
    digests = FileDigests(files)
    first = digests.of(file)
    digests.save()
    (tmp_path / "other").write_bytes(b"two")
    os.utime(tmp_path / "other", (1, 1))
    os.replace(tmp_path / "other", file)
    assert file.stat().st_mtime == 1
    assert FileDigests(files).of(file) != first


def after_a_power_cut(place: Path, how: str) -> None:
    """What a disk may hold of a file that was moved to its place but never settled; its times of change stay."""
    before, content = place.stat(), place.read_bytes()
    kept = {"empty": b"", "cut": content[: len(content) // 2], "zeroed": bytes(len(content))}[how]
    place.write_bytes(kept)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("how", ["empty", "cut", "zeroed"])
@pytest.mark.parametrize("name", ["manifest.json", ".verified.json"])
def test_a_power_cut_that_takes_a_small_file_is_noticed(files, name, how):
    """Without its manifest the stage runs again; without the marks all of it is read again."""
    finish(files)
    after_a_power_cut(Path(files.location(f"{KEY.folder}/{name}")), how)
    found = StageStore(files).find(KEY)
    assert (found is None) == (name == "manifest.json")
    assert len(files.faults) == 1
    assert finish(files).json("value.json") == 1
    assert StageStore(files).find(KEY) is not None


@pytest.mark.parametrize("how", ["empty", "cut", "zeroed"])
@pytest.mark.parametrize("name", ["shard", "shard.check.json"])
def test_a_power_cut_in_a_stage_loses_what_it_took_and_no_more(files, name, how):
    """Of an unfinished stage every byte is read: nothing vouches for files that may never have reached the disk."""
    draft = StageStore(files).draft(KEY, ())
    draft.write("shard", b"12345")
    draft.write("other", b"123")
    after_a_power_cut(Path(files.location(f"{KEY.folder}/{name}")), how)
    assert StageStore(files).draft(KEY, ()).finished() == ["other"]


def test_what_a_manifest_vouches_for_is_on_the_disk_before_it(files, monkeypatch):
    """Files and their folders before the manifest, the manifest before the checksums go."""
    order = []
    settled, moved, unlinked = os.fsync, os.replace, Path.unlink

    def fsync(handle):
        order.append("settled " + os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), files.location("")))
        settled(handle)

    def replace(beside, place):
        moved(beside, place)
        order.append("moved " + os.path.relpath(place, files.location("")))

    def unlink(place, **more):
        order.append("gone " + os.path.relpath(place, files.location("")))
        unlinked(place, **more)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "unlink", unlink)
    draft = StageStore(files).draft(KEY, ())
    draft.write("a/one", b"1")
    draft.write("two", b"2")
    draft.commit(environment={})
    folder = KEY.folder
    marks, manifest = (order.index(f"moved {folder}/{name}") for name in (".verified.json", "manifest.json"))
    before = {
        f"settled {place}" for place in (f"{folder}/a/one", f"{folder}/two", f"{folder}/a", folder, "stages", ".")
    }
    assert before <= set(order[:marks])
    settled_after = [order.index(f"settled {place}", manifest) for place in (f"{folder}/manifest.json", folder)]
    assert max(settled_after) < order.index(f"gone {folder}/a/one.check.json")


@pytest.mark.parametrize("place", ["stages", "stages/index", "stages/index/one"])
def test_a_file_in_the_place_of_a_folder_makes_way_and_so_is_no_reason_to_refuse(tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("")
    heard = []
    files = open_files(str(tmp_path), say=lambda said, **_: heard.append(said))
    assert files.writable("stages/index/one")
    files.write("stages/index/one/manifest.json", b"{}")
    assert files.read("stages/index/one/manifest.json") == b"{}"


def test_a_folder_in_the_place_of_a_lock_makes_way(tmp_path):
    (tmp_path / "claims/lock").mkdir(parents=True)
    files = open_files(str(tmp_path))
    with files.lock("claims/lock", lambda: None):
        assert (tmp_path / "claims/lock").is_file()
