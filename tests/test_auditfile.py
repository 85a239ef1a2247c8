"""The audit file: every fault with its line and key, all at once."""

import pytest

from flows.auditfile import read_audit
from flows.plan import Plan, Request
from flows.starter import STARTER
from microtome.errors import InputError

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


def test_what_init_writes_is_good(tmp_path):
    (tmp_path / "audit.yaml").write_text(STARTER)
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
        ("dataset.count=4", "index"),
        ("dataset.limit=2", "index"),
        ("execution.shard_images=96", None),
        ("execution.threads=1", None),
        ("stages.report.top_images=3", "report"),
    ],
)
def test_a_change_reruns_what_it_determines_and_nothing_before(tmp_path, override, first_changed):
    before, after = keys(tmp_path), keys(tmp_path, GOOD, override)
    order = list(before)
    changed = [name for name in order if before[name] != after[name]]
    assert (changed[0] if changed else None) == first_changed


def test_the_workspace_of_an_object_store_is_refused_clearly(tmp_path):
    (tmp_path / "audit.yaml").write_text(GOOD + "workspace: s3://bucket/prefix\n")
    with pytest.raises(InputError, match="object stores are not supported yet"):
        Plan(Request(tmp_path / "audit.yaml"))
