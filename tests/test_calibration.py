"""Calibration: p-values of units that know nothing are uniform, and 95 % intervals hold the truth in 95 %.

What each interval reaches, its worst world included: benchmarks/results/calibration.jsonl, from the same worlds.
"""

from collections import defaultdict

import numpy as np
import pytest
from scipy.stats import kstest

from microtome.quantify.intervals import share_interval
from microtome.quantify.resampling import permutation_plan
from microtome.quantify.significance import p_values
from tests.calibration import IMAGES, cases, counted
from tests.conftest import count, soak

PERMUTATIONS = 99
# Plain quantiles of resamples are too narrow for few pictures; docs/intervals.md says so.
SMALL_SAMPLES = {
    "location instability": 0.85,
    "paired difference of instabilities": 0.85,
    "slope of the shift test": 0.88,
}


def null_unit(rng, *, within):
    """The p of a unit that knows the source of a picture and nothing else: each lights and labels as it likes."""
    images, pixels = 30, 400  # so many that two exchanges hardly ever give the same IoU: equal ones make p too large
    source = np.repeat([0, 1, 2], images // 3)
    lit = rng.random((images, pixels)) < rng.random(3)[source][:, None] * 0.5
    masks = rng.random((2, images, pixels)) < (rng.random((2, 3)) * 0.5)[:, source][..., None]
    covered = masks.sum((1, 2)) + lit.sum()

    def best_iou(order):
        both = (masks[:, order] & lit).sum((1, 2))
        return (both / (covered - both)).max()

    strata = source if within else np.zeros(images, np.int64)
    (plan,) = permutation_plan(np.ones((images, 1), bool), PERMUTATIONS, rng, strata)
    null = np.array([[best_iou(order)] for order in plan])
    return p_values(np.array([best_iou(np.arange(images))]), null)[0]


def unsteady(p, rng):
    """p = k / (1 + permutations) spread over its step: uniform, if all k are as likely."""
    return p - rng.random(len(p)) / (1 + PERMUTATIONS)


@pytest.mark.soak
def test_p_values_of_null_units_are_uniform_within_strata_alone():
    rng, units = np.random.default_rng(0), soak(400, 4000)
    within, across = (np.array([null_unit(rng, within=inside) for _ in range(units)]) for inside in (True, False))
    count("p-values of null units", 2 * units)
    assert kstest(unsteady(within, rng), "uniform").pvalue > 0.01
    assert share_interval((within <= 0.05).astype(float))[1] < 0.05
    assert kstest(unsteady(across, rng), "uniform").pvalue < 1e-6  # and the test would see it
    assert share_interval((across <= 0.05).astype(float))[1] > 0.05


@pytest.mark.soak
def test_intervals_hold_the_truth():
    """Averaged over truths or worlds 93 to 97 %, at 10, 20 and 50 pictures, give or take what so few samples allow."""
    samples, found = soak(60, 1000), defaultdict(list)
    for case in cases():
        found[case.interval, case.images].append(case.coverage(samples))
        count("simulated intervals", samples)
    assert len(found) == 11 * len(IMAGES)
    for (interval, images), covered in found.items():
        allowed = 2.6 * np.sqrt(0.95 * 0.05 / (samples * len(covered)))
        low = SMALL_SAMPLES.get(interval, 0.93) if images < 50 else 0.93
        high = 0.99 if interval.startswith(("near hits", "share of shares")) else 0.97
        assert low - allowed <= np.mean(covered) <= high + allowed, (interval, images, np.mean(covered))


@pytest.mark.soak
def test_intervals_of_a_dissections_counts_hold_what_other_pictures_would_give():
    samples = soak(30, 400)
    for images in (20, 50)[: soak(1, 2)]:
        for found in counted(images, samples):
            count("simulated counts of a dissection", samples)
            allowed = 2.6 * np.sqrt(0.85 * 0.15 / samples)
            assert found.coverage >= 0.85 - allowed, (found.name, images, found.coverage)
