"""A workspace in an object store, with a folder of this machine beside it.

What a stage writes is written into the folder, and sent from there while the stage works on; `settle` returns when all
of it is in the store, and the manifest goes last, so that what was sent in part is never taken for finished. What is
read is brought into the folder first, by whoever reads it, and its checksum is looked at on the way. Three kinds of
names:

* a stage's files are written once. One that is in the folder is the store's, if its checksum is the manifest's.
* manifests, runs, claims, lists of inputs and pages about several runs are read from the store each time.
* what is known of this machine alone never leaves it: times of change (`.verified.json`), digests of its files, the
  home of Prefect, pages of single pictures.

DuckDB reads the folder, too: httpfs would have to be fetched, and would read files whose checksums nobody looks at.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from storage.bucket import Bucket, cache_folder
from storage.files import CHECKS, Altered, Files, FileStamp, HashingSink, LocalFiles
from storage.leases import TICKET, leased

_SENDERS = 8  # files that are on their way at once
_MANIFEST = "/manifest.json"
_OWN = ("digests.json", "prefect/", "explained/")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def _is_own(name: str) -> bool:
    """Whether a file is of this machine alone."""
    return name.startswith(_OWN) or name.endswith("/.verified.json")


def _is_once(name: str) -> bool:
    """Whether a file is one of a stage's."""
    return name.startswith("stages/") and not (_is_own(name) or name.endswith(_MANIFEST) or ".damaged-" in name)


def _done() -> Future[None]:
    done: Future[None] = Future()
    done.set_result(None)
    return done


class RemoteFiles(Files):
    """A workspace in a bucket.

    Args:
        bucket: or a part of one.
        say: told in one sentence of what is passed over.
    """

    def __init__(self, bucket: Bucket, say: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(say)
        self._bucket = bucket
        self._cache = LocalFiles(cache_folder() / f"{bucket.url.rpartition('/')[2]}-{bucket.digest}", say)
        self._pool = ThreadPoolExecutor(_SENDERS, thread_name_prefix="send")
        self._sent: dict[str, Future[None]] = {}

    def read(self, name: str) -> bytes:
        """Of a stage's files the copy in the folder, if there is one."""
        if _is_own(name) or (_is_once(name) and self.here(name)):
            return self._cache.read(name)
        return self._bucket.get(name)

    @contextlib.contextmanager
    def publish(self, name: str) -> Iterator[HashingSink]:
        """Into the folder, and from there to the store; a stage's files meanwhile."""
        self._wait([name])
        with self._cache.publish(name) as sink:
            yield sink
        if _is_once(name):
            self._begin(name, self._send)
        elif not _is_own(name):
            self._send(name)

    def write(self, name: str, content: bytes) -> None:
        """Small files that are read from the store each time go there alone; a manifest only where there is none."""
        if _is_own(name) or _is_once(name):
            super().write(name, content)
        elif name.startswith("stages/"):
            self._bucket.put_once(name, content)
        else:
            self._bucket.put(name, content)

    def _send(self, name: str) -> None:
        self._bucket.send(Path(self._cache.location(name)), name)

    def _begin(self, name: str, work: Callable[[str], None]) -> Future[None]:
        self._sent[name] = self._pool.submit(work, name)
        return self._sent[name]

    def _wait(self, names: Iterable[str]) -> None:
        """Until nothing is on its way to these names, whatever came of it."""
        for name in names:
            if sent := self._sent.pop(name, None):
                sent.exception()

    def copy(self, source: str, name: str) -> None:
        """Within the store; and in the folder, where the file is there."""
        self._wait([name])
        if self.here(source):
            self._cache.copy(source, name)
        self._begin(name, functools.partial(self._copy, source))

    def _copy(self, source: str, name: str) -> None:
        try:
            self._bucket.copy(source, name)
        except FileNotFoundError:  # somebody removed it there: the copy of it here will do
            if not self.here(name):
                raise
            self._send(name)

    def source(self, name: str) -> pa.NativeFile:
        """From the folder; brought there, unchecked, where it is not."""
        self.bring(name)
        return self._cache.source(name)

    def bring(self, name: str, sha256: str = "") -> str:
        """Fetched into the folder, unless a stage's file is there."""
        if not _is_own(name) and not (_is_once(name) and self.here(name)):
            with self._cache.publish(name) as sink:
                self._bucket.fetch(name, sink)  # type: ignore[arg-type]  # it only writes
                if sha256 and sink.sha256 != sha256:
                    raise Altered(f"{name} was altered in {self.address}")
        return self._cache.location(name)

    def here(self, name: str) -> bool:
        """Whether it is in the folder."""
        return self._cache.stamp(name) is not None

    def forget(self, name: str) -> bool:
        """Removed from the folder."""
        there = self.here(name)
        if there:
            self._cache.remove(name)
        return there

    def stamp(self, name: str) -> FileStamp | None:
        """Of a stage's files that of the copy in the folder, if there is one."""
        if _is_own(name) or (_is_once(name) and self.here(name)):
            return self._cache.stamp(name)
        return self._bucket.stamp(name)

    def sizes(self, folder: str) -> dict[str, int]:
        """Of the store's objects, and of a stage's files that are in the folder alone."""
        found = {name: size for name, size in self._cache.sizes(folder).items() if _is_once(name)}
        stored = self._bucket.list(folder)
        return found | {name: entry.size for name, entry in stored.items() if not name.endswith(TICKET)}

    def names(self, folder: str) -> list[str]:
        """Those of `sizes`."""
        return sorted(self.sizes(folder))

    def unfinished(self, folder: str) -> list[str]:
        """Of the folder; and tickets, which those who were killed leave."""
        tickets = () if folder else (name for name in self._bucket.list("claims") if name.endswith(TICKET))
        return sorted([*self._cache.unfinished(folder), *tickets])

    def settle(self, names: Iterable[str]) -> None:
        """When they are in the store: what an earlier process left in the folder is sent, too; and the checksums beside
        them, or these might come there when somebody has removed them already.
        """
        wanted = list(names)
        for name in wanted:
            if _is_once(name) and name not in self._sent and self.here(name):
                self._begin(name, self._send)
        for name in (*wanted, *(name + CHECKS for name in wanted)):
            if name in self._sent:
                self._sent[name].result()

    def settled(self, names: Iterable[str]) -> None:
        """They are not sent once more."""
        for name in names:
            self._sent.setdefault(name, _done())

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """By a lock of the folder, and then one of the store's (storage/leases)."""
        with self._cache.lock(name, waiting), leased(self._bucket, name, self._machine, waiting):
            yield

    @functools.cached_property
    def _machine(self) -> str:
        """Tells this folder, on this machine as it was started, from every other."""
        there = Path(self._cache.location("")).stat()
        boot = _BOOT.read_text() if _BOOT.is_file() else str(uuid.getnode())
        return hashlib.sha256(f"{boot}\0{there.st_dev}\0{there.st_ino}".encode()).hexdigest()[:16]

    def reserve(self, name: str, size: int) -> None:
        """Nothing: a store is not full."""

    def write_reserved(self, name: str, content: bytes) -> None:
        """As any other."""
        self.write(name, content)

    def remove(self, name: str) -> None:
        """From the folder and the store."""
        self._wait([sent for sent in list(self._sent) if sent == name or sent.startswith(f"{name}/")])
        self._cache.remove(name)
        if not _is_own(name):
            self._bucket.delete([name, *self._bucket.list(name)])

    def remove_each(self, names: Iterable[str]) -> None:
        """In one request."""
        wanted = list(names)
        self._wait(wanted)
        self._cache.remove_each(wanted)
        self._bucket.delete(wanted)

    def set_aside(self, name: str) -> str:
        """Copied and removed."""
        if _is_own(name):
            return self._cache.set_aside(name)
        other = f"{name}.damaged-{uuid.uuid4().hex[:8]}"
        self._bucket.copy(name, other)
        self.remove(name)
        return other

    def linked(self, name: str, below: str) -> bool:
        """In the folder; a store has no links."""
        return self._cache.linked(name, below)

    def cut_links(self, folder: str) -> None:
        """In the folder."""
        self._cache.cut_links(folder)

    def writable(self, name: str) -> bool:
        """By trying it, once."""
        return self._cache.writable(name) if _is_own(name) else self._writes

    @functools.cached_property
    def _writes(self) -> bool:
        name = f"claims/{uuid.uuid4().hex}.now"
        try:
            self._bucket.put(name, b"")
            self._bucket.delete([name])
        except OSError:
            return False
        return True

    def free(self) -> int:
        """Of the disk that the folder is on: stages are written there first."""
        return self._cache.free()

    def location(self, name: str) -> str:
        """In the folder."""
        return self._cache.location(name)

    @property
    def address(self) -> str:
        """That of the bucket."""
        return self._bucket.url
