"""From an audit file to jobs: which stages it asks for, what each reads, which are done already."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flows.auditfile import AuditModel, read_audit
from flows.console import progress, warn
from flows.places import check_places
from flows.workspaces import BLOCK, open_workspace
from microtome.datasets.tables import name_fault
from microtome.disentangle.names import LAYERS
from microtome.errors import InputError, refuse, suggest
from storage import Files, RunStore, StageStore
from tasks.finetuning import FinetuningOptions
from tasks.freed import give_back
from tasks.gates import Baseline, gates
from tasks.planning import Planner
from tasks.preflight import Looked
from tasks.registry import BY_NAME, STAGES
from tasks.stage import Job, Settings
from tasks.subject import Subject

_SOUND: set[tuple[str, Settings, tuple[str, ...]]] = set()  # network, settings and jobs that were probed


@dataclass(frozen=True)
class Request:
    """What the command line, or a deployment, asks for.

    Args:
        file: the audit file.
        only: stages to run; what they need comes from the cache or runs too.
        refresh: stages to run even if they are done.
        workspace, device: instead of the file's.
        overrides: `dotted.key=value`.
        verify: whether every byte of the inputs and the finished stages is read first.
    """

    file: Path
    only: tuple[str, ...] = ()
    refresh: tuple[str, ...] = ()
    workspace: str | None = None
    device: str | None = None
    overrides: tuple[str, ...] = ()
    verify: bool = False


class Plan:
    """An audit file, understood. The data sets' tables are opened and hashed when the jobs are first asked for.

    Args:
        request: what is asked for.

    Raises:
        InputError: whatever is wrong with the audit file, or the choice of stages.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.audit: AuditModel = read_audit(request.file, request.overrides)
        self.base = request.file.resolve().parent
        refuse([fault] if (fault := name_fault(request.file.resolve())) else [])
        self.files: Files = open_workspace(request.workspace or self.audit.workspace, self._workspace_base)
        self._damaged: set[str] = set()
        check_places(self.audit, self.base, Path(self.files.location("")))
        self._check_stages([*request.only, *request.refresh])

    @property
    def _workspace_base(self) -> Path:
        """A workspace on the command line is relative to where the command runs, one in the file to the file."""
        return Path() if self.request.workspace else self.base

    @property
    def workspace(self) -> str:
        """What another process opens the same workspace by; it holds no credentials."""
        named = self.request.workspace or self.audit.workspace
        return named if named.startswith(BLOCK) else self.files.address

    @property
    def here(self) -> bool:
        """Whether this machine does the work: else its workers look at networks, and only they need a device."""
        return self.audit.execution.runner == "local"

    @cached_property
    def settings(self) -> Settings:
        """Seed, device and threads of every stage."""
        wanted = self.request.device or self.audit.device
        device = wanted if wanted == "cuda" and not self.here else device_of(wanted)
        return Settings(self.audit.seed, device, threads_of(self.audit))

    @cached_property
    def planner(self) -> Planner:
        """All jobs of the audit, planned by the stages themselves.

        Raises:
            InputError: a data set that cannot be opened, or stages that do not fit together.
        """
        audit = Planner(
            self.audit,
            self.audit.asked,
            base=self.base,
            files=self.files,
            settings=self.settings,
            reread=self.request.verify,
        )
        for stage in STAGES:
            options = self.audit.asked.get(stage.name)
            if stage.name == "gates" and self.audit.gates:
                gates(audit, self.audit.gates, self._baseline(audit))
            if stage.plan and options is not None:
                for job in stage.plan(audit, options):
                    audit.add(job)
        audit.digests.save()
        give_back()  # tables and digests of a large data set were hundreds of MB
        return audit

    @cached_property
    def jobs(self) -> list[Job]:
        """The wanted jobs, each after what it reads.

        Raises:
            InputError: see `planner`; or a stage that this audit does not run.
        """
        named, only = self.planner.jobs, self.request.only
        absent = [name for name in only if not any(job.called((name,)) for job in named.values())]
        if absent:
            raise InputError(f"--only: this audit does not run {absent[0]!r}{suggest(absent[0], list(named))}")
        ordered: dict[str, Job] = {}

        def visit(job: Job) -> None:
            for needed in job.jobs.values():
                visit(needed)
            ordered.setdefault(job.name, job)

        for job in named.values():
            if not only or job.called(only):
                visit(job)
        return list(ordered.values())

    @property
    def folders(self) -> list[str]:
        """Stage directories that the audit reads or writes."""
        earlier = (read for job in self.jobs for read in job.reads.values() if isinstance(read, Baseline))
        return [job.key.folder for job in self.jobs] + [
            folder for read in earlier for name in read.folders for folder in read.all(name)
        ]

    @property
    def anew(self) -> list[str]:
        """Stage directories that are made again even if they are done."""
        return [job.key.folder for job in self.jobs if job.called(self.request.refresh)]

    def missing(self) -> list[Job]:
        """Jobs that are not done, or are to be refreshed."""
        store = StageStore(self.files)
        again = [job for job in self.jobs if job.called(self.request.refresh) or job.key.folder in self._damaged]
        return [job for job in self.jobs if job in again or store.find(job.key) is None]

    def verify(self) -> None:
        """Read every byte of the audit's inputs and finished stages. What is damaged is said, and runs again."""
        store, shown = StageStore(self.files, warn), progress()
        shown.begin("verify", len(self.jobs), "stages")
        for job in self.jobs:
            if store.verify(job.key.folder):
                self._damaged.add(job.key.folder)
            shown.advance("verify", 1)
        shown.end("verify", f"{len(self.jobs)} stages read")
        for file in self.planner.digests.altered:
            warn(f"{file}: was altered, though its size and times stayed; what was made from it runs again")

    def job(self, stage: str) -> Job:
        """The job of a stage. Raises InputError if the audit does not have it."""
        for job in self.jobs:
            if job.name == stage:
                return job
        names = [job.name for job in self.jobs]
        raise InputError(f"stage: this audit does not run {stage!r}{suggest(stage, names)}")

    def preflight(self) -> None:
        """Load every network that a stage is to look at, find its layers and ask the stages. Raises InputError."""
        for looked in self.looked.values():
            self._look(looked)

    def probe(self) -> None:
        """The same, before the first stage spends time; and show the networks some pictures. Raises InputError.

        What was found sound in this process is not looked at again: the command looks before it starts Prefect, and
        the flow that it calls has a plan of its own.
        """
        for looked in self._looking().values():
            wanted = (looked.network.digest, self.settings, tuple(job.key.digest for job in looked.jobs))
            if wanted not in _SOUND:
                self._look(looked)
                looked.probe()
                _SOUND.add(wanted)

    def _look(self, looked: Looked) -> None:
        looked.check()
        self._check_gates(looked)
        for caution in looked.cautions:
            warn(caution)

    @cached_property
    def looked(self) -> Mapping[str, Looked]:
        """The networks that are to be loaded, by digest; each stays in memory once it was looked at."""
        return self._looking()

    def _looking(self) -> Mapping[str, Looked]:
        found: dict[str, tuple[Subject, list[Job]]] = {}
        for job in self.missing():
            for read in job.reads.values():
                if job.stage.network and isinstance(read, Subject):
                    found.setdefault(read.digest, (read, []))[1].append(job)
        return {digest: Looked(self.planner, network, jobs) for digest, (network, jobs) in found.items()}

    def _check_gates(self, looked: Looked) -> None:
        """The layers that gates name must be among those that are looked at. Raises InputError."""
        if looked.network.digest != self.planner.network.digest:
            return
        known = [*looked.own, *(LAYERS if self.planner.asked(FinetuningOptions) else ())]
        named = {n: str(gate.row["layer"]) for n, gate in enumerate(self.audit.gates) if "layer" in gate.row}
        wrong = {number: layer for number, layer in named.items() if layer not in known}
        rule = "layer: must be one that the audit looks at, got"
        refuse([f"gates.{number}.{rule} {layer!r}{suggest(layer, known)}" for number, layer in wrong.items()])

    def _check_stages(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name.partition(":")[0] not in BY_NAME]
        if unknown:
            raise InputError(f"stage: unknown stage {unknown[0]!r}{suggest(unknown[0], list(BY_NAME))}")

    def _baseline(self, audit: Planner) -> Baseline:
        """The runs to compare with: those that gates name, and the last finished one of the same audit."""
        wanted = {gate.baseline or "" for gate in self.audit.gates if gate.max_drop is not None}
        measuring = [name for name, job in audit.jobs.items() if job.stage.metrics]
        return Baseline({name: self._stages_of(name, measuring) for name in sorted(wanted)})

    def _stages_of(self, baseline: str, measuring: Sequence[str]) -> dict[str, str]:
        """Folders of a baseline's stages; of the last run, each from the last finished one that has the stage.

        A run that is named may also hold what others published: stages that fill the tables of those that measure.
        """
        store = RunStore(self.files)
        if baseline:
            found = store.find(baseline)
            if found is None:
                raise InputError(f"gates.baseline: no run {baseline!r} in this workspace; see `microtome runs`")
            runs, measuring = [found], [*measuring, *(stage.name for stage in STAGES if stage.fills)]
        else:
            runs = [run for run in store.all() if run.name == self.audit.name and run.finished]
        stages = {name: stage for run in runs for name, stage in run.stages.items()}
        return {name: str(stages[name]["folder"]) for name in measuring if name in stages}


def threads_of(audit: AuditModel) -> int:
    """Threads for computation: what an audit file says, else what this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return audit.execution.threads or usable


def device_of(wanted: str) -> str:
    """`cpu` or `cuda` for what an audit file says; torch is only asked where there is a driver to ask.

    Raises:
        InputError: CUDA was asked for, and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not Path("/dev/nvidiactl").exists() and os.name == "posix"):
        return "cpu"
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, got no CUDA device; use auto or cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"
