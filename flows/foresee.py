"""What an audit would cost: bytes by arithmetic, time as last time, or by the pace of a few pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flows.migrated import kept_database
from flows.plan import Plan
from flows.run import server_configured
from microtome.networks.zoo import is_timm
from storage import StageStore
from tasks.activations import ActivationsOptions
from tasks.index import taken
from tasks.pace import Pace
from tasks.stage import Job
from tasks.subject import Subject

WORTHWHILE = 1.15  # times as fast, from which on another layout is advised
FIRST, START, BEGUN = 17, 10, 6
"""Seconds of an audit outside of its stages, on two idle cores: imports and the run's end; four more for a server of
its own where Prefect has none configured, and seven more for a database of that server's, the first time."""


@dataclass(frozen=True)
class Foreseen:
    """One stage of a plan, as text."""

    stage: str
    state: str
    size: str
    seconds: str


def foresee(plan: Plan) -> Iterator[Foreseen]:
    """What each stage of a plan would do."""
    missing, pace = {job.name for job in plan.missing()}, _pace(plan)
    if missing:
        yield _start()
    for job in plan.jobs:
        if job.name not in missing:
            yield Foreseen(job.name, "cached", "", "")
            continue
        size = _activation_bytes(plan, job) if isinstance(job.options, ActivationsOptions) else None
        told = f"{size / 1e6:.1f} MB" if size is not None else "small"
        yield Foreseen(job.name, "would run", told, _seconds(plan, job, pace))


def _start() -> Foreseen:
    if server_configured():
        return Foreseen("start", "", "", f"{BEGUN} (imports, your Prefect server)")
    seconds = START if kept_database().exists() else FIRST
    return Foreseen("start", "", "", f"{seconds} (imports, a Prefect server)")


def advice(plan: Plan) -> str:
    """A sentence about what would make the maps quicker here; empty where nothing is known to."""
    execution, maps = plan.audit.execution, [job for job in plan.missing() if job.stage.name == "activations"]
    looked = plan.looked.get(plan.planner.network.digest)
    if not maps or looked is None or execution.layout == "channels_last" or execution.engine == "compiled":
        return ""
    quicker = looked.quicker()
    if quicker < WORTHWHILE:
        return ""
    return (
        f"execution.layout: channels_last would make the forward pass {quicker:.1f} times as fast here; maps get other "
        "last bits, and are made anew"
    )


def noted(plan: Plan) -> Iterator[str]:
    """What a plan says of the network beside its costs: the preprocessing that was read, and the tokens set apart."""
    model = plan.audit.network
    if is_timm(model.load):
        own = ", ".join(model.input.given)
        source = f"timm's configuration{', but for ' + own if own else ''}"
        yield f"network.input: {plan.planner.input.words} ({source})"
    looked = plan.looked.get(plan.planner.network.digest)
    for layer in looked.layers if looked else ():
        if layer.apart:
            tokens = layer.apart + layer.grid[0] * layer.grid[1]
            yield (
                f"network.layers: {layer.name}: {layer.apart} of {tokens} tokens lie at no place of the picture (class "
                "token, registers): set apart, in no map"
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
    return forecast(job.options, layers, len(taken(index)))


def _pace(plan: Plan) -> Pace:
    """Of the network under audit, or of another one that is to be loaded; nothing where none is."""
    looked = [plan.looked[digest] for digest in plan.looked]
    own = [found for found in looked if found.network.digest == plan.planner.network.digest]
    return next((found.pace for found in own or looked), Pace(0))


def _seconds(plan: Plan, job: Job, pace: Pace) -> str:
    """As last time in this workspace; before that, by the pace of a few pictures."""
    last = _last_time(plan, job.stage.name)
    if last is not None:
        return f"{last:.0f} (as last time)"
    index = _index_of(job)
    here = replace(pace, pictures=len(taken(index)) if index else 0)
    return f"{job.stage.cost(job.options, here):.0f} (by a probe)"


def _index_of(job: Job) -> Job | None:
    """The nearest index that it reads, or what it reads reads; itself, if it is one."""
    if job.stage.name == "index":
        return job
    return next((found for found in map(_index_of, job.jobs.values()) if found), None)


def _last_time(plan: Plan, stage: str) -> float | None:
    """Seconds that the stage's latest run in this workspace took."""
    found = [manifest for _, manifest in StageStore(plan.files).finished(f"stages/{stage}")]
    return max(found, key=lambda manifest: manifest["started"])["seconds"] if found else None
