"""An empty database of Prefect's, made once and copied into each new workspace.

Prefect makes one by some hundred migrations, which take longer than all else before an audit's first stage. What they
end in depends on Prefect's version alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from storage.bucket import cache_folder

_ELSEWHERE = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")


def kept_database() -> Path:
    """Where the copy is, or would be."""
    return cache_folder() / f"prefect-{version('prefect')}.db"


@contextlib.contextmanager
def migrated(home: Path) -> Iterator[None]:
    """Around the start of a server: its home has a database before, and the first one is kept for others after.

    Where no copy can be read or kept, Prefect makes a database, as it does by itself.

    Args:
        home: Prefect's; one that has a database keeps it.
    """
    database, kept = home / "prefect.db", kept_database()
    if database.exists() or any(name in os.environ for name in _ELSEWHERE):
        yield
        return
    with contextlib.suppress(OSError):
        try:
            _copy(kept, database)
        except sqlite3.Error:  # damaged, or not there
            kept.unlink(missing_ok=True)
    yield
    if not kept.exists():
        with contextlib.suppress(OSError, sqlite3.Error):
            kept.parent.mkdir(parents=True, exist_ok=True)
            _copy(database, kept)


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all, and never over another. Raises sqlite3.Error: the source is damaged, or not there."""
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        _write(source, part)
        os.link(part, target)  # which fails where another was quicker
    finally:
        part.unlink(missing_ok=True)


def _write(source: Path, part: Path) -> None:
    # read-only, and with SQLite's own means: of a server's database, some pages may still be in its log alone
    with contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reader:
        tables = reader.execute("select count(*) from sqlite_master").fetchone()[0]
        if not tables or reader.execute("pragma quick_check").fetchall() != [("ok",)]:
            raise sqlite3.DatabaseError(f"{source} is damaged")
        with contextlib.closing(sqlite3.connect(part)) as writer:
            reader.backup(writer)
            writer.execute("pragma journal_mode = delete")  # one file, without those of a log beside it
