"""The stages as functions on objects in memory: an audit's figures, bit for bit; the caller's network stays."""

import copy
import importlib.util
import io
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import microtome
from microtome.datasets.broden import Broden
from microtome.datasets.creatures import Creatures
from microtome.datasets.pairs import Pairs
from microtome.errors import InputError
from microtome.handed import dataset, hand_over, network
from microtome.missing import EXTRA
from microtome.networks.small import creature_net
from microtome.report.plots import ranked
from tasks.registry import STAGES
from tests.commands import audited
from tests.test_imports import ROOT

CREATURES = {"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3}
SMALL = {
    "saliency": {"images": 1},
    "features": {"units": 2, "steps": 4},
    "finetune": {"epochs": 1, "category": "bird"},
    "tree": {"category": "bird", "images": 10},
    "stability": {"top_images": 10, "bootstrap": 20, "permutations": 20},
    "graph": {"category": "bird", "filters": 4, "rounds": 2, "permutations": 10},
    "parts": {"category": "bird", "filters": 4, "boxes": [3], "draws": 1},
    "occlusion": {"units": 1, "top_images": 1, "stride": 24, "minimal_images": 1},
    "reliability": {"images": 2, "randomised": 2, "methods": ["gradient", "guided"]},
    "attack": {"images": 4, "eps": [4], "steps": 2},
    "ablation": {"images": 30},
}


def nets(folder: Path):
    spec = importlib.util.spec_from_file_location("nets_of_a_test", folder / "nets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_of_an_audit_bit_for_bit(audit_file, broden):
    """Every byte but the digest of the stage, which each shard of maps carries in its metadata."""
    audited(audit_file)
    places = {
        file.parent.parent.name: file.parent for file in audit_file.parent.glob(".microtome/stages/*/*/manifest.json")
    }
    model = nets(audit_file.parent).tiny()
    found = microtome.dissect(
        model, Broden(broden), layers=["4"], input={"size": [64, 64]}, bootstrap=50, permutations=20
    )
    assert set(found.artifacts) == set(places) - {"pages", "report"}
    for stage, artifact in found.artifacts.items():
        for name in artifact.names():
            here, there = artifact.read(name), (places[stage] / name).read_bytes()
            if stage == "activations" and name.endswith(".parquet"):
                assert pq.read_table(io.BytesIO(here)).equals(pq.read_table(io.BytesIO(there))), name
            else:
                assert here == there, name


@pytest.fixture(scope="module")
def dissected():
    model = creature_net().train()
    return (
        model,
        copy.deepcopy(model.state_dict()),
        microtome.dissect(
            model, Creatures(count=20, size=96), layers=["features.12"], input=CREATURES, bootstrap=5, permutations=5
        ),
    )


def test_the_callers_model_is_as_it_was(dissected):
    model, before, _ = dissected
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_table_a_chart_a_page(dissected, tmp_path):
    _, _, found = dissected
    assert found.tables[:3] == ["units", "nearest", "layers"]
    frame = found.to_pandas()
    assert len(frame) == 64
    assert len(found.to_pandas("layers")) == 1
    chart = found.plot(most=7).to_dict()
    shown = next(iter(chart["datasets"].values()))
    assert [row["iou"] for row in shown] == sorted(frame["iou"], reverse=True)[:7]
    assert chart["layer"][0]["encoding"]["x"]["field"] == "iou_low"
    assert "<table" in found._repr_html_()
    first = found.report(tmp_path / "pages")
    assert first == tmp_path / "pages/index.html"
    assert "features.12" in first.read_text()
    assert not list((tmp_path / "pages").rglob("*.json"))
    with pytest.raises(InputError, match="dissection has no 'unit'; did you mean 'units'"):
        found.to_pandas("unit")
    with pytest.raises(InputError, match="must be one of numbers, got 'io'"):
        found.plot("io")
    with pytest.raises(InputError, match=r"only finetune\(\) makes one"):
        _ = found.network


def test_what_a_pattern_leaves_out_is_said(capsys):
    found = microtome.dissect(
        creature_net(), Creatures(count=4, size=96), layers="*", input=CREATURES, bootstrap=0, permutations=0
    )
    assert "features.12" in set(found.to_pandas()["layer"])
    assert "classifier" not in set(found.to_pandas()["layer"])
    assert "a pattern means pool, flatten, classifier, too" in capsys.readouterr().err


def test_the_interval_of_a_column():
    frame = pandas.DataFrame({"unit": [0, 1], "value": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3], "n": [5, 6]})
    chart = ranked(frame, None, most=5, title="toy").to_dict()
    assert [layer["encoding"]["x"]["field"] for layer in chart["layer"]] == ["low", "value"]
    assert [row["row"] for row in next(iter(chart["datasets"].values()))] == ["1", "0"]
    assert len(ranked(frame, "n", most=5, title="toy").to_dict()["layer"]) == 1
    assert [row["row"] for row in next(iter(ranked(frame, "n", most=1, title="").to_dict()["datasets"].values()))] == [
        "1"
    ]


TRAINING = ROOT / "examples/notebooks/finetune_and_compare.py"
NOTEBOOKS = sorted({*TRAINING.parent.glob("*.py")} - {TRAINING}) + [pytest.param(TRAINING, marks=pytest.mark.slow)]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_notebooks_run(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = runpy.run_path(str(notebook))
    if notebook.stem == "dissect_your_network":
        assert shown["layer"].confirmed_low > 5  # detectors of parts that were drawn are found
    elif notebook.stem == "is_my_saliency_sound":
        assert set(shown["result"].to_pandas("reliability_methods")["method"]) == {"gradient", "guided", "grad-cam"}
    else:
        assert set(shown["training"]["phase"]) == {"interpretable", "twin"}
        assert set(shown["after"].to_pandas("stability_layers")["layer"]) == {"top_map", "extra_map"}


def test_all_faults_before_any_work():
    with pytest.raises(InputError) as caught:
        microtome.dissect(creature_net(), Creatures(count=6), layers=["features.12"], min_iuo=0.1, bootstrap=-1)
    assert len(caught.value.faults) == 2
    assert "microtome.dissect: min_iuo: no such argument; did you mean 'min_iou'" in str(caught.value)
    assert "stages.dissection.bootstrap" in str(caught.value)
    with pytest.raises(InputError, match=r"stages\.saliency\.cam_layer: .*nope"):
        microtome.saliency(
            creature_net(), Creatures(count=6), layers=["features.12"], input=CREATURES, cam_layer="nope"
        )
    with pytest.raises(InputError, match="no layer"):
        microtome.dissect(creature_net(), Creatures(count=6), layers=["feature.12"], input=CREATURES)


def test_a_misspelt_argument_is_named_with_the_functions_own():
    model, data = creature_net(), Creatures(count=6)
    with pytest.raises(InputError, match=r"microtome\.dissect: layer: no such argument; did you mean 'layers'"):
        microtome.dissect(model, data, layer=["top_map"])
    with pytest.raises(InputError, match=r"microtome\.dissect: inputs: no such argument; did you mean 'input'"):
        microtome.dissect(model, data, layers=["top_map"], inputs=CREATURES)
    with pytest.raises(TypeError, match=r"microtome\.dissect: missing a required argument: 'layers'"):
        microtome.dissect(model, data)


def test_pairs_by_hand():
    picture = np.zeros((4, 6, 3), np.uint8)
    wing, red = np.zeros((4, 6), bool), np.ones((4, 6), int)
    wing[0, :2] = True
    found = Pairs([(picture, {"wing": wing, "red": red}), (Image.new("L", (6, 4)), {})])
    assert [(concept.number, concept.name) for concept in found.concepts] == [(1, "red"), (2, "wing")]
    planes = found.annotation(0).planes["object"]
    assert planes.shape == (2, 4, 6)
    assert planes[0].tolist() == np.ones((4, 6)).tolist()
    assert planes[1, 0].tolist() == [2, 2, 0, 0, 0, 0]
    assert not found.annotation(1).planes
    assert found.picture(1).mode == "RGB"
    assert (found.records[0].width, found.records[0].height) == (6, 4)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([], "at least one"),
        ([3], r"dataset\[0\]: must be \(picture, masks\)"),
        ([(np.zeros((4, 4)), {})], "bytes from 0 to 255, got float64"),
        ([(np.zeros((4, 4, 3), np.uint8), {"a": np.zeros(4)})], r"'a' must be \(height, width\), got shape \(4,\)"),
        ([(np.zeros((4, 4, 3), np.uint8), {"a": np.zeros((4, 4)), "b": np.zeros((2, 2))})], "must have one size"),
    ],
)
def test_pairs_that_are_none(pairs, said):
    with pytest.raises(InputError, match=said):
        Pairs(pairs)


def test_what_was_handed_over_is_not_kept_alive():
    model, data = creature_net(), Creatures(count=2)
    numbers = hand_over(model), hand_over(data)
    assert network(numbers[0]) is not model
    assert dataset(numbers[1]) is data
    with pytest.raises(InputError, match="no longer there"):
        dataset(numbers[0])
    del model, data
    with pytest.raises(InputError, match="no longer there"):
        network(numbers[0])


def test_a_stage_that_the_audit_file_offers_is_a_function():
    offered = {stage.name for stage in STAGES if stage.plan} - {
        "dissection",
        "finetuning",
        "adversarial",
        "drift",
        "report",
    }
    assert set(microtome.DIRECT) == offered | {"dissect", "finetune", "attack"}
    assert "min_iou: A detector's IoU lies above it. Default: 0.04." in microtome.dissect.__doc__
    assert set(microtome.DIRECT) <= set(dir(microtome))


@pytest.mark.parametrize("name", SMALL)
def test_every_function(name):
    data = Creatures(count=80, size=96, seed=3)
    found = getattr(microtome, name)(creature_net(), data, layers=["features.12"], input=CREATURES, **SMALL[name])
    assert len(found.to_pandas())
    found.plot()
    if name == "finetune":
        assert found.network(torch.zeros(1, 3, 96, 96)).shape[0] == 1


def test_without_the_extra():
    """Where `microtome[audit]` is not installed, a dissection works, and what needs it says so."""
    code = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRA!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import microtome
from microtome.datasets.creatures import Creatures
from microtome.networks.small import creature_net
found = microtome.dissect(creature_net(), Creatures(count=6, size=96), layers=["features.12"],
                          input={CREATURES!r}, bootstrap=2, permutations=2)
assert len(found.to_pandas()) == 64
for call in (found.plot, lambda: found.report("pages")):
    try:
        call()
    except microtome.errors.InputError as error:
        print(error)
sys.argv = ["microtome", "plan", "audit.yaml"]
from microtome.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    said = ended.stdout + ended.stderr
    assert "plot() needs the package altair" in said
    assert "report() needs the package" in said
    assert "the command line needs the package click" in said
    assert said.count("pip install 'microtome[audit]'") == 3
    assert ended.returncode == 2
    assert "Traceback" not in said
