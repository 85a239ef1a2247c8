"""Detectors in resamples with thresholds of their own: as if pictures drawn twice lay in the data set twice."""

import numpy as np
import pytest
import torch

from microtome.quantify.accumulate import rank
from microtome.quantify.dissection import best, detectors, iou
from microtome.quantify.redrawn import PicturedTail, RedrawnCounts
from microtome.quantify.resampling import bootstrap_weights, count_interval
from microtome.quantify.upsample import Upsampler
from tasks.redrawn.result import RedrawnDetectors
from tests import literal
from tests.conftest import change_audit
from tests.test_dissection import GEOMETRIES, MASKS, SIZE, labelled
from tests.test_pipeline import run

LAYER, TAIL, CATEGORY, MIN_IOU = GEOMETRIES[0], 0.1, np.array([0, 0, 0, 1, 1, 1, 1]), 0.05
COLUMNS = ["detectors", "unique_per_category", "unique_per_unit"]


def pictures():
    """Maps of five pictures, with ties, and their annotations."""
    maps = torch.randn(5, 6, *LAYER.grid, generator=torch.Generator().manual_seed(3)).mul(4).round().div(4)
    masks, labels = labelled()
    return maps.numpy(), masks, labels, np.array([[True, image % 2 == 0] for image in range(5)])


def tail_of(maps, keep) -> PicturedTail:
    tail = PicturedTail(maps.shape[1], keep)
    for first in range(0, len(maps), 2):
        tail.update(first, maps[first : first + 2])
    return tail


def test_thresholds_are_those_of_repeated_pictures():
    maps = pictures()[0]
    weights = np.concatenate([bootstrap_weights(5, 20, np.random.default_rng(0)), np.ones((1, 5), np.int32)])
    found = tail_of(maps, maps[:, 0].size).thresholds(weights, TAIL)
    for own, thresholds in zip(weights, found, strict=True):
        values = np.repeat(maps, own, 0).swapaxes(0, 1).reshape(6, -1)
        at = rank(TAIL, values.shape[1])
        assert thresholds.tolist() == np.sort(values, 1)[:, ::-1][:, at].tolist()
        assert ((values > thresholds[:, None]).sum(1) <= at).all()


def test_a_tail_that_is_too_short_says_so_and_one_that_reaches_is_exact():
    maps = pictures()[0]
    only = np.array([[0, 0, 0, 0, 5]], np.int32)  # no other picture's values count
    values = maps[:, 0].size
    assert tail_of(maps, rank(TAIL, values) + 1).thresholds(only, TAIL) is None
    whole = tail_of(maps, values).thresholds(only, TAIL)
    assert whole[0].tolist() == np.sort(maps[4].reshape(6, -1), 1)[:, ::-1][:, rank(TAIL, values) // 5].tolist()


@pytest.mark.parametrize(("all_images", "inclusive"), [(False, False), (True, True)])
def test_counts_are_the_literal_ones_of_repeated_pictures(all_images, inclusive):
    maps, masks, labels, annotated = pictures()
    weights = bootstrap_weights(5, 8, np.random.default_rng(1))
    limits = tail_of(maps, maps[:, 0].size).thresholds(weights, TAIL)
    light = Upsampler(LAYER, SIZE, MASKS, inclusive=inclusive)
    held = best(np.random.default_rng(2).random((6, 7)), CATEGORY)
    counts = RedrawnCounts(held, CATEGORY, weights, limits, all_images=all_images, inclusive=inclusive)
    for first, count in ((0, 3), (3, 2)):
        part = slice(first, first + count)
        lit = light(torch.from_numpy(maps[part]), torch.from_numpy(counts.lowest), values=True)
        counts.update(first, lit, labels.part(part), (masks[part].sum((2, 3)), annotated[part]))
    seen = np.ones_like(annotated) if all_images else annotated
    for own, thresholds, found in zip(weights, limits, counts.detectors(MIN_IOU), strict=True):
        repeated = [np.repeat(part, own, 0) for part in (maps, masks, seen)]
        met, active = literal.dissect(
            repeated[0], thresholds, repeated[1], repeated[2], LAYER.start, LAYER.jump, SIZE, MASKS, inclusive=inclusive
        )[:2]
        scores = iou(met.astype(np.int64), active.astype(np.int64)[:, CATEGORY], repeated[1].sum((0, 2, 3)))
        assert found == detectors(scores, held, MIN_IOU)


def test_an_audit_that_asks_for_it_has_second_intervals(audit_file):
    (before,) = run(audit_file)["dissection"][0].table("layers").to_pylist()
    change_audit(audit_file, stages={"dissection": {"bootstrap": 20, "permutations": 0, "redrawn": 12}})
    done = run(audit_file)
    (layer,) = done["dissection"][0].table("layers").to_pylist()
    artifact = done["redrawn"][0]
    drawn = RedrawnDetectors(artifact, {}).shards("redrawn", ["resample", *COLUMNS]).to_pandas()
    assert before["detectors_redrawn_low"] is None
    assert drawn["resample"].tolist() == list(range(12))
    for column, low, high in (
        ("detectors", "detectors_redrawn_low", "detectors_redrawn_high"),
        ("unique_per_category", "unique_redrawn_low", "unique_redrawn_high"),
        ("unique_per_unit", "unique_per_unit_redrawn_low", "unique_per_unit_redrawn_high"),
    ):
        expected = count_interval(layer[column], drawn[column].to_numpy(float), 10_000)
        assert (layer[low], layer[high]) == (expected.low, expected.high)
    assert layer["detectors"] == before["detectors"]
