"""Which runs of two audits to set beside each other, where only the audits are named."""

from __future__ import annotations

import json
from collections.abc import Sequence

from flows.console import warn
from storage import Files, RunRecord, RunStore


def matching(files: Files, runs: tuple[RunRecord, RunRecord], wanted: tuple[str, str]) -> tuple[RunRecord, RunRecord]:
    """The latest two runs that looked at the same pictures in the same way; where one is not the latest, that is said.

    A run that was named by its id stays. So do the latest ones where no two match: what then differs is told, or why
    they are refused.

    Args:
        files: the workspace.
        runs: the latest of what was wanted.
        wanted: ids of runs, or names of audits.
    """
    if runs[0].name == runs[1].name or _looked(runs[0]) == _looked(runs[1]):
        return runs
    every = RunStore(files).all()
    one, two = (_by_look(every, run) if name == run.name else {_looked(run): (0, run)}
                for run, name in zip(runs, wanted, strict=True))  # fmt: skip
    common = sorted((one[look][0] + two[look][0], look) for look in one.keys() & two.keys())
    if not common:
        return runs
    look = common[0][1]
    found = one[look][1], two[look][1]
    for run, latest in zip(found, runs, strict=True):
        if run.run_id != latest.run_id:
            warn(
                f"of {run.name} the run {run.run_id} is compared: the latest, {latest.run_id}, looked at other "
                "pictures than the other audit's, or had another seed or other options; its id compares it anyway"
            )
    return found


def _by_look(every: Sequence[RunRecord], latest: RunRecord) -> dict[str, tuple[int, RunRecord]]:
    """An audit's finished runs by how they looked, of each way the newest: how many are newer still, and the run."""
    mine = [run for run in every if run.name == latest.name and run.finished]
    return {_looked(run): (age, run) for age, run in reversed(list(enumerate(reversed(mine))))}


def _looked(run: RunRecord) -> str:
    """How a run looked, as text: folders of its pictures, named by content; its seed; its options of a dissection."""
    audit = run.about.get("audit", {})
    pictures = sorted(stage["folder"] for name, stage in run.stages.items() if name.partition(":")[0] == "index")
    return json.dumps([pictures, audit.get("seed"), audit.get("stages", {}).get("dissection")], sort_keys=True)
