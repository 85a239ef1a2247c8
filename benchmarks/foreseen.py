"""Does a first `plan` foresee what an audit takes? Seconds foreseen and taken, stage by stage, for the examples.

    python benchmarks/foreseen.py [AUDIT.yaml ...]

Every audit is planned and run in a new workspace, in one process and on one thread. One JSON line per audit: stages
that took two seconds or more with seconds foreseen and taken, and the sums over all stages. What was taken is of the
processor, so that other work beside it does not count, and so is the probe of what was foreseen.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.dissection import device_name
from benchmarks.pages import Quiet
from flows.foresee import foresee
from flows.plan import Plan, Request
from tasks.execution import execute
from tasks.session import Session

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.yaml"))
WORTH = 2.0  # seconds, of stages that are told one by one


def main() -> None:
    """Print a line per audit."""
    torch.set_num_threads(1)
    for file in [Path(name) for name in sys.argv[1:]] or EXAMPLES:
        with tempfile.TemporaryDirectory() as workspace:
            plan = Plan(Request(file, workspace=workspace, overrides=("execution.threads=1",)))
            plan.preflight()
            foreseen = by_stage_foreseen(plan)
            taken = by_stage_taken(plan)
        print(json.dumps(_compared(file, foreseen, taken)), flush=True)


def by_stage_foreseen(plan: Plan) -> dict[str, float]:
    """Seconds by stage, variants together, as `plan` prints them."""
    stages = {job.name: job.stage.name for job in plan.jobs}
    found: dict[str, float] = {}
    for row in foresee(plan):
        if row.stage in stages:
            found[stages[row.stage]] = found.get(stages[row.stage], 0.0) + float(row.seconds.split()[0])
    return found


def by_stage_taken(plan: Plan, *, ended: Callable[[str], None] = lambda _: None) -> dict[str, float]:
    """Seconds of the processor, by stage; `ended` is told of each one's end."""
    session = Session(plan.files, plan.settings, Quiet())
    found: dict[str, float] = {}
    for job in plan.jobs:
        began = time.process_time()
        execute(job, session)
        found[job.stage.name] = found.get(job.stage.name, 0.0) + time.process_time() - began
        ended(job.stage.name)
    return found


def _compared(file: Path, foreseen: dict[str, float], taken: dict[str, float]) -> dict[str, object]:
    stages = {name: [foreseen[name], round(taken[name], 1)] for name in taken if taken[name] >= WORTH}
    sums = [sum(foreseen.values()), round(sum(taken.values()), 1)]
    line = {"audit": file.stem, "foreseen and of the processor, seconds": sums, "stages": stages}
    return line | {"device": device_name("cpu")}


if __name__ == "__main__":
    main()
