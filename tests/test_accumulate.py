"""Tails, exact sums, moments, top images: against literal versions, and under every order and sharding."""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.quantify.accumulate import (
    BINS,
    ExactSum,
    Histogram,
    Moments,
    Tail,
    TailPart,
    TopImages,
    joined_tail,
    rank,
)
from tests import literal


@pytest.mark.parametrize(
    ("tail", "samples", "expected"),
    [(0.005, 92612, 463), (0.005, 200, 1), (0.005, 199, 0), (0.1, 30, 3), (0.29, 100, 29), (0.07, 100, 7)],
)
def test_rank_is_exact(tail, samples, expected):
    """0.29 * 100 is 28.999999999999996 in floating point, and 0.07 * 100 is 7.000000000000001."""
    assert rank(tail, samples) == expected


@pytest.mark.parametrize("tail", [0, 1, -0.1, 1.5])
def test_rank_refuses_what_is_no_share(tail):
    with pytest.raises(ValueError, match="between 0 and 1"):
        rank(tail, 10)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=40), st.randoms())
@settings(deadline=None)
def test_sums_are_exact_in_any_order(values, random):
    values = [value for value in values if abs(value) < 1e300]
    total = ExactSum(1)
    total.update(np.array(values).reshape(-1, 1))
    random.shuffle(values)
    parts = ExactSum(1)
    for value in values:
        other = ExactSum(1)
        other.update(np.array([[value]]))
        parts.merge(other)
    assert total.compute() == parts.compute() == [sum((Fraction(value) for value in values), Fraction(0))]


def maps(images=30, units=5, seed=0):
    values = np.random.default_rng(seed).standard_normal((images, units, 6, 7)).astype(np.float32)
    return np.maximum(values, 0) * 3


def batches(data, size):
    return [data[first : first + size] for first in range(0, len(data), size)]


@pytest.mark.parametrize("keep", [1, 7, 40, 1260])
@pytest.mark.parametrize("batch", [1, 4, 30])
def test_the_tail_is_the_largest_values(keep, batch):
    data = maps()
    tail = Tail(5, keep)
    for part in batches(data, batch):
        tail.update(part)
    expected = np.sort(data.transpose(1, 0, 2, 3).reshape(5, -1), 1)[:, ::-1][:, :keep]
    assert tail.compute().tobytes() == np.ascontiguousarray(expected).tobytes()


def test_tails_merge_in_any_order():
    data = maps()
    whole, merged = Tail(5, 20), Tail(5, 20)
    whole.update(data)
    for part in (data[20:], data[:3], data[3:20]):
        shard = Tail(5, 20)
        shard.update(part)
        merged.merge(shard)
    assert whole.compute().tobytes() == merged.compute().tobytes()


@pytest.mark.parametrize("order", ["as they come", "the highest together"])
@pytest.mark.parametrize(("share", "at_once"), [(0.02, 5), (0.2, 5), (0.9, 5), (0.02, 2), (0.2, 1)])
def test_a_tail_of_parts_is_exact_also_where_one_has_more_of_it_than_it_kept(order, share, at_once, monkeypatch):
    """Also where there is memory for some units at a time alone."""
    data = maps()
    if order == "the highest together":
        data = np.sort(data.reshape(30, 5, -1).swapaxes(0, 1).reshape(5, -1), 1).reshape(5, 30, 6, 7).swapaxes(0, 1)
    data, keep = np.ascontiguousarray(data), rank(share, 30 * 42) + 1
    monkeypatch.setattr("microtome.quantify.accumulate._JOINED_BYTES", at_once * 8 * keep)
    spans, again = [slice(0, 12), slice(12, 24), slice(24, 30)], []

    def part(images):
        kept = TailPart.kept(share, len(data[images]) * 42)
        tail = Tail(5, kept)
        tail.update(data[images])
        return TailPart(tail.compute(), kept == len(data[images]) * 42)

    def look_again(place):
        again.append(place)
        return [data[spans[place]]]

    whole = Tail(5, keep)
    whole.update(data)
    joined = joined_tail([partial(part, images) for images in spans], keep, look_again)
    assert joined.tobytes() == whole.compute().tobytes()
    assert bool(again) == (order == "the highest together" and share < 0.9)  # of 0.9 every part kept all


def test_a_state_makes_the_same_again():
    data, top, moments, histogram = maps(), TopImages(5, 4), Moments(5), Histogram(5)
    top.update(np.arange(30), moments.update(data))
    histogram.update(data)
    again = Moments(5)
    again.merge(Moments.of(moments.state))
    np.testing.assert_equal(vars(again.compute()), vars(moments.compute()))
    np.testing.assert_equal(Histogram.of(histogram.state).compute(), histogram.compute())
    np.testing.assert_equal(TopImages.of(top.state, 4).compute(), top.compute())


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 200), (1, 100), (3, 10)])
def test_the_threshold_is_the_order_statistic_bit_for_bit(numerator, denominator):
    data = maps()
    samples = 30 * 42
    place = rank(numerator / denominator, samples)
    tail = Tail(5, place + 1)
    tail.update(data)
    for unit in range(5):
        expected = literal.threshold(data[:, unit], numerator, denominator)
        assert tail.compute()[unit, place] == np.float32(expected)


def test_negative_zero_is_zero():
    tail = Tail(1, 4)
    tail.update(np.array([-0.0, 0.0, -0.0, -1.0], np.float32).reshape(1, 1, 2, 2))
    assert tail.compute().tobytes() == np.array([0, 0, 0, -1], np.float32).tobytes()


def test_moments_against_numpy_and_under_permutation():
    data = maps()
    forward, backward = Moments(5), Moments(5)
    for part in batches(data, 7):
        forward.update(part)
    for index in np.random.default_rng(1).permutation(30):
        shard = Moments(5)
        shard.update(data[index : index + 1])
        backward.merge(shard)
    one, two = forward.compute(), backward.compute()
    for name in ("minimum", "maximum", "mean", "std", "zero_share"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
    flat = data.astype(float).transpose(1, 0, 2, 3).reshape(5, -1)
    np.testing.assert_allclose(one.mean, flat.mean(1), rtol=1e-13)
    np.testing.assert_allclose(one.std, flat.std(1), rtol=1e-12)
    np.testing.assert_array_equal(one.zero_share, (flat == 0).mean(1))


def test_moments_before_any_value_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Moments(2).compute()


def test_top_images_break_ties_by_the_earlier_image():
    whole, merged = TopImages(2, 3), TopImages(2, 3)
    peaks = np.array([[1, 5], [3, 5], [3, 5], [2, 5], [3, 1]], np.float32)
    whole.update(np.arange(5), peaks)
    for part in ([4, 2], [0], [3, 1]):
        shard = TopImages(2, 3)
        shard.update(np.array(part), peaks[part])
        merged.merge(shard)
    assert whole.compute()[0].tolist() == [[1, 2, 4], [0, 1, 2]]
    assert merged.compute()[0].tolist() == [[1, 2, 4], [0, 1, 2]]


def literal_histogram(values):
    """The narrowest power of two with which all values lie in 64 bins on either side of zero, value by value."""
    power = next(p for p in range(-100, 130) if all(-64 * 2.0**p <= value < 64 * 2.0**p for value in values))
    counts = [0] * (2 * BINS)
    for value in values:
        counts[int(value / 2.0**power // 1) + 64] += 1
    return 2.0**power, counts


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), st.randoms())
@settings(deadline=None)
def test_a_histogram_depends_on_the_values_alone(values, random):
    values = [value for value in values if value == 0 or abs(value) > 1e-25]
    values.append(0.0)
    width, counts = literal_histogram(values)
    whole = Histogram(1)
    whole.update(np.array(values, np.float32).reshape(1, 1, 1, -1))
    random.shuffle(values)
    merged = Histogram(1)
    for value in values:
        part = Histogram(1)
        part.update(np.full((1, 1, 1, 1), value, np.float32))
        merged.merge(part)
    for found in (whole, merged):
        assert found.compute()[0].tolist() == [width]
        assert found.compute()[1].tolist() == [counts]


def test_histograms_of_several_units_stay_apart():
    data = maps()
    data[:, 1] *= -100
    data[:, 2] = 0
    batched = Histogram(5)
    for part in batches(data, 4):
        batched.update(part)
    widths, counts = batched.compute()
    for unit in range(5):
        width, expected = literal_histogram(data[:, unit].ravel().tolist())
        assert (widths[unit], counts[unit].tolist()) == (width, expected)
