"""Random damage of a whole workspace, and random commands on it: none ends with anything but a sentence, and the next
audit makes everything good, to the byte.

tests/test_small.py damages the small files alone. MICROTOME_SOAK=1 ruins 1,000 workspaces instead of 12.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.claiming import claiming
from flows.plan import Plan, Request
from flows.run import carry_out, finish, session_of, start
from microtome.errors import InputError
from storage import RunStore, open_files
from storage.process import this_process
from tests.commands import audited, status
from tests.conftest import count, soak

FILE = Path("audit.yaml")
STAGES = ("index", "activations", "thresholds", "tally", "null", "dissection", "gates", "pages", "report")
TABLES = ("units", "layers", "concepts", "images", "runs", "thresholds", "counts", "iou")


# Damage


def bytes_of(chance: random.Random, file: Path) -> None:
    """Cut, flip, blank, lengthen or exchange the bytes of a file, half of the time behind the clock's back."""
    before, content = file.stat(), bytearray(file.read_bytes())
    place = chance.randrange(len(content)) if content else 0
    way = chance.choice(["cut", "flip", "zero", "empty", "longer", "noise"])
    if way == "cut":
        del content[place:]
    elif way == "flip" and content:
        content[place] ^= 1 << chance.randrange(8)
    elif way == "zero":
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    elif way == "empty":
        content.clear()
    elif way == "longer":
        content += chance.randbytes(100)
    elif way == "noise":
        content = bytearray(chance.randbytes(len(content)))
    file.write_bytes(content)
    if chance.random() < 0.5:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def kind_of(chance: random.Random, place: Path) -> None:
    """Put something of another kind into the place of a file or a folder."""
    way = chance.choice(["gone", "folder", "pipe", "loop", "link", "file", "dangling"])
    aside = place.with_name(f"{place.name}.moved-{chance.randrange(10**9)}")
    place.rename(aside)
    if way == "link":
        place.symlink_to(aside.name)
        return
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    if way == "folder":
        (place / "in").mkdir(parents=True)
    elif way == "pipe":
        os.mkfifo(place)
    elif way == "loop":
        place.symlink_to(place.name)
    elif way == "dangling":
        place.symlink_to("/nowhere/at/all")
    elif way == "file":
        place.write_bytes(b"a file")


def exchanged(chance: random.Random, place: Path) -> None:
    """Put another file, or folder, of the workspace in its place: each is whole, and neither is what its name says."""
    others = [other for other in everything() if other.is_dir() == place.is_dir() and other.parent != place.parent]
    others = [other for other in others if not (other.is_relative_to(place) or place.is_relative_to(other))]
    if others:
        other, aside = chance.choice(others), place.with_name("aside")
        place.rename(aside)
        if chance.random() < 0.5:
            (shutil.copytree if other.is_dir() else shutil.copy)(other, place)
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
        else:
            other.rename(place)
            aside.rename(other)


def strangers(chance: random.Random, place: Path) -> None:
    """Files that are none of ours beside it."""
    name = chance.choice(
        [b"x.json", b"run.json", b".x.0a.part", b"\xff", b"manifest.json.damaged-1", b"a\nb", b"x" * 200]
    )
    folder = os.fsencode(place if place.is_dir() else place.parent)
    if not os.path.exists(os.path.join(folder, name)):
        with open(os.path.join(folder, name), "wb") as stream:
            stream.write(chance.choice([b"", b"{}", b"[]", chance.randbytes(30)]))


def claims(chance: random.Random, _place: Path) -> None:
    """Of the dead, of another host long ago, of no form."""
    dead = {**this_process(), "process": 1 << 22, "folders": [], "anew": []}
    content = chance.choice([dead, {**dead, "folders": 3}, {**dead, "layout": 7}, [], {"anew": ["stages"]}])
    Path(".microtome/claims").mkdir(exist_ok=True)
    if Path(".microtome/claims").is_dir():
        Path(f".microtome/claims/{chance.randrange(10**9)}.json").write_text(json.dumps(content))


def unfinished(chance: random.Random, _place: Path) -> None:
    """A stage without its manifest; with checksums beside some of its files, right or wrong ones."""
    found = [place for place in everything() if place.name == "manifest.json" and place.is_file()]
    if found:
        manifest = chance.choice(found)
        try:
            entries = json.loads(manifest.read_bytes())["files"]
        except (ValueError, KeyError, TypeError):
            return
        manifest.unlink()
        for name, entry in entries.items():
            beside = manifest.parent / f"{name}.check.json"
            if chance.random() < 0.7 and beside.parent.is_dir():
                check = {**entry, "of": str(beside.relative_to(".microtome")).removesuffix(".check.json")}
                beside.write_text(json.dumps(check if chance.random() < 0.7 else {**check, "bytes": 1}))


def orphan(chance: random.Random, _place: Path) -> None:
    """The record of a run that was killed, with or without the room that was kept for its end."""
    found = [place for place in everything() if place.name == "run.json" and place.is_file()]
    if found:
        file = chance.choice(found)
        try:
            record = json.loads(file.read_bytes()) | {"status": "running", "seal": None}
            record["about"]["process"] = 1 << 22
        except (ValueError, KeyError, TypeError):
            return
        file.write_text(json.dumps(record))
        if chance.random() < 0.5:
            file.with_name(".run.json.room").write_bytes(bytes(chance.choice([10, 30_000])))


def clock(chance: random.Random, place: Path) -> None:
    """Times of change long ago, or to come."""
    then = chance.choice([0, 1, time.time() + 10**7])
    os.utime(place, (then, then), follow_symlinks=False)


DAMAGES: tuple[Callable[[random.Random, Path], None], ...] = (
    bytes_of, bytes_of, kind_of, kind_of, exchanged, strangers, claims, unfinished, orphan, clock,
)  # fmt: skip


def everything() -> list[Path]:
    """Every file and folder of the workspace."""
    return sorted(place for place in Path(".microtome").rglob("*") if os.path.lexists(place))


def _is_own_file(place: Path) -> bool:
    return place.is_file() and not place.is_symlink()


def ruin(chance: random.Random) -> list[str]:
    """Some damages; gives their names."""
    done = []
    for _ in range(chance.randint(1, 4)):
        damage = chance.choice(DAMAGES)
        fitting = [
            place for place in everything() if damage is not bytes_of or (place.is_file() and not place.is_symlink())
        ]
        if fitting:
            place = chance.choice(fitting)
            with contextlib.suppress(OSError):  # a copy of a loop, of a pipe
                damage(chance, place)
            done.append(f"{damage.__name__} {place}")
    return done


# Commands


def rerun(stage: str) -> None:
    """As `microtome rerun` does, without Prefect."""
    plan = Plan(Request(FILE, (stage,), (stage,)))
    with claiming(plan):
        session = session_of(plan)
        run = start(plan, session)
        done = {job.name: carry_out(job, session, refresh=job.called((stage,))) for job in plan.jobs}
        finish(plan, run, done, "done")


def commands(chance: random.Random) -> list[tuple[str, ...]]:
    """Some, in some order, each as often as it comes."""
    runs = [name.name for name in Path("whole/runs").iterdir()]
    run = chance.choice([*runs, "tiny", "2", "nonsense"])
    table, form = chance.choice(TABLES), chance.choice(["table", "csv", "json"])
    choices = [
        ("runs",), ("show",), ("show", run), ("compare", run, "tiny"), ("open",), ("open", run),
        ("report", "--single-file", "one.html"), ("sql", f"select * from {table} limit 3", "--format", form),
        ("sql", f"select count(*) from {table}", "--run", "all"), ("gc", "--keep", chance.choice("12")),
        ("gc", "--dry-run"), ("verify",), ("verify", run), ("plan", str(FILE)), ("explain", "tiny", "0"),
        ("audited",), ("rerun", chance.choice(STAGES)), ("verified",),
    ]  # fmt: skip
    return [chance.choice(choices) for _ in range(chance.randint(2, 5))]


def said_of(words: tuple[str, ...]) -> tuple[int, str]:
    """Exit status of a command, and what it said on stderr."""
    try:
        if words[0] == "rerun":
            rerun(words[1])
        elif words[0] in ("audited", "verified"):
            return 0, audited(FILE, verify=words[0] == "verified")
        else:
            ended, _, said = status(*words)
            return ended, said
    except InputError as error:
        return 2, str(error)
    return 0, ""


def tables(workspace: Path) -> dict[str, bytes]:
    """Every table of a stage, by digest and name."""
    found = (workspace / "stages").rglob("*.parquet")
    return {str(file.relative_to(workspace)): file.read_bytes() for file in found}


@pytest.mark.soak
def test_no_ruin_stops_a_command_and_the_next_audit_makes_it_good(finished_workspace, tmp_path, monkeypatch):
    for name in ("data", "nets.py", "audit.yaml", "whole"):
        place = finished_workspace / name
        (shutil.copytree if place.is_dir() else shutil.copy2)(place, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    first = int(os.environ.get("MICROTOME_SEED", "0"))
    for seed in range(first, first + soak(12, 1000)):
        one(seed)
    count("ruined workspaces", soak(12, 1000))


def one(seed: int) -> None:
    """One workspace, ruined and used."""
    chance = random.Random(seed)
    shutil.rmtree(".microtome", ignore_errors=True)
    shutil.copytree("whole", ".microtome")
    done = ruin(chance)
    for words in commands(chance):
        try:
            ended, said = said_of(words)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {words} ended with {error!r} after {done}") from error
        assert ended in (0, 1, 2), (seed, words, done)
        assert ended != 1 or words[0] == "verify", (seed, words, done, said)
        assert "Traceback" not in said, (seed, words, done, said)
        done.append(" ".join(words))
        count("commands on ruined workspaces")
        if chance.random() < 0.3:
            done += ruin(chance)
    try:
        audited(FILE, verify=True)
    except Exception as error:
        raise AssertionError(f"seed {seed}: the audit failed after {done}") from error
    assert RunStore(open_files(".microtome")).find("tiny") is not None, (seed, done)
    assert status("verify", "tiny")[0] == 0, (seed, done)
    for name, content in tables(Path("whole")).items():
        assert Path(".microtome", name).read_bytes() == content, (seed, name, done)
