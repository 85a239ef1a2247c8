"""What the jobs of an audit would be called after a change to our code: planned anew, in a process that has imported
none of it before.

    python -P tests/planned.py AUDIT...        # with the folder of the changed packages first on PYTHONPATH

Reads JSON lines `[file, changed text]`, answers each with a JSON line: for every job what determines it as declared,
and its key; or, of code with which nothing can be planned, `null`. A fork of this process does the importing, so that
what is installed is imported once.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb  # noqa: F401
import numpy as np  # noqa: F401
import PIL.Image  # noqa: F401
import pyarrow.parquet as pq  # noqa: F401
import pydantic  # noqa: F401
import yaml  # noqa: F401


def planned(audits: list[str], workspace: str) -> dict[str, Any]:
    """What the jobs of audits are: by audit and name what their declarations say, and their key."""
    from flows.plan import Plan, Request

    jobs = {}
    for audit in audits:
        plan = Plan(Request(Path(audit), workspace=workspace))
        for job in plan.jobs:
            settings = plan.settings if job.stage.determined_by else None
            declared = {
                "options": job.options.model_dump(mode="json"),
                "tables": [str(table.schema) for table in job.stage.tables],
                "names": [table.name for table in job.stage.tables],
                "settings": [str(getattr(settings, name, "")) for name in sorted(job.stage.determined_by)],
                "threads": job.stage.threads,
                "reads": sorted(job.reads),
                "code": [*job.stage.roots, *job.roots, *job.stage.files],
            }
            reads = sorted(needed.name for needed in job.jobs.values())
            jobs[f"{Path(audit).stem} {job.name}"] = {
                "stage": job.stage.name,
                "declared": declared,
                "reads": reads,
                "key": job.key.digest,
            }
    return jobs


def answered(file: Path, changed: str, audits: list[str], workspace: str) -> str:
    """A line of JSON: the jobs after a change to a file, which is put back."""
    own = file.read_bytes()
    file.write_text(changed, encoding="utf-8")
    try:
        return _in_fork(audits, workspace)
    finally:
        file.write_bytes(own)


def _in_fork(audits: list[str], workspace: str) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with open(writing, "w", encoding="utf-8") as out, open(os.devnull, "w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            try:
                out.write(json.dumps(planned(audits, workspace)))
            except BaseException:  # whatever the change broke
                out.write("null")
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as said:
        line = said.read()
    os.waitpid(child, 0)
    return line


def read_all_code() -> None:
    """Parse our modules once, for all forks."""
    from microtome.closure import OURS, ROOT, closure

    files = [file.relative_to(ROOT) for package in OURS for file in (ROOT / package).rglob("*.py")]
    closure([".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files])


def main(*audits: str) -> None:
    """See the module."""
    read_all_code()
    with tempfile.TemporaryDirectory() as workspace:
        for line in sys.stdin:
            file, changed = json.loads(line)
            print(answered(Path(file), changed, list(audits), workspace), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
