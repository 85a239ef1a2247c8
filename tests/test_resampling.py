"""Bootstrap, held-out halves, permutation null, p and q: against literal recounts."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from microtome.quantify.dissection import best, detectors, iou
from microtome.quantify.intervals import Interval, expanded_ends
from microtome.quantify.null import AllLabels, NullCounts
from microtome.quantify.resampling import (
    Draws,
    ImageCounts,
    WeightedCounts,
    bootstrap,
    bootstrap_draws,
    bootstrap_weights,
    confirmed_draws,
    count_interval,
    halves,
    long_runs,
    narrow,
    permutation_plan,
    redrawn_halves,
)
from microtome.quantify.significance import p_values, permutations_needed
from microtome.quantify.upsample import Lit
from microtome.quantify.words import LABEL, label_words, lit_words, tiles, whole_words

IMAGES, UNITS, CONCEPTS, PIXELS = 12, 4, 5, 30
MASKS = (3, 10)  # two tiles, neither of them full
CATEGORY = np.array([0, 0, 1, 1, 1])
STRATA = np.array([0, 1, 0, 0, 1, 2, 1, 0, 1, 0, 1, 2])


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


def test_long_runs_are_the_same_counts_in_fewer_parts(world, monkeypatch):
    monkeypatch.setattr("microtome.quantify.resampling.RUN", 5)
    parts = [image_counts(*world, first, first + 2) for first in range(0, IMAGES, 2)]
    runs = list(long_runs(iter(parts)))
    assert [(run.first, len(run.activated)) for run in runs] == [(0, 6), (6, 6)]
    for run in runs:
        whole = image_counts(*world, run.first, run.first + 6)
        for name, value in vars(whole).items():
            np.testing.assert_array_equal(getattr(run, name), value, err_msg=name)
    assert [len(run.activated) for run in long_runs(parts[:4])] == [6, 2]


def test_weighted_counts_are_recounts_of_the_drawn_images(world):
    weights = bootstrap_weights(IMAGES, 6, np.random.default_rng(1))
    assert (weights.sum(1) == IMAGES).all()
    counts = weighted(world, weights)
    for row, weight in enumerate(weights):
        chosen = np.repeat(np.arange(IMAGES), weight)
        np.testing.assert_array_equal(counts.scores(row), literal_scores(*world, chosen))


@pytest.mark.parametrize("lit", [[7, 2**24 - 7], [2, 2**24 - 1], [2**24 + 1, 2**24 + 3]])
def test_lit_pixels_are_added_exactly_however_many_there_are(lit):
    """Half of the numbers above 2**24 are none of float32's."""
    none, one = np.zeros(0, np.int64), np.ones((2, 1), np.int64)
    counts = WeightedCounts(np.ones((1, 2), np.int32), 1, np.zeros(1, np.int64))
    counts.update(ImageCounts(0, none, none, none, none, np.array([lit]).T, one, one > 0))
    counts.update(ImageCounts(0, *np.array([[0], [0], [0], [1]]), *np.zeros((2, 1, 1), int), np.ones((1, 1), bool)))
    assert counts.scores(0).item() == 1 / (sum(lit) + 2 - 1)


def test_labels_and_scores_of_some_concepts_are_those_of_all(world):
    weights = bootstrap_weights(IMAGES, 9, np.random.default_rng(11))
    weights[4] = 0  # nothing is drawn: every IoU is 0, and the first concept wins
    counts, some = weighted(world, weights), np.array([[0, 4], [3, 1], [-1, 2], [2, 2]])
    every = np.stack([counts.scores(row) for row in range(len(counts))])
    assert not every[4].any()
    np.testing.assert_array_equal(counts.winners(), every.argmax(2))
    np.testing.assert_array_equal(counts.scores_of(some), every[:, np.arange(UNITS)[:, None], some])


def test_what_labels_of_one_half_reach_on_the_other(world):
    rng = np.random.default_rng(12)
    weights, pictures = redrawn_halves(halves(IMAGES, rng), 7, rng), np.arange(IMAGES)
    weights[6] = 0  # a half of nothing: the first concept is its label
    found = weighted(world, weights).heldout()
    for pair in range(7):
        chosen = [np.repeat(pictures, weight) for weight in weights[2 * pair : 2 * pair + 2]]
        one, other, whole = (literal_scores(*world, some) for some in (*chosen, np.concatenate(chosen)))
        np.testing.assert_array_equal(found.iou[pair], other[np.arange(UNITS), one.argmax(1)])
        np.testing.assert_array_equal(found.whole[pair], whole.max(1))


@pytest.mark.parametrize("kept", [slice(0, 4), slice(4, 9), slice(8, 20), slice(2, 3)])
def test_some_resamples_are_those_of_all(world, kept):
    """So that a shard needs no more memory than its own resamples take."""
    split = halves(IMAGES, np.random.default_rng(0))
    whole, some = (bootstrap_weights(IMAGES, 10, np.random.default_rng(1), kept=part) for part in (slice(None), kept))
    np.testing.assert_array_equal(some, whole[kept])
    whole, some = (redrawn_halves(split, 10, np.random.default_rng(2), kept=part) for part in (slice(None), kept))
    np.testing.assert_array_equal(some, whole[2 * kept.start : 2 * kept.stop])
    whole, some = (
        permutation_plan(world[2], 10, np.random.default_rng(3), STRATA, kept=part) for part in (slice(None), kept)
    )
    for plan, part in zip(whole, some, strict=True):
        np.testing.assert_array_equal(part, plan[kept])


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
    counted = detectors(observed, labels, 0.1)
    parts = [bootstrap_draws([block], labels, 0.1) for block in blocks]
    result = bootstrap(Draws.joined(parts), IMAGES, CONCEPTS, counted)
    drawn = [literal_scores(*world, np.repeat(np.arange(IMAGES), weight)) for weight in weights]
    own = np.array([scores[np.arange(UNITS), labels.concept] for scores in drawn])
    np.testing.assert_allclose(result.mean_iou, own.mean(1), rtol=1e-12)
    np.testing.assert_array_equal(result.low[:, 0], np.quantile(own, expanded_ends(IMAGES)[0], axis=0))
    ranked = [sorted(range(CONCEPTS), key=lambda c: (-row[c], c)) for row in observed]
    for rank in range(CONCEPTS):
        near = np.array([[scores[unit, ranked[unit][rank]] for unit in range(UNITS)] for scores in drawn])
        expected = np.quantile(near, expanded_ends(IMAGES), axis=0)
        np.testing.assert_array_equal([result.low[:, rank], result.high[:, rank]], expected)
    np.testing.assert_array_equal(result.label_stability, np.mean([s.argmax(1) == labels.concept for s in drawn], 0))
    held = [detectors(scores, labels, 0.1) for scores in drawn]
    for name, found, most in (
        ("units", result.detectors, UNITS),
        ("per_category", result.unique_per_category, CONCEPTS),
        ("per_unit", result.unique_per_unit, CONCEPTS),
    ):
        counts = np.array([getattr(item, name) for item in held])
        moved = np.quantile(counts, (0.025, 0.975)) - counts.mean() + getattr(counted, name)
        assert [found.low, found.high] == outwards(moved, getattr(counted, name), most)


def test_one_block_of_resamples_is_held_at_a_time(world):
    """Each is as large as memory bears."""
    weights, labels = bootstrap_weights(IMAGES, 6, np.random.default_rng(2)), best(np.eye(UNITS, CONCEPTS), CATEGORY)
    held = weakref.WeakSet()

    def block(first):
        assert not held
        made = weighted(world, weights[first : first + 2])
        held.add(made)
        return made

    bootstrap_draws((block(first) for first in (0, 2, 4)), labels, 0.1)
    assert len(confirmed_draws((block(first) for first in (0, 2, 4)), np.ones(UNITS, bool), 0.1)) == 3


def test_weights_are_kept_in_a_byte_each_where_that_holds_them(world):
    weights = bootstrap_weights(IMAGES, 6, np.random.default_rng(1))
    assert narrow(weights).dtype == np.uint8
    np.testing.assert_array_equal(narrow(weights), weights)
    few, wide = weighted(world, narrow(weights)), weighted(world, weights)
    for row in range(6):
        np.testing.assert_array_equal(few.scores(row), wide.scores(row))
    many = np.array([[255, 0], [256, 1]], np.int32)
    assert narrow(many) is many
    assert narrow(many[:1]).tolist() == [[255, 0]]


def outwards(moved, value, most):
    """The whole numbers around an interval, the value within, nothing below 0 or above what a count can reach."""
    low, high = (np.floor(moved[0] + 1e-9), np.ceil(moved[1] - 1e-9))
    return [max(0.0, min(low, value)), min(most, max(high, value))]


def test_halves_are_disjoint_and_complete():
    split = halves(13, np.random.default_rng(0))
    assert (split.sum(0) == 1).all()
    assert split.sum(1).tolist() == [6, 7]


def test_redrawn_halves_draw_from_their_own_half_alone():
    split = halves(13, np.random.default_rng(0))
    drawn = redrawn_halves(split, 50, np.random.default_rng(1))
    assert drawn.shape == (100, 13)
    for side in (0, 1):
        assert (drawn[side::2].sum(1) == split[side].sum()).all()
        assert not drawn[side::2][:, split[side] == 0].any()
        assert (drawn[side::2].max(0) > 1)[split[side] == 1].all()


def literally_confirmed(world, first, second, believed):
    one, other, whole = (literal_scores(*world, chosen) for chosen in (first, second, [*first, *second]))
    found = []
    for unit in range(UNITS):
        label = max(range(CONCEPTS), key=lambda concept: one[unit, concept])
        found.append(believed[unit] and max(whole[unit]) > 0.13 and other[unit, label] > 0.13)
    return found


def test_confirmed_detectors_pass_on_the_other_half_and_beyond_chance(world):
    believed, rng = np.array([True, True, False, True]), np.random.default_rng(8)
    weights = redrawn_halves(halves(IMAGES, rng), 30, rng)
    counts, pictures = weighted(world, weights), np.arange(IMAGES)
    expected = [
        literally_confirmed(world, np.repeat(pictures, one), np.repeat(pictures, other), believed)
        for one, other in zip(weights[::2], weights[1::2], strict=True)
    ]
    assert counts.heldout().confirmed(believed, 0.13).tolist() == expected
    numbers = np.array(expected).sum(1)
    assert len(set(numbers.tolist())) > 1
    blocks = [weighted(world, weights[:20]), weighted(world, weights[20:])]
    interval = count_interval(2, confirmed_draws(blocks, believed, 0.13).astype(float), UNITS)
    moved = np.quantile(numbers, (0.025, 0.975)) - numbers.mean() + 2
    assert [interval.low, interval.high] == outwards(moved, 2, UNITS)


def test_the_interval_of_a_count_stays_within_what_it_can_be():
    assert count_interval(1, np.array([0.0, 6.0]), 9) == Interval(0.0, 4.0)  # 0.15 - 3 + 1, 5.85 - 3 + 1
    assert count_interval(4, np.array([0.0, 6.0]), 5) == Interval(1.0, 5.0)
    drawn = np.full(1000, 11.0)
    drawn[:20] = 10  # quantiles of 11, a mean of 10.98: moved to 11.02, and the count itself must not fall out
    assert count_interval(11, drawn, 60) == Interval(11.0, 12.0)


def words_of(lit, first, last):
    """What some images light, from (images, units, pixels)."""
    image, unit, pixel = (torch.from_numpy(part) for part in np.nonzero(lit[first:last]))
    found = Lit(image * lit.shape[1] + unit, image * lit.shape[2] + pixel, lit.shape[1], lit.shape[2])
    return lit_words(found, last - first, MASKS)


def counted_null(lit, annotations, plans, *, parts=2):
    """The counts under permutations, in two runs of images."""
    null = NullCounts(np.stack(plans), annotations, (lit.shape[1], CONCEPTS, tiles(MASKS)))
    with ThreadPoolExecutor(2) as pool:
        for first, last in ((0, 7), (7, len(lit))):
            null.update(first, last - first, words_of(lit, first, last), pool=pool, parts=parts)
    return null


def all_labels(labels):
    """From LABEL records per image and category."""
    sizes = [len(part) for of_image in labels for part in of_image]
    start = (np.cumsum(sizes) - sizes).reshape(len(labels), -1)
    return AllLabels(np.concatenate([part for of_image in labels for part in of_image]), start)


def null_of(world, plans, **options):
    lit, masks, _ = world
    labels = [
        [
            label_words((masks[image, inside] * (1 + np.arange(len(inside)))[:, None]).sum(0), inside, MASKS)
            for inside in (np.flatnonzero(category == CATEGORY) for category in (0, 1))
        ]
        for image in range(IMAGES)
    ]
    return counted_null(lit, all_labels(labels), plans, **options)


def test_the_null_is_a_recount_with_exchanged_annotations(world):
    lit, masks, annotated = world
    plans = permutation_plan(annotated, 5, np.random.default_rng(3), STRATA)
    null = null_of(world, plans)
    activation = np.einsum("iup,ic->uc", lit.astype(int), annotated.astype(int))[:, CATEGORY]
    pixels = masks.sum((0, 2))
    for permutation in range(5):
        exchanged = masks.copy()
        for concept in range(CONCEPTS):
            exchanged[:, concept] = masks[plans[CATEGORY[concept]][permutation], concept]
        counted = np.einsum("iup,icp->uc", lit.astype(int), exchanged.astype(int))
        np.testing.assert_array_equal(null.intersection[permutation].T, counted)
        expected = iou(counted, activation, pixels).max(1)
        np.testing.assert_array_equal(null.best(activation, pixels)[permutation], expected)


def test_only_images_that_carry_the_category_are_exchanged(world):
    annotated = world[2]
    for category, plan in enumerate(permutation_plan(annotated, 8, np.random.default_rng(4), STRATA)):
        bare = np.flatnonzero(~annotated[:, category])
        assert (plan[:, bare] == bare).all()
        assert all(sorted(row) == list(range(IMAGES)) for row in plan.tolist())


def test_annotations_stay_within_their_stratum_and_take_every_place_in_it(world):
    annotated = world[2]
    for category, plan in enumerate(permutation_plan(annotated, 400, np.random.default_rng(6), STRATA)):
        assert (STRATA[plan] == STRATA).all()
        for image in np.flatnonzero(annotated[:, category]):
            group = np.flatnonzero(annotated[:, category] & (STRATA[image] == STRATA))
            assert sorted(set(plan[:, image])) == group.tolist()


def test_one_stratum_is_an_exchange_among_all_pictures(world):
    """Bit by bit the plan that a shuffle of all who carry the category gives."""
    annotated, rng = world[2], np.random.default_rng(7)
    plans = permutation_plan(annotated, 6, np.random.default_rng(7), np.zeros(IMAGES, np.int64))
    for category, plan in enumerate(plans):
        members = np.flatnonzero(annotated[:, category])
        for row in plan:
            expected = np.arange(IMAGES)
            expected[members] = rng.permutation(members)
            assert row.tolist() == expected.tolist()


def p_of_a_unit_that_knows_the_source(seed):
    """p within strata and across them, of a unit and a concept at home in one source, at places that do not agree."""
    rng, images, pixels = np.random.default_rng(seed), 24, 40
    source = np.repeat([0, 1], images // 2)
    lit = rng.random((images, pixels)) < np.where(source, 0.02, 0.3)[:, None]
    concept = np.where(source, 2, 1)[:, None] * (rng.random((images, pixels)) < 0.3)
    mask = np.stack([concept == 1, concept == 2])
    pixels_of, lights = mask.sum((1, 2)), lit.sum()

    def best_iou(order):
        both = (lit & mask[:, order]).sum((1, 2))
        return (both / (lights + pixels_of - both)).max()

    everyone = np.ones((images, 1), bool)
    found = []
    for strata in (source, np.zeros(images, np.int64)):
        (plan,) = permutation_plan(everyone, 59, np.random.default_rng(seed), strata)
        null = np.array([[best_iou(row)] for row in plan])
        found.append(p_values(np.array([best_iou(np.arange(images))]), null)[0])
    return found


def test_a_unit_that_only_tells_sources_apart_is_significant_across_strata_alone():
    within, across = np.array([p_of_a_unit_that_knows_the_source(seed) for seed in range(60)]).T
    assert (across <= 0.05).sum() >= 55
    assert (within <= 0.05).sum() <= 8  # 3 are expected; more than 8 in 60 has a chance of 0.3 %


def test_the_null_averages_to_its_closed_form(world):
    """Over all cyclic shifts each image meets each annotation once: the mean is exact, not approximate.

    E[I] = (1 / n) sum_p (sum_i M(i, p)) (sum_j L(j, p)).
    """
    lit, masks, _ = world
    shifts = np.stack([np.roll(np.arange(IMAGES), shift) for shift in range(IMAGES)])
    null = null_of(world, [shifts, shifts])
    expected = lit.sum(0).astype(float) @ masks.sum(0).astype(float).T / IMAGES
    np.testing.assert_allclose(null.intersection.mean(0).T, expected, rtol=1e-12)


def test_labels_of_whole_pictures_in_the_null(world):
    lit, _, annotated = world
    plans = permutation_plan(annotated, 4, np.random.default_rng(5), STRATA)
    has = np.zeros((IMAGES, CONCEPTS), int)
    has[[0, 2, 9], [2, 3, 2]] = 1
    labels = [[np.zeros(0, LABEL), whole_words(np.flatnonzero(has[image]))] for image in range(IMAGES)]
    null = counted_null(lit, all_labels(labels), plans)
    for permutation, plan in enumerate(plans[1]):
        np.testing.assert_array_equal(null.intersection[permutation].T, lit.sum(2).T @ has[plan])


def literal_null(lit, planes, whole, plans):
    """I pixel by pixel.

    Args:
        lit: (images, units, pixels).
        planes: per image and category, planes of 0 or 1 + concept.
        whole: per image and category, concepts of the whole picture.
        plans: (permutations, images) per category.
    """
    counts = np.zeros((len(plans[0]), CONCEPTS, lit.shape[1]), int)
    for category, plan in enumerate(plans):
        for permutation, sources in enumerate(plan):
            for image, source in enumerate(sources):
                for unit, pixel in zip(*np.nonzero(lit[image]), strict=True):
                    for plane in planes[source][category]:
                        if plane[pixel]:
                            counts[permutation, plane[pixel] - 1, unit] += 1
                    for concept in whole[source][category]:
                        counts[permutation, concept, unit] += 1
    return counts


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_the_null_counts_pixel_by_pixel(parts):
    """Several planes in a category, none, labels of whole pictures, images without light; however it is divided."""
    rng = np.random.default_rng(12)
    lit = rng.random((9, 3, PIXELS)) < rng.choice([0, 0.2, 0.9], (9, 3, 1))
    lit[4] = False
    planes, whole, labels = [], [], []
    for _ in range(9):
        planes.append([rng.integers(0, CONCEPTS + 1, (rng.integers(0, 4), PIXELS)) for _ in range(3)])
        whole.append([rng.permutation(CONCEPTS)[: rng.integers(0, 3)] for _ in range(3)])
        words = [[label_words(plane, np.arange(CONCEPTS), MASKS) for plane in stacked] for stacked in planes[-1]]
        labels.append([np.concatenate([*some, whole_words(of)]) for some, of in zip(words, whole[-1], strict=True)])
    plans = [np.stack([rng.permutation(9) for _ in range(5)]) for _ in range(3)]
    expected = literal_null(lit, planes, whole, plans)
    assert expected.min(0).any()
    np.testing.assert_array_equal(counted_null(lit, all_labels(labels), plans, parts=parts).intersection, expected)


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


def test_runs_are_read_again_as_they_were(world):
    """From the scratch file: the same counts, by unit and concept, as often as they are asked for."""
    from tasks.tally.runs import Runs

    parts = [image_counts(*world, first, first + 3) for first in range(0, IMAGES, 3)]
    runs = Runs(iter(parts))
    for _ in range(2):
        (found,) = runs
        (expected,) = long_runs(parts)
        order = np.lexsort((expected.image, expected.concept, expected.unit))
        for name, value in vars(expected).items():
            wanted = value[order] if name in ("image", "unit", "concept", "intersection") else value
            np.testing.assert_array_equal(getattr(found, name), wanted, err_msg=name)
            assert name == "first" or getattr(found, name).dtype == value.dtype
