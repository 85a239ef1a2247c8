"""Maps that are not stored: made again by whoever reads them, with the same bits, and so the same tables and names."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flows.foresee import foresee
from flows.foresee import told as sentences
from flows.plan import Plan, Request
from flows.runners import carrying
from microtome.errors import InputError, Interrupted
from storage import Artifact
from tasks.activations.making import Maker
from tasks.activations.result import AGAIN, Maps
from tasks.execution import InHand, execute, result_of
from tasks.session import Session
from tests.conftest import NETWORK, every_stage, long_form, soak, write_audit
from tests.test_engine import compiles
from tests.test_pipeline import Silent, moved, run

RECOMPUTE = "execution.storage=recompute"
SLOW = ("finetuning", "tree", "saliency", "features", "occlusion", "reliability", "adversarial", "ablation", "formulas")
UNLIKE = ("cover.json", "cover.webp")  # a picture of the first page, which tells when the audit was


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An audit, at length with every stage there is, maps stored and recomputed: artifacts by job."""
    file = every_stage(tmp_path_factory.mktemp("recomputed"))
    short = [*(f"stages.{stage}=false" for stage in SLOW), "datasets.birds.count=80"]
    few = soak(short, ["datasets.birds.count=200"])
    return {
        way: run(file, *few, f"workspace={way}", f"execution.storage={way}", progress=Silent())
        for way in ("none", "recompute")
    }


def tables(artifact: Artifact) -> dict[str, bytes]:
    """Every file of a stage but its pages."""
    return {name: artifact.read(name) for name in artifact.names() if not name.endswith(".html") and name not in UNLIKE}


@pytest.mark.soak
def test_a_whole_audit_has_the_same_tables_byte_for_byte(whole):
    stored, made = whole["none"], whole["recompute"]
    assert [found.folder for found, _ in made.values()] == [found.folder for found, _ in stored.values()]
    compared = Counter[str]()
    for name, (artifact, _) in stored.items():
        if artifact.manifest["stage"] != "activations":
            found = tables(made[name][0])
            assert list(found) == list(tables(artifact)), name
            assert [file for file, content in tables(artifact).items() if found[file] != content] == [], name
            compared[artifact.manifest["stage"]] += len(found)
    assert len(compared) >= soak(12, 20)


def test_geometry_and_digests_are_all_that_is_stored(whole):
    for name, (artifact, _) in whole["recompute"].items():
        if artifact.manifest["stage"] == "activations":
            assert all(file == "layers.json" or file.startswith(AGAIN) for file in artifact.names())
            assert artifact.size < 0.01 * whole["none"][name][0].size


def values(file: Path, *overrides: str, progress=None) -> np.ndarray:
    """All maps of the first layer, as a stage reads them."""
    made = run(file, *overrides, until="activations", progress=progress)["activations"][0]
    plan = Plan(Request(file, overrides=overrides))
    session = Session(plan.files, plan.settings, Silent())
    maps = result_of(Maps, plan.job("activations"), made, session)
    found = np.concatenate([block.tensors for block in maps.blocks(0)])
    assert [block.first for block in maps.blocks(0)] == [0, 48]
    some = maps.of_images(0, [50, 3, 69])
    np.testing.assert_array_equal(some, found[[3, 50, 69]].astype(np.float32))
    assert maps.of_images(0, []).shape == (0, *found.shape[1:])
    return found


@pytest.mark.parametrize("how", [(), ("execution.precision=float16",), ("execution.layout=channels_last",)])
def test_maps_come_out_as_they_would_be_stored(audit_file, how):
    stored = values(moved(audit_file, "stored"), *how)
    made = values(moved(audit_file, "made"), RECOMPUTE, *how)
    assert made.dtype == stored.dtype
    np.testing.assert_array_equal(made, stored)


@pytest.mark.soak
@long_form
@compiles
def test_a_compiled_network_gives_the_same_bits_again(audit_file):
    how = ("execution.engine=compiled", "network.layers=['0', '4']")
    stored = values(moved(audit_file, "stored"), *how)
    np.testing.assert_array_equal(values(moved(audit_file, "made"), RECOMPUTE, *how), stored)


def test_what_is_stored_serves_an_audit_that_recomputes_and_the_other_way_round(audit_file, monkeypatch):
    run(audit_file, until="activations")
    monkeypatch.setattr(Maker, "row_groups", lambda *_: pytest.fail("stored maps are there"))
    assert run(audit_file, RECOMPUTE, until="dissection")["activations"][1]
    monkeypatch.undo()
    first = run(moved(audit_file, "made"), RECOMPUTE, until="activations")["activations"]
    second = run(audit_file, "execution.storage=lz4", until="thresholds")
    assert (first[1], second["activations"][1]) == (False, True)
    assert second["activations"][0].names() == first[0].names()


def test_shards_of_any_size_and_a_stop_change_nothing(audit_file):
    expected = values(moved(audit_file, "a"))
    stopped = Silent("activations", after=40)
    with pytest.raises(Interrupted):
        run(moved(audit_file, "b"), RECOMPUTE, "execution.shard_images=48", progress=stopped)
    np.testing.assert_array_equal(values(audit_file, RECOMPUTE), expected)
    with pytest.raises(Interrupted):
        run(moved(audit_file, "c"), "execution.shard_images=48", progress=Silent("activations", after=40))
    mixed = values(audit_file, RECOMPUTE)  # the first span was stored, the second is not
    np.testing.assert_array_equal(mixed, expected)


@pytest.mark.soak
@long_form
def test_two_processes_make_them_with_the_same_bits(tmp_path):
    (tmp_path / "nets_again.py").write_text(NETWORK)
    content = {
        "name": "again",
        "network": {"load": "nets_again:tiny", "layers": ["1", "4"], "input": {"size": [32, 32]}},
        "dataset": {"format": "creatures", "count": 110, "size": 32},
        "stages": {"dissection": {"bootstrap": 10, "permutations": 5}, "report": False},
        "execution": {"threads": 1, "shard_images": 48},
    }
    file = write_audit(tmp_path / "audit.yaml", content)
    plan = Plan(Request(file, workspace=str(tmp_path / "two"), overrides=(RECOMPUTE, "execution.processes=2")))
    session, made = Session(plan.files, plan.settings, Silent()), {}
    with carrying(plan) as carry:
        for job in plan.jobs[:4]:
            made[job.name] = execute(job, session, carry=carry)[0]
    stored = run(file, "execution.storage=none", until="tally")
    assert list(made) == ["index", "activations", "thresholds", "tally"]
    assert len(made["activations"].names(AGAIN)) == 3
    for name in ("thresholds", "tally"):
        assert tables(made[name]) == tables(stored[name][0])


def test_auto_recomputes_where_the_disk_cannot_hold_the_maps_and_says_so(audit_file, monkeypatch):
    expected = run(moved(audit_file, "stored"), until="tally")
    monkeypatch.setattr("storage.files.LocalFiles.free", lambda _: 1000)
    heard = Silent()
    done = run(moved(audit_file, "made"), until="tally", progress=heard)
    assert heard.heard == [
        "activations: the maps of 70 images need 0.00 GB, got 0.00 GB free; they are not stored, but made again by "
        "each stage that reads them (execution.storage: recompute)"
    ]
    assert done["activations"][0].names() == ["again/000000000-000000070.json", "layers.json"]
    assert tables(done["tally"][0]) == tables(expected["tally"][0])


def test_plan_says_what_auto_would_do(audit_file, monkeypatch):
    def told(*overrides: str) -> tuple[str, list[str]]:
        plan = Plan(Request(audit_file, overrides=overrides))
        return next(row.size for row in foresee(plan) if row.stage == "activations"), list(sentences(plan))

    assert told() == ("0.9 MB", [])
    assert told(RECOMPUTE) == ("small", [])
    monkeypatch.setattr("storage.files.LocalFiles.free", lambda _: 1000)
    size, (said,) = told()
    assert size == "small"
    assert said.startswith("activations: the maps of 70 images need 0.00 GB, got 0.00 GB free; they are not stored, ")
    assert said.endswith("(execution.storage: recompute), in some 0 s each")
    size, (said,) = told("execution.storage=lz4")
    assert (size, said[-34:]) == ("0.9 MB", "; use execution.storage: recompute")
    assert told(RECOMPUTE) == ("small", [])


def test_maps_that_would_come_out_otherwise_are_refused(audit_file):
    done = run(audit_file, RECOMPUTE, until="activations")["activations"][0]
    plan = Plan(Request(audit_file, overrides=(RECOMPUTE,)))
    job, session = plan.job("activations"), Session(plan.files, plan.settings, Silent())
    (name,) = done.names(AGAIN)
    making = InHand(job, session).shard
    assert len(list(making.made(0, Path(name).stem, [0], done.json(name)))) == 1
    making = InHand(job, session).shard
    with pytest.raises(InputError, match="bit for bit as in the stage activations, got others for image 0: by another"):
        next(making.made(0, Path(name).stem, [0], ["0" * 64]))


def test_without_its_audit_maps_that_are_not_stored_cannot_be_read(audit_file):
    done = run(audit_file, RECOMPUTE, until="activations")["activations"][0]
    maps = Maps(done, {})
    assert maps.layers[0].name == "4"
    with pytest.raises(RuntimeError, match="its maps are not stored, and need its audit to be made again"):
        next(maps.blocks(0))


def test_a_damaged_index_is_made_again_for_maps_that_are_made_from_it(audit_file):
    done = run(audit_file, RECOMPUTE, until="activations")
    plan = Plan(Request(audit_file, overrides=(RECOMPUTE,)))
    session = Session(plan.files, plan.settings, heard := Silent())
    index = plan.job("index").key.folder
    shutil.copyfile(plan.files.location(f"{index}/concepts.parquet"), plan.files.location(f"{index}/images.parquet"))
    execute(plan.job("tally"), session)
    assert any("images.parquet" in said for said in heard.heard)
    assert json.loads(done["activations"][0].read("layers.json"))
