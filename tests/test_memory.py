"""Batches that do not fit into memory: the stage begins again with half of them, and nothing finished is lost."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import microtome
from flows import pools, stages
from flows.again import until_it_fits
from flows.plan import Plan, Request
from flows.run import SHORT, StageFailed, carry_out
from flows.runners import carrying
from microtome import memory
from microtome.datasets.creatures import Creatures
from microtome.errors import InputError, OutOfMemory
from microtome.memory import fitting, let_go, ran_out
from microtome.networks.small import creature_net
from microtome.visualize import features
from storage import Artifact, RunStore, open_files
from tasks import freed
from tasks.execution import carried_out
from tasks.index import work
from tasks.session import Session
from tests.conftest import NETWORK, clean_environment, long_form, write_audit
from tests.test_imports import ROOT
from tests.test_pipeline import Silent

HUNGRY = """
class Hungry(nn.Module):
    def __init__(self, most):
        super().__init__()
        self.inner, self.most = tiny(), most

    def forward(self, x):
        if len(x) > self.most and x.any():  # geometry is found with a blank batch
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.inner(x)


def hungry(most):
    return Hungry(most).eval()
"""
WIDE = """
def wide():
    first = nn.Conv2d(3, 64, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(inplace=True), nn.AvgPool2d(16), nn.Conv2d(64, 4, 1)).eval()
"""
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def audit_of(folder: Path, most: int = 4, **more: object) -> Path:
    """Of a network that has room for so many pictures."""
    (folder / "nets_of_memory.py").write_text(NETWORK + HUNGRY)
    content = {
        "name": "hungry",
        "network": {
            "load": "nets_of_memory:hungry", "arguments": {"most": most}, "layers": ["inner.4"],
            "input": {"size": [32, 32]},
        },
        "dataset": {"format": "creatures", "count": 60, "size": 32},
        "stages": {"dissection": {"bootstrap": 10, "permutations": 5}, "report": False},
        "execution": {"threads": 1, **more},
    }  # fmt: skip
    return write_audit(folder / "audit.yaml", content)


def attempt(seen: list[tuple[str, int, bool]], plan: Plan) -> dict[str, Artifact]:
    """Carry an audit out without Prefect; notes each stage, its batch, and whether it was there."""
    session, done = Session(plan.files, plan.settings, Silent()), {}
    alone = plan.audit.execution.processes == 1  # then nobody looks at the network first
    with nullcontext(carried_out) if alone else carrying(plan) as carry:
        for job in plan.jobs:
            done[job.name], cached, _ = carry_out(job, session, refresh=False, carry=carry)
            seen.append((job.name, plan.audit.execution.batch, cached))
    return done


def fitted(file: Path, *overrides: str) -> tuple[dict[str, Artifact], list[tuple[str, int, bool]]]:
    seen: list[tuple[str, int, bool]] = []
    return until_it_fits(Plan(Request(file, overrides=overrides)), partial(attempt, seen)), seen


PROCESSES = pytest.param(("execution.processes=2",), marks=[pytest.mark.soak, long_form])


@pytest.mark.parametrize("how", [(), ("execution.storage=recompute",), PROCESSES])
def test_the_stage_begins_again_with_half_the_batch_and_what_is_finished_stays(tmp_path, capsys, how):
    file = audit_of(tmp_path)
    done, seen = fitted(file, *how)
    said = [line for line in capsys.readouterr().err.splitlines() if "fit into memory" in line]
    assert said == [
        f"execution.batch: {batch} at a time do not fit into memory; what depends on it begins again with {half}, by "
        f"other digests (write execution.batch: {half} into the audit file, and the next audit begins there)"
        for batch, half in ((16, 8), (8, 4))
    ]
    assert seen[:3] == [("index", 16, False), ("index", 8, True), ("index", 4, True)]
    assert all(not cached for _, batch, cached in seen[3:] if batch == 4)
    by_hand = Plan(Request(file, overrides=("execution.batch=4", *how)))
    assert [job.key.folder for job in by_hand.jobs] == [artifact.folder for artifact in done.values()]
    again, seen = fitted(file, *how)
    assert [cached for _, _, cached in seen] == [True] * len(seen)
    assert [found.digest for found in again.values()] == [found.digest for found in done.values()]


def test_batches_of_other_sizes_give_the_same_maps_but_for_rounding(tmp_path):
    found = []
    for batch in (48, 6, 1):
        file = audit_of(tmp_path, most=48, batch=batch)
        done, _ = fitted(file)
        found.append(done["thresholds"].table("thresholds").column("threshold").to_numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-7)


def test_one_at_a_time_that_does_not_fit_ends_the_audit(tmp_path, capsys):
    with pytest.raises(
        OutOfMemory, match=r"^execution\.batch: what is computed at a time must fit into memory, got 1, which"
    ):
        fitted(audit_of(tmp_path, most=0))
    assert capsys.readouterr().err.count("begins again with") == 4


@pytest.mark.parametrize("batch", [0, 5, 32, 96])
def test_a_batch_must_divide_what_is_stored_together(tmp_path, batch):
    with pytest.raises(InputError, match=r"execution\.batch"):
        Plan(Request(audit_of(tmp_path, batch=batch)))


def test_a_stage_without_a_batch_of_its_own_says_what_to_do(tmp_path, monkeypatch):
    plan = Plan(Request(audit_of(tmp_path)))
    monkeypatch.setattr("tasks.index.work._Indexer.__call__", raising)
    with pytest.raises(StageFailed, match=f"^stage index failed: {SHORT}$"):
        carry_out(plan.job("index"), Session(plan.files, plan.settings, Silent()), refresh=False)


def test_planes_too_large_for_one_array_of_binary_values_are_written_in_several(monkeypatch):
    drawn = [np.arange(24 * count, dtype=np.uint16).reshape(count, 4, 6) for count in (2, 0, 1)]
    framed = [work._Framed(planes, [0] * len(planes), [], [], [], {}) for planes in drawn]
    found = work._planes(framed)
    assert [value.as_py() for value in found] == [planes.astype("<u2").tobytes() for planes in drawn]
    monkeypatch.setattr(work, "_MOST_BYTES", 100)
    assert work._planes(framed).to_pylist() == found.to_pylist()


def raising(*_):
    raise CUDA


def test_units_whose_pictures_are_made_together_are_halved_too(monkeypatch, capsys):
    tried: list[int] = []

    def visualise(network, layer, units, recipe):
        tried.append(recipe.batch)
        return raising() if recipe.batch > 3 else features.visualise(network, layer, units, recipe)

    monkeypatch.setattr("tasks.features.work.visualise", visualise)
    more = {"layers": ["features.12"], "input": {"size": [96, 96]}, "units": 2, "steps": 2}
    made = microtome.features(creature_net(), Creatures(count=12, size=96, seed=3), **more)
    assert tried == [8, 4, 2]
    assert len(made.to_pandas()) == 2
    assert "stages.features.batch: 8 at a time do not fit into memory" in capsys.readouterr().err


@pytest.mark.soak
@long_form
def test_an_audit_goes_on_within_one_flow_run(tmp_path, command):
    file = audit_of(tmp_path)
    done = command("audit", file.name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("at a time do not fit into memory") == 2
    assert "out of memory" in done.stderr
    runs = RunStore(open_files(str(tmp_path / ".microtome"))).all()
    assert [(run.status, run.about["audit"]["execution"]["batch"]) for run in runs] == [
        ("failed", 16), ("failed", 8), ("done", 4),
    ]  # fmt: skip
    assert [name for name, stage in runs[-1].stages.items() if stage["cached"]] == ["index"]


def test_a_worker_of_a_pool_hands_it_to_its_coordinator(monkeypatch):
    """The state of the worker's flow run is all that the coordinator sees."""

    def hungry(*_):
        raise OutOfMemory("execution.batch", 16)

    monkeypatch.setattr(stages, "whole", hungry)
    state = stages.stage.fn("audit", "activations 0123")
    assert (state.name, state.is_failed()) == ("OutOfMemory", True)
    monkeypatch.setattr(pools, "run_deployment", lambda *_, **__: None)
    monkeypatch.setattr(pools, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(pools, "_ended", lambda *_: state)
    coordinator = pools.Pools.__new__(pools.Pools)
    coordinator._audit = "audit"
    with pytest.raises(OutOfMemory) as caught:
        coordinator._run("stage/gpu", "activations 0123", None)
    assert (caught.value.key, caught.value.batch) == ("execution.batch", 16)


REAL = """
import json, resource, sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from flows.again import until_it_fits
from flows.plan import Plan, Request
from tests.test_memory import attempt

plan, seen = Plan(Request(Path(sys.argv[1]))), []
plan.probe()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
until_it_fits(plan, partial(attempt, seen))
print(json.dumps({name: batch for name, batch, cached in seen if not cached}))
"""


@pytest.mark.soak
@long_form
def test_a_process_that_is_given_too_little_memory_goes_on_with_smaller_batches(tmp_path):
    """38 MB of a picture's first maps: 16 of them take more than the 400 MB that the process may still have."""
    (tmp_path / "nets_of_memory.py").write_text(NETWORK + WIDE)
    content = {
        "name": "wide",
        "network": {"load": "nets_of_memory:wide", "layers": ["3"], "input": {"size": [384, 384]}},
        "dataset": {"format": "creatures", "count": 20, "size": 32},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}, "report": False},
        "execution": {"threads": 1},
    }
    file = write_audit(tmp_path / "audit.yaml", content)
    call = [sys.executable, "-c", REAL, str(file)]
    environment = clean_environment(tmp_path) | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "execution.batch: 16 at a time do not fit into memory" in done.stderr
    made = json.loads(done.stdout)
    assert made["index"] == 16
    assert made["activations"] == made["dissection"] < 16


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CUDA, True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_of_memory_is_told_by(error, expected):
    assert ran_out(error) is expected
    with pytest.raises(OutOfMemory if expected else type(error)), fitting("execution.batch", 16):
        raise error


def test_it_goes_to_other_processes_as_it_is():
    error = OutOfMemory("execution.batch", 16)
    for other in (pickle.loads(pickle.dumps(error)), OutOfMemory.of(error.words)):
        assert (other.key, other.batch, other.faults) == (error.key, error.batch, error.faults)


def test_what_an_error_holds_is_let_go():
    class Held:
        alive = 0

        def __init__(self):
            Held.alive += 1

        def __del__(self):
            Held.alive -= 1

    def deep():
        held = Held()
        raise CUDA if held else ValueError

    with pytest.raises(OutOfMemory) as caught, fitting("execution.batch", 16):
        deep()
    assert Held.alive == 1
    let_go(caught.value)
    assert Held.alive == 0


FAULTS = """
import resource, sys
import numpy as np
from microtome.memory import keep_freed
if sys.argv[1] == "kept" and not keep_freed():
    sys.exit("not glibc")
def batch():
    for side in (3000, 4000, 2000):  # 36, 64 and 16 MB, as a network's layers take and free them
        np.ones((side, side), np.float32)
for _ in range(3):
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_that_is_kept_is_not_cleared_for_every_batch():
    cleared = {}
    for way in ("kept", "as it is"):
        plain = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # as torch takes memory
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, cwd=ROOT, env=plain)
        if "not glibc" in done.stderr:
            pytest.skip("the C library is not glibc")
        cleared[way] = int(done.stdout)
    assert cleared["kept"] < 2_000  # pages; a single batch has 28,000
    assert cleared["as it is"] > 50_000


def test_memory_is_left_alone_where_the_library_is_another(monkeypatch: pytest.MonkeyPatch):
    class Musl:
        def mallopt(self, name: int, value: int) -> int:
            raise AssertionError("not glibc's")

        malloc_trim = mallopt

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: Musl())
    memory.keep_freed.cache_clear()
    try:
        assert not memory.keep_freed()
        memory.trim()
    finally:
        memory.keep_freed.cache_clear()


def test_what_pyarrow_keeps_is_given_back_too(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    pool = SimpleNamespace(release_unused=lambda: asked.append("release"))
    monkeypatch.setattr(freed.pa, "default_memory_pool", lambda: pool)
    monkeypatch.setattr(freed, "trim", lambda: asked.append("trim"))
    freed.give_back()
    assert asked == ["release", "trim"]
