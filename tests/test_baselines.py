"""Gates that compare with an earlier run."""

import shutil
from pathlib import Path

import pytest

from flows.plan import Plan, Request
from microtome.errors import InputError
from storage import RunStore
from tests.conftest import change_audit
from tests.test_readonly import audited


@pytest.fixture
def compared(audit_file) -> Path:
    """An audit that may find ten per cent fewer detectors than the last time, after it was done once."""
    stages = {"dissection": {"bootstrap": 0, "permutations": 0, "min_iou": 0.001}, "report": False}
    change_audit(audit_file, stages=stages, gates=[{"metric": "layers.detectors", "max_drop": 0.1}])
    audited(audit_file)
    return audit_file


OTHER = "network.arguments={seed: 1}"


def test_a_drop_is_measured_against_the_last_run(compared):
    store = RunStore(Plan(Request(compared)).files)
    assert store.find().gates[0]["note"] == "judged nothing: there is no earlier run to compare with"
    audited(compared, OTHER)
    assert store.find().gates[0]["note"].startswith("before: ")


def test_a_baseline_that_is_gone_is_not_a_gate_that_passed(compared):
    files = Plan(Request(compared)).files
    shutil.rmtree(files.location(RunStore(files).find().stages["dissection"]["folder"]))
    with pytest.raises(InputError, match=r"gates.baseline: must still have its figures, got a run whose stages/diss"):
        audited(compared, OTHER)
    audited(compared)  # the same again, which makes the figures anew
    audited(compared, OTHER)
