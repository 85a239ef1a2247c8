"""Processes of this machine that carry shards out: `execution: {processes: n}`."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from flows.handed import job_text, work
from tasks.execution import InHand, Written

DEATHS = 5  # of processes at one shard, after which it is to blame
PAUSE = 0.5  # s between two looks whether the user asked to stop


class Processes:
    """So many processes; one that dies is replaced, and its shard done again.

    Args:
        audit: from `flows.handed.audit_text`.
        count: of processes.
    """

    def __init__(self, audit: str, count: int) -> None:
        self._audit, self._count = audit, count
        self._free: queue.Queue[_Seat] = queue.Queue()
        for number in range(count):
            self._free.put(_Seat(number))

    def each(self, hand: InHand, parts: Sequence[str]) -> Generator[Written, None, None]:
        """Carry parts of a job out, side by side. See `tasks.execution.Each`; closed, it waits for those in hand."""
        ended: queue.Queue[Future[str]] = queue.Queue()
        with ThreadPoolExecutor(self._count, "processes") as threads:
            begun = [threads.submit(self._done, job_text(hand.job), part) for part in parts]
            try:
                for future in begun:
                    future.add_done_callback(ended.put)
                for _ in begun:
                    yield json.loads(_next(ended, hand.session.check).result())
            finally:
                for future in begun:
                    future.cancel()

    def close(self) -> None:
        """End the processes."""
        for _ in range(self._count):
            self._free.get().close()

    def _done(self, job: str, part: str) -> str:
        slot = self._free.get()
        try:
            return slot.work(self._audit, job, part)
        finally:
            self._free.put(slot)


def _next(ended: queue.Queue[Future[str]], check: Callable[[], None]) -> Future[str]:
    while True:
        try:
            return ended.get(timeout=PAUSE)
        except queue.Empty:
            check()


class _Seat:
    """The place of a process: the death of one breaks its pool, so each has a pool of its own.

    Args:
        number: of the place.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool: ProcessPoolExecutor | None = None

    def work(self, *order: str) -> str:
        """As `flows.handed.work`. Raises RuntimeError: one process after the other died of it."""
        for _ in range(DEATHS):
            self._pool = self._pool or self._started()
            try:
                return self._pool.submit(work, *order).result()
            except BrokenProcessPool:
                self.close()
        raise RuntimeError(
            f"{DEATHS} processes died at {order[1].partition(' ')[0]} {order[2]}: is there memory enough for "
            "execution.processes of them?"
        )

    def close(self) -> None:
        """End the process."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        spawned = multiprocessing.get_context("spawn")  # a fork would have the locks of threads that it has not
        return ProcessPoolExecutor(1, mp_context=spawned, initializer=_begin, initargs=(self._number,))


def _begin(number: int) -> None:
    """Before a process imports torch: a CUDA device of its own; Ctrl-C is the coordinator's; it ends with that one."""
    os.environ["CUDA_VISIBLE_DEVICES"] = _device(os.environ.get("CUDA_VISIBLE_DEVICES"), number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _device(shown: str | None, number: int) -> str:
    """The device of that number among those that are shown."""
    return str(number) if shown is None else ",".join(shown.split(",")[number : number + 1])


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
