"""The files that a query may read, under names of our own.

DuckDB expands globs in paths, takes `key=value` folders for columns, and lets COPY write wherever it may read. So it
never sees a path of the workspace: it sees `workspace://units/0.parquet`, opens that through this shelf, and reads
through the workspace's own file handles. Nothing on the shelf can be written, and nothing that is not on it can be
opened.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pyarrow as pa
from fsspec import AbstractFileSystem

from storage.files import Files, FileStamp

PROTOCOL = "workspace"


class Shelf(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A file system for DuckDB that holds chosen files of a workspace, read only.

    Args:
        files: the workspace.
    """

    protocol = PROTOCOL
    cachable = False  # fsspec would give a second workspace the shelf of the first

    def __init__(self, files: Files) -> None:
        super().__init__()
        self._files = files
        self._names: dict[str, str] = {}
        self._places: dict[str, str] = {}

    @property
    def files(self) -> Files:
        """The workspace."""
        return self._files

    def put(self, table: str, name: str) -> str:
        """Put a file of the workspace on the shelf; gives the name by which DuckDB opens it.

        Args:
            table: a table of the contract.
            name: the file, relative to the workspace.
        """
        if name not in self._places:
            self._places[name] = f"{table}/{len(self._places)}.parquet"
            self._names[self._places[name]] = name
        return f"{PROTOCOL}://{self._places[name]}"

    def glob(self, path: str, **_: object) -> list[str]:
        """The file of that name; nothing is expanded."""
        key = self._strip_protocol(path)
        return [key] if key in self._names else []

    def isdir(self, path: str) -> bool:
        """Never: there are only files."""
        return False

    def size(self, path: str) -> int:
        """Bytes."""
        return self._stamp(path).size

    def modified(self, path: str) -> datetime:
        """Time of last change."""
        return datetime.fromtimestamp(self._stamp(path).changed / 1e9, UTC)

    def open(self, path: str, mode: str = "rb", **_: object) -> SharedReader:
        """A reader. Raises PermissionError for any other mode than reading."""
        if mode != "rb":
            raise PermissionError("the tables of a workspace cannot be written by a query")
        return SharedReader(self._files.source(self._name(path)))

    def _name(self, path: str) -> str:
        key = self._strip_protocol(path)
        if key not in self._names:
            raise FileNotFoundError(f"no such table file: {key}")
        return self._names[key]

    def _stamp(self, path: str) -> FileStamp:
        stamp = self._files.stamp(self._name(path))
        if stamp is None:
            raise FileNotFoundError(f"{self._name(path)} was removed while it was read")
        return stamp


class SharedReader:
    """A file that several threads of DuckDB read at once.

    DuckDB seeks and then reads, on one handle, from all of its threads: with one position for all, a thread would read
    where another has just sought. So each thread has a position of its own.

    Args:
        source: the file, for random access.
    """

    def __init__(self, source: pa.NativeFile) -> None:
        self._source = source
        self._own = threading.local()

    def seek(self, position: int) -> int:
        """Where this thread's next read begins, in bytes."""
        self._own.position = position
        return position

    def tell(self) -> int:
        """Where this thread's next read begins, in bytes."""
        return int(getattr(self._own, "position", 0))

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        content: bytes = self._source.read_at(size, self.tell())
        self.seek(self.tell() + len(content))
        return content

    def close(self) -> None:
        """Close the file."""
        self._source.close()
