"""Claims: which stages living processes use, so that nothing takes these away under them.

Whoever is going to read or write stage directories claims them first, and looks which of them are there afterwards.
Whoever collects stages leaves claimed ones. Both do it under one lock of the workspace: a claim is made in it, and a
collection is all of it, from reading the claims to the last removal.

Why no claimed stage is ever removed. For a claim and a collection the lock leaves two orders. Claim first: the
collection finds it, for as long as its process lives, and leaves the stage. Collection first: whatever it removed was
gone before the claim's process looked, so it counts as not done, and is made again. A run is recorded before its claim
ends, and a collection reads the claims before the records: the stages of a run that ends in between are seen in one or
the other. Where no lock is to be had, a claim is made without one, and no collection takes place at all.

Who is dead. A process of this host is asked for (its number and its start); its claim counts until it is gone. That of
another host cannot be asked: it renews its claim every minute, which counts until it has not been renewed for an hour.
That is measured by the file server's clock alone, the claim's time of change against that of a file that the collection
has just written, so the hosts' clocks need not agree. A host that sleeps, or is cut off, for longer may lose stages:
its audit makes them again.

Over NFS flock(2) locks the file on the server, for all hosts, unless it is mounted with `nolock` or `local_lock`: then
collect where the audits run. A folder's listing may be cached there; having just written a file of its own into it, a
collection is given the server's.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from storage.files import Files, no_locks
from storage.process import ThisProcess, ended, here, this_process
from storage.runs import folders_named
from storage.small import Damaged, Kind, Newer

BEAT = 60.0  # s between renewals of a claim
EXPIRY = 3600.0  # s after which a claim of another host that was not renewed counts no more
_FOLDER = "claims"
_LOCK = f"{_FOLDER}/lock"


class _Claim(ThisProcess):
    folders: list[str]


CLAIM = Kind[_Claim]("claim", _Claim, "it counts no more")


@dataclass(frozen=True)
class InUse:
    """What a collection must leave.

    Args:
        folders: stage directories that living processes claim.
        now: the file server's time, in nanoseconds.
    """

    folders: frozenset[str]
    now: int


class Claims:
    """The claims of a workspace.

    Args:
        files: the workspace.
        waiting: called where a collection, or another claim, has the lock for the moment.
    """

    def __init__(self, files: Files, waiting: Callable[[], None] = lambda: None) -> None:
        self._files, self._waiting = files, waiting

    @contextlib.contextmanager
    def held(self, folders: Collection[str]) -> Iterator[OSError | None]:
        """Claim stage directories, whether they are there yet or not, for as long as the context lasts.

        Gives why it could not be done, where the workspace cannot be written: its stages can still be read, at the
        risk that they are collected meanwhile.
        """
        name = f"{_FOLDER}/{uuid.uuid4().hex}.json"
        content = CLAIM.dump(_Claim(folders=sorted(folders), **this_process()))
        try:
            self._make(name, content)
        except OSError as error:
            yield error
            return
        over = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(name, content, over), daemon=True)
        renewing.start()
        try:
            yield None
        finally:
            over.set()
            renewing.join()
            with contextlib.suppress(OSError):  # it ends with this process, too
                self._files.remove(name)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[InUse]:
        """Keep new claims waiting, and remove those of the dead; gives what is in use.

        Raises:
            OSError: the lock cannot be had, or a claim cannot be read.
        """
        with self._files.lock(_LOCK, self._waiting):
            in_use, dead = self._sorted(self._now())
            for name in dead:
                self._files.remove(name)
            yield in_use

    def in_use(self) -> InUse:
        """What is in use at this moment; nobody waits, and nothing is removed."""
        return self._sorted(time.time_ns())[0]

    def _make(self, name: str, content: bytes) -> None:
        try:
            with self._files.lock(_LOCK, self._waiting):
                self._files.write(name, content)
        except OSError as error:
            if not no_locks(error):
                raise
            self._files.write(name, content)

    def _renew(self, name: str, content: bytes, over: threading.Event) -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(OSError):  # a full disk, a server that is away: the next time
                self._files.write(name, content)

    def _now(self) -> int:
        """The file server's time, by a file written now; this host's where there is no room for one."""
        name = f"{_FOLDER}/{uuid.uuid4().hex}.now"
        with contextlib.suppress(OSError):
            self._files.write(name, b"")
            stamp = self._files.stamp(name)
            self._files.remove(name)
            if stamp:
                return stamp.changed
        return time.time_ns()

    def _sorted(self, now: int) -> tuple[InUse, list[str]]:
        """What is in use, and the claims of the dead."""
        folders: set[str] = set()
        dead: list[str] = []
        for name in self._files.names(_FOLDER):
            if not name.endswith(".json"):
                continue
            claimed = self._living(name, now)
            if claimed is None:
                dead.append(name)
            else:
                folders |= claimed
        return InUse(frozenset(folders), now), dead

    def _living(self, name: str, now: int) -> set[str] | None:
        """What a claim claims; None of a claim of the dead, or a damaged one: who writes claims whole is dead then."""
        stamp = self._files.stamp(name)
        try:
            content = self._files.read(name)
            claim = CLAIM.parse(content)
        except Newer:
            return folders_named(content)
        except (FileNotFoundError, IsADirectoryError, Damaged):
            return None
        gone = ended(claim) if here(claim) else stamp is None or now - stamp.changed > EXPIRY * 1e9
        return None if gone else set(claim["folders"])
