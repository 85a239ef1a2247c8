"""Draws with labels held, against the full bootstrap's counts and toys worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.quantify import held
from microtome.quantify.drift import NONE, labels, matched, redrawn, unit_drift
from microtome.quantify.resampling import (
    ImageCounts,
    WeightedCounts,
    bootstrap_weights,
    halves,
    redrawn_halves,
)

IMAGES, UNITS, CONCEPTS = 23, 7, 5
CATEGORY = np.array([0, 0, 1, 1, 1])


def world(seed: int, size: int = 6) -> list[ImageCounts]:
    """Counts of random pictures in blocks, as a tally has them."""
    rng = np.random.default_rng(seed)
    annotated = rng.random((IMAGES, 2)) < 0.7
    pixels = rng.integers(0, 60, (IMAGES, CONCEPTS)) * annotated[:, CATEGORY]
    activated = rng.integers(0, 40, (IMAGES, UNITS)) * (rng.random((IMAGES, UNITS)) < 0.6)
    met = np.minimum(activated[:, :, None], pixels[:, None]) * (rng.random((IMAGES, UNITS, CONCEPTS)) < 0.4)
    met = met * rng.random(met.shape)
    blocks = []
    for first in range(0, IMAGES, size):
        some = slice(first, min(first + size, IMAGES))
        image, unit, concept = np.nonzero(met[some].astype(int))
        counts = met[some].astype(int)[image, unit, concept]
        blocks.append(
            ImageCounts(first, image + first, unit, concept, counts, activated[some], pixels[some], annotated[some])
        )
    return blocks


def full(blocks, weights, all_images=False) -> np.ndarray:
    """(draws, units, concepts) IoU, every unit against every concept."""
    counts = WeightedCounts(weights, UNITS, CATEGORY, all_images=all_images)
    for block in blocks:
        counts.update(block)
    return np.array([counts.scores(draw) for draw in range(len(weights))])


@pytest.mark.parametrize("all_images", [False, True])
@pytest.mark.parametrize("group", [1, 10, 1024])
def test_held_scores_are_those_of_the_full_bootstrap(monkeypatch, all_images, group):
    monkeypatch.setattr(held, "GROUP", group)
    blocks, rng = world(1), np.random.default_rng(0)
    weights = bootstrap_weights(IMAGES, 12, rng)
    label = rng.integers(0, CONCEPTS, UNITS)
    label[2] = NONE
    only = np.arange(UNITS) % 3 != 1
    whole = full(blocks, weights, all_images)
    wanted = [held.Wanted(label, weights), held.Wanted(label, weights[:3], only)]
    every, some = held.held_scores(blocks, wanted, CATEGORY, all_images=all_images)
    expected = whole[:, np.arange(UNITS), label] * (label != NONE)
    np.testing.assert_array_equal(every, expected)
    np.testing.assert_array_equal(some, expected[:3, only])


def test_none_wanted_is_none():
    (found,) = held.held_scores(
        world(3), [held.Wanted(np.zeros(UNITS, int), np.ones((2, IMAGES), np.int32), np.zeros(UNITS, bool))], CATEGORY
    )
    assert found.shape == (2, 0)
    assert list(held.drawn_confirmed(found, found, 0.1)) == [0, 0]


@settings(deadline=None)  # loops are compiled in the first example
@given(st.integers(0, 200))
def test_labels_of_the_first_half_and_confirmed_detectors(seed):
    """Where every half is drawn as it is, the count is that of the dissection itself."""
    blocks, rng = world(seed), np.random.default_rng(seed)
    split = halves(IMAGES, rng)
    counts = WeightedCounts(split, UNITS, CATEGORY)
    for block in blocks:
        counts.update(block)
    half = held.half_labels(blocks, split, CATEGORY)
    np.testing.assert_array_equal(half, counts.scores(0).argmax(1))
    believed = rng.random(UNITS) < 0.7
    own = labels(full(blocks, split.sum(0, keepdims=True, dtype=np.int32))[0])
    whole, second = held.held_scores(
        blocks,
        [held.Wanted(own, split.sum(0, keepdims=True), believed), held.Wanted(half, split[1:], believed)],
        CATEGORY,
    )
    expected = counts.heldout().confirmed(believed, 0.05).sum()
    assert held.drawn_confirmed(whole, second, 0.05)[0] == expected


def test_units_over_draws_are_those_of_the_drift_stage():
    """Its draws label anew, too; what holds the labels is the same."""
    before, after = world(5), world(6)
    weights = bootstrap_weights(IMAGES, 40, np.random.default_rng(2))
    plain = np.ones((1, IMAGES), np.int32)
    found = matched(full(before, plain)[0], full(after, plain)[0])
    slow = redrawn(found, zip(full(before, weights), full(after, weights), strict=True))
    (own,) = held.held_scores(before, [held.Wanted(found.label_before, weights)], CATEGORY)
    wanted = [held.Wanted(label, weights) for label in (found.label_after, found.label_before)]
    quick = held.held_redrawn((own, *held.held_scores(after, wanted, CATEGORY)))
    for name in ("before", "after", "kept"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(slow, name))
    assert quick.changed is None
    np.testing.assert_array_equal(unit_drift(found, quick).q, unit_drift(found, slow).q)


def test_counts_of_a_draw_by_hand():
    own = np.array([[0.1, 0.3, 0.3, 0.0], [0.3, 0.3, 0.3, 0.3]])
    found = held.drawn_counts(own, np.array([4, 4, 2, NONE]), 0.2)
    assert list(found.detectors) == [2, 4]
    assert list(found.unique) == [2, 3]
    np.testing.assert_allclose(found.mean, [0.175, 0.3])


def test_a_difference_is_freed_of_bias_and_rounded_outwards():
    first, second = np.array([9.0, 10, 11]), np.array([13.0, 15, 17])  # differences 4, 5, 6 about a mean of 5
    low, high = held.difference((10, 13), (first, second), whole=False)
    assert (low, high) == (pytest.approx(2.05), pytest.approx(3.95))
    assert held.difference((10, 13), (first, second), whole=True) == (2, 4)
    assert held.difference((10, 10), (first, first), whole=True) == (0, 0)


def test_redrawn_halves_keep_every_picture_on_its_side():
    split = halves(IMAGES, np.random.default_rng(1))
    drawn = redrawn_halves(split, 5, np.random.default_rng(2)).reshape(5, 2, -1)
    assert not (drawn.astype(bool) & ~split.astype(bool)).any()
