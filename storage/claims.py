"""Claims: which stages living processes use, so that nothing takes these away under them.

Whoever is going to read or write stage directories claims them first, and looks which of them are there afterwards.
Whoever collects stages leaves claimed ones. Both do it under one lock of the workspace: a claim is made in it, and a
collection is all of it, from reading the claims to the last removal.

Whoever is going to make finished stages anew (a rerun, a refresh) says so in the claim, since their files go first. Two
claims of different processes may not both stand where one makes anew what the other uses: whoever comes second waits
until the other's process has ended, or has given its claim up. All of a claim is made or none of it, so nobody waits
for somebody who waits. A claim is written before the others are looked at: where no lock is to be had, at least one of
two sees the other.

Why no claimed stage is ever removed. For a claim and a collection the lock leaves two orders. Claim first: the
collection finds it, for as long as its process lives, and leaves the stage. Collection first: whatever it removed was
gone before the claim's process looked, so it counts as not done, and is made again. A run is recorded before its claim
ends, and a collection reads the claims before the records: the stages of a run that ends in between are seen in one or
the other. Where no lock is to be had, a claim is made without one, and no collection takes place at all.

Who makes. Two processes that find the same stage missing would write the same files into one directory, and the second
would begin by taking the first one's manifest away. So a stage is made under a lock of its own, and whoever had to wait
for it looks again, and finds it done. A collection removes the locks of stages that nobody claims; who makes one does.

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
from typing import NotRequired

from storage.files import Files, no_locks
from storage.process import ThisProcess, ended, here, this_process
from storage.runs import folders_named
from storage.small import Damaged, Kind, Newer

BEAT = 60.0  # s between renewals of a claim
PAUSE = 0.5  # s between two looks whether the process that is waited for has ended
EXPIRY = 3600.0  # s after which a claim of another host that was not renewed counts no more
_FOLDER = "claims"
_LOCK = f"{_FOLDER}/lock"
_MAKING = ".making"


class _Claim(ThisProcess):
    folders: list[str]
    anew: NotRequired[list[str]]


CLAIM = Kind[_Claim]("claim", _Claim, "it counts no more")


@dataclass(frozen=True)
class _Use:
    """What a living process uses, what of it it makes anew, and which process that is, in words."""

    folders: frozenset[str]
    anew: frozenset[str] = frozenset()
    who: str = "another version of microtome"
    own: bool = False

    @classmethod
    def of(cls, claim: _Claim) -> _Use:
        """What a claim says."""
        who = f"process {claim['process']}" + ("" if here(claim) else f" of {claim['host']}")
        own = this_process().items() <= claim.items()
        return cls(frozenset(claim["folders"]), frozenset(claim.get("anew", ())), who, own)

    def blocks(self, other: _Use) -> str:
        """Why another claim must wait for this one, in words; empty where it need not."""
        if made := sorted(self.anew & other.folders):
            return f"{self.who} has made {made[0]} again"
        if used := sorted(self.folders & other.anew):
            return f"{self.who} has ended, which uses {used[0]}, which is to be made again"
        return ""


@dataclass(frozen=True)
class InUse:
    """What a collection must leave.

    Args:
        folders: stage directories that living processes claim.
        now: the file server's time, in nanoseconds.
    """

    folders: frozenset[str]
    now: int


@contextlib.contextmanager
def making(files: Files, folder: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Be the only one who makes a stage, which this process claims. Whoever comes second looks afterwards whether it is
    done; where no lock is to be had, both make it.

    Args:
        files: the workspace.
        folder: the stage directory.
        waiting: called again and again while another process makes it; it may raise, to wait no more.
    """
    with _locked(files, _making(folder), waiting):
        yield


def _making(folder: str) -> str:
    """The lock of a stage directory."""
    return f"{_FOLDER}/{folder.replace('/', '.')}{_MAKING}"


@contextlib.contextmanager
def _locked(files: Files, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """In a lock, where there is one to be had."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(name, waiting))
        except OSError as error:
            if not no_locks(error):
                raise
        yield


class Claims:
    """The claims of a workspace.

    Args:
        files: the workspace.
        waiting: called again and again while a collection, or another claim, has the lock. It may raise, to wait no
            more.
        busy: called with what is waited for, again and again, where another process makes anew what is claimed, or
            uses what is to be made anew. It may raise, to wait no more.
    """

    def __init__(
        self, files: Files, waiting: Callable[[], None] = lambda: None, busy: Callable[[str], None] = lambda _: None
    ) -> None:
        self._files, self._waiting, self._busy = files, waiting, busy

    @contextlib.contextmanager
    def held(
        self, folders: Collection[str], *, anew: Collection[str] = (), patient: bool = True
    ) -> Iterator[OSError | None]:
        """Claim stage directories, whether they are there yet or not, for as long as the context lasts.

        Gives why it could not be done, where the workspace cannot be written: its stages can still be read, at the
        risk that they are collected meanwhile.

        Args:
            folders: the stage directories.
            anew: those among them that are made again though they may be finished.
            patient: whether it waits for others; else `busy` is told once, and what they make anew may be missing.
        """
        name = f"{_FOLDER}/{uuid.uuid4().hex}.json"
        claim = _Claim(folders=sorted(folders), anew=sorted(anew), **this_process())
        content = CLAIM.dump(claim)
        try:
            while why := self._made(name, content, _Use.of(claim), patient=patient):
                self._busy(why)
                if not patient:
                    break
                time.sleep(PAUSE)
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

    def _made(self, name: str, content: bytes, use: _Use, *, patient: bool) -> str:
        """Make a claim. Gives what it must wait for, if anything: then it is taken back by whoever is patient."""
        with _locked(self._files, _LOCK, self._waiting):
            self._files.write(name, content)
            why = self._in_the_way(name, use)
            if why and patient:
                self._files.remove(name)
            return why

    def _in_the_way(self, name: str, use: _Use) -> str:
        stamp = self._files.stamp(name)  # now, by the file server's clock
        others = (self._living(other, stamp.changed if stamp else 0) for other in self._names() if other != name)
        return next((why for other in others if other and not other.own and (why := other.blocks(use))), "")

    def _names(self) -> list[str]:
        return [name for name in self._files.names(_FOLDER) if name.endswith(".json")]

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
        """What is in use, and the claims of the dead, with the locks of stages that nobody uses."""
        folders: set[str] = set()
        dead: list[str] = []
        for name in self._names():
            use = self._living(name, now)
            if use is None:
                dead.append(name)
            else:
                folders |= use.folders
        making = {_making(folder) for folder in folders}
        dead += [name for name in self._files.names(_FOLDER) if name.endswith(_MAKING) and name not in making]
        return InUse(frozenset(folders), now), dead

    def _living(self, name: str, now: int) -> _Use | None:
        """What a claim claims; None of a claim of the dead, or a damaged one: who writes claims whole is dead then."""
        stamp = self._files.stamp(name)
        try:
            content = self._files.read(name)
            claim = CLAIM.parse(content)
        except Newer:
            return _Use(frozenset(folders_named(content)))
        except (FileNotFoundError, IsADirectoryError, Damaged):
            return None
        gone = ended(claim) if here(claim) else stamp is None or now - stamp.changed > EXPIRY * 1e9
        return None if gone else _Use.of(claim)
