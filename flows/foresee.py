"""What an audit would cost: bytes by arithmetic, time by what the stage took before in this workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flows.plan import Plan
from tasks.stage import Job


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
        known = job.stage.name == "activations" and "finetuned" not in job.inputs
        size = _activation_bytes(plan, job) if known else None
        seconds = _last_time(plan, job.stage.name)
        yield Foreseen(
            job.name,
            "would run",
            f"{size / 1e6:.1f} MB" if size is not None else "small",
            f"{seconds:.0f} (as last time)" if seconds is not None else "not known yet",
        )


def _activation_bytes(plan: Plan, job: Job) -> int:
    from microtome.networks import load_network, match_layers, walk
    from tasks.index import chosen_images

    model = plan.audit.network
    module = load_network(plan.network)
    layers = walk(module, model.input.size, match_layers(module, model.layers))
    images = len(chosen_images(job.reach["dataset"](), job.parameters))
    values = sum(layer.units * layer.grid[0] * layer.grid[1] for layer in layers)
    return images * values * np.dtype(plan.audit.execution.precision).itemsize


def _last_time(plan: Plan, stage: str) -> float | None:
    """Seconds that the stage's latest run in this workspace took."""
    manifests = [name for name in plan.files.names(f"stages/{stage}") if name.endswith("/manifest.json")]
    found = [json.loads(plan.files.read(name)) for name in manifests]
    return max(found, key=lambda manifest: manifest["started"])["seconds"] if found else None
