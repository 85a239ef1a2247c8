"""The audit file: every fault with its line and key, all at once."""

import sys
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from flows.auditfile import AuditModel, read_audit
from flows.plan import Plan, Request
from flows.starter import starter
from microtome.errors import InputError
from tasks.options import kinds_of
from tests.conftest import NETWORK, write_audit

GOOD = """\
name: x
network:
  load: torchvision.models:alexnet
  layers: [features.11]
  input: {size: [224, 224]}
dataset: {format: creatures, count: 3}
stages:
  dissection:
"""


def faults(tmp_path, text, *overrides):
    file = tmp_path / "audit.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_audit(file, overrides)
    return [fault.removeprefix(str(file)) for fault in caught.value.faults]


def test_the_smallest_file_is_good(tmp_path):
    (tmp_path / "audit.yaml").write_text(GOOD)
    audit = read_audit(tmp_path / "audit.yaml")
    assert audit.stages.dissection.tail == 0.005
    assert audit.dataset.options == {"count": 3}
    assert audit.stages.report.top_images == 5


WRONG = {
    "a negative side": ("[224, 224]", "[-1, 224]", "network.input.size.0: input should be greater than or equal to 1"),
    "a side too long": ("[224, 224]", "[224, 99999]", "network.input.size.1: input should be less than or equal to"),
    "an infinite mean": ("[224, 224]", "[224, 224], mean: [0, .inf, 0]", "numbers must be finite, got .inf"),
    "no deviation": ("[224, 224]", "[224, 224], std: [0, 1, 1]", "network.input.std.0: input should be greater than 0"),
    "a negative deviation": ("[224, 224]", "[224, 224], std: [1, -1, 1]", "network.input.std.1"),
    "a mask of no size": ("count: 3", "count: 3, mask_size: [0, 8]", "dataset.mask_size.0"),
    "no split": ("count: 3", "count: 3, split: []", "dataset.split: list should have at least 1 item"),
    "no category": ("count: 3", "count: 3, categories: []", "dataset.categories: list should have at least 1"),
    "an empty layer": ("features.11", "''", "network.layers.0: string should have at least 1 character"),
    "no layer": ("[features.11]", "[]", "network.layers: list should have at least 1 item"),
    "no method": ("  dissection:", "  saliency: {methods: []}", "stages.saliency.methods"),
    "no method to test": ("  dissection:", "  reliability: {methods: []}", "stages.reliability.methods"),
    "no norm": ("  dissection:", "  adversarial: {norms: []}", "stages.adversarial.norms"),
    "too many resamples": ("  dissection:", "  dissection: {bootstrap: 1000000000000}", "stages.dissection.bootstrap"),
    "permutations": ("  dissection:", "  graph: {permutations: 1000001}", "stages.graph.permutations"),
    "a huge count": ("  dissection:", "  features: {steps: 10000000000}", "stages.features.steps"),
    "threads": ("name: x", "name: x\nexecution: {threads: 1000000}", "execution.threads: input should be less than"),
    "no thread": ("name: x", "name: x\nexecution: {threads: 0}", "execution.threads"),
    "shards": ("name: x", "name: x\nexecution: {shard_images: 10000000}", "execution.shard_images"),
    "an unknown runner": ("name: x", "name: x\nexecution: {runner: ray}", "execution.runner: input should be 'local'"),
    "no process": ("name: x", "name: x\nexecution: {processes: 0}", "execution.processes"),
    "an address of nothing": (
        "name: x",
        "name: x\nexecution: {runner: dask, address: here}",
        "execution.address: must be a Dask scheduler's",
    ),
    "an address for nobody": (
        "name: x",
        "name: x\nexecution: {address: 'tcp://a:1'}",
        "execution: address: is of a Dask cluster",
    ),
    "an address and processes": (
        "name: x",
        "name: x\nexecution: {runner: dask, address: 'tcp://a:1', processes: 2}",
        "execution: processes: is of",
    ),
    "no pools": ("name: x", "name: x\nexecution: {runner: workers}", "execution: pools: must be given"),
    "half the pools": (
        "name: x",
        "name: x\nexecution: {runner: workers, pools: {cpu: a}}",
        "execution.pools.gpu: is missing",
    ),
    "a long seed": ("name: x", "name: x\nseed: 4294967296", "seed: input should be less than 4294967296"),
    "a seed that is a date": ("name: x", "name: x\nseed: 2020-99-99", "seed: input should be a valid integer"),
    "a seed that is a flag": ("name: x", "name: x\nseed: true", "seed: must be a number, not true or false, got True"),
    "a side that is a flag": ("[224, 224]", "[224, yes]", "network.input.size: must be a number"),
    "a relative factory": ("torchvision.models:alexnet", ".a:b", "network.load: must be module:factory"),
    "a module alone": ("torchvision.models:alexnet", "torchvision", "network.load: must be module:factory"),
    "a call": ("torchvision.models:alexnet", "os:system('x')", "network.load: must be module:factory"),
    "an inner name": ("torchvision.models:alexnet", "nets:Net.make", "network.load: must be module:factory"),
    "a path": ("torchvision.models:alexnet", "../nets.py:alexnet", "network.load: must be module:factory"),
    "a relative data set": ("format: creatures", "format: '.a:b'", "dataset.format: must be module:factory"),
    "a name with an escape": ("name: x", 'name: "a\\e[31m"', "must hold no control characters, got U+001B"),
    "a name of two lines": ("name: x", 'name: "a\\nb"', "name: must hold printable characters only"),
    "a name that turns": ("name: x", 'name: "a\\u202eb"', "name: must hold printable characters only"),
    "no name": ("name: x", "name: ''", "name: string should have at least 1 character"),
    "no workspace": ("name: x", "name: x\nworkspace: ''", "workspace: string should have at least 1 character"),
    "a gate without an end": ("name: x", "name: x\ngates: [{metric: layers.units, min: -.inf}]", "must be finite"),
    "a gate that is none": ("name: x", "name: x\ngates: [{metric: layers.units, max: .nan}]", "must be finite"),
    "a gate in quotes": (
        "name: x",
        "name: x\ngates: [{metric: layers.units, max: 'nan'}]",
        "gates.0.max: input should",
    ),
}


@pytest.mark.parametrize(("old", "new", "words"), WRONG.values(), ids=WRONG.keys())
def test_values_without_sense_are_refused_in_one_sentence(tmp_path, old, new, words):
    (fault,) = faults(tmp_path, GOOD.replace(old, new, 1))
    assert words in fault
    assert "\n" not in fault


def test_weights_and_workspace_are_looked_at_before_anything_runs_both_at_once(tmp_path):
    (tmp_path / "w.pth").mkdir()
    (tmp_path / "file").write_text("")
    text = GOOD.replace("load: torch", "weights: w.pth\n  load: torch") + "workspace: file/below\n"
    (tmp_path / "audit.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        Plan(Request(tmp_path / "audit.yaml"))
    assert [fault.replace(str(tmp_path), "HERE") for fault in caught.value.faults] == [
        "network.weights: must be a file, got the folder HERE/w.pth",
        "workspace: must be a folder, got the file HERE/file",
    ]


@pytest.mark.parametrize(
    ("weights", "workspace", "words"),
    [
        ("gone.pth", None, "network.weights: no such file, got 'gone.pth'"),
        ("x" * 300 + ".pth", None, "network.weights: cannot be read: File name too long"),
        (None, "file", "workspace: must be a folder, got the file"),
        (None, "y" * 300, "workspace: cannot be used: File name too long"),
    ],
)
def test_places_that_are_not_there(tmp_path, monkeypatch, weights, workspace, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    named = f"weights: {weights}\n  load: torch" if weights else "load: torch"
    (tmp_path / "audit.yaml").write_text(GOOD.replace("load: torch", named))
    with pytest.raises(InputError) as caught:
        Plan(Request(tmp_path / "audit.yaml", workspace=workspace))
    assert len(caught.value.faults) == 1
    assert words in caught.value.faults[0]


def test_what_init_writes_is_good(tmp_path):
    (tmp_path / "audit.yaml").write_text(starter())
    plan = Plan(Request(tmp_path / "audit.yaml"))
    assert [job.name for job in plan.jobs][-1] == "report"


def test_all_faults_at_once_with_lines(tmp_path):
    text = GOOD.replace("name: x", "nmae: x").replace("count: 3", "count: 3, limit: -1") + "    tial: 0.1\n"
    found = faults(tmp_path, text)
    assert ":1: nmae: unknown key; did you mean 'name'?" in found
    assert any(fault.startswith(":6: dataset.limit: ") and "got -1" in fault for fault in found)
    assert ":9: stages.dissection.tial: unknown key; did you mean 'tail'?" in found
    assert ": name: is missing" in found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("format: creatures", "format: creatures, crop: big"), "dataset.crop"),
        (("[224, 224]", "[224]"), "network.input.size"),
        (("layers: [features.11]", "layers: []"), "network.layers"),
        (("dataset: {format: creatures, count: 3}\n", ""), "either `dataset` or `datasets`"),
        (("  dissection:", "  dissecton:"), "did you mean 'dissection'"),
    ],
)
def test_single_faults(tmp_path, change, words):
    assert any(words in fault for fault in faults(tmp_path, GOOD.replace(*change)))


def test_gates_need_one_limit_and_a_column(tmp_path):
    text = GOOD + "gates:\n  - {metric: layers.detectors}\n  - {metric: detectors, min: 1}\n"
    found = faults(tmp_path, text)
    assert any("exactly one of min, max, max_drop" in fault for fault in found)
    assert any(fault.startswith(":11: gates.1.metric") for fault in found)


def test_no_yaml_is_named_with_its_line(tmp_path):
    assert faults(tmp_path, "name: [x\n  y: 1")[0].startswith(":2: is not YAML")


def test_overrides_replace_values(tmp_path):
    (tmp_path / "audit.yaml").write_text(GOOD)
    audit = read_audit(tmp_path / "audit.yaml", ["stages.dissection.tail=0.01", "seed=3"])
    assert (audit.stages.dissection.tail, audit.seed) == (0.01, 3)
    assert "--set: must be key=value" in faults(tmp_path, GOOD, "seed")[0]
    assert "unknown key" in faults(tmp_path, GOOD, "sede=1")[0]


def keys(tmp_path, text=GOOD, *overrides):
    (tmp_path / "audit.yaml").write_text(text)
    return {job.name: job.key.digest for job in Plan(Request(tmp_path / "audit.yaml", overrides=overrides)).jobs}


@pytest.mark.parametrize(
    ("override", "first_changed"),
    [
        ("stages.dissection.min_iou=0.05", "dissection"),
        ("stages.dissection.bootstrap=10", "dissection"),
        ("stages.dissection.permutations=10", "null"),
        ("stages.dissection.tail=0.002", "tally"),
        ("stages.dissection.align=half-pixel", "tally"),
        ("network.layers=[features.10]", "activations"),
        ("network.input.mean=[0,0,0]", "activations"),
        ("network.input.size=[192,192]", "index"),
        ("execution.precision=float16", "activations"),
        ("execution.batch=8", "activations"),
        ("execution.storage=recompute", None),
        ("dataset.count=4", "index"),
        ("dataset.limit=2", "index"),
        ("execution.shard_images=96", None),
        ("execution.threads=1", None),
        ("stages.report.top_images=3", "pages"),
    ],
)
def test_a_change_reruns_what_it_determines_and_nothing_before(tmp_path, override, first_changed):
    before, after = keys(tmp_path), keys(tmp_path, GOOD, override)
    order = list(before)
    changed = [name for name in order if before[name] != after[name]]
    assert (changed[0] if changed else None) == first_changed


def test_a_workspace_that_cannot_be_is_refused_clearly(tmp_path, monkeypatch):
    (tmp_path / "audit.yaml").write_text(GOOD + "workspace: ftp://bucket/prefix\n")
    with pytest.raises(InputError, match="workspace: must be one of s3://, gs://, az://, got 'ftp'://"):
        Plan(Request(tmp_path / "audit.yaml"))
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    (tmp_path / "audit.yaml").write_text(GOOD + "workspace: s3://bucket/prefix\n")
    with pytest.raises(InputError, match=r"need the package obstore; install it: pip install 'microtome\[s3\]'"):
        Plan(Request(tmp_path / "audit.yaml"))


def test_a_gate_asks_for_a_figure_and_layers_that_there_are(tmp_path):
    """A mean over unlike rows is no figure: a gate says which row, or is refused."""
    for gate, words in {
        "{metric: layers.detektors, min: 1}": "no stage measures 'layers.detektors'; did you mean 'layers.detectors'",
        "{metric: adversarial.value, max: 1}": "gates.0: must say which row of adversarial is judged, got none: add "
        "`where: {attack: ..., norm: ..., eps: ..., measure: ...}`",
        "{metric: units.iou, min: 0.1}": "must say which row of units is judged, got none: add `where: {unit: ...}`",
        "{metric: minimal_images.area, max: 1, layer: x}": "minimal_images.area has no layers, leave `layer` out",
        "{metric: layers.detectors, min: 1, layer: features.1}": "gates.0.layer: must be one that the audit looks at",
        "{metric: layers.detectors, min: 1, where: {unit: 3}}": "rows of layers are not told apart by 'unit'; allowed",
        "{metric: layers.dead, min: 1, certain: true}": "certain: layers.dead has no interval, leave `certain`",
    }.items():
        assert words in faults(tmp_path, GOOD + f"gates:\n  - {gate}\n")[0]


def test_a_gate_names_its_layer_where_there_may_be_several(tmp_path):
    gate = "gates:\n  - {metric: layers.detectors, min: 1}\n"
    for layers in ("[features.3, features.11]", '["features.*"]'):
        text = GOOD.replace("[features.11]", layers)
        assert "must say which row of layers is judged, got none: add `layer`" in faults(tmp_path, text + gate)[0]
        (tmp_path / "audit.yaml").write_text(text + gate.replace("min: 1", "min: 1, layer: features.11"))
        assert read_audit(tmp_path / "audit.yaml").gates[0].row == {"layer": "features.11"}
    (tmp_path / "audit.yaml").write_text(GOOD + gate)
    assert read_audit(tmp_path / "audit.yaml").gates[0].row == {}


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("{metric: layers.detectors, min: 1, baseline: x}", "must have `baseline` beside max_drop only"),
        ("{metric: layers.detectors, max_drop: 0.1, baseline: ''}", "at least 1 character"),
        ("{metric: units.iou, min: 0, layer: a, where: {layer: a, unit: 1}}", "must name the layer once"),
        ("{metric: units.iou, min: 0, where: {unit: [1, 2]}}", "gates.0.where.unit"),
        ("{metric: units.iou, min: 0, max: 1, where: {unit: 1}}", "exactly one of min, max, max_drop"),
    ],
)
def test_what_a_gate_may_not_say(tmp_path, gate, words):
    assert any(words in fault for fault in faults(tmp_path, GOOD + f"gates:\n  - {gate}\n"))


def test_two_jobs_of_one_name_are_refused(tmp_path):
    """A plan that asks for one name with other options must give a variant: nothing would tell the results apart."""
    (tmp_path / "audit.yaml").write_text(GOOD)
    audit = Plan(Request(tmp_path / "audit.yaml")).planner
    known = audit.jobs["thresholds"]
    assert audit.add(audit.job(known.stage, known.options, known.reads)) is known
    other = audit.job(known.stage, known.options.model_copy(update={"keep": 0.5}), known.reads)
    with pytest.raises(RuntimeError, match="two that are called 'thresholds'"):
        audit.add(other)


def number_keys(model, path=()):
    """Paths of every key of the audit file whose value is a number, or numbers."""
    for name, field in model.model_fields.items():
        kinds = set(kinds_of(field.annotation))
        if kinds & {int, float}:
            yield (*path, name), [True, True] if "tuple" in str(field.annotation) else True
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from number_keys(kind, (*path, name))


@pytest.mark.parametrize(("path", "flag"), number_keys(AuditModel), ids=str)
def test_true_is_no_number_at_any_key(path, flag):
    """Pydantic takes it for 1."""
    content = yaml.safe_load(GOOD)
    if path[0] == "datasets":
        content |= {"datasets": {"main": content.pop("dataset")}}
    inner = {"datasets": "main", "gates": 0}
    place = content | {"gates": [{"metric": "layers.units"}]}
    content = place
    for key in path[:-1]:
        place[key] = place.get(key) or {}
        place = place[key][inner[key]] if key in inner else place[key]
    place[path[-1]] = flag
    with pytest.raises(ValidationError) as caught:
        AuditModel.model_validate(content)
    (fault,) = [fault for fault in caught.value.errors() if path[-1] in fault["loc"]]
    assert "must be a number, not true or false" in fault["msg"]


def shifted_audit(folder: Path, *, moved: float, dataset: str, **stages: object) -> Path:
    """An audit of two data sets with a shift test of `parts` on the first."""
    small = {"format": "creatures", "count": 12, "size": 64}
    content = {
        "name": "shifted",
        "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
        "datasets": {"main": small, dataset: {**small, "seed": 2}},
        "stages": {"parts": {"category": "bird", "shift": moved}, **stages},
    }
    (folder / "nets.py").write_text(NETWORK)
    return write_audit(folder / "audit.yaml", content)


def test_two_stages_may_move_the_same_pictures_differently(tmp_path):
    file = shifted_audit(tmp_path, moved=0.15, dataset="other", stability={"shift": 0.1})
    names = [job.name for job in Plan(Request(file)).jobs if job.stage.name == "activations"]
    assert names == ["activations", "activations:moved 0.1", "activations:moved 0.15"]


def test_a_data_set_may_be_called_moved(tmp_path):
    file = shifted_audit(tmp_path, moved=0.15, dataset="moved", stability={"dataset": "moved"})
    names = {job.name for job in Plan(Request(file)).jobs if job.stage.name == "activations"}
    assert names == {"activations", "activations:moved", "activations:moved 0.15", "activations:moved moved 0.15"}


def test_a_data_set_with_the_name_of_a_stages_own_variant_is_refused(tmp_path):
    stages = {"finetuning": {"category": "bird"}, "stability": {}, "dissection": {"dataset": "interpretable"}}
    file = shifted_audit(tmp_path, moved=0.0, dataset="interpretable", **stages)
    with pytest.raises(InputError, match=r"^datasets\.interpretable: must not be what a stage calls its own"):
        _ = Plan(Request(file)).jobs
