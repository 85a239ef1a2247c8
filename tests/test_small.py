"""Small files that are damaged: set aside with one sentence each, and every command goes on.

MICROTOME_SOAK=1 damages a finished workspace in 10,000 ways instead of 60.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from flows.plan import Plan, Request
from microtome.errors import InputError
from storage import RunRecord, RunStore, StageKey, StageStore, open_files, small
from storage.claims import Claims
from storage.digests import MEMO, FileDigests
from storage.inputs import INPUTS, keep_inputs, kept_inputs
from storage.stages import CHECK, MANIFEST
from tests.commands import audited, status
from tests.conftest import count, soak

KEY = StageKey("thresholds", "code", {"keep": 0.01}, {"index": "abc"})
DIGEST = "ab" * 32


@pytest.fixture
def heard():
    return []


@pytest.fixture
def files(tmp_path, heard):
    return open_files(str(tmp_path / "w"), say=heard.append)


def finish(files, key=KEY):
    draft = StageStore(files).draft(key, ())
    draft.write("value.json", b"1")
    return draft.commit(environment={})


def finished_run(files, name="one"):
    run = RunRecord.start(name, "net", {}).ended("done", stages={"thresholds": {"folder": finish(files).folder}})
    RunStore(files).save(run)
    return run, f"runs/{run.run_id}/run.json"


# The door: what each kind of damage is called, and where the file goes

DAMAGES = {
    "empty": (b"", "EOF while parsing"),
    "cut short": (b'{"run_id": "2', "EOF while parsing"),
    "an empty object": (b"{}", "Field required"),
    "a list": (b"[]", "should be an object"),
    "null": (b"null", "should be an object"),
    "a number": (b"3", "should be an object"),
    "noise": (b"\xff\xfe\0\x01", "expected value"),
    "deep": (b"[" * 100_000, "recursion limit exceeded"),
    "half a character": (b'{"run_id": "\\ud800"}', "unexpected end of hex escape"),
    "a long number": (b'{"started": ' + b"9" * 6000 + b"}", "number out of range"),
}


@pytest.mark.parametrize(("content", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_run_record_is_set_aside_and_the_others_are_listed(files, heard, content, words):
    (_, name), (other, _) = finished_run(files), finished_run(files, "two")
    files.write(name, content)
    assert RunStore(files).all() == [other]
    (said,) = heard
    assert said.startswith(f"{name}: this run record is damaged: ")
    assert words in said
    assert len(said) < 400
    (aside,) = Path(files.location(name)).parent.iterdir()
    assert aside.name in said
    assert aside.read_bytes() == content
    assert RunStore(files).all() == [other]
    assert len(heard) == 1


@pytest.mark.parametrize(("content", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_manifest_is_set_aside_and_the_stage_runs_again(files, heard, content, words):
    place = Path(files.location(f"{finish(files).folder}/manifest.json"))
    place.write_bytes(content)
    assert StageStore(files).find(KEY) is None
    assert "this manifest is damaged: " in heard[0]
    assert words in heard[0]
    assert heard[0].endswith("the stage runs again")
    finish(files)
    assert StageStore(files).find(KEY).json("value.json") == 1
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": {"../../../secret": {"bytes": 1, "sha256": DIGEST, "rows": None}}}, "without `..`"),
        ({"files": {"/etc/passwd": {"bytes": 1, "sha256": DIGEST, "rows": None}}}, "without `..`"),
        ({"files": {"a/./b": {"bytes": 1, "sha256": DIGEST, "rows": None}}}, "without `..`"),
        ({"files": {"a\0b": {"bytes": 1, "sha256": DIGEST, "rows": None}}}, "without `..`"),
        ({"files": {"": {"bytes": 1, "sha256": DIGEST, "rows": None}}}, "without `..`"),
        ({"files": {"a": {"bytes": -1, "sha256": DIGEST, "rows": None}}}, "greater than or equal to 0"),
        ({"files": {"a": {"bytes": True, "sha256": DIGEST, "rows": None}}}, "valid integer"),
        ({"files": {"a": {"bytes": 1, "sha256": "short", "rows": None}}}, "match pattern"),
        ({"files": []}, "files: Input should be an object"),
        ({"started": float("nan")}, "finite number"),
        ({"seconds": 1e300}, "less than or equal"),
        ({"inputs": {"index": 1}}, "valid string"),
        ({"parameters": {"keep": 0.02}}, "what it says determines another stage"),
        ({"stage": "../../thresholds"}, "what it says determines another stage"),
        ({"digest": "0" * 32}, "what it says determines another stage"),
    ],
    ids=str,
)
def test_a_manifest_that_says_what_it_must_not_is_refused(files, heard, change, words):
    """Without its seal, as one of an older version: the schema alone must hold."""
    name = f"{finish(files).folder}/manifest.json"
    content = json.loads(files.read(name)) | change
    del content["seal"]
    files.write(name, json.dumps(content).encode())
    assert StageStore(files).find(KEY) is None
    (said,) = heard
    assert words in said
    assert files.stamp(name) is None


@pytest.mark.parametrize("name", [b"a\\udcff", b"a\\ud800", b"a\xff", b"a\xc3"])
def test_a_manifest_whose_file_has_a_name_that_is_not_utf8_is_refused(files, heard, name):
    """As bytes, and as JSON's escapes of halves of characters, by which Python writes such names."""
    manifest = f"{finish(files).folder}/manifest.json"
    content = json.loads(files.read(manifest))
    del content["seal"]
    files.write(manifest, json.dumps(content).encode().replace(b"value.json", name))
    assert StageStore(files).find(KEY) is None
    (said,) = heard
    assert said.startswith(f"{manifest}: this manifest is damaged: ")
    assert said.isprintable()
    assert files.stamp(manifest) is None


@pytest.mark.parametrize("kind", ["to its own content", "to nothing", "to itself", "a folder", "a folder between"])
def test_a_link_among_the_files_of_a_stage_is_refused_and_makes_way(files, heard, tmp_path, kind):
    """Its content, though right today, is elsewhere; and what is made again must not be written there."""
    draft = StageStore(files).draft(KEY, ())
    draft.write("in/value.json", b"1")
    folder = Path(files.location(draft.commit(environment={}).folder))
    link = folder / ("in" if kind == "a folder between" else "in/value.json")
    elsewhere = {"to nothing": tmp_path / "nothing", "to itself": link}.get(kind, tmp_path / "elsewhere")
    if kind == "a folder":
        elsewhere.mkdir()
        link.unlink()
    else:
        link.rename(tmp_path / "elsewhere")
    link.symlink_to(elsewhere)
    told = StageStore(files, heard.append)
    assert told.find(KEY) is None
    words = "is a link, or in a linked folder, and so none of the stage's own files; the stage runs again"
    assert heard == [f"{KEY.folder}/in/value.json {words}"]
    assert told.verify(KEY.folder)
    draft = StageStore(files).draft(KEY, ())
    assert draft.finished() == []
    draft.write("in/value.json", b"2")
    draft.commit(environment={})
    assert StageStore(files).find(KEY).json("in/value.json") == 2
    kept = (
        sorted((tmp_path / "elsewhere").rglob("*")) if (tmp_path / "elsewhere").is_dir() else [tmp_path / "elsewhere"]
    )
    assert [place.read_bytes() for place in kept] == ([] if kind == "a folder" else [b"1"])


def test_a_stage_that_its_owner_moved_to_a_larger_disk_is_read_there(files, tmp_path):
    """The folder itself may be a link; what removes the stage removes the link."""
    folder = Path(files.location(finish(files).folder))
    folder.rename(tmp_path / "larger")
    folder.symlink_to(tmp_path / "larger")
    assert StageStore(files).find(KEY).json("value.json") == 1
    StageStore(files).discard(KEY)
    assert not folder.is_symlink()
    assert (tmp_path / "larger/value.json").exists()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_manifest_that_is_no_file_is_set_aside(files, heard, kind):
    place = Path(files.location(f"{finish(files).folder}/manifest.json"))
    place.unlink()
    place.mkdir() if kind == "folder" else os.mkfifo(place)
    assert StageStore(files).find(KEY) is None
    assert "this manifest is damaged: is no regular file" in heard[0]
    finish(files)
    assert StageStore(files).find(KEY) is not None


def test_a_folder_in_the_place_of_a_result_makes_way(files, heard):
    folder = Path(files.location(finish(files).folder))
    for name in ("value.json", ".verified.json"):
        (folder / name).unlink()
        (folder / name).mkdir()
        (folder / name / "foreign").touch()
    assert StageStore(files).find(KEY) is None
    finish(files)
    assert StageStore(files).find(KEY).json("value.json") == 1
    assert len(list(folder.glob("*.damaged-*/foreign"))) == 2


@pytest.mark.parametrize("kind", ["file", "pipe", "loop", "dangling"])
@pytest.mark.parametrize("place", ["stages", KEY.folder.rpartition("/")[0], KEY.folder, "claims", "runs"])
def test_what_is_in_the_place_of_a_folder_makes_way(files, heard, place, kind):
    """Nothing is read from it, and where something is to be written it is set aside, with a sentence."""
    finished_run(files)
    there = Path(files.location(place))
    if there.exists():
        shutil.rmtree(there)
    if kind == "file":
        there.write_bytes(b"3")
    elif kind == "pipe":
        os.mkfifo(there)
    else:
        there.symlink_to(there if kind == "loop" else "/nowhere/at/all")
    with Claims(files).held([KEY.folder]) as fault:
        assert fault is None
        if place.startswith("stages"):
            assert StageStore(files).find(KEY) is None
        finish(files)
        assert StageStore(files).find(KEY).json("value.json") == 1
    run, _ = finished_run(files)
    assert run in RunStore(files).all()
    assert [said.partition(":")[0] for said in heard if "must be a folder" in said] == [place]


def test_one_altered_digit_breaks_the_seal(files, heard):
    """The schema would let it pass for another figure."""
    run, name = finished_run(files)
    manifest = f"{run.stages['thresholds']['folder']}/manifest.json"
    for file in (name, manifest):
        content = json.loads(files.read(file))
        files.write(file, json.dumps(content | {"seconds": content["seconds"] + 1}).encode())
    assert RunStore(files).all() == []
    assert StageStore(files).find(KEY) is None
    assert [said.count("its content is not what was written") for said in heard] == [1, 1]


@pytest.mark.parametrize("many", [0, 1, 2, 3, 4, 5])
def test_what_is_written_some_keys_at_a_time_are_the_bytes_of_all_at_once(files, monkeypatch, many):
    monkeypatch.setattr(small, "_AT_ONCE", 2)
    known = {f"/é/{-number}": (1, 2, 3, number, DIGEST) for number in range(many)}
    plain = json.loads(json.dumps(known))
    seal = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    assert MEMO.dump(known) == json.dumps({**plain, "seal": seal}, indent=1).encode()
    MEMO.save(files, "digests.json", known)
    assert MEMO.load(files, "digests.json") == known


def test_a_record_in_anothers_place_is_damaged(files, heard):
    """Closing it as an orphan would write outside of its folder."""
    run, name = finished_run(files)
    content = json.loads(files.read(name)) | {"run_id": "../../elsewhere"}
    del content["seal"]
    files.write(name, json.dumps(content).encode())
    assert RunStore(files).find(run.run_id) is None
    assert "it is the record of another run, '../../elsewhere'" in heard[0]


def test_a_newer_layout_is_left_to_the_version_that_wrote_it(files, heard):
    _, name = finished_run(files)
    content = json.dumps({"layout": 3, "everything": "else"}).encode()
    files.write(name, content)
    assert RunStore(files).all() == []
    assert heard == [
        f"{name}: this run record was written by a newer version (its layout is 3, this one knows 2); it is passed over"
    ]
    assert files.read(name) == content


@pytest.mark.parametrize("content", [b"3", b"[]", b"null", b"{", b'{"value.json": 3}', b'{"value.json": [1, "x"]}'])
def test_a_damaged_list_of_verified_files_costs_a_reading(files, heard, content):
    finish(files)
    files.write(f"{KEY.folder}/.verified.json", content)
    assert StageStore(files).find(KEY) is not None
    assert "this list of verified files is damaged: " in heard[0]
    assert StageStore(files).find(KEY) is not None
    assert len(heard) == 1


@pytest.mark.parametrize("content", [b"3", b"[]", b"null", b"{", b'{"/a": [1, 2, 3, 4, "x"]}', b'{"/a": []}'])
def test_a_damaged_memo_of_digests_costs_a_reading(files, heard, tmp_path, content):
    (tmp_path / "data").write_bytes(b"one")
    digest = FileDigests(files).of(tmp_path / "data")
    files.write("digests.json", content)
    assert FileDigests(files).of(tmp_path / "data") == digest
    assert "this memo of digests is damaged: " in heard[0]
    assert len(heard) == 1


@pytest.mark.parametrize(("kind", "name"), [(MEMO, "digests.json"), (INPUTS, "inputs/one.json")])
def test_one_altered_digit_of_a_digest_does_not_pass_for_another_file(files, heard, kind, name):
    known = {"/a": "a" * 64}
    kind.save(files, name, {"/a": (1, 2, 3, 4, "a" * 64)} if kind is MEMO else {"layout": 1, "files": known})
    assert kind.load(files, name)
    files.write(name, files.read(name).replace(b"aaaa", b"aaba", 1))
    assert kind.load(files, name) is None
    assert "is damaged: its content is not what was written" in heard[0]


@pytest.mark.parametrize("content", [b"3", b"{}", b"", b'{"bytes": 1, "sha256": "x", "rows": null}', b'{"layout": 9}'])
def test_a_damaged_checksum_of_an_unfinished_file_makes_it_again(files, content):
    draft = StageStore(files).draft(KEY, ())
    draft.write("done", b"123")
    draft.write("other", b"123")
    files.write(f"{KEY.folder}/done.check.json", content)
    assert StageStore(files).draft(KEY, ()).finished() == ["other"]


@pytest.mark.parametrize(("key", "name"), [(KEY, "elsewhere"), (StageKey("thresholds", "other"), "done")])
def test_a_finished_file_in_the_place_of_another_is_made_again_though_it_is_whole(files, key, name):
    """With the checksum beside it: a shard of other pictures, or of the same stage with other options."""
    StageStore(files).draft(KEY, ()).write("done", b"123")
    for beside in ("", ".check.json"):
        files.write(f"{key.folder}/{name}{beside}", files.read(f"{KEY.folder}/done{beside}"))
    heard = []
    assert not StageStore(files, heard.append).draft(key, ()).has(name)
    assert heard == [f"{key.folder}/{name} has a damaged checksum, or another file's, beside it; it is made again"]
    assert StageStore(files).draft(KEY, ()).finished() == ["done"]


def test_a_list_of_inputs_is_kept_once_and_known_by_its_content(files, heard):
    listed = {"/data/é.jpg": DIGEST, "/data/gone.jpg": "missing"}
    name = keep_inputs(files, listed)
    assert keep_inputs(files, dict(reversed(listed.items()))) == name
    assert kept_inputs(files, name) == listed
    files.write(name, json.dumps({"layout": 1, "files": {"/data/é.jpg": DIGEST}}).encode())
    assert kept_inputs(files, name) is None
    assert "its content is not what was written" in heard[0]
    assert keep_inputs(files, listed) == name
    assert kept_inputs(files, name) == listed


def test_what_cannot_be_set_aside_is_passed_over(files, heard, monkeypatch):
    """As in a workspace that may only be read, which the root user of a test cannot have."""
    _, name = finished_run(files)
    files.write(name, b"{")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    assert RunStore(files).all() == RunStore(files).all() == []
    (said,) = heard
    assert "it is passed over, since it cannot be set aside" in said


def test_every_kind_reads_what_it_wrote(files):
    """Odd values, too: a clock that was set back, numbers that are none, names that are no Unicode."""
    about = {"file": "a\udcffb", "of": [float("nan"), 10**40], 3: Path("x")}
    gates = ({"gate": "g", "value": float("inf"), "limit": None, "passed": True, "note": ""},)
    run = RunRecord("r", "é\n\u202e", "net", 0.0, -3.0, "done", gates=gates, about=about)
    RunStore(files).save(run)
    (read,) = RunStore(files).all()
    assert (read.name, read.seconds, read.gates) == (run.name, run.seconds, run.gates)
    assert read.about["file"] == "a?b"
    entry = {"bytes": 10**12, "sha256": DIGEST, "rows": 0, "of": "stages/s/0/é"}
    assert CHECK.parse(CHECK.dump(entry)) == entry
    manifest = finish(files, StageKey("s", "c", {"tuple": (1, 2), "deep": {"b": 1.5e-9, "a": None}})).manifest
    assert MANIFEST.parse(MANIFEST.dump(manifest))["files"] == manifest["files"]
    assert StageStore(files).find(StageKey("s", "c", {"tuple": (1, 2), "deep": {"b": 1.5e-9, "a": None}}))


def test_names_that_are_not_utf8_are_passed_over_with_a_sentence(files, heard):
    run, _ = finished_run(files)
    for folder in (b"runs/\xff", os.fsencode(f"{KEY.folder}/\xfe").replace(b"\xc3\xbe", b"\xfe")):
        place = os.path.join(os.fsencode(files.location("")), folder)
        os.mkdir(place)
        Path(os.fsdecode(place), "run.json").write_bytes(b"{}")
    assert RunStore(files).all() == [run]
    assert [folder for folder, _ in StageStore(files).finished()] == [KEY.folder]
    assert len(heard) == 2
    assert all("its name is not UTF-8" in said and said.isprintable() for said in heard)


def test_a_workspace_or_audit_file_whose_path_is_not_utf8_is_refused(tmp_path, audit_file):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    with pytest.raises(ValueError, match="its path must be UTF-8"):
        open_files(str(folder))
    with pytest.raises(InputError, match="its path must be UTF-8"):
        Plan(Request(audit_file, workspace=str(folder)))
    shutil.copy(audit_file, folder)
    with pytest.raises(InputError, match="must be valid Unicode; rename it"):
        Plan(Request(folder / audit_file.name))


# A finished workspace, damaged in every way that comes to mind: every command goes on


SCALARS = (
    None,
    True,
    False,
    0,
    -1,
    3,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "../../x",
    "\0",
    "\ud800",
    "\u202eé",
)


def anything(draw: random.Random, depth: int = 2):
    """Random JSON content: a value of its own, or a list or an object of up to three."""
    kind = draw.choice(["scalar", "list", "object"]) if depth else "scalar"
    if kind == "list":
        return [anything(draw, depth - 1) for _ in range(draw.randrange(4))]
    if kind == "object":
        return {str(draw.choice(SCALARS)): anything(draw, depth - 1) for _ in range(draw.randrange(4))}
    return draw.choice(SCALARS)


def places(content, path=()):
    """Paths of all values in JSON content."""
    yield path
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield from places(content[key], (*path, key))


def altered(draw: random.Random, content):
    """JSON content with one value replaced by a random one, or taken out; half of the time the seal, too."""
    path = draw.choice(list(places(content)))
    if not path:
        return anything(draw)
    place = content
    for key in path[:-1]:
        place = place[key]
    if draw.random() < 0.5:
        place[path[-1]] = anything(draw)
    else:
        del place[path[-1]]
    if draw.random() < 0.5 and isinstance(content, dict):
        content.pop("seal", None)
    return content


def flipped(draw: random.Random, content: bytes) -> bytes:
    """Content with one byte changed."""
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ draw.randrange(1, 256)]) + content[place + 1 :]


WRITTEN = {
    "cut": lambda draw, content: content[: draw.randrange(len(content))],
    "noise": lambda draw, content: draw.randbytes(draw.randrange(51)),
    "flip": flipped,
    "json": lambda draw, content: json.dumps(anything(draw)).encode(),
    "altered": lambda draw, content: json.dumps(altered(draw, json.loads(content))).encode(),
    "newer": lambda draw, content: json.dumps({"layout": draw.randint(3, 10**30)}).encode(),
}
MADE = {
    "gone": lambda file: None,
    "folder": lambda file: (file / "in").mkdir(parents=True),
    "pipe": os.mkfifo,
    "loop": lambda file: file.symlink_to(file),
}


def damage(draw: random.Random, file: Path) -> None:
    """Damage one small file in one of many ways."""
    content = file.read_bytes()
    way = draw.choice([*WRITTEN, *MADE])
    file.unlink()
    if way in WRITTEN:
        file.write_bytes(WRITTEN[way](draw, content))
    else:
        MADE[way](file)


def small_files(workspace: Path) -> list[Path]:
    """The run records, manifests, lists and memos of a workspace."""
    results = ("gates.json", "layers.json", "empty.json")
    return sorted(file for file in workspace.rglob("*.json") if file.name not in results)


COMPARING = (
    ("show",),
    ("show", "tiny"),
    ("sql", "select * from units limit 3"),
    ("sql", "from runs", "--run", "all"),
    ("compare", "tiny", "tiny"),
)


def damaged_workspace(draw: random.Random) -> None:
    """One to three small files damaged, every command, the audit again, and all is right."""
    shutil.rmtree(".microtome", ignore_errors=True)
    shutil.copytree("whole", ".microtome")
    for file in draw.sample(small_files(Path(".microtome")), draw.randint(1, 3)):
        damage(draw, file)
    rest = [("runs",), ("plan", "audit.yaml"), ("open",), ("gc",), ("verify",), draw.choice(COMPARING)]
    for arguments in draw.sample(rest, len(rest)):
        ended, _, said = status(*arguments)
        lost = ended == 2 and " run" in said
        assert ended == 0 or (ended == 1 and arguments == ("verify",)) or lost, (arguments, said)
        assert "Traceback" not in said
    audited(Path("audit.yaml"))
    assert status("verify", "tiny")[0] == 0
    count("damaged workspaces")


@pytest.mark.soak
@pytest.mark.parametrize("hundred", range(soak(1, 100)))
def test_no_damage_of_small_files_stops_a_command(finished_workspace, monkeypatch, hundred):
    """Every command ends with 0, with 1 where it is `verify`, or with one sentence for a run that is lost."""
    monkeypatch.chdir(finished_workspace)
    for seed in range(100 * hundred, 100 * hundred + soak(60, 100)):
        try:
            damaged_workspace(random.Random(seed))
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
