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
from tasks.index import concepts, taken
from tasks.pace import Pace
from tasks.stage import Job
from tasks.subject import Subject

WORTHWHILE = 1.15  # times as fast, from which on another layout is advised
LONG = 10.0  # seconds of forward passes, from which on it is asked whether another layout is quicker
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
    sizes = {maps.name: f"{maps.size / 1e6:.1f} MB" for maps in _maps(plan) if not maps.again}
    if missing:
        yield _start()
    for job in plan.jobs:
        if job.name not in missing:
            yield Foreseen(job.name, "cached", "", "")
            continue
        yield Foreseen(job.name, "would run", sizes.get(job.name, "small"), _seconds(plan, job, pace))


def _start() -> Foreseen:
    if server_configured():
        return Foreseen("start", "", "", f"{BEGUN} (imports, your Prefect server)")
    seconds = START if kept_database().exists() else FIRST
    return Foreseen("start", "", "", f"{seconds} (imports, a Prefect server)")


def told(plan: Plan) -> Iterator[str]:
    """What a plan says beside its costs, in sentences."""
    yield from _noted(plan)
    yield from _room(plan)
    yield from _quicker(plan)


def _quicker(plan: Plan) -> Iterator[str]:
    """What would make the maps quicker here, where they take long enough to ask."""
    execution, looked = plan.audit.execution, plan.looked.get(plan.planner.network.digest)
    if looked is None or execution.layout == "channels_last" or execution.engine == "compiled":
        return
    pictures = sum(maps.images for maps in _maps(plan))
    if looked.pace.passes(pictures) < LONG or (quicker := looked.quicker()) < WORTHWHILE:
        return
    yield (
        f"execution.layout: channels_last would make the forward pass {quicker:.1f} times as fast here; maps get other "
        "last bits, and are made anew"
    )


def _noted(plan: Plan) -> Iterator[str]:
    """Of the network: the preprocessing that was read, and the tokens set apart."""
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


def _room(plan: Plan) -> Iterator[str]:
    """About each job whose maps do not fit on the disk beside those before it."""
    for maps in _maps(plan):
        if maps.fit or maps.storage == "recompute":
            continue
        from tasks.activations.work import AGAIN_WORDS, without_room

        words = f"{maps.name}: {without_room(maps.images, maps.size, maps.room)}"
        spent = _pace(plan).shown(maps.images) * maps.layers
        more = f"{AGAIN_WORDS}, in some {spent:.0f} s each" if maps.again else "use execution.storage: recompute"
        yield f"{words}; {more}"


@dataclass(frozen=True)
class _MapsForeseen:
    """Maps that are going to be made.

    Args:
        name: of the job.
        storage: as the audit file says.
        images: how many pictures.
        layers: how many layers.
        size: bytes, uncompressed.
        room: bytes that are free for them; None where there is no limit to know.
    """

    name: str
    storage: str
    images: int
    layers: int
    size: int
    room: int | None

    @property
    def fit(self) -> bool:
        """Whether there is room to store them."""
        from tasks.activations.work import fits

        return fits(self.size, self.room)

    @property
    def again(self) -> bool:
        """Whether they would be made again by whoever reads them."""
        return self.storage == "recompute" or (self.storage == "auto" and not self.fit)


def _maps(plan: Plan) -> list[_MapsForeseen]:
    """Of networks that are there; of one that is still to be trained nobody knows."""
    found, free = list[_MapsForeseen](), plan.files.free()
    for job in plan.missing():
        index, network = job.reads.get("index"), job.reads.get("network")
        if not (
            isinstance(job.options, ActivationsOptions) and isinstance(index, Job) and isinstance(network, Subject)
        ):
            continue
        from microtome.networks import match_layers
        from tasks.activations.work import forecast

        looked, images = plan.looked[network.digest], len(taken(index))
        wanted = match_layers(looked.module, job.options.layers)
        layers = [layer for layer in looked.layers if layer.name in wanted]
        size, storage = forecast(job.options, layers, images), job.options.storage
        maps = _MapsForeseen(job.name, storage, images, len(layers), size, free)
        free = free if free is None or maps.again else free - maps.size
        found.append(maps)
    return found


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
    if index is not None:
        pace = replace(pace, pictures=len(taken(index)), concepts=concepts(index))
    return f"{job.stage.cost(job.options, pace):.0f} (by a probe)"


def _index_of(job: Job) -> Job | None:
    """The nearest index that it reads, or what it reads reads; itself, if it is one."""
    if job.stage.name == "index":
        return job
    return next((found for found in map(_index_of, job.jobs.values()) if found), None)


def _last_time(plan: Plan, stage: str) -> float | None:
    """Seconds that the stage's latest run in this workspace took."""
    found = [manifest for _, manifest in StageStore(plan.files).finished(f"stages/{stage}")]
    return max(found, key=lambda manifest: manifest["started"])["seconds"] if found else None
