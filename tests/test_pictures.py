"""The picture stages on planted animals, from the audit file to the report; and on real weights where they are."""

import numpy as np
import pytest
import torch
from safetensors.torch import load

from flows.plan import Plan, Request
from microtome.datasets.sampling import sampled
from microtome.quantify.dissection import iou
from microtome.visualize.attribution import answer_of
from storage import StageStore
from tasks.activations.result import Maps
from tasks.adversarial.concepts import Annotated, Detectors
from tasks.adversarial.work import Inputs
from tasks.execution import inputs_of
from tests.conftest import write_audit
from tests.test_finetuning import WEIGHTS
from tests.test_known_answers import squeezenet
from tests.test_pipeline import run

STAGES = {
    "dissection": {"bootstrap": 0, "permutations": 0},
    "saliency": {"images": 3, "methods": ["gradient", "guided", "grad-cam"]},
    "features": {"units": 3, "steps": 8, "batch": 2},
    "reliability": {"images": 4, "methods": ["gradient", "guided", "input x gradient"], "layers": 2},
    "occlusion": {"units": 2, "top_images": 2, "stride": 12, "minimal_images": 2, "segments": 8},
    "adversarial": {"images": 10, "eps": [4], "norms": ["linf", "l2"], "steps": 4},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every picture stage, carried out."""
    content = {
        "name": "pictures",
        "network": {
            "load": "microtome.networks.small:creature_net",
            "weights": str(WEIGHTS),
            "layers": ["features.12"],
            "input": {"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3},
        },
        "dataset": {"format": "creatures", "count": 24, "seed": 3},
        "stages": STAGES,
    }
    file = write_audit(tmp_path_factory.mktemp("pictures") / "audit.yaml", content)
    return file, run(file)


def rows(done, stage, table=None):
    return done[1][stage][0].table(table or stage).to_pylist()


def test_everything_is_cached_the_second_time(done):
    assert all(cached for _, cached in run(done[0]).values())


def test_saliency_keeps_raw_maps(done):
    found = rows(done, "saliency")
    assert len(found) == 9
    maps = load(done[1]["saliency"][0].read(found[0]["file"]))
    assert maps["maps"].shape == (3, 3, 96, 96)
    assert maps["maps"].min() < 0 < maps["maps"].max()
    assert maps["images"].tolist() == [row["image"] for row in found[:3]]


def test_verdicts_are_those_that_the_literature_expects(done):
    found = rows(done, "reliability")
    invariance = {(row["method"], row["shift_or_layer"]): row for row in found if row["test"] == "input invariance"}
    for shift in ("-1", "channel mean", "+0.5", "drawn image"):
        assert invariance["gradient", shift]["passed"]
        assert invariance["guided", shift]["passed"]
    assert not invariance["input x gradient", "-1"]["passed"]
    assert not invariance["input x gradient", "drawn image"]["passed"]
    top = {
        row["method"]: row["value"]
        for row in found
        if row["test"] == "randomisation from the output, cosine" and row["shift_or_layer"] == "classifier"
    }
    assert top["guided"] > top["gradient"] + 0.3
    assert all(row["low"] <= row["value"] <= row["high"] for row in found)
    controls = [row for row in found if row["test"] == "control, cosine" and row["shift_or_layer"] == "noise"]
    assert all(abs(row["value"]) < 0.05 for row in controls)


def test_features_and_their_crops(done):
    found = rows(done, "features")
    assert len(found) == 3
    assert all(row["natural_max"] > 0 for row in found)
    crops = rows(done, "features", "unit_crops")
    assert {crop["kind"] for crop in crops} == {"natural", "deconvolution"}
    layer = Maps(done[1]["activations"][0], {}).layers[0]
    assert all(0 <= crop["x0"] < crop["x1"] <= 96 for crop in crops)
    middle = layer.grid[1] * (layer.grid[0] // 2) + layer.grid[1] // 2
    x0, y0, x1, y1 = layer.field_box(middle, (96, 96))
    assert x1 - x0 == pytest.approx(min(96, layer.field[1]), abs=1)
    assert y1 - y0 == pytest.approx(min(96, layer.field[0]), abs=1)


def test_attacks_beside_noise_of_the_same_size(done):
    found = {(row["attack"], row["norm"], row["measure"]): row["value"] for row in rows(done, "adversarial")}
    assert found["pgd", "linf", "logit lost"] > found["noise like pgd", "linf", "logit lost"]
    change = "features.12: change of units"
    assert found["pgd", "linf", change] > found["noise like pgd", "linf", change]
    assert 0 <= found["pgd l2", "l2", "features.12: strongest units kept"] <= 1
    kept = "features.12: detectors that keep their label"
    assert 0 <= found["pgd", "linf", kept] <= 1
    assert found["noise like pgd", "linf", kept] > 0.5


def test_own_counts_are_those_of_the_tally(done):
    """On pictures that nobody changed, the detectors' own counts are the dissection's."""
    plan = Plan(Request(done[0]))
    job, store = plan.job("adversarial"), StageStore(plan.files)
    seen = inputs_of(job, {name: store.find(needed.key) for name, needed in job.jobs.items()})
    assert isinstance(seen, Inputs)
    layer, images = seen.activations.layers[0], list(range(24))
    annotated = Annotated(seen.index, images)
    detectors = Detectors(layer, seen.dissection, seen.thresholds, annotated=annotated, device="cpu")
    assert len(detectors.units)
    with torch.no_grad():
        maps = answer_of(seen.network.pixels("cpu"), seen.index.source.batch(images), layer.name)
    counts = detectors.counts(maps, images)
    units = {row["unit"]: row for row in rows(done, "dissection", "units")}
    scores = iou(*(part.sum(0) for part in (counts.intersection, counts.activation, counts.label)))
    for unit, score in zip(detectors.units, scores, strict=True):
        assert score == pytest.approx(units[int(unit)]["iou"], rel=1e-3)


def test_fields_and_minimal_images(done):
    for row in rows(done, "occlusion"):
        assert 0 <= row["size_x"] <= 2 * 96
        assert row["images"] == 2
    for row in rows(done, "occlusion", "minimal_images"):
        assert 1 <= row["kept"] <= row["segments"]
        assert 0 < row["area"] <= 1


def test_the_report_has_a_page_each(done):
    report = done[1]["report"][0]
    for name, words in {
        "saliency.html": "guided ✗",
        "features.html": "92 %",
        "fields.html": "Minimal images",
        "adversarial.html": "noise like pgd",
    }.items():
        page = report.read(name).decode()
        assert words in page
        missing = [file for file in _pictures(page) if not report.has(file)]
        assert not missing


def _pictures(page):
    return [part.split('"')[0] for part in page.split('<img src="')[1:]]


def test_samples_are_seeded_and_in_order():
    assert sampled(100, 5, 0) == sampled(100, 5, 0) != sampled(100, 5, 1)
    assert sampled(3, 5, 0) == [0, 1, 2]
    assert np.all(np.diff(sampled(1000, 50, 2)) > 0)


@pytest.mark.real
@pytest.mark.slow
def test_pgd_fools_a_real_network_and_noise_does_not(real_data, tmp_path):
    network = squeezenet(real_data)
    network["input"]["resize"] = "shortest-side-crop"
    content = {
        "name": "attack",
        "network": network,
        "dataset": {"format": "folder", "root": str(real_data / "imagenet-samples"), "limit": 24},
        "stages": {"adversarial": {"images": 24, "eps": [4], "steps": 10}, "report": False},
    }
    found = {
        (row["attack"], row["measure"]): row["value"]
        for row in run(write_audit(tmp_path / "audit.yaml", content))["adversarial"][0].table("adversarial").to_pylist()
    }
    assert found["pgd", "prediction flipped"] > 0.9
    assert found["noise like pgd", "prediction flipped"] < 0.2
