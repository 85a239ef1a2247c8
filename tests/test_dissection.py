"""I, A, L, IoU, labels and unique detectors: against the literal version, and by hand."""

import numpy as np
import pytest
import torch

from microtome.networks import LayerGeometry
from microtome.quantify.dissection import Labels, best, detectors, iou, tally
from microtome.quantify.intervals import wilson
from microtome.quantify.kept_labels import OwnCounts, joined_counts, own_counts
from microtome.quantify.upsample import Lit, Upsampler, grid_positions
from tests import literal

SIZE, MASKS = (64, 48), (32, 24)


def geometry(units, grid, start, jump):
    return LayerGeometry("x", units, grid, start, jump, (9.0, 9.0), False)


GEOMETRIES = [
    geometry(6, (7, 5), (6.5, 4.5), (8.0, 8.0)),
    geometry(6, (7, 5), (-3.0, 0.5), (11.0, 12.0)),
    geometry(6, (1, 1), (30.0, 20.0), (8.0, 8.0)),
    geometry(6, (40, 30), (0.5, 0.5), (1.6, 1.6)),
    geometry(6, (9, 4), (25.0, 30.0), (3.7, 5.3)),
]


def labelled(images=5, concepts=7, seed=1):
    """Boolean masks, and the same as two planes without repeats; concepts 5 and 6 label whole pictures."""
    rng = np.random.default_rng(seed)
    pixels = MASKS[0] * MASKS[1]
    masks = np.zeros((images, concepts, *MASKS), bool)
    planes = np.zeros((images, 2, pixels), np.uint16)
    present, whole = [], []
    for image in range(images):
        first, second = rng.integers(0, 6, (2, pixels))
        second[second == first] = 0
        planes[image] = first, second
        for concept in range(5):
            masks[image, concept] = ((first == concept + 1) | (second == concept + 1)).reshape(MASKS)
        present.append(np.arange(5))
        whole.append(np.array([5, 6] if image == 2 else [5] if image % 2 else [], int))
        masks[image, whole[-1]] = True
    return masks, Labels(planes, present, whole)


@pytest.mark.parametrize("layer", GEOMETRIES)
@pytest.mark.parametrize("inclusive", [False, True])
def test_counts_equal_the_literal_ones(layer, inclusive):
    maps = torch.randn(5, 6, *layer.grid, generator=torch.Generator().manual_seed(3))
    limits = torch.tensor([0.0, 0.5, float(maps[0, 2].max()), 1.5, -9.0, 9.0])
    masks, labels = labelled()
    annotated = np.array([[True, image % 2 == 0] for image in range(5)])
    lit = Upsampler(layer, SIZE, MASKS, inclusive=inclusive)(maps, limits)
    counts = tally(lit, labels)
    intersection = np.zeros((6, 7), np.int64)
    np.add.at(intersection, (counts.unit, counts.concept), counts.intersection)
    expected = literal.dissect(
        maps.numpy(), limits.numpy(), masks, annotated, layer.start, layer.jump, SIZE, MASKS, inclusive=inclusive
    )
    np.testing.assert_array_equal(intersection, expected[0])
    np.testing.assert_array_equal(counts.activated.T @ annotated, expected[1])
    order = list(zip(counts.image, counts.unit, counts.concept, strict=True))
    assert order == sorted(set(order))


def test_each_pixel_is_lit_once():
    layer = GEOMETRIES[0]
    maps = torch.ones(2, 3, *layer.grid)
    lit = Upsampler(layer, SIZE, MASKS)(maps, torch.tensor([0.5, 1.0, 2.0]))
    pixels = MASKS[0] * MASKS[1]
    assert torch.bincount(lit.unit, minlength=3).tolist() == [2 * pixels, 0, 0]
    assert len(set(zip(lit.image.tolist(), lit.unit.tolist(), lit.pixel.tolist(), strict=True))) == 2 * pixels


def test_equal_neighbours_give_exactly_their_value():
    """A map that is constant at its threshold must not light by rounding."""
    layer = geometry(1, (3, 3), (5.3, 5.7), (7.1, 6.9))
    value = torch.tensor([0.1])
    assert len(Upsampler(layer, SIZE, MASKS)(value.expand(1, 1, 3, 3).contiguous(), value).pixel) == 0


def test_half_pixel_positions():
    layer = geometry(1, (4, 4), (0.0, 0.0), (1.0, 1.0))
    assert grid_positions(layer, 0, (8, 8), (8, 8), align="half-pixel").tolist() == [
        (i + 0.5) / 2 - 0.5 for i in range(8)
    ]


def test_unknown_alignment_is_refused():
    with pytest.raises(ValueError, match="receptive-field, half-pixel"):
        grid_positions(GEOMETRIES[0], 0, SIZE, MASKS, align="corner")


def test_an_empty_union_gives_zero():
    assert iou(np.array([[0]]), np.array([[0]]), np.array([0])).tolist() == [[0.0]]


def test_unique_detectors_in_both_ways():
    """Concepts 0, 1 are objects, 2, 3 parts. Unit 0 detects an object and a part; unit 1 the same part more."""
    scores = np.array([[0.5, 0.1, 0.3, 0.0], [0.0, 0.0, 0.2, 0.0], [0.02, 0.03, 0.0, 0.04]])
    labels = best(scores, np.array([0, 0, 1, 1]))
    assert labels.concept.tolist() == [0, 2, 3]
    assert labels.by_category.tolist() == [[0, 2], [0, 2], [1, 3]]
    counted = detectors(scores, labels, 0.04)
    assert (counted.units, counted.per_category, counted.per_unit) == (2, 2, 2)


def test_ties_go_to_the_lowest_number_and_the_limit_itself_does_not_count():
    scores = np.array([[0.04, 0.04]])
    labels = best(scores, np.array([0, 0]))
    assert labels.concept.tolist() == [0]
    assert detectors(scores, labels, 0.04).units == 0


def test_masks_of_one_picture_are_those_that_its_planes_were_made_of():
    masks, labels = labelled()
    flat = masks.reshape(5, 7, -1)
    for image in range(5):
        assert (labels.masks(image, range(7)) == flat[image]).all()
        assert (labels.masks(image, [6, 2]) == flat[image, [6, 2]]).all()
        assert (labels.part(slice(image, image + 1)).masks(0, [3]) == flat[image, [3]]).all()
    assert labels.masks(0, []).shape == (0, MASKS[0] * MASKS[1])


def test_own_counts_are_literal_and_a_resample_weighs_pictures():
    rng = np.random.default_rng(4)
    lit = rng.random((5, 6, 40)) < 0.3
    labels, annotated = rng.random((5, 3, 40)) < 0.4, rng.random((5, 3)) < 0.7
    units = np.array([1, 4, 4])
    image, unit, pixel = (torch.from_numpy(part) for part in np.nonzero(lit))
    counts = own_counts(Lit(image * 6 + unit, image * 40 + pixel, 6, 40), units, list(labels), list(annotated))
    for i in range(5):
        for d, u in enumerate(units):
            assert counts.intersection[i, d] == sum(lit[i, u, p] and labels[i, d, p] for p in range(40))
            assert counts.activation[i, d] == sum(lit[i, u]) * annotated[i, d]
            assert counts.label[i, d] == sum(labels[i, d])
    weight = np.array([0, 3, 0, 1, 1])
    drawn = [1, 1, 1, 3, 4]
    again = joined_counts([OwnCounts(*(part[[i]] for part in vars(counts).values())) for i in drawn])
    for limit in (0.05, 0.15, 0.2, 0.3):
        assert counts.kept(weight, limit) == again.kept(np.ones(5, np.int64), limit)
    value, low, high = counts.kept_interval(0.15)
    assert low <= value <= high
    assert counts.kept_interval(-1.0) == (1, *wilson(5, 5))  # all are kept in all resamples, of five pictures
    for limit in (0.05, 0.15, 0.2, 0.3):
        found = [counts.of(np.arange(3) == d).kept(np.ones(5, np.int64), limit) for d in range(3)]
        assert counts.detecting(limit).tolist() == [share == 1 for share in found]  # each by itself


def test_only_detectors_that_detect_on_the_unchanged_pictures_can_lose_their_label():
    """Two detectors, of which the first finds its label in neither: it is asked of the second alone, which keeps it."""
    label = np.full((4, 2), 10)
    before = OwnCounts(np.array([[0, 10]] * 4), label, label)
    after = OwnCounts(np.array([[0, 9]] * 4), label, label)
    assert after.kept(np.ones(4, np.int64), 0.5) == 0.5  # a loss that the change did not cause
    assert before.detecting(0.5).tolist() == [False, True]
    assert after.of(before.detecting(0.5)).kept_interval(0.5) == (1, *wilson(4, 4))
