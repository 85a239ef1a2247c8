"""The picture stages on planted animals, from the audit file to the report; and on real weights where they are."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from flows.plan import Plan, Request
from microtome.datasets.sampling import sampled
from microtome.errors import InputError
from microtome.quantify.dissection import iou
from microtome.visualize.attribution import answer_of
from microtome.visualize.methods import methods
from storage import StageStore
from tasks.activations.result import Maps
from tasks.adversarial.concepts import Annotated, Detectors
from tasks.adversarial.work import BATCH, Inputs, Shard
from tasks.execution import inputs_of
from tasks.reliability.work import Bench
from tasks.saliency.work import objects
from tasks.session import Session
from tests.conftest import CREATURE_NET, long_form, write_audit
from tests.test_known_answers import squeezenet
from tests.test_pipeline import Silent, run

SWIN = {
    "patch_size": [4, 4],
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": [4, 4],
    "num_classes": 6,
}
STAGES = {
    "dissection": {"bootstrap": 0, "permutations": 0},
    "saliency": {"images": 3, "methods": ["gradient", "input x gradient", "integrated gradients", "grad-cam"]},
    "features": {"units": 3, "steps": 8, "batch": 2},
    "reliability": {"images": 4, "methods": ["gradient", "guided", "input x gradient"], "randomised": 2},
    "occlusion": {"units": 2, "top_images": 2, "stride": 12, "minimal_images": 2, "segments": 8},
    "adversarial": {"images": 10, "eps": [4], "norms": ["linf", "l2"], "steps": 4},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every picture stage, carried out."""
    content = {
        "name": "pictures",
        "network": dict(CREATURE_NET),
        "dataset": {"format": "creatures", "count": 24, "seed": 3},
        "stages": STAGES,
    }
    file = write_audit(tmp_path_factory.mktemp("pictures") / "audit.yaml", content)
    return file, run(file)


def rows(done, stage, table=None):
    return done[1][stage][0].table(table or stage).to_pylist()


def read_by(job, plan):
    """What a finished job read."""
    store = StageStore(plan.files)
    found = {name: store.find(needed.key) for name, needed in job.jobs.items()}
    return inputs_of(job, found, Session(plan.files, plan.settings, Silent()))


def test_everything_is_cached_the_second_time(done):
    assert all(cached for _, cached in run(done[0]).values())


def test_saliency_keeps_raw_maps(done):
    found = rows(done, "saliency")
    assert len(found) == 12
    maps = load(done[1]["saliency"][0].read(found[0]["file"]))
    assert maps["maps"].shape == (3, 3, 96, 96)
    assert maps["maps"].min() < 0 < maps["maps"].max()
    assert maps["images"].tolist() == [row["image"] for row in found[:3]]


def test_the_gallery_draws_the_maps_that_are_judged(done):
    """One coordinate system and one baseline: pixels in [0, 1], black."""
    plan = Plan(Request(done[0]))
    seen = {}
    for stage in ("saliency", "reliability"):
        job = plan.job(stage)
        seen[stage] = read_by(job, plan)
    options = plan.job("reliability").options
    bench = Bench.of(options, seen["reliability"], SimpleNamespace(seed=plan.settings.seed, device="cpu"))
    assert 0 <= bench.x.min() < 0.2 < 0.8 < bench.x.max() <= 1
    assert torch.equal(bench.x, seen["saliency"].index.source.batch(sampled(24, 4, plan.settings.seed)))
    network, found = seen["saliency"].network.pixels("cpu"), rows(done, "saliency")
    images = list(dict.fromkeys(row["image"] for row in found))
    x, classes = seen["saliency"].index.source.batch(images), torch.tensor([row["target"] for row in found[:3]])
    for name in ("input x gradient", "integrated gradients"):
        (file,) = {row["file"] for row in found if row["method"] == name}
        drawn = load(done[1]["saliency"][0].read(file))["maps"]
        judged = methods()[name](bench.network, x, classes, x)
        torch.testing.assert_close(drawn, judged, rtol=1e-4, atol=1e-6)
    assert torch.equal(bench.network(x), network(x))


def test_what_is_marked_beside_chance(done):
    found = {(row["method"], row["measure"]): row for row in rows(done, "saliency", "faithfulness")}
    assert {method for method, _ in found} == {*STAGES["saliency"]["methods"], "edges", "centre"}
    assert {measure for _, measure in found} == {"deletion", "insertion", "pointing"}
    for row in found.values():
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["apart_low"] <= row["apart"] <= row["apart_high"]
        assert row["apart"] == pytest.approx(row["value"] - row["chance"], abs=1e-9)
        good = row["apart_high"] < 0 if row["measure"] == "deletion" else row["apart_low"] > 0
        assert row["better"] == good
        control = found[row["control"], row["measure"]]
        rivals = [found[name, row["measure"]]["value"] for name in ("edges", "centre")]
        assert control["value"] == (min if row["measure"] == "deletion" else max)(rivals)
        assert row["beyond"] == pytest.approx(row["value"] - control["value"], abs=1e-9)
    assert found["grad-cam", "deletion"]["value"] < found["grad-cam", "deletion"]["chance"]


def test_how_methods_are_made_is_written_down(done):
    notes = {row["method"]: row for row in rows(done, "saliency", "saliency_methods")}
    assert set(notes) == set(STAGES["saliency"]["methods"])
    assert notes["grad-cam"]["note"] == "features: 64 units on 12 × 12 cells"
    assert all(row["drawn"] for row in rows(done, "reliability", "reliability_methods"))
    page = done[1]["report"][0].read("saliency.html").decode()
    assert "features: 64 units on 12 × 12 cells" in page
    assert "from black, in 32 steps" in page
    assert "Does the network use what is marked?" in page


def test_objects_are_boxes_or_masks_of_the_picture_s_own_label(done):
    plan = Plan(Request(done[0]))
    index = read_by(plan.job("saliency"), plan).index
    found = objects(index, [3, 0])
    for shown, image in zip(found, (3, 0), strict=True):
        annotation, record = index.source.dataset.annotation(image), index.source.record(image)
        number = next(concept.number for concept in index.source.dataset.concepts if concept.name == record.label)
        wanted = (annotation.planes["object"] == number).any(0)
        assert 0.02 < wanted.mean() < 0.6
        assert (shown == wanted).mean() > 0.97  # masks are half as large as the frame
    boxed = replace(index.source.record(0), box=(10.0, 20.0, 40.0, 70.0))
    dataset = copy.copy(index.source.dataset)
    dataset.records = [boxed, *dataset.records[1:]]
    seen = SimpleNamespace(
        source=replace(index.source, dataset=dataset), frame=index.frame, concepts=index.concepts, masks=index.masks
    )
    (box,) = objects(seen, [0])
    wanted = np.zeros((96, 96), bool)
    wanted[20:70, 10:40] = True
    assert np.array_equal(box, wanted)


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        ("saliency", {"methods": ["guided", "deconvolution"]}, "stages.saliency.methods: at least one must suit"),
        ("reliability", {"methods": ["guided"]}, "stages.reliability.methods: at least one must suit"),
        ("saliency", {"methods": ["grad-cam"], "cam_layer": "nowhere"}, "stages.saliency.cam_layer: nowhere"),
        ("saliency", {"methods": ["grad-cam"], "cam_layer": "head"}, "stages.saliency.cam_layer: head"),
    ],
)
def test_what_could_only_fail_later_is_refused_before_the_first_stage(stage, options, words, tmp_path):
    content = {
        "name": "bent",
        "network": {
            "load": "torchvision.models.swin_transformer:SwinTransformer",
            "arguments": SWIN,
            "layers": ["features.1"],
            "input": {"size": [32, 32]},
        },
        "dataset": {"format": "creatures", "count": 6, "size": 32},
        "stages": {stage: options, "report": False},
    }
    plan = Plan(Request(write_audit(tmp_path / "audit.yaml", content)))
    with pytest.raises(InputError) as refused:
        plan.preflight()
    assert words in str(refused.value)


def test_methods_that_a_network_cannot_have_are_left_out_by_name(tmp_path):
    content = {
        "name": "left-out",
        "network": {
            "load": "torchvision.models.swin_transformer:SwinTransformer",
            "arguments": SWIN,
            "layers": ["features.1"],
            "input": {"size": [32, 32]},
        },
        "dataset": {"format": "creatures", "count": 6, "size": 32},
        "stages": {
            "saliency": {"images": 2, "methods": ["gradient", "guided", "grad-cam"]},
            "reliability": {"images": 2, "methods": ["gradient", "guided", "grad-cam"], "randomised": 3},
        },
    }
    done = run(write_audit(tmp_path / "audit.yaml", content))
    assert {row["method"] for row in done["saliency"][0].table("saliency").to_pylist()} == {"gradient", "grad-cam"}
    assert {row["method"] for row in done["reliability"][0].table("reliability").to_pylist()} == {
        "gradient",
        "grad-cam",
    }
    for stage in ("saliency", "reliability"):
        notes = {row["method"]: row for row in done[stage][0].table(f"{stage}_methods").to_pylist()}
        assert not notes["guided"]["drawn"]
        assert "gelu" in notes["guided"]["note"]
        assert notes["grad-cam"]["note"].startswith("features.3.0: 16 units on 4 × 4 cells")
    page = done["report"][0].read("saliency.html").decode()
    assert "left out" in page
    assert "gelu (2 calls)" in page


def test_verdicts_are_those_that_the_literature_expects(done):
    found = rows(done, "reliability")
    invariance = {(row["method"], row["shift_or_layer"]): row for row in found if row["test"] == "input invariance"}
    for shift in ("-1", "minus channel mean", "+0.5", "drawn image"):
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
    seen = read_by(plan.job("adversarial"), plan)
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


def test_detectors_count_on_unchanged_pictures_once_for_all_attacks(done, monkeypatch):
    plan = Plan(Request(done[0]))
    job = plan.job("adversarial")
    seen, counted = read_by(job, plan), []
    count = Detectors.counts
    monkeypatch.setattr(Detectors, "counts", lambda self, *args: counted.append(self) or count(self, *args))
    shard = Shard(job.options, seen, Session(plan.files, plan.settings, Silent()).of(job))
    left: dict[str, list[dict[str, object]]] = {}
    draft = SimpleNamespace(
        write=lambda *_: None, leave=lambda name, tables: left.update({name: tables["adversarial"]})
    )
    for name in ("001", "000", "002"):
        shard(draft, name)
    batches = -(-job.options.images // BATCH)
    assert len(counted) == (1 + 2 * 3) * batches  # each attack and its noise
    found = rows(done, "adversarial")
    assert [row for name in sorted(left) for row in left[name]] == found[: sum(map(len, left.values()))]


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
        "saliency.html": "✗ fails",
        "features.html": "highest natural activation",
        "fields.html": "Minimal images",
        "adversarial.html": "by noise",
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
@pytest.mark.soak
@long_form
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
