"""Stage directories: named by the digest of all that determines them, visible by their manifest, verified when read.

A stage writes its files straight into its directory, each atomically with a checksum beside it, and the manifest last.
Without a manifest there is no result, only finished files that a restart takes up. Two processes on one stage write
the same bytes; whoever comes second changes nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypedDict

from storage.files import CHECKS, Altered, Files, FileStamp, HashingSink
from storage.small import Damaged, FileName, Kind, Moment, Number, Seconds, Sha256
from storage.tables import Columns, Row, TableSchema, from_rows, write_table

_LAYOUT = 1  # of the manifest
_MANIFEST = "manifest.json"
_MARKS = ".verified.json"
_FETCHED = 8  # files of a stage that are brought at once
Arrays = Mapping[str, NDArray[Any]]
PARTS = "parts/"
"""Folder within a stage of what its shards leave for the merge; it goes when the stage is finished."""
PUT_BY = "remade"
"""Folder of finished stages that are being made anew; see `StageStore.put_by`."""


class FileEntry(TypedDict):
    """What a manifest says of a file; rows of a table, else None."""

    bytes: Number
    sha256: Sha256
    rows: Number | None


class Check(FileEntry):
    """What lies beside a finished file of an unfinished stage: what it holds, and where it belongs."""

    of: str


class Manifest(TypedDict):
    """What a finished stage says of itself."""

    layout: Annotated[int, Field(ge=1, le=_LAYOUT)]
    stage: str
    digest: str
    code: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    files: dict[FileName, FileEntry]
    environment: dict[str, Any]
    started: Moment
    seconds: Seconds


Mark = tuple[Number, int] | tuple[Number, int, Sha256]
"""Size and time of change of a file when its checksum was last seen to hold; and that checksum: a stage that another
machine has made again may have other files, while this machine still has copies of the earlier ones. Marks of earlier
versions lack it, and count for nothing."""
Marks = dict[str, Mark]
"""Of each file of a stage."""

MANIFEST = Kind[Manifest]("manifest", Manifest, "the stage runs again", layout=_LAYOUT, sealed=True)
CHECK = Kind[Check]("checksum", Check, "the file is made again")
MARKS = Kind[Marks]("list of verified files", Marks, "the stage's files are read again")


@dataclass(frozen=True)
class StageKey:
    """Everything that determines a stage's output.

    Args:
        stage: its name.
        code: digest of its code.
        parameters: JSON values.
        inputs: name -> digest of the stage or content it reads.
    """

    stage: str
    code: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property  # every file's path is asked for by it
    def digest(self) -> str:
        """Hexadecimal, 32 characters."""
        content = json.dumps(
            [_LAYOUT, self.stage, self.code, dict(self.parameters), dict(self.inputs)], sort_keys=True, default=str
        )
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    @property
    def folder(self) -> str:
        """Where the stage lives in the workspace."""
        return f"stages/{self.stage}/{self.digest}"

    @property
    def put_by(self) -> str:
        """Where a finished stage waits while it is made anew."""
        return f"{PUT_BY}/{self.stage}/{self.digest}"


@dataclass(frozen=True)
class Artifact:
    """A finished stage, to read from.

    Args:
        files: the workspace.
        folder: the stage's directory.
        manifest: what it says of itself.
    """

    files: Files
    folder: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The stage's digest."""
        return self.manifest["digest"]

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The stage's parameters."""
        return dict(self.manifest["parameters"])

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())

    def has(self, name: str) -> bool:
        """Whether the stage wrote this file."""
        return name in self.manifest["files"]

    def names(self, prefix: str = "") -> list[str]:
        """Files of the stage whose names start so, sorted."""
        return sorted(name for name in self.manifest["files"] if name.startswith(prefix))

    def row_count(self, table: str) -> int:
        """Rows of a table, by its name without suffix."""
        rows = self.manifest["files"][f"{table}.parquet"]["rows"]
        if rows is None:
            raise ValueError(f"{self.folder}: {table} must be a table, got a file without rows")
        return rows

    def bring(self, *names: str) -> str:
        """See to it that files lie on this machine, all of them where none is named; gives the stage's directory there.

        Raises:
            Altered: one is not what the manifest says, or is gone; then the stage is marked, and so made again.
        """
        away = [name for name in names or self.names() if not self.files.here(f"{self.folder}/{name}")]
        try:
            if away:
                with ThreadPoolExecutor(_FETCHED) as pool:
                    list(pool.map(self._bring, away))
        except (Altered, FileNotFoundError) as error:
            with contextlib.suppress(OSError):
                self.files.set_aside(f"{self.folder}/{_MANIFEST}")
            why = error if isinstance(error, Altered) else f"{self.folder}: a file is not there any more"
            raise Altered(f"{why}; the stage runs again") from error
        return self.files.location(self.folder)

    def _bring(self, name: str) -> None:
        self.files.bring(f"{self.folder}/{name}", self.manifest["files"][name]["sha256"])

    def source(self, name: str) -> pa.NativeFile:
        """A file for random access. Raises Altered: see `bring`."""
        self.bring(name)
        return self.files.source(f"{self.folder}/{name}")

    def read(self, name: str) -> bytes:
        """A whole file. Raises Altered: see `bring`."""
        self.bring(name)
        return self.files.read(f"{self.folder}/{name}")

    def json(self, name: str) -> Any:
        """A JSON file. Raises ValueError where it was altered since its checksum was seen to hold."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise ValueError(f"{self.folder}/{name} is damaged: {error}; `microtome verify` marks its stage") from error

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table, by its name without suffix."""
        with self.source(f"{name}.parquet") as source:
            found = pq.ParquetFile(source).read(columns)  # pq.read_table would import pandas first
        return found if columns is None else found.select(columns)


class Draft:
    """A stage being written. Files that an interrupted run finished are there already."""

    def __init__(
        self, files: Files, key: StageKey, tables: Sequence[TableSchema], entries: Mapping[str, FileEntry]
    ) -> None:
        self._files, self.key = files, key
        self._tables = {table.name: table for table in tables}
        self._entries = dict(entries)
        self._started = time.time()

    def has(self, name: str) -> bool:
        """Whether this file is finished."""
        return name in self._entries

    def finished(self, prefix: str = "") -> list[str]:
        """Names of the finished files that start so, sorted."""
        return sorted(name for name in self._entries if name.startswith(prefix))

    @property
    def entries(self) -> dict[str, FileEntry]:
        """What is known of the finished files, as JSON values: another process's draft may `learn` it."""
        return dict(self._entries)

    def learn(self, entries: Mapping[str, FileEntry]) -> None:
        """Take in files that another process has finished, and settled, in the same directory."""
        self._files.settled(f"{self.key.folder}/{name}" for name in entries)
        self._entries.update(entries)

    def look(self, names: Sequence[str]) -> bool:
        """Take in files by the checksums beside them, unread; whether all of them are there, in their size."""
        found = {name: _check(self._files, f"{self.key.folder}/{name}{CHECKS}") for name in names}
        stamps = {name: _stamp(self._files, self.key.folder, name) for name in names}
        for name, entry in found.items():
            stamp = stamps[name]
            if entry is None or stamp is None or stamp.size != entry["bytes"]:
                return False
            self._entries[name] = entry
        return True

    def settle(self) -> None:
        """Return when the finished files are where a power cut takes nothing of them."""
        self._files.settle(f"{self.key.folder}/{name}" for name in self._entries)

    @contextlib.contextmanager
    def publish(self, name: str, rows: int | None = None) -> Iterator[HashingSink]:
        """A stream that becomes the file `name`, with its checksum beside it.

        Args:
            name: within the stage.
            rows: of a table, for the manifest.
        """
        path = f"{self.key.folder}/{name}"
        with self._files.publish(path) as sink:
            yield sink
        entry = FileEntry(bytes=sink.size, sha256=sink.sha256, rows=rows)
        CHECK.save(self._files, path + CHECKS, Check(of=path, **entry))
        self._entries[name] = entry

    def rows(self, name: str, rows: Sequence[Row]) -> None:
        """Publish rows of a table that the stage declares, also none.

        Raises:
            ValueError: as `table`.
        """
        self.table(name, from_rows(list(self.declared(name).columns), rows))

    def write(self, name: str, content: bytes) -> None:
        """Publish a small file."""
        with self.publish(name) as sink:
            sink.write(content)

    def take(self, artifact: Artifact, name: str) -> None:
        """Publish a file of a finished stage of the same workspace as it is, under the same name."""
        self._files.copy(f"{artifact.folder}/{name}", f"{self.key.folder}/{name}")
        self._entries[name] = artifact.manifest["files"][name]

    def declared(self, table: str) -> TableSchema:
        """A table that the stage declares. Work asks here, and names no declaration: a declaration is full of words,
        and whatever work names is part of its code.

        Args:
            table: its name.

        Raises:
            ValueError: the stage declares none of that name.
        """
        if table not in self._tables:
            known = ", ".join(self._tables)
            raise ValueError(f"table must be one of {known}, got {table!r}; declare it with the stage")
        return self._tables[table]

    def table(self, name: str, columns: Columns | pa.Table) -> None:
        """Publish a table that the stage declares; its columns are checked and cast to the declared types.

        Raises:
            ValueError: a table, or columns, that the declaration does not have.
        """
        content = self.declared(name).conform(columns)
        with self.publish(f"{name}.parquet", rows=content.num_rows) as sink:
            write_table(sink, content)

    def leave(self, name: str, content: object) -> None:
        """Publish JSON values for the merge; numbers of numpy are numbers."""
        self.write(f"{PARTS}{name}.json", json.dumps(content, default=lambda number: number.item()).encode())

    def left(self, name: str) -> Any:
        """What `leave` published. Raises ValueError where it was altered since."""
        return json.loads(self._files.read(f"{self.key.folder}/{PARTS}{name}.json"))

    def leave_arrays(self, name: str, arrays: Arrays) -> None:
        """Publish arrays by their names for the merge."""
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]  # its own options come first
        self.write(f"{PARTS}{name}.npz", content.getvalue())

    def left_arrays(self, name: str) -> Arrays:
        """What `leave_arrays` published. Raises ValueError where it was altered since."""
        try:
            with np.load(io.BytesIO(self._files.read(f"{self.key.folder}/{PARTS}{name}.npz"))) as found:
                return dict(found)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{self.key.folder}: what shard {name} left is damaged: {error}") from error

    def read(self, name: str) -> pa.NativeFile:
        """A finished file, for random access."""
        return self._files.source(f"{self.key.folder}/{name}")

    def path(self, name: str) -> str:
        """Where a finished file lies, for libraries that open files themselves."""
        return self._files.bring(f"{self.key.folder}/{name}")

    def discard(self, name: str) -> None:
        """Remove a finished file that the result does not need."""
        self._files.remove_each([f"{self.key.folder}/{name}", f"{self.key.folder}/{name}{CHECKS}"])
        self._entries.pop(name, None)

    def commit(self, *, environment: Mapping[str, object]) -> Artifact:
        """Make the stage visible.

        Its files are on the disk before anything vouches for them, and so is the manifest before the checksums beside
        them go: after a power cut the stage is done, or its finished files are taken up, each as it was written.

        Args:
            environment: versions, device, threads: recorded, not part of the digest.
        """
        for name in self.finished(PARTS):  # which stay until the manifest is there: they may be hours of work
            self._entries.pop(name)
        manifest: Manifest = {
            "layout": _LAYOUT,
            "stage": self.key.stage,
            "digest": self.key.digest,
            "code": self.key.code,
            "parameters": dict(self.key.parameters),
            "inputs": dict(self.key.inputs),
            "files": dict(sorted(self._entries.items())),
            "environment": dict(environment),
            "started": self._started,
            "seconds": round(time.time() - self._started, 3),
        }
        self.settle()
        MARKS.save(self._files, f"{self.key.folder}/{_MARKS}", self._stamps())
        MANIFEST.save(self._files, f"{self.key.folder}/{_MANIFEST}", manifest)
        self._files.settle([f"{self.key.folder}/{_MANIFEST}"])
        self._files.remove_each(f"{self.key.folder}/{name}{CHECKS}" for name in self._entries)
        self._files.remove(f"{self.key.folder}/{PARTS.rstrip('/')}")
        return Artifact(self._files, self.key.folder, manifest)

    def _stamps(self) -> Marks:
        names = [name for name in self._entries if self._files.here(f"{self.key.folder}/{name}")]
        found = {name: self._files.stamp(f"{self.key.folder}/{name}") for name in names}
        return {name: _mark(stamp, self._entries[name]) for name, stamp in found.items() if stamp}


class StageStore:
    """The stages of a workspace.

    Args:
        files: the workspace.
        say: told in one sentence when a finished stage turns out damaged.
    """

    def __init__(self, files: Files, say: Callable[[str], None] = lambda _: None) -> None:
        self._files, self._say = files, say

    def find(self, key: StageKey) -> Artifact | None:
        """The finished stage, or None. A missing, short or altered file makes it none, and says so."""
        return self.load(key.folder)

    def load(self, folder: str) -> Artifact | None:
        """The finished stage in a folder, or None."""
        manifest = self._manifest(folder)
        if manifest is None:
            return None
        marks: Marks = MARKS.load(self._files, f"{folder}/{_MARKS}") or {}
        known = dict(marks)
        away = functools.cache(lambda: self._files.sizes(folder))  # asked for where a file is not on this machine
        for name, entry in manifest["files"].items():
            fault = self._unmarked_fault(folder, name, entry, marks)
            if not self._files.here(f"{folder}/{name}"):
                fault = _fault_away(away().get(f"{folder}/{name}"), entry)
            if fault:
                self._say(f"{folder}/{name} {fault}; the stage runs again")
                return None
        if marks != known:
            with contextlib.suppress(OSError):  # a workspace that may only be read is still readable
                MARKS.save(self._files, f"{folder}/{_MARKS}", marks)
        return Artifact(self._files, folder, manifest)

    def draft(self, key: StageKey, tables: Sequence[TableSchema]) -> Draft:
        """Begin or take up a stage; a damaged or refreshed one loses its manifest first.

        Args:
            key: what names it.
            tables: that it declares.
        """
        self._files.remove(f"{key.folder}/{_MANIFEST}")
        self._files.cut_links(key.folder)
        return Draft(self._files, key, tables, _finished(self._files, key.folder, self._say))

    def part(self, key: StageKey, tables: Sequence[TableSchema]) -> Draft:
        """A stage that another process has begun, to write a part of its files; it knows none of the others.

        Args:
            key: what names it.
            tables: that it declares.
        """
        return Draft(self._files, key, tables, {})

    def verify(self, folder: str, *, fresh: bool = True) -> list[str] | None:
        """What is wrong with the files of a finished stage, whose every byte is read; None where it is not finished.

        A damaged one is marked, by setting its manifest aside, so that it runs again; and it is said.

        Args:
            folder: the stage's directory.
            fresh: whether files of an object store are fetched again. Else of those on this machine the copies are
                read, and one that is damaged is dropped, which marks nothing; of the others the sizes are looked at.
        """
        manifest = self._manifest(folder)
        if manifest is None:
            return None
        away = functools.cache(lambda: self._files.sizes(folder))
        faults, marked = [], False
        for name, entry in manifest["files"].items():
            path = f"{folder}/{name}"
            if fresh:
                self._files.forget(path)
            read = fresh or self._files.here(path)
            fault = _fault(self._files, folder, name, entry) if read else _fault_away(away().get(path), entry)
            if fault:
                faults.append(f"{path} {fault}")
                marked |= not self._files.forget(path) or fresh
        for fault in faults:
            self._say(f"{fault}; the stage runs again")
        if marked:
            self._set_aside(folder)
        return faults

    def _set_aside(self, folder: str) -> None:
        try:
            self._files.set_aside(f"{folder}/{_MANIFEST}")
        except OSError as error:
            self._say(f"{folder}: cannot be marked as damaged: {error.strerror}")

    def damaged(self, key: StageKey) -> bool:
        """Whether a stage is not what it was when it was finished, or is not finished. See `verify`."""
        return self.verify(key.folder, fresh=False) != []

    def finished(self, below: str = "stages") -> Iterator[tuple[str, Manifest]]:
        """Folders of the finished stages below a folder, with their manifests; their other files are not looked at."""
        for name in self._files.names(below):
            folder, _, file = name.rpartition("/")
            manifest = self._manifest(folder) if file == _MANIFEST and folder.count("/") == 2 else None
            if manifest:
                yield folder, manifest

    def discard(self, key: StageKey) -> None:
        """Forget a stage and all of its files."""
        self._files.remove(key.folder)

    def put_by(self, key: StageKey) -> None:
        """Empty the place of a stage that is to be made anew. A finished one is kept until `bring_back`."""
        found = self.find(key)
        if found is not None:
            self._files.remove(key.put_by)
            self._copy([*found.manifest["files"], _MANIFEST], key.folder, key.put_by)
        self.discard(key)

    def bring_back(self, key: StageKey) -> None:
        """End what `put_by` began, whoever did and however it ended: the stage made anew stays, or else the one before.

        A process that was killed meanwhile has left both, none of them whole but the one that was put by.
        """
        if self._files.stamp(f"{key.put_by}/{_MANIFEST}") is None:
            return
        if self.find(key) is None:
            self.discard(key)
            names = [name.removeprefix(f"{key.put_by}/") for name in self._files.names(key.put_by)]
            self._copy([*filter(_MANIFEST.__ne__, names), _MANIFEST], key.put_by, key.folder)
        self._files.remove(f"{key.put_by}/{_MANIFEST}")  # first: a removal that is killed brings nothing back
        self._files.remove(key.put_by)

    def _copy(self, names: Sequence[str], source: str, folder: str) -> None:
        """Files from one folder to another, the last one when all others are there."""
        for name in names[:-1]:
            self._files.copy(f"{source}/{name}", f"{folder}/{name}")
        self._files.settle(f"{folder}/{name}" for name in names[:-1])
        self._files.copy(f"{source}/{names[-1]}", f"{folder}/{names[-1]}")
        self._files.settle([f"{folder}/{names[-1]}"])

    def _manifest(self, folder: str) -> Manifest | None:
        def fault(manifest: Manifest) -> str:
            key = StageKey(manifest["stage"], manifest["code"], manifest["parameters"], manifest["inputs"])
            belongs = key.folder == folder and key.digest == manifest["digest"]
            return "" if belongs else "what it says determines another stage"

        return MANIFEST.load(self._files, f"{folder}/{_MANIFEST}", fault)

    def _unmarked_fault(self, folder: str, name: str, entry: FileEntry, marks: Marks) -> str:
        """What is wrong with a file; one that is as it was when its checksum was last seen to hold is not read."""
        if not self._files.here(f"{folder}/{name}"):
            return ""
        stamp = _stamp(self._files, folder, name)
        if stamp is not None and stamp.size == entry["bytes"] and marks.get(name) == _mark(stamp, entry):
            return ""
        fault = _fault(self._files, folder, name, entry)
        if not fault and stamp is not None:
            marks[name] = _mark(stamp, entry)
        return "" if fault and self._files.forget(f"{folder}/{name}") else fault


def _mark(stamp: FileStamp, entry: FileEntry) -> Mark:
    return stamp.size, stamp.changed, entry["sha256"]


def _fault_away(size: int | None, entry: FileEntry) -> str:
    """What is wrong with a file that is not on this machine: its checksum is looked at when it is brought."""
    if size is None:
        return "is missing"
    return "" if size == entry["bytes"] else f"has {size} bytes instead of {entry['bytes']}"


def _stamp(files: Files, folder: str, name: str) -> FileStamp | None:
    """Of a file of a stage; none of a link, whose content is not the stage's own."""
    with contextlib.suppress(OSError):  # a name that no file can have
        return None if files.linked(name, folder) else files.stamp(f"{folder}/{name}")
    return None


def _fault(files: Files, folder: str, name: str, entry: FileEntry) -> str:
    """What is wrong with a file, whose every byte is read: nothing, or that it is missing, a link, short or altered."""
    path = f"{folder}/{name}"
    if files.linked(name, folder):
        return "is a link, or in a linked folder, and so none of the stage's own files"
    stamp = _stamp(files, folder, name)
    if stamp is None:
        return "is missing"
    if stamp.size != entry["bytes"]:
        return f"has {stamp.size} bytes instead of {entry['bytes']}"
    digest = hashlib.sha256()
    try:
        with files.source(path) as source:
            while block := source.read(1 << 22):
                digest.update(block)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return "" if digest.hexdigest() == entry["sha256"] else "was altered"


def _finished(files: Files, folder: str, say: Callable[[str], None]) -> dict[str, FileEntry]:
    """Files of an unfinished stage that are what the checksums beside them say; the others go.

    Sizes are not enough: the manifest is going to vouch for these files. Nor are checksums: a file that was put into
    the place of another, with the checksum beside it, is whole, and not what its name says.
    """
    entries: dict[str, FileEntry] = {}
    for path in files.names(folder):
        if not path.endswith(CHECKS):
            continue
        name = path.removesuffix(CHECKS)
        entry = _check(files, path)
        own = name.removeprefix(folder + "/")
        if entry is None:
            fault = "has a damaged checksum, or another file's, beside it"
        else:
            fault = _fault(files, folder, own, entry)
        if entry is None or fault:
            say(f"{name} {fault}; it is made again")
            files.remove(name)
            files.remove(path)
        else:
            entries[own] = entry
    return entries


def _check(files: Files, path: str) -> FileEntry | None:
    """A finished file's bytes, checksum and rows; None where they cannot be read, or are another file's."""
    with contextlib.suppress(OSError, Damaged):
        found = CHECK.parse(files.read(path))
        if found["of"] == path.removesuffix(CHECKS):
            return FileEntry(bytes=found["bytes"], sha256=found["sha256"], rows=found["rows"])
    return None
