"""Real photographs, real ImageNet weights: the figures of a slow, literal program, within its own tolerance."""

import json

import pytest

from tests.conftest import write_audit
from tests.test_pipeline import run

pytestmark = pytest.mark.real


def squeezenet(real_data) -> dict:
    """The network of the known answers, as an audit file names it."""
    return {
        "load": "torchvision.models:squeezenet1_0",
        "weights": str(real_data / "weights/squeezenet1_0.safetensors"),
        "layers": ["features.12"],
        "input": {"size": [224, 224]},
    }


@pytest.fixture(scope="module")
def dissected(real_data, real_workspace, tmp_path_factory):
    """Both alignments of squeezenet1_0 features.12 on broden-mini, and the known answers."""
    folder = tmp_path_factory.mktemp("known")
    content = {
        "name": "known",
        "network": squeezenet(real_data),
        "dataset": {"format": "broden", "root": str(real_data / "broden-mini")},
        "workspace": str(real_workspace),
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}, "report": False},
    }
    file = write_audit(folder / "audit.yaml", content)
    found = {align: run(file, f"stages.dissection.align={align}") for align in ("receptive-field", "half-pixel")}
    return found, json.loads((real_data / "known-answers.json").read_text())["dissection"]


def test_geometry_and_samples(dissected):
    found, known = dissected
    layer = found["receptive-field"]["dissection"][0].table("layers").to_pylist()[0]
    assert layer["images"] == known["images"]
    assert [layer["rows"], layer["columns"]] == known["map"]
    assert [layer["start_row"], layer["start_column"]] == known["start_yx"]
    assert [layer["jump_row"], layer["jump_column"]] == known["jump_yx"]
    assert [layer["field_row"], layer["field_column"]] == known["rf_yx"]


def test_thresholds(dissected):
    found, known = dissected
    units = found["receptive-field"]["dissection"][0].table("units").to_pandas().set_index("unit")
    for row in known["thresholds"]:
        assert abs(units.threshold[row["unit"]] - row["T"]) <= 0.001


def test_counts_and_ious(dissected):
    found, known = dissected
    tables = {
        align: done["tally"][0].table("iou").to_pandas().set_index(["unit", "concept_id"])
        for align, done in found.items()
    }
    for row in known["pairs"]:
        key = (row["unit"], row["number"])
        scored = tables["receptive-field"].loc[key]
        assert scored.category == row["category"]
        assert abs(scored.intersection - row["I"]) <= 3
        assert abs(scored.activation - row["A"]) <= 3
        assert scored.label_pixels == row["L"]
        assert abs(scored.iou - row["iou"]) <= 0.0003
        assert abs(tables["half-pixel"].loc[key].iou - row["iou_half_pixel"]) <= 0.0003


@pytest.mark.parametrize("align", ["receptive-field", "half-pixel"])
def test_detectors_and_unique_detectors(dissected, align):
    found, known = dissected
    layer = found[align]["dissection"][0].table("layers").to_pylist()[0]
    expected = known["counts"][align]
    for name in ("detectors", "unique_per_category", "unique_per_unit"):
        assert abs(layer[name] - expected[name]) <= 2
    assert abs(layer["mean_iou"] - expected["mean_best_iou"]) <= 0.0003


def test_a_folder_of_masks_on_real_street_scenes(real_data, tmp_path):
    """camvid: 74 pictures of 480 x 360 with indexed masks, squashed into the frame."""
    content = {
        "name": "camvid",
        "network": squeezenet(real_data),
        "dataset": {"format": "masks", "root": str(real_data / "camvid"), "limit": 48},
        "stages": {"dissection": {"bootstrap": 0, "permutations": 0}, "report": False},
    }
    done = run(write_audit(tmp_path / "audit.yaml", content))
    concepts = done["index"][0].table("concepts").to_pandas().set_index("concept")
    assert len(concepts) == 11
    assert concepts.images.max() == 48
    assert 0 < concepts.coverage.sum() <= 48
