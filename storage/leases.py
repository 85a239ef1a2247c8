"""Locks in an object store, which has none: tickets that are put, looked at, renewed, and run out.

Whoever wants a lock puts a ticket of its own beside those of others, and then lists them. Is there another that lives,
it takes its own away and tries again after a while; else the lock is its. Of two who put theirs, whoever lists second
sees the other's, since a listing shows every object whose put has ended: so never do two have the lock, on any store,
with or without conditional puts. Both may give way at once; that the pauses are drawn ends it.

A ticket lives until it was not renewed for LEASE, by the store's clock alone: its time of change is compared with that
of the ticket just put. Whoever is cut off for longer loses the lock and does not know it. What locks guard in a
workspace bears that: two who make one stage write the same bytes, and a collection that takes a stage away under
somebody makes this stage be made again.

On one machine a file's lock is taken first (storage/remote): so a ticket of the own machine, seen by whoever has that,
is of a process that has ended.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from storage.bucket import Bucket

LEASE = 90.0  # s after which a ticket that was not renewed counts no more
_RENEWED = LEASE / 6  # s
_PAUSE = (0.2, 0.8)  # s between two tries, drawn
TICKET = ".ticket"


@contextlib.contextmanager
def leased(bucket: Bucket, name: str, machine: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Have a lock among machines.

    Args:
        bucket: the workspace.
        name: of the lock; its tickets are objects that begin with it.
        machine: tells this machine from others.
        waiting: called again and again while somebody else has it; it may raise, to wait no more.
    """
    own = f"{name}.{machine}.{uuid.uuid4().hex}{TICKET}"
    try:
        while not _alone(bucket, name, machine, own):
            waiting()
            time.sleep(random.uniform(*_PAUSE))
        over = threading.Event()
        renewing = threading.Thread(target=_renew, args=(bucket, own, over), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            over.set()
            renewing.join()
    finally:
        with contextlib.suppress(OSError):  # it runs out
            bucket.delete([own])


def _alone(bucket: Bucket, name: str, machine: str, own: str) -> bool:
    """Put a ticket and look: whether no other lives. If one does, the own one is taken away; dead ones are, anyway."""
    bucket.put(own, b"")
    tickets = {
        ticket: found.changed
        for ticket, found in bucket.list(name.rpartition("/")[0]).items()
        if ticket.startswith(f"{name}.") and ticket.endswith(TICKET)
    }
    now = tickets.pop(own, None)
    if now is None:  # somebody took it for dead
        return False
    dead = [
        ticket
        for ticket, changed in tickets.items()
        if ticket.startswith(f"{name}.{machine}.") or now - changed > LEASE * 1e9
    ]
    alone = len(dead) == len(tickets)
    bucket.delete(dead if alone else [*dead, own])
    return alone


def _renew(bucket: Bucket, own: str, over: threading.Event) -> None:
    while not over.wait(_RENEWED):
        with contextlib.suppress(OSError):  # a store that is away: the next time
            bucket.put(own, b"")
