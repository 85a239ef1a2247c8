"""What an audit would cost: bytes by arithmetic, time by what the stage took before in this workspace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flows.plan import Plan
from microtome.datasets.base import chosen
from storage import StageStore
from tasks.activations import ActivationsOptions
from tasks.data import DataSpec
from tasks.index import IndexOptions
from tasks.stage import Job
from tasks.subject import Subject


@dataclass(frozen=True)
class Foreseen:
    """One stage of a plan, as text."""

    stage: str
    state: str
    size: str
    seconds: str


def foresee(plan: Plan) -> Iterator[Foreseen]:
    """What each stage of a plan would do."""
    missing = {job.name for job in plan.missing()}
    for job in plan.jobs:
        if job.name not in missing:
            yield Foreseen(job.name, "cached", "", "")
            continue
        size = _activation_bytes(plan, job) if isinstance(job.options, ActivationsOptions) else None
        yield Foreseen(
            job.name, "would run", f"{size / 1e6:.1f} MB" if size is not None else "small", _seconds(plan, job)
        )


def _activation_bytes(plan: Plan, job: Job) -> int | None:
    """Of a network that is there; of one that is still to be trained nobody knows."""
    index, network = job.reads["index"], job.reads.get("network")
    if not (isinstance(network, Subject) and isinstance(index, Job) and isinstance(job.options, ActivationsOptions)):
        return None
    from microtome.networks import match_layers
    from tasks.activations.work import forecast

    looked = plan.looked[network.digest]
    wanted = match_layers(looked.module, job.options.layers)
    layers = [layer for layer in looked.layers if layer.name in wanted]
    return forecast(job.options, layers, _pictures(index))


def _pictures(index: Job) -> int:
    data, options = index.reads["data"], index.options
    if not isinstance(data, DataSpec) or not isinstance(options, IndexOptions):
        return 0
    records = data.place.open().records
    return len(chosen(records, split=options.split, categories=options.categories, limit=options.limit))


def _seconds(plan: Plan, job: Job) -> str:
    """As last time in this workspace; before that, by what the stage weighs."""
    last = _last_time(plan, job.stage.name)
    if last is not None:
        return f"{last:.0f} (as last time)"
    index = job.reads.get("index", job)
    if job.stage.weight is None or not isinstance(index, Job) or index.stage.name != "index":
        return "not known yet"
    return f"{job.stage.weight * _pictures(index):.0f} (a guess)"


def _last_time(plan: Plan, stage: str) -> float | None:
    """Seconds that the stage's latest run in this workspace took."""
    found = [manifest for _, manifest in StageStore(plan.files).finished(f"stages/{stage}")]
    return max(found, key=lambda manifest: manifest["started"])["seconds"] if found else None
