"""Drift: the same units of two networks, against literal recounts, by hand, and through an audit."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from flows.plan import Plan, Request
from microtome.errors import InputError
from microtome.quantify import drift
from microtome.quantify.drift import NONE, DetectorDrift, layer_drift, matched, random_changed, redrawn, unit_drift
from microtome.quantify.resampling import WeightedCounts, bootstrap_weights
from microtome.report import views
from microtome.report.drift import (
    Drifted,
    DriftedLayer,
    DriftFindings,
    DriftLayerRow,
    DriftUnitRow,
    UnitPicture,
    UnitPictures,
    leading,
    page,
)
from tests.conftest import CREATURE_NET, WEIGHTS, change_audit, write_audit
from tests.test_known_answers import squeezenet
from tests.test_pipeline import run
from tests.test_resampling import CATEGORY, CONCEPTS, IMAGES, UNITS, image_counts, literal_scores, world

MIN_IOU, RESAMPLES = 0.12, 60
__all__ = ["world"]  # a fixture


# by hand

BEFORE = np.array([[0.5, 0.1, 0.0], [0.0, 0.0, 0.0], [0.2, 0.2, 0.1], [0.0, 0.03, 0.3]])
AFTER = np.array([[0.2, 0.4, 0.0], [0.0, 0.1, 0.0], [0.25, 0.1, 0.0], [0.0, 0.0, 0.0]])


def test_units_are_matched_by_number():
    found = matched(BEFORE, AFTER)
    assert found.label_before.tolist() == [0, NONE, 0, 2]  # of equal ones the first
    assert found.label_after.tolist() == [1, 1, 0, NONE]
    assert found.iou_before.tolist() == [0.5, 0.0, 0.2, 0.3]
    assert found.iou_after.tolist() == [0.4, 0.1, 0.25, 0.0]
    assert found.kept_iou.tolist() == [0.2, 0.0, 0.25, 0.0]
    assert found.earlier_iou.tolist() == [0.1, 0.0, 0.2, 0.0]
    assert found.changed.tolist() == [True, True, False, True]
    np.testing.assert_allclose(found.change, [-0.3, np.nan, 0.05, -0.3])
    np.testing.assert_allclose(found.best_change, [-0.1, 0.1, 0.05, -0.3])


def test_random_pairs_are_all_pairs_of_different_units():
    before, after = np.array([0, 0, 1, NONE]), np.array([0, 1, 1, NONE])
    pairs = [before[u] != after[v] for u in range(4) for v in range(4) if u != v]
    assert random_changed(before, after) == pytest.approx(np.mean(pairs))
    assert np.mean(pairs) == pytest.approx(10 / 12)
    assert random_changed(before[:1], after[:1]) is None
    assert random_changed(np.zeros(5, int), np.zeros(5, int)) == 0


def test_detectors_kept_lost_and_gained():
    before, after = np.array([0.5, 0.5, 0.5, 0.1, 0.1, 0.3]), np.array([0.4, 0.4, 0.1, 0.4, 0.1, 0.31])
    changed = np.array([False, True, False, True, True, False])
    found = drift.detectors(before, after, changed, 0.3)  # strictly above
    assert found == DetectorDrift(before=3, after=4, kept=1, lost=1, gained=2)
    assert found.shares == (1 / 3, 1 / 3, 2 / 4)
    assert np.isnan(drift.detectors(before, after, changed, 0.9).shares).all()


def test_thresholds_on_the_units_own_scale():
    thresholds = np.array([1.0, 2.0, 0.0, 5.0]), np.array([3.0, 2.0, 0.0, 1.0])
    deviations = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 7.0, 0.0, 2.0])
    found = drift.threshold_change(thresholds, deviations)
    np.testing.assert_allclose(found, [2.0, 0.0, np.nan, -4 / np.sqrt(2)])


def test_p_counts_the_rarer_side_and_zero_on_both():
    change = np.array([[0.1, 0.0, -0.1], [0.2, 0.0, -0.2], [-0.1, 0.0, -0.3]])
    assert drift.sign_p_values(change).tolist() == [1.0, 1.0, 0.5]  # 2 (1 + 1) / 4, 2 (1 + 3) / 4 cut, 2 / 4


def test_how_many_resamples_would_be_needed():
    p = np.array([2 / 21] * 2 + [1.0] * 98)
    needed = drift.resamples_needed(p, 20)
    assert needed == 1999
    assert 2 / (1 + needed) * 100 / 2 <= 0.05 < 2 / needed * 100 / 2
    assert drift.resamples_needed(np.full(100, 0.2), 20) == 20  # nobody at its floor
    assert drift.resamples_needed(np.array([2 / 1001] * 5), 1000) == 1000


def test_sure_changes_need_q_and_a_sign():
    found = matched(BEFORE, AFTER)
    assert drift.sure_changes(found, np.array([0.05, np.nan, 0.01, 0.06])) == (1, 1)


# literally, from lit pixels


@pytest.fixture
def other(world):
    """Another network over the same pictures: most of what the first one lights, shifted a little; unit 2 lights
    nothing."""
    lit, masks, annotated = world
    rng = np.random.default_rng(9)
    moved = np.where(rng.random(lit.shape) < 0.6, lit, rng.random(lit.shape) < 0.3)
    moved[:, 2] = False
    return moved, masks, annotated


def counts(of, weights):
    found = WeightedCounts(weights, UNITS, CATEGORY)
    for first, last in ((0, 5), (5, 6), (6, 12)):
        found.update(image_counts(*of, first, last))
    return found


def literal_label(scores):
    """The first concept of the highest IoU, or none."""
    best = max(range(CONCEPTS), key=lambda concept: (scores[concept], -concept))
    return best if scores[best] > 0 else None


def literal_shift(value, drawn):
    """Percentile interval moved onto the value, and kept within 0 and 1."""
    low, high = np.percentile(drawn, 2.5), np.percentile(drawn, 97.5)
    middle = sum(drawn) / len(drawn)
    return value, min(max(low - middle + value, 0), 1), min(max(high - middle + value, 0), 1)


def literal_shares(labels, values):
    """Kept and lost of the detectors before, gained of those after."""
    (before, after), (first, second) = labels, values
    was = [u for u in range(UNITS) if first[u] > MIN_IOU]
    now = [u for u in range(UNITS) if second[u] > MIN_IOU]
    kept = sum(u in now and before[u] == after[u] for u in was) / len(was)
    lost = sum(u not in now for u in was) / len(was)
    return kept, lost, sum(u not in was for u in now) / len(now)


def test_everything_is_a_literal_recount(world, other):
    weights = bootstrap_weights(IMAGES, RESAMPLES, np.random.default_rng(4))
    whole = [literal_scores(*of, range(IMAGES)) for of in (world, other)]
    blocks = [(counts(world, some), counts(other, some)) for some in (weights[:25], weights[25:])]
    pairs = [(a.scores(w), b.scores(w)) for a, b in blocks for w in range(len(a))]
    found = matched(*whole)
    drawn = redrawn(found, pairs)
    sure, layer = unit_drift(found, drawn), layer_drift(found, MIN_IOU, drawn)

    before, after = ([literal_label(scores[u]) for u in range(UNITS)] for scores in whole)
    assert after[2] is None
    assert before != after
    again = [[literal_scores(*of, np.repeat(np.arange(IMAGES), w)) for of in (world, other)] for w in weights]

    def value(scores, unit, label):
        return 0.0 if label is None else float(scores[unit, label])

    for u in range(UNITS):
        own = [value(b, u, before[u]) - value(a, u, before[u]) for a, b in again]
        best = [value(b, u, after[u]) - value(a, u, before[u]) for a, b in again]
        apart = [literal_label(a[u]) != literal_label(b[u]) for a, b in again]
        assert (sure.low[u], sure.high[u]) == pytest.approx(tuple(np.percentile(own, (2.5, 97.5))))
        assert (sure.best_low[u], sure.best_high[u]) == pytest.approx(tuple(np.percentile(best, (2.5, 97.5))))
        assert sure.apart[u] == pytest.approx(sum(apart) / RESAMPLES)
        rarer = min(sum(x <= 0 for x in own), sum(x >= 0 for x in own))
        assert sure.p[u] == pytest.approx(min(1, 2 * (1 + rarer) / (1 + RESAMPLES)))
    ordered = sorted(sure.p)
    for u in range(UNITS):  # Benjamini-Hochberg: the least p m / rank of the ranks from one's own on
        assert sure.q[u] == pytest.approx(
            min(min(1, p * UNITS / (rank + 1)) for rank, p in enumerate(ordered) if p >= sure.p[u])
        )

    changed = [sum(literal_label(a[u]) != literal_label(b[u]) for u in range(UNITS)) / UNITS for a, b in again]
    value_changed = sum(x != y for x, y in zip(before, after, strict=True)) / UNITS
    assert (layer.changed.value, layer.changed.low, layer.changed.high) == pytest.approx(
        literal_shift(value_changed, changed)
    )
    relabelled = [sum(literal_label(a[u]) != before[u] for u in range(UNITS)) / UNITS for a, _ in again]
    assert layer.redrawn == pytest.approx(sum(relabelled) / RESAMPLES)

    def shares(a, b):
        values = [value(a, u, before[u]) for u in range(UNITS)], [value(b, u, after[u]) for u in range(UNITS)]
        return literal_shares((before, after), values)

    columns = list(zip(*(shares(a, b) for a, b in again), strict=True))
    for made, expected, column in zip((layer.kept, layer.lost, layer.gained), shares(*whole), columns, strict=True):
        assert (made.value, made.low, made.high) == pytest.approx(literal_shift(expected, column))

    for made, labels in ((layer.change, before), (layer.best_change, after)):
        drop = [np.mean([value(b, u, labels[u]) - value(a, u, before[u]) for u in range(UNITS)]) for a, b in again]
        mean = np.mean([value(whole[1], u, labels[u]) - value(whole[0], u, before[u]) for u in range(UNITS)])
        low, high = np.percentile(drop, (2.5, 97.5)) - np.mean(drop) + mean
        assert (made.value, made.low, made.high) == pytest.approx((mean, low, high))


def test_the_same_network_differs_by_exactly_zero(world):
    weights = bootstrap_weights(IMAGES, 40, np.random.default_rng(5))
    pairs = [(scores.copy(), scores) for scores in (counts(world, weights).scores(w) for w in range(40))]
    scores = literal_scores(*world, range(IMAGES))
    found = matched(scores, scores.copy())
    drawn = redrawn(found, pairs)
    sure, layer = unit_drift(found, drawn), layer_drift(found, MIN_IOU, drawn)
    for zero in (found.change, found.best_change, sure.low, sure.high, sure.best_low, sure.best_high, sure.apart):
        assert (zero == 0).all()
    assert (sure.p == 1).all()
    assert (sure.q == 1).all()
    zero, one = drift.Estimate(0.0, 0.0, 0.0), drift.Estimate(1.0, 1.0, 1.0)
    assert (layer.changed, layer.change, layer.best_change, layer.lost, layer.gained) == (zero,) * 5
    assert layer.kept == one
    assert layer.redrawn is not None
    assert layer.redrawn > 0  # what redrawing does within one network is not nothing


def test_renumbered_units_differ_as_much_as_random_pairs():
    """The same units in another order: what is wrong with matching by number where numbers mean nothing."""
    rng = np.random.default_rng(0)
    before = rng.random((300, 10))
    found = layer_drift(matched(before, before[rng.permutation(300)]), 0.5)
    assert found.random is not None
    assert found.changed.value == pytest.approx(found.random, abs=0.06)
    assert found.random == pytest.approx(0.9, abs=0.02)
    assert found.detectors.before == found.detectors.after


def test_units_without_any_label():
    nothing = np.zeros((3, 4))
    found = matched(nothing, nothing)
    drawn = redrawn(found, [(nothing, nothing)] * 5)
    sure, layer = unit_drift(found, drawn), layer_drift(found, MIN_IOU, drawn)
    assert np.isnan([sure.low, sure.high, sure.p, sure.q]).all()
    assert (layer.change.value, layer.kept.value) == (None, None)
    assert layer.changed == drift.Estimate(0.0, 0.0, 0.0)
    alone = layer_drift(found, MIN_IOU)
    assert (alone.redrawn, alone.changed, alone.best_change) == (None, drift.Estimate(0.0), drift.Estimate(0.0))


def pictures(count, rng):
    """Labelled pixels of pictures, and those that a unit lights of them in each network."""
    size, share = rng.gamma(4.0, 25.0, count), np.clip(rng.normal(0.5, 0.2, count), 0, 1)
    return size, np.stack([size * share, size * np.clip(share - 0.1 + rng.normal(0, 0.05, count), 0, 1)])


def known_change() -> float:
    size, inside = pictures(1_000_000, np.random.default_rng(1))
    before, after = inside.sum(1) / size.sum()
    return float(after - before)


def test_the_interval_of_a_change_covers_the_truth_and_pairing_narrows_it():
    """Worlds of 80 pictures from one population whose IoUs are known; both networks share the pictures' difficulty."""
    rng = np.random.default_rng(3)
    held, widths, truth = 0, [], known_change()
    for _ in range(150):
        size, inside = pictures(80, rng)
        weights = bootstrap_weights(80, 200, rng)
        drawn = weights @ inside.T / (weights @ size)[:, None]  # I / L of one unit on one concept, A = I
        whole = inside.sum(1) / size.sum()
        found = matched(whole[:1, None], whole[1:, None])
        sure = unit_drift(found, redrawn(found, [(row[:1, None], row[1:, None]) for row in drawn]))
        held += sure.low[0] <= truth <= sure.high[0]
        apart = np.quantile(drawn[:, 1], (0.025, 0.975)) - np.quantile(drawn[:, 0], (0.025, 0.975))[::-1]
        widths.append((sure.high[0] - sure.low[0]) / (apart[1] - apart[0]))
    assert 0.88 < held / 150 < 0.995
    assert np.mean(widths) < 0.5


# through an audit


@pytest.fixture
def checkpoints(audit_file) -> Path:
    """An audit of a tiny network with the weights `now`, and an earlier checkpoint: `now` before one filter moved."""
    import sys

    folder = audit_file.parent
    sys.path.insert(0, str(folder))
    import nets

    sys.path.remove(str(folder))
    state = nets.tiny().state_dict()
    save_file(state, folder / "earlier.safetensors")
    state["3.weight"][5] *= -1
    state["3.bias"][5] += 0.2
    save_file(state, folder / "now.safetensors")
    network = {"load": "nets:tiny", "weights": "now.safetensors", "layers": ["2", "4"], "input": {"size": [64, 64]}}
    stages = {"dissection": {"bootstrap": 50, "permutations": 0}, "drift": {"before": "earlier.safetensors"}}
    change_audit(audit_file, network=network, stages=stages)
    return audit_file


def test_a_checkpoint_beside_an_earlier_one(checkpoints):
    done = run(checkpoints)
    made = done["drift"][0]
    units = made.table("drift_units").to_pandas().set_index(["layer", "unit"])
    moved = units.drop([("4", 5)])
    for column in ("change", "change_low", "change_high", "best_change", "apart_share", "threshold_change"):
        assert (moved[column].dropna() == 0).all(), column
    assert not moved.changed.any()
    assert units.loc[("4", 5), "change"] != 0
    assert units.loc[("4", 5), "threshold_change"] != 0
    frozen, changed = made.table("drift_layers").to_pylist()
    assert (frozen["layer"], frozen["changed_share"], frozen["changed_high"]) == ("2", 0, 0)
    assert frozen["kept"] == frozen["detectors_before"] == frozen["detectors_after"]
    assert (changed["layer"], changed["units"], changed["images"]) == ("4", 12, 70)
    assert changed["best_change"] == pytest.approx(units.loc[("4", 5), "best_change"] / 12)

    for weights, when in (("now", "after"), ("earlier", "before")):  # as a dissection of each network says
        dissected = run(checkpoints, f"network.weights={weights}.safetensors", "stages.drift=false")["dissection"][0]
        expected = dissected.table("units").to_pandas()
        assert units[f"concept_{when}"].fillna("").tolist() == expected.concept.fillna("").tolist()
        for name in ("iou", "threshold", "detector"):
            assert units[f"{name}_{when}"].tolist() == expected[name].tolist()


def test_the_earlier_checkpoint_is_an_input_that_verify_reads(checkpoints):
    folder = checkpoints.parent
    read = {file for files in Plan(Request(checkpoints)).planner.inputs.values() for file in files}
    assert {str(folder / "now.safetensors"), str(folder / "earlier.safetensors")} <= read


def test_what_is_known_is_not_computed_again(checkpoints):
    run(checkpoints)
    assert all(cached for _, cached in run(checkpoints).values())
    again = run(checkpoints, "stages.dissection.min_iou=0.1")
    assert [name for name, (_, cached) in again.items() if not cached] == ["dissection", "drift", "pages", "report"]
    swapped = run(checkpoints, "network.weights=earlier.safetensors", "stages.drift.before=now.safetensors")
    assert {name for name, (_, cached) in swapped.items() if not cached} == {"dissection", "drift", "pages", "report"}


def test_the_same_weights_under_another_name_have_not_drifted(checkpoints):
    copy = checkpoints.parent / "copy.safetensors"
    copy.write_bytes((checkpoints.parent / "now.safetensors").read_bytes())
    done = run(checkpoints, "stages.drift.before=copy.safetensors")
    assert done["activations:drift-before"][1]  # known by content
    assert done["drift"][0].table("drift_layers").column("changed_high").to_pylist() == [0, 0]
    assert "Nothing drifted" in done["report"][0].read("drift.html").decode()


def test_without_resamples_and_without_a_dissection(checkpoints):
    done = run(checkpoints, "stages.dissection.bootstrap=0")
    for row in done["drift"][0].table("drift_layers").to_pylist():
        assert row["changed_low"] is row["redrawn_share"] is row["fallen"] is None
    assert "Without resamples (bootstrap: 0)" in done["report"][0].read("drift.html").decode()
    change_audit(checkpoints, stages={"drift": {"before": "earlier.safetensors"}})
    alone = run(checkpoints)
    assert "dissection" not in alone
    assert alone["drift"][0].table("drift_layers").column("bootstrap").to_pylist() == [1000, 1000]


def test_gates_may_ask(checkpoints):
    change_audit(checkpoints, gates=[{"metric": "drift_layers.changed_share", "max": 0.05, "layer": "2"}])
    (gate,) = run(checkpoints)["gates"][0].table("gates").to_pylist()
    assert gate["passed"]


def test_what_cannot_be_compared_is_refused_before_anything_runs(checkpoints):
    def planned(*overrides):
        return Plan(Request(checkpoints, overrides=overrides)).jobs

    with pytest.raises(InputError, match=r"stages\.drift\.before: no such file, got 'gone\.pth'"):
        planned("stages.drift.before=gone.pth")
    with pytest.raises(InputError, match=r"stages\.drift\.before: no such file"):
        planned("stages.drift.before=.pth")
    with pytest.raises(InputError, match="must have a network to compare with, got none"):
        planned("stages.drift.before=null")
    save_file({"0.weight": load_file(WEIGHTS)["features.0.weight"]}, checkpoints.parent / "other.safetensors")
    plan = Plan(Request(checkpoints, overrides=("stages.drift.before=other.safetensors",)))
    with pytest.raises(InputError, match=r"other\.safetensors does not fit the network"):
        plan.preflight()


def test_before_and_after_fine_tuning(tmp_path):
    network = {**CREATURE_NET, "layers": ["features.9", "features.12"]}
    content = {
        "name": "tuned",
        "network": network,
        "datasets": {
            "main": {"format": "creatures", "count": 60, "seed": 3},
            "birds": {"format": "creatures", "count": 80, "seed": 5, "categories": ["bird"]},
            "others": {"format": "creatures", "count": 20, "seed": 6, "categories": ["cat"]},
        },
        "stages": {
            "dissection": {"permutations": 0, "bootstrap": 40},
            "finetuning": {"dataset": "birds", "negatives": "others", "epochs": 1, "rate": [0.05, 0.05]},
            "drift": {},
        },
    }
    done = run(write_audit(tmp_path / "audit.yaml", content))
    for name in ("drift", "drift:twin"):
        frozen, trained = done[name][0].table("drift_layers").to_pylist()
        assert frozen["layer"] == "features.9"
        assert frozen["changed_share"] == frozen["change"] == frozen["threshold_change"] == frozen["best_change"] == 0
        assert trained["threshold_change"] > 0
        assert trained["change"] != 0
    text = done["report"][0].read("drift.html").decode()
    assert "Before: before fine-tuning. After: interpretable (masks and filter loss). Over the same 60" in text
    assert "features.12, twin" in text


@pytest.mark.real
@pytest.mark.slow
def test_real_photographs_and_a_network_trained_on_a_little(real_data, tmp_path):
    """squeezenet1_0, and the same after three steps that move its last Fire module alone."""
    import torch
    from torchvision.models import squeezenet1_0

    from microtome.datasets import open_dataset

    torch.manual_seed(0)
    network = squeezenet1_0()
    network.load_state_dict(load_file(real_data / "weights/squeezenet1_0.safetensors"))
    photographs = open_dataset("broden", real_data / "broden-mini", {})
    pictures = torch.stack([torch.from_numpy(np.asarray(photographs.picture(n), np.float32)) for n in range(4)])
    batch = (pictures.permute(0, 3, 1, 2) / 255 - 0.45) / 0.225
    optimiser = torch.optim.SGD(network.features[12].parameters(), lr=3e-4)
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(batch), torch.arange(4)).backward()
        optimiser.step()
    save_file(network.state_dict(), tmp_path / "after.safetensors")
    content = {
        "name": "drift",
        "network": squeezenet(real_data) | {"weights": "after.safetensors", "layers": ["features.11", "features.12"]},
        "dataset": {"format": "broden", "root": str(real_data / "broden-mini"), "limit": 80},
        "stages": {
            "dissection": {"bootstrap": 40, "permutations": 0},
            "drift": {"before": str(real_data / "weights/squeezenet1_0.safetensors")},
            "report": False,
        },
    }
    done = run(write_audit(tmp_path / "audit.yaml", content), until="drift")
    below, moved = done["drift"][0].table("drift_layers").to_pylist()
    assert below["changed_high"] == below["change"] == below["best_change_high"] == below["threshold_change"] == 0
    assert 0 < moved["changed_share"] < moved["random_share"]
    assert moved["kept"] + moved["lost"] <= moved["detectors_before"]
    assert moved["threshold_change"] > 0


# the page, from findings made by hand


LAYER: DriftLayerRow = {
    "layer": "conv",
    "units": 50,
    "images": 1234,
    "changed_share": 0.4,
    "changed_low": 0.3,
    "changed_high": 0.5,
    "random_share": 0.9,
    "redrawn_share": 0.2,
    "detectors_before": 10,
    "detectors_after": 8,
    "kept": 5,
    "lost": 3,
    "gained": 1,
    "kept_share": 0.5,
    "kept_low": 0.4,
    "kept_high": 0.6,
    "lost_share": 0.3,
    "gained_share": 0.125,
    "change": -0.0123,
    "change_low": -0.02,
    "change_high": -0.01,
    "best_change": 0.001,
    "best_change_low": -0.002,
    "best_change_high": 0.004,
    "risen": 2,
    "fallen": 7,
    "threshold_change": 0.25,
    "min_iou": 0.04,
    "bootstrap": 1000,
    "bootstrap_needed": 1000,
}
UNIT: DriftUnitRow = {
    "unit": 3,
    "concept_before": "wing",
    "concept_after": "tail",
    "changed": True,
    "iou_before": 0.2,
    "iou_after": 0.15,
    "kept_iou": 0.1,
    "change": -0.1,
    "change_low": -0.2,
    "change_high": -0.05,
    "q_value": 0.01,
    "best_change": -0.05,
    "threshold_before": 1.0,
    "threshold_after": 2.0,
    "threshold_change": 0.5,
}


def row(**changes: object) -> DriftLayerRow:
    return {**LAYER, **changes}  # type: ignore[typeddict-item]


def unit(number: int, **changes: object) -> DriftUnitRow:
    return {**UNIT, "unit": number, **changes}  # type: ignore[typeddict-item]


STILL = unit(
    1, concept_after="wing", changed=False, iou_after=0.2, kept_iou=0.2, change=0.0, change_low=0.0, change_high=0.0,
    q_value=1.0, best_change=0.0, threshold_after=1.0, threshold_change=0.0,
)  # fmt: skip


def found(*layers: DriftLayerRow, units=(UNIT, STILL)) -> DriftFindings:
    images = UnitPictures([UnitPicture("assets/a.webp", "a.png", 1.5)], [UnitPicture("assets/b.webp", "b.png", 2.5)])
    top = {3: images} if UNIT in units else {}
    return DriftFindings([Drifted("old.pth", "new.pth", [DriftedLayer(one, units, top) for one in layers])], (64, 96))


def parts_of(made: views.Page, kind: str) -> list:
    return [part for section in made.sections for part in section.parts if part.kind == kind]


def test_the_page_begins_with_the_verdict():
    kept = "5 of its 10 detectors still detect their concept, 3 detect nothing any more; the IoU of the label before "
    kept += "fell in 7 units, rose in 2 (q ≤ 0.05)."
    made = page(found(row()))
    drifted = "conv drifted: 40% [30%, 50%] of its 50 units carry another label, where redrawing the pictures would "
    drifted += "relabel 20%."
    assert made.headline == f"{drifted}\n{kept}"
    assert made.figures.items[:3] == [
        ("another label", "40%", "95 %: 30% to 50%"),
        ("if pictures are redrawn", "20%", "change by that alone, before"),
        ("in random pairs", "90%", "of different units differ"),
    ]
    assert made.figures.items[3][1:] == ("+0.0010", "mean change, 95 %: [−0.0020, +0.0040]")


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (
            {"redrawn_share": 0.45},
            "The labels of conv changed no more than redrawing the pictures would change them: 40% [30%, 50%] of its "
            "50 units carry another label, beside 45% within the network before.",
        ),
        ({"redrawn_share": 0.35}, "The labels of conv changed perhaps no more than redrawing"),
        ({"changed_high": 0.95}, "Unit numbers no longer mean the same in conv: 40% [30%, 95%] of its 50 units carry"),
        ({"changed_share": 0.0, "changed_low": 0.0, "random_share": 0.0}, "The labels of conv hold: each of its 50"),
        ({"bootstrap": 100}, "conv drifted: 40% [30%, 50%] of its 50 units carry another label, where redrawing the "
            "pictures would relabel 20%.\n5 of its 10 detectors still detect their concept, 3 detect nothing any more; "
            "with so few resamples no unit's change of IoU can be sure."),
        ({"random_share": None}, "conv drifted: 40% [30%, 50%] of its 50 units carry another label, where"),
        (
            {"redrawn_share": None, "changed_low": None, "changed_high": None, "fallen": None},
            "conv drifted: 40% of its 50 units carry another label.\n5 of its 10 detectors still detect their concept, "
            "3 detect nothing any more.",
        ),
        ({"lost": 0}, "conv drifted: 40% [30%, 50%] of its 50 units carry another label, where redrawing the pictures "
            "would relabel 20%.\n5 of its 10 detectors still detect their concept, none is lost; the IoU"),
        ({"detectors_before": 0}, "conv drifted: 40% [30%, 50%] of its 50 units carry another label, where redrawing "
            "the pictures would relabel 20%.\nIt had no detector at IoU > 0.04, and has 8."),
    ],
)  # fmt: skip
def test_verdicts(changes, verdict):
    assert page(found(row(**changes))).headline.startswith(verdict)


def test_the_layer_that_changed_most_beyond_redrawing_heads_the_page():
    layers = row(layer="low", changed_share=0.6, redrawn_share=0.5), row(layer="high")
    assert page(found(*layers)).headline.startswith("high drifted")
    still = found(row(layer="low", changed_share=0.0), units=[STILL]).pairs[0].layers
    moved = found(row(layer="high", changed_share=0.1, changed_low=0.0, redrawn_share=0.3)).pairs[0].layers
    both = DriftFindings([Drifted("old", "new", [*still, *moved])], (64, 96))
    assert page(both).headline.startswith("The labels of high changed no more")  # not the layer that stood still
    assert [section.heading for section in page(both).sections][1:3] == [
        "What units of high look at", "Units of high that changed most",
    ]  # fmt: skip


def test_equal_networks():
    made = page(found(row(), units=[STILL]))
    assert (
        made.headline == "Nothing drifted: the labels, IoUs and thresholds of all 50 units are equal in both networks."
    )
    assert [section.heading for section in made.sections] == ["Layers", "How to read this"]
    shifted = unit(1, **{**STILL, "threshold_after": 1.5})
    assert not page(found(row(), units=[shifted])).headline.startswith("Nothing drifted")


def test_tables():
    labels, kept, change, units = parts_of(page(found(row())), "table")
    (line,) = labels.rows
    assert [cell for cell in line if isinstance(cell, str)] == ["conv", "50", "40% [30%, 50%]", "20%", "90%"]
    strip = line[3]
    assert (strip.value, strip.low, strip.high) == (40, 30, 50)
    assert [mark[:2] for mark in strip.marks] == [(90, "chance"), (20, "aim")]
    assert [line[1] for line in kept.rows] == ["10", "8", "5", "50% [40%, 60%]", "2", "3 (30%)", "1 (12%)"]
    assert [line[1] for line in change.rows] == [
        "+0.0010 [−0.0020, +0.0040]", "−0.012 [−0.020, −0.010]", "7", "2", "0.25",
    ]  # fmt: skip
    assert kept.columns == [("detectors", False), ("conv", True)]  # one row would be a wide line
    (line,) = units.rows
    assert [cell for cell in line if isinstance(cell, str)] == [
        "wing → tail", "0.200 → 0.100", "−0.10 [−0.20, −0.05]", "0.01",
    ]  # fmt: skip
    assert line[0] == views.Links([("unit 3", "unit/conv/3.html")])
    strip = line[5]
    assert (strip.low, strip.value, strip.high, strip.marks[0][:2]) == (0, 25, 37.5, (50, "aim"))


def test_a_unit_that_had_no_label():
    none = unit(4, concept_before=None, change=None, change_low=None, change_high=None, q_value=None, kept_iou=0.0)
    made = page(found(row(change=None, change_low=None, change_high=None), units=[none]))
    line = parts_of(made, "table")[3].rows[0]
    assert line[1:5] == ["none → tail", "0.200", "–", "–"]
    assert line[5].value is None


def test_exact_zeros_are_seen():
    zero = dict.fromkeys(("change", "change_low", "change_high", "best_change_low"), 0.0)
    best, before, *_ = parts_of(page(found(row(**zero, best_change=-0.00001))), "table")[2].rows
    assert (best[1], before[1]) == ("−0.0000 [0, +0.0040]", "0 [0, 0]")


def test_a_units_card():
    (gallery,) = parts_of(page(found(row())), "gallery")
    (card,) = gallery.cards
    assert (card.title, card.anchor, card.note) == ("unit 3", "drift/conv/3", "wing → tail")
    assert [(spot.thumb, spot.caption) for spot in card.spots] == [
        ("assets/a.webp", "before"), ("assets/b.webp", "after"),
    ]  # fmt: skip
    assert card.spots[1].alt == "b.png, unit 3 after, peak 2.5"
    assert [fact[:2] for fact in card.facts] == [("IoU before", "0.200"), ("after", "0.100"), ("q", "0.01")]


def test_of_many_units_the_first_are_shown():
    many = page(found(row(), units=[unit(number) for number in range(20)]))
    table = parts_of(many, "table")[3]
    assert (len(table.rows), table.form) == (16, "stack brief")
    assert table.note.endswith("The first 16 of 20 units that changed.")


def test_leading_units_are_sure_ones_first_and_none_that_stood_still():
    unsure, sure, gained = unit(1, q_value=0.06, change=-0.9), unit(2), unit(5, change=None, q_value=None)
    assert leading([STILL, gained, unsure, sure], 9) == [sure, unsure, gained]
    assert leading([unsure, sure], 1) == [sure]


def test_advice():
    def advice(**changes: object) -> list[str]:
        return [part.text for part in parts_of(page(found(row(**changes))), "text") if part.style == "advice"]

    assert advice() == []
    assert advice(bootstrap=0, bootstrap_needed=0)[0].startswith("Without resamples (bootstrap: 0)")
    assert advice(bootstrap_needed=1999) == [
        "With 1000 resamples no q-value of one layer can fall to 0.05; 1999 would allow it."
    ]


def test_controls_stand_beside_the_network():
    pair = found(row()).pairs[0]
    both = DriftFindings([pair, Drifted("old", "twin", found(row(changed_share=0.1)).pairs[0].layers)], (64, 96))
    labels = parts_of(page(both), "table")[0]
    assert [line[0] for line in labels.rows] == ["conv, new.pth", "conv, twin"]
    assert page(both).headline == page(found(row())).headline
