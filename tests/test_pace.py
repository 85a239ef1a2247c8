"""Seconds that a first `plan` foresees: the arithmetic, and that every stage's cost is of its own options."""

import shutil
from dataclasses import replace

import pytest

from flows.plan import Plan, Request
from tasks.pace import Pace
from tasks.registry import BY_NAME
from tests.conftest import change_audit, every_stage, write_audit

PACE = Pace(100, units=8, values=800, size=(30, 60), read=0.5, annotate=0.25, forward=2.0)


def test_what_a_pace_says():
    assert PACE.shown(10) == 10 * (0.5 + 2)
    assert PACE.passes(10) == 10 * 2
    assert PACE.gradients(10) == 10 * 3 * 2
    assert PACE.places(3) == 10 * 20


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return Plan(Request(every_stage(tmp_path_factory.mktemp("every")))).jobs


def test_every_stage_of_an_audit_foresees_what_it_takes(jobs):
    """More of whatever there is never takes less, and only gates are for nothing."""
    assert {job.stage.name for job in jobs} == set(BY_NAME) - {"drift"}
    for job in jobs:
        cost = job.stage.cost(job.options, PACE)
        assert cost > 0 or job.stage.name == "gates"
        for name in ("pictures", "units", "values", "read", "annotate", "forward"):
            assert job.stage.cost(job.options, replace(PACE, **{name: 3 * getattr(PACE, name)})) >= cost


def test_what_is_measured_is_of_the_network_and_the_pictures(tmp_path, broden, audit_file):
    """A layer that sleeps 20 ms for each picture is seen to, and so are the units and values of the layer looked at."""
    (tmp_path / "slow.py").write_text(
        "import time, nets\n"
        "from torch import nn\n"
        "class Sleep(nn.Module):\n"
        "    def forward(self, x):\n"
        "        time.sleep(0.02 * len(x))\n"
        "        return x\n"
        "def slow():\n"
        "    return nn.Sequential(*nets.tiny(), Sleep())\n"
    )
    network = {"load": "slow:slow", "layers": ["4"], "input": {"size": [64, 64]}}
    data = {"format": "broden", "root": str(broden)}
    plan = Plan(Request(write_audit(tmp_path / "slow.yaml", {
        "name": "slow", "network": network, "dataset": data, "stages": {"dissection": {}},
    })))  # fmt: skip
    (looked,) = plan.looked.values()
    assert (looked.pace.units, looked.pace.values, looked.pace.size) == (12, 12 * 16 * 16, (64, 64))
    assert looked.pace.forward >= 0.02
    assert 0 < looked.pace.read < looked.pace.forward
    assert looked.pace.annotate > 0


def test_pictures_that_cannot_be_read_are_left_to_the_index(tmp_path, broden, audit_file):
    shutil.copytree(broden, tmp_path / "broken")
    for file in (tmp_path / "broken/images").iterdir():
        file.write_bytes(b"no picture")
    change_audit(audit_file, dataset={"format": "broden", "root": str(tmp_path / "broken")})
    (looked,) = Plan(Request(audit_file)).looked.values()
    assert (looked.pace.read, looked.pace.annotate, looked.pace.forward) == (0.0, 0.0, 0.0)
    assert looked.pace.units == 12
