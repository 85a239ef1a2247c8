"""Seconds that a first `plan` foresees: the arithmetic, and that every stage's cost is of its own options."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from flows.plan import Plan, Request
from microtome.visualize.faithfulness import RANDOM_ORDERS, STEPS
from microtome.visualize.methods import methods
from microtome.visualize.names import METHODS, MORE_THAN_ONCE
from microtome.visualize.reliability import shifts
from tasks.pace import Pace
from tasks.preflight import _shown
from tasks.registry import BY_NAME
from tasks.reliability import SHIFTS
from tasks.saliency import RIVALS, TRIED, maps_cost
from tasks.saliency.work import CONTROLS
from tests.conftest import change_audit, every_stage, write_audit

PACE = Pace(100, concepts=20, units=8, values=800, size=(30, 60), fields=(7, 50), read=0.5, annotate=0.25, forward=2.0)


def test_what_a_pace_says():
    assert PACE.shown(10) == 10 * (0.5 + 2)
    assert PACE.passes(10) == 10 * 2
    assert PACE.gradients(10) == 10 * 3 * 2
    assert PACE.layers == 2
    assert PACE.touching(5, 3) == (12 * 12 + 30 * 55) / 9  # a field is no larger than the picture


def test_passes_of_saliency_are_those_that_it_makes():
    assert TRIED == 2 * (STEPS + 1)
    assert len(CONTROLS) + RANDOM_ORDERS == RIVALS
    assert len(shifts((4, 4), [0.5] * 3, [0.2] * 3, seed=0)) == SHIFTS
    assert set(MORE_THAN_ONCE) < set(METHODS)
    assert maps_cost(["rise", "smoothgrad"], PACE) == 500 * 2 + 16 * 3 * 2
    seen = []
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    for name in ("smoothgrad", "integrated gradients", "rise", "gradient", "guided"):
        seen.clear()
        methods()[name](network, torch.rand(1, 3, 8, 8), torch.tensor([1]))
        assert sum(seen) == sum(MORE_THAN_ONCE.get(name, (0, 1))), name


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return Plan(Request(every_stage(tmp_path_factory.mktemp("every")))).jobs


def test_every_stage_of_an_audit_foresees_what_it_takes(jobs):
    """More of whatever there is never takes less, and only gates are for nothing."""
    assert {job.stage.name for job in jobs} == set(BY_NAME) - {"drift", "imported"}  # of two networks; of a file
    for job in jobs:
        cost = job.stage.cost(job.options, PACE)
        assert cost > 0 or job.stage.name == "gates"
        for name in ("pictures", "concepts", "units", "values", "read", "annotate", "forward"):
            assert job.stage.cost(job.options, replace(PACE, **{name: 3 * getattr(PACE, name)})) >= cost


def test_what_is_measured_is_of_the_network_and_the_pictures(tmp_path, broden, audit_file):
    """A layer that works 20 ms for each picture is seen to, and so are the units and values of the layer looked at."""
    (tmp_path / "slow.py").write_text(
        "import time, nets\n"
        "from torch import nn\n"
        "class Slow(nn.Module):\n"
        "    def forward(self, x):\n"
        "        end = time.thread_time() + 0.02 * len(x)\n"
        "        while time.thread_time() < end:\n"
        "            pass\n"
        "        return x\n"
        "def slow():\n"
        "    return nn.Sequential(*nets.tiny(), Slow())\n"
    )
    network = {"load": "slow:slow", "layers": ["4"], "input": {"size": [64, 64]}}
    data = {"format": "broden", "root": str(broden)}
    plan = Plan(Request(write_audit(tmp_path / "slow.yaml", {
        "name": "slow", "network": network, "dataset": data, "stages": {"dissection": {}},
    })))  # fmt: skip
    (looked,) = plan.looked.values()
    assert (looked.pace.units, looked.pace.values, looked.pace.size) == (12, 12 * 16 * 16, (64, 64))
    assert looked.pace.fields == (15,)
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


def test_a_picture_that_cannot_be_read_is_passed_over_for_the_next(tmp_path, broden, audit_file):
    """So that it does not hide what is wrong with the network."""
    shutil.copytree(broden, tmp_path / "broken")
    first, *rest = sorted((tmp_path / "broken/images").rglob("*.*"))
    first.write_bytes(b"no picture")
    change_audit(audit_file, dataset={"format": "broden", "root": str(tmp_path / "broken")})
    (looked,) = Plan(Request(audit_file)).looked.values()
    ((source, images), _) = _shown(looked.jobs)
    assert images == [1, 2]
    assert source.dataset.picture_file(source.chosen[1]).name in {file.name for file in rest}
    assert looked.pace.forward > 0
