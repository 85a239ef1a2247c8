"""Many workers: the same bytes whoever does the shards, and whoever dies meanwhile; what is refused before any work."""

from pathlib import Path

import pytest

from flows.plan import Plan, Request
from flows.runners import carrying
from microtome.datasets.broden import write_broden
from microtome.datasets.creatures import Creatures
from storage import Artifact
from tasks.execution import execute
from tasks.session import Session
from tests.conftest import change_audit
from tests.test_pipeline import Silent


@pytest.fixture
def two_spans(audit_file, tmp_path):
    """An audit of so many pictures that every stage over pictures has two shards."""
    write_broden(Creatures(count=500, size=64, seed=5), tmp_path / "broden")
    change_audit(audit_file, dataset={"format": "broden", "root": str(tmp_path / "broden")})
    return audit_file


def carried(file: Path, workspace: str, *overrides: str) -> dict[str, Artifact]:
    """An audit in a workspace of its own, carried out by its runner."""
    more = (*overrides, "execution.threads=1", "stages.report=false")
    plan = Plan(Request(file, workspace=str(file.parent / workspace), overrides=more))
    session = Session(plan.files, plan.settings, Silent())
    with carrying(plan) as carry:
        return {job.name: execute(job, session, carry=carry)[0] for job in plan.jobs}


def contents(done: dict[str, Artifact]) -> dict[tuple[str, str], bytes]:
    """Every byte of every stage, by names that hold the stage's digest."""
    return {(artifact.folder, name): artifact.read(name) for artifact in done.values() for name in artifact.names()}


def test_the_same_bytes_and_names_whoever_does_the_work(two_spans):
    one = contents(carried(two_spans, "one"))
    assert contents(carried(two_spans, "many", "execution.processes=2")) == one
    assert contents(carried(two_spans, "dask", "execution.runner=dask", "execution.processes=2")) == one
