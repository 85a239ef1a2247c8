"""Stages in order, without Prefect: the same bytes whatever the sharding, the order, or a stop in between."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from flows.console import Lines
from flows.plan import Plan, Request
from microtome.errors import InputError, Interrupted
from microtome.quantify.accumulate import rank
from microtome.quantify.significance import p_values
from tasks.execution import execute
from tasks.null.result import Null
from tasks.session import Session
from tasks.thresholds.result import Thresholds
from tests.conftest import change_audit

COUNTS, ACTIVATED = (f"{table}/000/000000000-000000070" for table in ("counts", "activated"))  # all 70 pictures
TABLES = ("thresholds", "tails", "top_images", "iou", "units", "layers", COUNTS, ACTIVATED)


class Silent:
    """Progress that counts, and sets `stop` after so many images of a stage."""

    def __init__(self, stage="", after=10**9):
        self.stop, self.heard = threading.Event(), []
        self._stage, self._left = stage, after

    def begin(self, *_): ...
    def end(self, *_): ...

    def say(self, text):
        self.heard.append(text)

    def advance(self, stage, count):
        if stage == self._stage:
            self._left -= count
            if self._left < 0:
                self.stop.set()


def run(file: Path, *overrides: str, progress=None, until=None):
    """Carry an audit out; gives stage -> (artifact, cached)."""
    progress = progress or Silent()
    plan = Plan(Request(file, overrides=tuple(overrides)))
    session = Session(plan.files, replace(plan.settings, threads=1), progress, progress.stop)
    done = {}
    for job in plan.jobs:
        done[job.name] = execute(job, session)
        if job.name == until:
            break
    return done


def table_bytes(done) -> dict[str, bytes]:
    found = {}
    for artifact, _ in done.values():
        for table in TABLES:
            if artifact.has(f"{table}.parquet"):
                found[table] = artifact.read(f"{table}.parquet")
    return found


def moved(file: Path, workspace: str) -> Path:
    change_audit(file, workspace=workspace)
    return file


def test_a_threshold_of_a_level_is_the_one_in_the_tail(audit_file):
    """Levels with a row of their own are read from it; any other tail, between two of them, is a look into the tail."""
    artifact, _ = run(audit_file, until="thresholds")["thresholds"]
    for layer in {row["layer"] for row in artifact.table("tails").to_pylist()}:
        read = Thresholds(artifact, {})
        tails = [row["values"] for row in artifact.table("tails").to_pylist() if row["layer"] == layer]
        samples = artifact.table("thresholds").column("samples")[0].as_py()
        for tail in (0.005, 0.01, 0.0037):
            np.testing.assert_array_equal(read.at(layer, tail), [values[rank(tail, samples)] for values in tails])


def test_the_same_bytes_whatever_the_shard_size_and_after_a_stop(audit_file):
    whole = table_bytes(run(moved(audit_file, "a"), "execution.shard_images=4096"))
    assert set(whole) == set(TABLES)
    assert table_bytes(run(moved(audit_file, "b"), "execution.shard_images=48")) == whole
    stopped = Silent("activations", after=40)
    with pytest.raises(Interrupted):
        run(moved(audit_file, "c"), "execution.shard_images=48", progress=stopped)
    shards = list((audit_file.parent / "c/stages/activations").rglob("*.parquet"))
    assert [shard.name for shard in shards] == ["000000000-000000048.parquet"]
    before = shards[0].stat().st_mtime_ns
    assert table_bytes(run(audit_file, "execution.shard_images=96")) == whole
    assert shards[0].stat().st_mtime_ns == before


def test_a_stop_in_the_null_keeps_its_finished_blocks(audit_file, monkeypatch):
    monkeypatch.setattr("tasks.null.work.BLOCK", 5)
    whole = run(moved(audit_file, "a"))["null"][0]
    with pytest.raises(Interrupted):
        run(moved(audit_file, "b"), progress=Silent("null", after=7))
    kept = sorted((audit_file.parent / "b/stages/null").rglob("*.parquet"))
    assert len(kept) == 2
    again = run(audit_file)["null"][0]
    assert [again.read(name) for name in again.names("null/")] == [whole.read(name) for name in whole.names("null/")]


def reversed_broden(broden: Path, root: Path) -> Path:
    shutil.copytree(broden, root)
    head, *rows = (root / "index.csv").read_text().splitlines()
    (root / "index.csv").write_text("\n".join([head, *reversed(rows)]))
    return root


def test_the_order_of_the_images_changes_nothing_but_their_numbers(audit_file, broden, tmp_path):
    forward = run(moved(audit_file, "a"))
    root = reversed_broden(broden, tmp_path / "reversed")
    change_audit(audit_file, workspace="b", dataset={"format": "broden", "root": str(root)})
    backward = run(audit_file)
    for stage, table in (("thresholds", "thresholds"), ("thresholds", "tails"), ("tally", "iou")):
        name = f"{table}.parquet"
        assert forward[stage][0].read(name) == backward[stage][0].read(name)


def test_counts_add_up_to_the_scores(audit_file):
    done = run(audit_file)
    counts = done["tally"][0].table(COUNTS).to_pandas()
    scores = done["tally"][0].table("iou").to_pandas()
    summed = counts.groupby(["unit", "concept_id"])["intersection"].sum()
    for row in scores.itertuples():
        assert summed.get((row.unit, row.concept_id), 0) == row.intersection


def test_a_second_run_computes_nothing(audit_file):
    run(audit_file)
    assert all(cached for _, cached in run(audit_file).values())


def test_a_changed_limit_reruns_the_summary_alone(audit_file):
    run(audit_file)
    again = run(audit_file, "stages.dissection.min_iou=0.1")
    assert [name for name, (_, cached) in again.items() if not cached] == ["dissection", "pages", "report"]


def test_a_changed_gate_makes_no_page_again_but_the_one_that_shows_it(audit_file):
    first = run(audit_file)["report"][0]
    change_audit(audit_file, gates=[{"metric": "layers.detectors", "min": 0}])
    again = run(audit_file)
    report = again["report"][0]
    assert [name for name, (_, cached) in again.items() if not cached] == ["gates", "report"]
    assert "This audit sets none" in first.read("index.html").decode()
    assert "layers.detectors: min 0" in report.read("index.html").decode()
    assert report.names() == first.names()
    others = [name for name in report.names() if name != "index.html"]
    places = [[Path(made.files.location(f"{made.folder}/{name}")) for name in others] for made in (first, report)]
    assert all(one.samefile(other) for one, other in zip(*places, strict=True))  # and take no room of the disk
    assert not any("layers.detectors: min 0" in place.read_text() for place in places[1] if place.suffix == ".html")


def test_one_changed_weight_reruns_everything_from_activations_on(audit_file, tmp_path):
    import sys

    sys.path.insert(0, str(tmp_path))
    import nets

    sys.path.remove(str(tmp_path))
    state = nets.tiny().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    override = "network.weights=w.safetensors"
    run(audit_file, override)
    assert all(cached for _, cached in run(audit_file, override).values())
    state["3.weight"][0, 0, 0, 0] += 1e-3
    save_file(state, tmp_path / "w.safetensors")
    again = run(audit_file, override)
    assert [name for name, (_, cached) in again.items() if cached] == ["index"]


def test_a_damaged_result_is_computed_again_and_said(audit_file):
    done = run(audit_file)
    artifact = done["thresholds"][0]
    place = Path(artifact.files.location(f"{artifact.folder}/tails.parquet"))
    place.write_bytes(place.read_bytes()[:-10])
    progress = Silent()
    again = run(audit_file, progress=progress)
    assert [name for name, (_, cached) in again.items() if not cached] == ["thresholds"]
    assert "tails.parquet" in progress.heard[0]


def test_different_layers_have_different_results(audit_file):
    change_audit(audit_file, network={"load": "nets:tiny", "layers": ["3", "4"], "input": {"size": [64, 64]}})
    rows = run(audit_file)["thresholds"][0].table("thresholds").to_pandas()
    assert set(rows.layer) == {"3", "4"}
    assert (rows[rows.layer == "3"]["min"].to_numpy() < 0).all()
    assert (rows[rows.layer == "4"]["min"].to_numpy() == 0).all()


def test_all_faults_of_a_data_set_are_listed_before_any_network_runs(audit_file, broden, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(broden, root)
    (root / "images/3.jpg").unlink()
    (root / "images/5_part_0.png").write_bytes(b"no")
    (root / "images/60_object_0.png").unlink()
    change_audit(audit_file, dataset={"format": "broden", "root": str(root)})
    with pytest.raises(InputError) as caught:
        run(audit_file)
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["5", "7", "62"]
    assert not list((tmp_path / ".microtome/stages").rglob("*.parquet"))


def test_a_disk_too_small_for_maps_that_must_be_stored_is_refused_before_the_first_byte(audit_file, monkeypatch):
    monkeypatch.setattr("storage.files.LocalFiles.free", lambda _: 1000)
    with pytest.raises(InputError, match=r"need 0\.00 GB, got 0\.00 GB free.*float16, or execution.storage: recompute"):
        run(audit_file, "execution.storage=lz4")
    assert not list((audit_file.parent / ".microtome/stages/activations").rglob("*"))


def test_values_that_are_not_finite_are_refused(audit_file):
    text = (audit_file.parent / "nets.py").read_text()
    (audit_file.parent / "nets.py").write_text(
        text + "\ndef bad():\n    net = tiny()\n    net[0].weight.data *= 1e30\n    net[3].weight.data *= 1e30\n"
        "    return net\n"
    )
    change_audit(audit_file, network={"load": "nets:bad", "layers": ["3"], "input": {"size": [64, 64]}})
    import sys

    sys.modules.pop("nets", None)
    with pytest.raises(InputError, match="layer 3 must give finite values, got NaN"):
        run(audit_file)


def test_saturated_and_dead_units_are_named(audit_file):
    """Six units run into the ceiling of a ReLU6, six are held at it everywhere."""
    text = (
        "\ndef flat():\n    net = tiny()\n    net[4] = nn.ReLU6()\n    net[3].weight.data[:6] *= 1000\n"
        "    net[3].bias.data[6:] = 99.0\n    return net\n"
    )
    (audit_file.parent / "flat_nets.py").write_text((audit_file.parent / "nets.py").read_text() + text)
    change_audit(audit_file, network={"load": "flat_nets:flat", "layers": ["4"], "input": {"size": [64, 64]}})
    done = run(audit_file)
    units = done["dissection"][0].table("units").to_pandas()
    assert (units.iou == 0).all()
    assert units.reason[:6].str.startswith("saturated").all()
    assert units.reason[6:].str.startswith("dead").all()
    layers = done["dissection"][0].table("layers").to_pylist()[0]
    assert (layers["saturated"], layers["dead"]) == (6, 6)
    page = done["report"][0].read("layer-000.html").decode()
    assert "6 units are saturated" in page
    assert "6 units are dead" in page


def test_half_precision_stores_half_the_bytes(audit_file):
    wide = run(audit_file, "execution.storage=none", until="activations")["activations"][0].size
    half = run(audit_file, "execution.storage=none", "execution.precision=float16", until="activations")
    assert half["activations"][0].size < 0.6 * wide


def test_labels_of_a_planted_detector_are_found(tmp_path):
    """A unit that computes 'is it red?' must be labelled red, far beyond chance, and hold on the other half."""
    from tests.conftest import write_audit

    (tmp_path / "planted.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n"
        "    layer = nn.Conv2d(3, 3, 1)\n"
        "    with torch.no_grad():\n"
        "        layer.weight[:] = torch.tensor([[2., -3, -3], [0, 0, 0], [-2, 3, -2]])[..., None, None]\n"
        "        layer.bias[:] = 0\n"
        "    return nn.Sequential(nn.AvgPool2d(2), layer)\n"
    )
    content = {
        "name": "planted",
        "network": {
            "load": "planted:net",
            "layers": ["1"],
            "input": {"size": [64, 64], "mean": [0, 0, 0], "std": [1, 1, 1]},
        },
        "dataset": {"format": "creatures", "count": 120, "size": 64},
        "stages": {"dissection": {"bootstrap": 100, "permutations": 39}, "report": None},
    }
    done = run(write_audit(tmp_path / "audit.yaml", content))
    units = done["dissection"][0].table("units").to_pandas()
    red = units.iloc[0]
    assert (red.concept, red.category, red.p_value) == ("red", "color", 1 / 40)
    assert red.iou_low > 3 * red.null_p95
    assert red.heldout_iou > 0.1
    assert not units.iloc[1].detector


def test_plain_progress_says_what_happens(capsys):
    import sys

    lines = Lines(sys.stderr)
    lines.begin("index", 5, "images")
    lines.advance("index", 5)
    lines.end("index", "done")
    assert "index        5 images" in capsys.readouterr().err


def test_a_job_whose_inputs_are_not_done_has_them_made(audit_file):
    plan = Plan(Request(audit_file))
    session = Session(plan.files, plan.settings, Silent())
    artifact, cached = execute(plan.job("activations"), session)
    assert not cached
    assert session.store.find(plan.job("index").key) is not None
    assert artifact.digest == plan.job("activations").key.digest


def test_intervals_and_chance_are_in_the_tables(audit_file):
    units = run(audit_file)["dissection"][0].table("units").to_pandas()
    assert (units.iou_low <= units.iou_high).all()
    assert units.p_value.between(1 / 21, 1).all()
    assert (units.q_value >= units.p_value - 1e-12).all()
    assert np.isfinite(units.heldout_iou).all()


def in_folders(broden: Path, root: Path) -> Path:
    """The same pictures from two sources: the first half of index.csv from `one`, the rest from `other`."""
    shutil.copytree(broden, root)
    head, *rows = (root / "index.csv").read_text().splitlines()
    for number, row in enumerate(rows):
        file, source = row.partition(",")[0], "one" if number < len(rows) / 2 else "other"
        (root / "images" / source).mkdir(exist_ok=True)
        (root / "images" / file).rename(root / "images" / source / file)
        rows[number] = f"{source}/{row}"
    (root / "index.csv").write_text("\n".join([head, *rows]))
    return root


def test_annotations_are_exchanged_within_sources_and_across_them(audit_file, broden):
    bare = run(moved(audit_file, "a"))
    change_audit(audit_file, dataset={"format": "broden", "root": str(in_folders(broden, audit_file.parent / "two"))})
    done = run(moved(audit_file, "b"))
    assert done["index"][0].table("images").column("stratum").to_pylist() == ["one"] * 35 + ["other"] * 35
    (alone,), (layer,) = (found["dissection"][0].table("layers").to_pylist() for found in (bare, done))
    assert (alone["strata"], layer["strata"]) == (1, 2)
    units = done["dissection"][0].table("units").to_pandas()
    one, two = (Null(found["null"][0], {}) for found in (bare, done))
    within, across = (two.best("4", len(units), across=wide) for wide in (False, True))
    for wide in (False, True):  # folders change nothing where they are not asked about
        np.testing.assert_array_equal(one.best("4", len(units), across=wide), across)
    assert (within != across).mean() > 0.5
    assert units.p_value.tolist() == p_values(units.iou.to_numpy(), within).tolist()
    assert units.p_value_across.tolist() == p_values(units.iou.to_numpy(), across).tolist()


def test_the_data_set_of_the_docs_works_and_its_code_is_in_the_digest(audit_file):
    """The example of docs/datasets.md, as it stands there."""
    page = (Path(__file__).parent.parent / "docs/datasets.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    (audit_file.parent / "squares.py").write_text(code)
    change_audit(audit_file, dataset={"format": "squares:Squares", "count": 50})
    done = run(audit_file, until="dissection")
    assert done["index"][0].table("concepts").column("coverage").to_pylist() == [50 * 256 / 4096]
    before = Plan(Request(audit_file)).job("index").key.digest
    (audit_file.parent / "squares.py").write_text(code.replace("+ 16, x", "+ 8, x"))
    assert Plan(Request(audit_file)).job("index").key.digest != before


@pytest.mark.parametrize("what", ["network", "dataset"])
def test_a_changed_helper_of_the_users_own_code_reruns_what_it_determines(audit_file, what):
    """The file that is named stays; a module that it imports changes."""
    folder = audit_file.parent
    (folder / "helper_of_mine.py").write_text("SEED = 0\nCOUNT = 30\n")
    (folder / "named_of_mine.py").write_text(
        "import helper_of_mine\nfrom microtome.datasets.creatures import Creatures\n"
        "def net():\n    import nets\n    return nets.tiny(helper_of_mine.SEED)\n"
        "def data():\n    return Creatures(count=helper_of_mine.COUNT, size=64)\n"
    )
    network = {"load": "named_of_mine:net", "layers": ["4"], "input": {"size": [64, 64]}}
    change_audit(
        audit_file, **({"network": network} if what == "network" else {"dataset": {"format": "named_of_mine:data"}})
    )
    before = {job.name: job.key.digest for job in Plan(Request(audit_file)).jobs}
    assert before == {job.name: job.key.digest for job in Plan(Request(audit_file)).jobs}
    (folder / "helper_of_mine.py").write_text("SEED = 1\nCOUNT = 30\n")
    after = {job.name: job.key.digest for job in Plan(Request(audit_file)).jobs}
    stayed = {name for name in before if before[name] == after[name]}
    assert stayed == ({"index"} if what == "network" else set())


@pytest.mark.parametrize("stage", ["saliency", "reliability", "features", "occlusion", "adversarial", "dissection"])
def test_the_network_is_looked_at_before_the_first_stage(audit_file, stage):
    change_audit(audit_file, stages={stage: {}, "report": False})
    plan = Plan(Request(audit_file, overrides=("network.layers=['no such layer']",)))
    with pytest.raises(InputError, match="no layer 'no such layer'"):
        plan.preflight()


def test_a_data_set_that_imports_a_module_with_the_name_of_ours_is_refused(audit_file):
    folder = audit_file.parent
    (folder / "tasks.py").write_text("COUNT = 3\n")
    (folder / "data_beside_tasks.py").write_text(
        "import tasks\nfrom microtome.datasets.creatures import Creatures\n"
        "def data():\n    return Creatures(count=tasks.COUNT, size=64)\n"
    )
    change_audit(audit_file, dataset={"format": "data_beside_tasks:data"})
    with pytest.raises(InputError, match=r"dataset.format: .*tasks.py has the name of a package of microtome's own"):
        Plan(Request(audit_file)).jobs  # noqa: B018
