"""Bootstrap, held-out halves, permutation null, p and q: against literal recounts."""

import numpy as np
import pytest

from microtome.quantify.dissection import best, detectors, iou
from microtome.quantify.null import NullCounts
from microtome.quantify.resampling import (
    ImageCounts,
    WeightedCounts,
    bootstrap,
    bootstrap_weights,
    halves,
    permutation_plan,
)
from microtome.quantify.significance import p_values, permutations_needed

IMAGES, UNITS, CONCEPTS, PIXELS = 12, 4, 5, 30
CATEGORY = np.array([0, 0, 1, 1, 1])


@pytest.fixture
def world():
    """Random lit pixels and labels: dense boolean arrays."""
    rng = np.random.default_rng(0)
    lit = rng.random((IMAGES, UNITS, PIXELS)) < 0.3
    number = np.stack([rng.integers(0, 3, (IMAGES, PIXELS)), rng.integers(0, 4, (IMAGES, PIXELS))], 1)
    number[3, 0] = number[7, 1] = 0
    masks = np.zeros((IMAGES, CONCEPTS, PIXELS), bool)
    for concept in range(CONCEPTS):
        category = CATEGORY[concept]
        masks[:, concept] = number[:, category] == (concept + 1 if category == 0 else concept - 1)
    annotated = np.stack([number[:, 0].any(1), number[:, 1].any(1)], 1)
    return lit, masks, annotated


def image_counts(lit, masks, annotated, first, last):
    dense = np.einsum("iup,icp->iuc", lit[first:last].astype(int), masks[first:last].astype(int))
    image, unit, concept = np.nonzero(dense)
    pixels = masks[first:last].sum(2)
    return ImageCounts(
        first, image + first, unit, concept, dense[image, unit, concept], lit[first:last].sum(2), pixels,
        annotated[first:last],
    )  # fmt: skip


def literal_scores(lit, masks, annotated, chosen):
    """IoU over a list of images, with repetition."""
    scores = np.zeros((UNITS, CONCEPTS))
    for unit in range(UNITS):
        for concept in range(CONCEPTS):
            i = sum(int((lit[n, unit] & masks[n, concept]).sum()) for n in chosen)
            a = sum(int(lit[n, unit].sum()) for n in chosen if annotated[n, CATEGORY[concept]])
            total = sum(int(masks[n, concept].sum()) for n in chosen)
            scores[unit, concept] = i / (a + total - i) if a + total - i else 0
    return scores


def weighted(world, weights, **options):
    counts = WeightedCounts(weights, UNITS, CATEGORY, **options)
    for first, last in ((0, 5), (5, 6), (6, 12)):
        counts.update(image_counts(*world, first, last))
    return counts


def test_weighted_counts_are_recounts_of_the_drawn_images(world):
    weights = bootstrap_weights(IMAGES, 6, np.random.default_rng(1))
    assert (weights.sum(1) == IMAGES).all()
    counts = weighted(world, weights)
    for row, weight in enumerate(weights):
        chosen = np.repeat(np.arange(IMAGES), weight)
        np.testing.assert_array_equal(counts.scores(row), literal_scores(*world, chosen))


def test_all_images_as_the_denominator(world):
    lit, masks, annotated = world
    counts = weighted(world, np.ones((1, IMAGES), np.int32), all_images=True)
    expected = literal_scores(lit, masks, np.ones_like(annotated), range(IMAGES))
    np.testing.assert_array_equal(counts.scores(0), expected)


def test_bootstrap_summary(world):
    weights = bootstrap_weights(IMAGES, 40, np.random.default_rng(2))
    observed = literal_scores(*world, range(IMAGES))
    labels = best(observed, CATEGORY)
    blocks = [weighted(world, weights[:25]), weighted(world, weights[25:])]
    result = bootstrap(blocks, labels, 0.1)
    drawn = [literal_scores(*world, np.repeat(np.arange(IMAGES), weight)) for weight in weights]
    own = np.array([scores[np.arange(UNITS), labels.concept] for scores in drawn])
    np.testing.assert_array_equal(result.low, np.quantile(own, 0.025, axis=0))
    np.testing.assert_array_equal(result.label_stability, np.mean([s.argmax(1) == labels.concept for s in drawn], 0))
    unique = [detectors(scores, labels, 0.1).per_category for scores in drawn]
    assert (result.unique_per_category.low, result.unique_per_category.high) == tuple(
        np.quantile(unique, (0.025, 0.975))
    )


def test_halves_are_disjoint_and_complete():
    split = halves(13, np.random.default_rng(0))
    assert (split.sum(0) == 1).all()
    assert split.sum(1).tolist() == [6, 7]


def null_of(world, plans):
    lit, masks, _ = world
    null = NullCounts(plans, UNITS, CONCEPTS)

    def read(category, image):
        inside = np.flatnonzero(category == CATEGORY)
        plane = (masks[image, inside] * (inside + 1)[:, None]).sum(0).astype(np.uint16)
        return plane[None]

    for first, last in ((0, 7), (7, 12)):
        parts = [np.nonzero(lit[image]) for image in range(first, last)]
        null.update(first, parts, read)
    return null


def test_the_null_is_a_recount_with_exchanged_annotations(world):
    lit, masks, annotated = world
    plans = permutation_plan(annotated, 5, np.random.default_rng(3))
    null = null_of(world, plans)
    activation = np.einsum("iup,ic->uc", lit.astype(int), annotated.astype(int))[:, CATEGORY]
    pixels = masks.sum((0, 2))
    for permutation in range(5):
        exchanged = masks.copy()
        for concept in range(CONCEPTS):
            exchanged[:, concept] = masks[plans[CATEGORY[concept]][permutation], concept]
        counted = np.einsum("iup,icp->uc", lit.astype(int), exchanged.astype(int))
        np.testing.assert_array_equal(null.intersection[permutation, :, 1:], counted)
        expected = iou(counted, activation, pixels).max(1)
        np.testing.assert_array_equal(null.best(activation, pixels)[permutation], expected)


def test_only_images_that_carry_the_category_are_exchanged(world):
    annotated = world[2]
    for category, plan in enumerate(permutation_plan(annotated, 8, np.random.default_rng(4))):
        bare = np.flatnonzero(~annotated[:, category])
        assert (plan[:, bare] == bare).all()
        assert all(sorted(row) == list(range(IMAGES)) for row in plan.tolist())


def test_the_null_averages_to_its_closed_form(world):
    """Over all cyclic shifts each image meets each annotation once: the mean is exact, not approximate.

    E[I] = (1 / n) sum_p (sum_i M(i, p)) (sum_j L(j, p)).
    """
    lit, masks, _ = world
    shifts = np.stack([np.roll(np.arange(IMAGES), shift) for shift in range(IMAGES)])
    null = null_of(world, [shifts, shifts])
    expected = lit.sum(0).astype(float) @ masks.sum(0).astype(float).T / IMAGES
    np.testing.assert_allclose(null.intersection[:, :, 1:].mean(0), expected, rtol=1e-12)


def test_labels_of_whole_pictures_in_the_null(world):
    lit, _, annotated = world
    plans = permutation_plan(annotated, 4, np.random.default_rng(5))
    null = NullCounts(plans, UNITS, CONCEPTS)
    images, concepts = np.array([0, 2, 9]), np.array([2, 3, 2])
    null.update_whole(lit.sum(2), [(1, images, concepts)])
    has = np.zeros((IMAGES, CONCEPTS), int)
    has[images, concepts] = 1
    for permutation, plan in enumerate(plans[1]):
        np.testing.assert_array_equal(null.intersection[permutation, :, 1:], lit.sum(2).T @ has[plan])


def test_p_and_q_by_hand():
    null = np.array([[0.1, 0.5], [0.2, 0.1], [0.3, 0.1]])
    assert p_values(np.array([0.2, 0.6]), null).tolist() == [3 / 4, 1 / 4]


def test_how_many_permutations_would_be_needed():
    p = np.full(100, 0.5)
    p[:10] = 1 / 21
    assert permutations_needed(p, 20) == 199
    assert 100 / (200 * 10) <= 0.05
    assert permutations_needed(np.full(4, 1 / 201), 200) == 200


def test_a_unit_that_follows_nothing_is_rarely_significant():
    """p-values of units that light pixels at random are uniform enough: no more than chance below 0.05."""
    rng = np.random.default_rng(6)
    null = rng.random((99, 2000))
    assert abs((p_values(rng.random(2000), null) <= 0.05).mean() - 0.05) < 0.02
