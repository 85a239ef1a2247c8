"""From an audit file to jobs: which stages it asks for, what each reads, which are done already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flows.auditfile import AuditModel, read_audit
from flows.dag import build
from flows.places import check_places
from microtome.errors import InputError, suggest
from microtome.networks.load import NetworkSpec, load_network
from storage import Files, StageStore, open_files
from storage.digests import FileDigests
from tasks.stage import Job
from tasks.stages import STAGES


@dataclass(frozen=True)
class Request:
    """What the command line, or a deployment, asks for.

    Args:
        file: the audit file.
        only: stages to run; what they need comes from the cache or runs too.
        refresh: stages to run even if they are done.
        workspace, device: instead of the file's.
        overrides: `dotted.key=value`.
    """

    file: Path
    only: tuple[str, ...] = ()
    refresh: tuple[str, ...] = ()
    workspace: str | None = None
    device: str | None = None
    overrides: tuple[str, ...] = ()


class Plan:
    """An audit file, understood: its jobs in the order in which they can run.

    Args:
        request: what is asked for.

    Raises:
        InputError: whatever is wrong with the audit file, the data set's tables or the choice of stages.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.audit: AuditModel = read_audit(request.file, request.overrides)
        self.base = request.file.resolve().parent
        try:
            self.files: Files = open_files(request.workspace or self.audit.workspace, self._workspace_base)
        except ValueError as error:
            raise InputError(str(error)) from error
        check_places(self.audit, self.base, Path(self.files.location("")))
        self.digests = FileDigests(self.files)
        self._check_stages([*request.only, *request.refresh])
        self.indices: dict[str, Job] = {}
        self.jobs = self._ordered()
        self.digests.save()

    @property
    def _workspace_base(self) -> Path:
        """A workspace on the command line is relative to where the command runs, one in the file to the file."""
        return Path() if self.request.workspace else self.base

    @cached_property
    def device(self) -> str:
        """`cpu` or `cuda`; torch is only asked where there is a driver to ask."""
        wanted = self.request.device or self.audit.device
        if wanted == "cpu" or (wanted == "auto" and not Path("/dev/nvidiactl").exists() and os.name == "posix"):
            return "cpu"
        import torch

        if wanted == "cuda" and not torch.cuda.is_available():
            raise InputError("device: cuda was asked for, got no CUDA device; use auto or cpu")
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def network(self) -> NetworkSpec:
        """Where the network comes from."""
        model = self.audit.network
        return NetworkSpec(model.load, model.arguments, model.weights, self.base, self.audit.seed)

    @cached_property
    def threads(self) -> int:
        """Threads for computation: what this process may use."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.audit.execution.threads or usable

    def missing(self) -> list[Job]:
        """Jobs that are not done, or are to be refreshed."""
        store = StageStore(self.files)
        return [job for job in self.jobs if job.called(self.request.refresh) or store.find(job.key) is None]

    def job(self, stage: str) -> Job:
        """The job of a stage. Raises InputError if the audit does not have it."""
        for job in self.jobs:
            if job.name == stage:
                return job
        names = [job.name for job in self.jobs]
        raise InputError(f"stage: this audit does not run {stage!r}{suggest(stage, names)}")

    def preflight(self) -> None:
        """Load the network and find its layers, before the first stage spends time. Raises InputError."""
        if not any(job.stage.name in ("activations", "finetuning", "tree") for job in self.missing()):
            return
        from microtome.networks import match_layers, walk

        module = load_network(self.network)
        walk(module, self.audit.network.input.size, match_layers(module, self.audit.network.layers))

    def _check_stages(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name.partition(":")[0] not in STAGES]
        if unknown:
            raise InputError(f"stage: unknown stage {unknown[0]!r}{suggest(unknown[0], list(STAGES))}")

    def _ordered(self) -> list[Job]:
        """The wanted jobs, each after what it reads."""
        named = build(self)
        only = self.request.only
        absent = [name for name in only if not any(job.called((name,)) for job in named.values())]
        if absent:
            raise InputError(f"--only: this audit does not run {absent[0]!r}{suggest(absent[0], list(named))}")
        wanted = [name for name, job in named.items() if not only or job.called(only)]
        ordered: dict[str, Job] = {}

        def visit(job: Job) -> None:
            for needed in job.inputs.values():
                visit(needed)
            ordered.setdefault(job.name, job)

        for name in wanted:
            visit(named[name])
        return list(ordered.values())
