"""Runs: what was audited, when, with which stages, and how it ended."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from storage.files import Files
from storage.small import FileName, Kind, Moment, Seconds
from storage.stages import Artifact, StageStore

_LAYOUT = 2  # of the record; 1 had no figures, and no gate without a value
_GROWTH = 64 << 10  # bytes by which a record grows: some 200 for each stage, for each gate and for each headline figure
_FOLDER = re.compile(rb"stages/\w+/[0-9a-f]{32}")


class StageRun(TypedDict):
    """What a record says of one of the run's stages."""

    folder: FileName
    cached: NotRequired[bool]
    seconds: NotRequired[Seconds]
    digest: NotRequired[str]
    code: NotRequired[str]  # digest of what made it; a record of an earlier version may lack it


class GateRun(TypedDict):
    """What a record says of one of the run's gates."""

    gate: str
    value: float | None
    limit: float | None
    passed: bool
    note: NotRequired[str]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    verdict: NotRequired[str]


def verdict(gate: GateRun) -> str:
    """A gate's verdict: passed, failed, warned, or not judged; the first two alone in records of layout 1."""
    return gate.get("verdict") or ("passed" if gate["passed"] else "failed")


class FigureRun(TypedDict):
    """What a record says of one of the run's headline figures, and of its 95 % interval."""

    stage: str
    figure: str
    row: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RunRecord:
    """One run of an audit.

    Args:
        run_id: sorts by time.
        name: of the audit.
        network: what was audited, for people.
        started: seconds since the epoch.
        seconds: wall time.
        status: `running`, `done`, `gate failed`, `failed`, `stopped`, `killed`.
        stages: stage -> folder, seconds, whether it was cached, digest.
        gates: what was demanded, and what came out.
        figures: headlines of its stages, which outlive these.
        about: configuration, digests, versions, device.
        inputs: a network or a data set, as the audit calls it -> the list of its files (storage.inputs).
        layout: of the record.
    """

    run_id: str
    name: str
    network: str
    started: Moment
    seconds: Seconds = 0.0
    status: str = "running"
    stages: Mapping[str, StageRun] = field(default_factory=dict)
    gates: tuple[GateRun, ...] = ()
    figures: tuple[FigureRun, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, FileName] = field(default_factory=dict)
    layout: Annotated[int, Field(ge=1, le=_LAYOUT)] = _LAYOUT

    @classmethod
    def start(cls, name: str, network: str, about: Mapping[str, Any]) -> RunRecord:
        """A run that begins now."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        return cls(f"{stamp}-{uuid.uuid4().hex[:6]}", name, network, now, about=about)

    @property
    def finished(self) -> bool:
        """Whether it came to its end: done, or a gate failed."""
        return self.status in ("done", "gate failed")

    def ended(self, status: str, **changes: Any) -> RunRecord:
        """The same run, ended now."""
        return replace(self, status=status, seconds=round(time.time() - self.started, 3), **changes)


RUN = Kind[RunRecord]("run record", RunRecord, "the run is not known any more", layout=_LAYOUT, sealed=True)


class RunStore:
    """The runs of a workspace, one JSON file each. A record that cannot be read is passed over, and said.

    Args:
        files: the workspace.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def begin(self, run: RunRecord) -> None:
        """Write the record of a run that begins, and keep room for how it ends: a run may fail since the disk is full.

        Raises OSError, with nothing written, where there is no room for both.
        """
        name = _name(run.run_id)
        try:
            self._files.reserve(name, 2 * len(RUN.dump(run)) + _GROWTH)
            RUN.save(self._files, name, run)
        except OSError:
            with suppress(OSError):
                self._files.remove(f"runs/{run.run_id}")
            raise

    def end(self, run: RunRecord) -> None:
        """Write how a run ended, in the room that was kept; without its figures where they do not fit."""
        try:
            RUN.save_reserved(self._files, _name(run.run_id), run)
        except OSError:
            if not run.figures:
                raise
            RUN.save_reserved(self._files, _name(run.run_id), replace(run, figures=()))

    def save(self, run: RunRecord) -> None:
        """Write the record of a run that is over before it was recorded."""
        RUN.save(self._files, _name(run.run_id), run)

    def all(self) -> list[RunRecord]:
        """All runs, oldest first."""
        folders = sorted({name.split("/")[1] for name in self._files.names("runs") if name.count("/") > 1})
        found = (self._load(folder) for folder in folders)
        return sorted((run for run in found if run), key=lambda run: run.started)  # names only tell seconds apart

    def latest(self) -> list[RunRecord]:
        """The latest run of each audit, finished ones before others."""
        named: dict[str, list[RunRecord]] = {}
        for run in self.all():
            named.setdefault(run.name, []).append(run)
        return [_latest(runs) for runs in named.values()]

    def named_by_unreadable(self) -> set[str]:
        """Folders of stages that are named in records which cannot be read: damaged, set aside, of a newer version."""
        readable = {run.run_id for run in self.all()}
        named: set[str] = set()
        for name in self._files.names("runs"):
            if name.split("/")[1] not in readable:
                with suppress(OSError):
                    named |= folders_named(self._files.read(name))
        return named

    def find(self, wanted: str | None = None) -> RunRecord | None:
        """A run by its id, the start of it, or the name of its audit (its latest); the latest of all for None.

        Finished runs go before others. None where there is no such run, or where the start fits several.
        """
        runs = self.all()
        if wanted is not None:
            named = [run for run in runs if run.name == wanted]
            begun = [run for run in runs if run.run_id.startswith(wanted)]
            if not named:
                return begun[0] if len(begun) == 1 else None
            runs = named
        return _latest(runs) if runs else None

    def _load(self, folder: str) -> RunRecord | None:
        def fault(run: RunRecord) -> str:
            return "" if run.run_id == folder else f"it is the record of another run, {run.run_id!r:.60}"

        return RUN.load(self._files, _name(folder), fault)


def _name(run_id: str) -> str:
    return f"runs/{run_id}/run.json"


def _latest(runs: Sequence[RunRecord]) -> RunRecord:
    done = [run for run in runs if run.finished]
    return (done or runs)[-1]


def folders_named(content: bytes) -> set[str]:
    """Folders of stages that are named in a small file which cannot be understood."""
    return {folder.decode() for folder in _FOLDER.findall(content)}


def finished_stages(
    files: Files, run: RunRecord, say: Callable[[str], None], *, wary: bool = False
) -> dict[str, Artifact]:
    """The finished stages of a run, by the names of their jobs.

    Args:
        files: the workspace.
        run: whose.
        say: told of each that is damaged, or gone.
        wary: read every byte of them first.
    """
    found = {}
    for job, entry in run.stages.items():
        folder, heard = str(entry.get("folder")), list[str]()
        store = StageStore(files, heard.append)
        artifact = None if wary and store.verify(folder) else store.load(folder)
        if artifact is not None:
            found[job] = artifact
            continue
        why = heard[0].partition(";")[0] if heard else f"{folder} is not there any more"
        say(f"run {run.run_id}: stage {job} is damaged: {why}; its rows are missing here until the audit runs again")
    return found
