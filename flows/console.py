"""What a person sees while an audit runs: bars on a terminal, plain lines elsewhere, all on stderr."""

from __future__ import annotations

import sys
import threading
import time
from typing import IO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY = 10.0  # seconds between plain lines


class Bars:
    """Progress bars."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def begin(self, stage: str, total: int, unit: str) -> None:
        """A bar for the stage."""
        self._progress.start()
        self._tasks[stage] = self._progress.add_task(stage, total=total, unit=unit)

    def advance(self, stage: str, count: int) -> None:
        """Move the bar."""
        self._progress.advance(self._tasks[stage], count)

    def end(self, stage: str, note: str) -> None:
        """Take the bar away and leave a line."""
        if stage in self._tasks:
            self._progress.remove_task(self._tasks.pop(stage))
        if not self._tasks:
            self._progress.stop()
        self._console.print(f"{stage:<12} {note}", highlight=False)

    def say(self, text: str) -> None:
        """One sentence."""
        self._console.print(text, highlight=False)


class Lines:
    """Plain lines: one when a stage begins, one every few seconds, one when it ends."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._totals: dict[str, tuple[int, str]] = {}
        self._done: dict[str, int] = {}
        self._last = time.monotonic()

    def begin(self, stage: str, total: int, unit: str) -> None:
        """Say what begins."""
        self._totals[stage], self._done[stage] = (total, unit), 0
        self.say(f"{stage:<12} {counted(total, unit)}")

    def advance(self, stage: str, count: int) -> None:
        """Say how far it is, now and then."""
        self._done[stage] += count
        if time.monotonic() - self._last > EVERY:
            self._last = time.monotonic()
            total, unit = self._totals[stage]
            self.say(f"{stage:<12} {self._done[stage]} of {counted(total, unit)}")

    def end(self, stage: str, note: str) -> None:
        """Say how it ended."""
        self.say(f"{stage:<12} {note}")

    def say(self, text: str) -> None:
        """One sentence."""
        with self._lock:
            print(text, file=self._stream, flush=True)


def counted(total: int, unit: str) -> str:
    """So many of them, in words: one of what ends in s stands without it, unless it is of two kinds."""
    return f"{total} {unit.removesuffix('s') if total == 1 and ' and ' not in unit else unit}"


def progress() -> Bars | Lines:
    """Bars where stderr is a terminal, plain lines where it is not."""
    return Bars(Console(stderr=True)) if sys.stderr.isatty() else Lines(sys.stderr)


def warn(text: str) -> None:
    """One sentence about something that is passed over."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
