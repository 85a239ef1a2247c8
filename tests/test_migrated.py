"""Prefect's empty database is made once and copied into each new workspace; whatever is wrong with it, audits run."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flows.migrated import migrated
from tests.conftest import clean_environment


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """The folder of what is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/microtome"


def home(tmp_path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def make(folder: Path, word: str) -> None:
    """What a server does in a home without a database: as there, the last page stays in its log."""
    open_database = sqlite3.connect(folder / "prefect.db")
    open_database.execute("pragma journal_mode = wal")
    open_database.execute("create table made (word)")
    open_database.execute("insert into made values (?)", [word])
    open_database.commit()


def word(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "prefect.db")) as database:
        return str(database.execute("select word from made").fetchone()[0])


def test_the_first_is_kept_and_the_next_homes_begin_with_it(tmp_path, kept):
    first, second = home(tmp_path, "first"), home(tmp_path, "second")
    with migrated(first):
        assert not any(first.iterdir())
        make(first, "one")
    assert [file.suffix for file in kept.iterdir()] == [".db"]
    with migrated(second):
        assert word(second) == "one"
    assert sorted(file.name for file in second.iterdir()) == ["prefect.db"]


def test_a_home_that_has_one_keeps_it_and_lends_none(tmp_path, kept):
    own = home(tmp_path, "own")
    make(own, "own")
    with migrated(own):
        pass
    assert word(own) == "own"
    assert not kept.exists()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_copy_is_made_again(tmp_path, kept, content):
    first, second = home(tmp_path, "first"), home(tmp_path, "second")
    with migrated(first):
        make(first, "old")
    (file,) = kept.iterdir()
    file.write_bytes(content)
    with migrated(second):
        make(second, "new")
    shutil.rmtree(first)
    with migrated(home(tmp_path, "first")):
        assert word(first) == "new"


def test_a_start_that_fails_leaves_nothing(tmp_path, kept):
    with pytest.raises(RuntimeError), migrated(home(tmp_path, "own")):
        raise RuntimeError("it did not start")
    assert not kept.exists()


def test_where_the_database_is_elsewhere_none_is_copied(tmp_path, kept, monkeypatch):
    with migrated(home(tmp_path, "first")):
        make(tmp_path / "first", "one")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://nowhere/prefect")
    with migrated(home(tmp_path, "second")):
        assert not any((tmp_path / "second").iterdir())


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, kept, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with migrated(home(tmp_path, "own")):
        make(tmp_path / "own", "own")
    assert word(tmp_path / "own") == "own"


def test_prefects_own_server_takes_the_copy_up(tmp_path, kept):
    """The second home's database is the first's: it has its rows, which are made anew in each database."""
    code = "import threading; from flows.embedded import start_server; start_server(threading.Event())"
    for name in ("first", "second"):
        environment = clean_environment(tmp_path) | {"PREFECT_HOME": str(home(tmp_path, name)), "DO_NOT_TRACK": "1"}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)
    told = [rows(tmp_path / name / "prefect.db") for name in ("first", "second")]
    assert told[0] == told[1] == rows(next(kept.iterdir()))
    assert len(told[0]) > 50


def rows(file: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute("select id, name from block_type order by id").fetchall()
