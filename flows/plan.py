"""From an audit file to jobs: which stages it asks for, what each reads, which are done already."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from flows.auditfile import AuditModel, DatasetModel, read_audit
from microtome.datasets import Frame, open_dataset
from microtome.errors import InputError, suggest
from microtome.importing import code_version
from microtome.networks.load import NetworkSpec, load_network
from storage import Files, RunStore, StageStore, open_files
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
        self.digests = FileDigests(self.files)
        self._check_stages([*request.only, *request.refresh])
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
        return [job for job in self.jobs if job.name in self.request.refresh or store.find(job.key) is None]

    def job(self, stage: str) -> Job:
        """The job of a stage. Raises InputError if the audit does not have it."""
        for job in self.jobs:
            if job.name == stage:
                return job
        names = [job.name for job in self.jobs]
        raise InputError(f"stage: this audit does not run {stage!r}{suggest(stage, names)}")

    def preflight(self) -> None:
        """Load the network and find its layers, before the first stage spends time. Raises InputError."""
        if not any(job.name == "activations" for job in self.missing()):
            return
        from microtome.networks import match_layers, walk

        module = load_network(self.network)
        walk(module, self.audit.network.input.size, match_layers(module, self.audit.network.layers))

    def _check_stages(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in STAGES]
        if unknown:
            raise InputError(f"stage: unknown stage {unknown[0]!r}{suggest(unknown[0], list(STAGES))}")

    def _ordered(self) -> list[Job]:
        """The wanted jobs, each after what it reads."""
        named = build(self)
        wanted = self.request.only or tuple(named)
        absent = [name for name in wanted if name not in named]
        if absent:
            raise InputError(f"--only: this audit does not run {absent[0]!r}{suggest(absent[0], list(named))}")
        ordered: dict[str, Job] = {}

        def visit(job: Job) -> None:
            for needed in job.inputs.values():
                visit(needed)
            ordered.setdefault(job.name, job)

        for name in wanted:
            visit(named[name])
        return list(ordered.values())


def build(plan: Plan) -> dict[str, Job]:
    """The DAG: every stage that the audit asks for, and what it reads."""
    audit = plan.audit
    jobs: dict[str, Job] = {}
    if audit.stages.dissection:
        jobs |= _dissection(plan)
    if audit.gates:
        if "dissection" not in jobs:
            raise InputError("gates: need stages.dissection, got none")
        jobs["gates"] = _gates(plan, jobs["dissection"])
    if not jobs:
        raise InputError("stages: must ask for at least one stage, got none")
    if audit.stages.report:
        jobs["report"] = _report(plan, jobs)
    return jobs


def _dissection(plan: Plan) -> dict[str, Job]:
    options, execution = plan.audit.stages.dissection, plan.audit.execution
    if options is None:
        return {}
    index = _index(plan, options.dataset)
    reach = {
        **index.reach,
        "network": partial(load_network, plan.network),
        "input": plan.audit.network.input.model_dump(),
        "shard_images": execution.shard_images,
        "compression": execution.storage,
    }
    subset = {name: index.parameters[name] for name in ("split", "limit")}
    activations = Job(
        STAGES["activations"],
        {"layers": plan.audit.network.layers, "precision": execution.precision, "device": plan.device, **subset},
        {"index": index},
        {
            "network": plan.network.digest(plan.digests.of),
            "scale": json.dumps([plan.audit.network.input.mean, plan.audit.network.input.std]),
            "torch": importlib.metadata.version("torch"),
        },
        reach,
    )
    seen = {"index": index, "activations": activations}
    keep = max(0.01, options.tail)
    thresholds = Job(STAGES["thresholds"], {"keep": keep}, seen, reach=reach)
    lighting = {"tail": options.tail, "align": options.align, "inclusive": options.inclusive}
    all_images = {"all_images": options.denominator == "all-images"}
    seen = {**seen, "thresholds": thresholds}
    tally = Job(STAGES["tally"], {**lighting, **all_images}, seen, reach=reach)
    seen = {**seen, "tally": tally}
    chance = {"permutations": options.permutations, "seed": plan.audit.seed}
    jobs = {"index": index, "activations": activations, "thresholds": thresholds, "tally": tally}
    if options.permutations:
        jobs["null"] = Job(STAGES["null"], {**lighting, **all_images, **chance}, seen, reach=reach)
        seen = {**seen, "null": jobs["null"]}
    summary = {"tail": options.tail, "min_iou": options.min_iou, "bootstrap": options.bootstrap}
    jobs["dissection"] = Job(STAGES["dissection"], {**summary, **all_images, **chance}, seen, reach=reach)
    return jobs


def _index(plan: Plan, name: str) -> Job:
    named = plan.audit.named_datasets
    if name not in named:
        raise InputError(f"stages.dissection.dataset: no data set {name!r}{suggest(name, list(named))}")
    model = named[name]
    size = plan.audit.network.input
    frame = Frame(size.size, size.resize, model.crop, model.crop_margin, model.mask_size)
    root = plan.base / model.root if model.root else None
    opener = partial(open_dataset, model.format, root, model.options, base=plan.base)
    parameters = {
        "frame": [frame.size, frame.resize, frame.crop, frame.margin, frame.masks],
        "split": model.split,
        "limit": model.limit,
    }
    content = {"dataset": _dataset_digest(plan, model, root, opener)}
    return Job(STAGES["index"], parameters, content=content, reach={"dataset": opener, "frame": frame})


def _dataset_digest(plan: Plan, model: DatasetModel, root: Path | None, opener: Any) -> str:
    """Digest of a data set by content: its files, its options, and the code of a format of the user's own."""
    code = code_version(model.format.partition(":")[0], plan.base) if ":" in model.format else ""
    digest = hashlib.sha256(json.dumps([model.format, code, model.options], sort_keys=True, default=str).encode())
    for file in opener().files():
        name = file.relative_to(root).as_posix() if root and file.is_relative_to(root) else file.name
        digest.update(f"{name}\0{plan.digests.of(file)}\0".encode())
    return digest.hexdigest()


def _gates(plan: Plan, dissection: Job) -> Job:
    gates = [gate.model_dump() for gate in plan.audit.gates]
    folder = _baseline(plan) if any(gate["max_drop"] for gate in gates) else None
    content = {"baseline": folder or "none"}
    return Job(STAGES["gates"], {"gates": gates}, {"dissection": dissection}, content, {"baseline_folder": folder})


def _baseline(plan: Plan) -> str | None:
    """The dissection of the run to compare with: the named one, else the last of the same audit."""
    named = {gate.baseline for gate in plan.audit.gates if gate.baseline}
    if len(named) > 1:
        raise InputError(f"gates.baseline: must be one run for all gates, got {', '.join(sorted(named))}")
    run_id = next(iter(named), None)
    run = RunStore(plan.files).find(run_id or plan.audit.name)
    if run is None and run_id:
        raise InputError(f"gates.baseline: no run {run_id!r} in this workspace; see `microtome runs`")
    stage = run.stages.get("dissection") if run else None
    return str(stage["folder"]) if stage else None


def _report(plan: Plan, jobs: Mapping[str, Job]) -> Job:
    options = plan.audit.stages.report
    if options is None:
        raise InputError("stages.report: is not asked for")
    audit = plan.audit.model_dump(mode="json", exclude={"execution", "workspace"}, exclude_none=True)
    return Job(
        STAGES["report"],
        {"top_images": options.top_images, "audit": audit},
        dict(jobs),
        reach=jobs["dissection"].reach if "dissection" in jobs else {},
    )
