"""Intervals and false discovery rates, against the formulas written out in float64."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import scipy.stats

from microtome.quantify.crossed import crossed_interval
from microtome.quantify.intervals import (
    expanded_ends,
    mean_interval,
    paired_interval,
    paired_shares,
    resampled_interval,
    separate_interval,
    share_ends,
    share_interval,
    wilson,
)
from microtome.quantify.significance import any_of, false_discovery, false_discovery_of_pairs, null_p95


def quantile(values, share):
    """Linear interpolation between order statistics, in Python floats."""
    ordered = sorted(map(float, values))
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def test_the_interval_of_resamples_is_moved_onto_the_value_of_the_data():
    drawn = np.random.default_rng(0).normal(0.09, 0.01, 500)  # steadier than the data: 0.1
    low, high = resampled_interval(0.1, drawn)
    mean = sum(map(float, drawn)) / len(drawn)
    assert low == pytest.approx(quantile(drawn, 0.025) - mean + 0.1, rel=1e-12)
    assert high == pytest.approx(quantile(drawn, 0.975) - mean + 0.1, rel=1e-12)
    assert low < 0.1 < high


@pytest.mark.parametrize("seed", range(20))
def test_the_bits_are_those_of_the_formula_that_stood_in_four_places(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.random(300), rng.random(300)
    value, less = rng.random(2).tolist()
    low, high = np.quantile(one, (0.025, 0.975)) - one.mean() + value
    assert resampled_interval(value, one) == (low, high)
    apart = one - other
    low, high = np.quantile(apart, (0.025, 0.975)) - apart.mean() + value - less
    assert paired_interval((value, less), (one, other)) == (value - less, low, high)


def test_pairs_share_their_noise():
    """Two values that rise and fall together over the images differ for certain, however wide each interval is."""
    noise = np.random.default_rng(1).normal(0, 5, 400)
    difference, low, high = paired_interval((3.0, 2.0), (noise + 3, noise + 2))
    assert (difference, low, high) == pytest.approx((1, 1, 1))
    wide = resampled_interval(3.0, noise + 3)
    assert wide[1] - wide[0] > 10


def test_a_mean_and_its_interval():
    values = np.random.default_rng(2).random(40)
    draw = np.random.default_rng(0)
    means = [sum(values[draw.integers(40, size=(1000, 40))[row]]) / 40 for row in [0]]  # the first resample, by hand
    mean, low, high = mean_interval(values)
    assert mean == values.mean()
    assert low < mean < high
    assert means[0] == pytest.approx(values[np.random.default_rng(0).integers(40, size=(1000, 40))].mean(1)[0])
    assert mean_interval(np.ones(5)) == (1, 1, 1)


def literal_wilson(hits, trials, z=1.959963984540054):
    share = hits / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (150, 200), (999, 1000)])
def test_wilson(hits, trials):
    assert wilson(hits, trials) == pytest.approx(literal_wilson(hits, trials), abs=1e-15)


def test_the_null_is_exceeded_in_one_permutation_of_twenty():
    null = np.random.default_rng(3).random((200, 3))
    assert null_p95(null) == pytest.approx([quantile(column, 0.95) for column in null.T], rel=1e-12)


def literal_q(p):
    """Benjamini and Hochberg (1995): min over j >= i of p_(j) m / j, at most 1."""
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    result = np.empty(len(p))
    result[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return result


@pytest.mark.parametrize("count", [0, 1, 4, 64, 512])
def test_false_discovery_rates_are_benjamini_and_hochbergs(count):
    """Many units share a p-value, as permutations give them."""
    assert false_discovery([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    for seed in range(20):
        p = (1 + np.random.default_rng(seed).integers(0, 201, count)) / 201
        got = false_discovery(p)
        np.testing.assert_allclose(got, literal_q(p), rtol=1e-15, atol=0)
        assert ((got <= 0.05) == (literal_q(p) <= 0.05)).all()


def literal_bca(values):
    """Efron's BCa (1987) of the mean, with Hesterberg's expansion (2015), in Python floats."""
    count, mean = len(values), sum(values) / len(values)
    moments = [sum((value - mean) ** power for value in values) / count for power in (2, 3)]
    rows = np.random.default_rng(0).integers(count, size=(1000, count)).tolist()
    drawn = [sum(values[index] for index in row) / count for row in rows]
    below = sum(1 if value < mean else 0.5 if value == mean else 0 for value in drawn) / 1000
    bias, acceleration = NormalDist().inv_cdf(below), moments[1] / moments[0] ** 1.5 / (6 * math.sqrt(count))
    found = []
    for side in (-1, 1):
        z = bias + side * scipy.stats.t.ppf(0.975, count - 1) * math.sqrt(count / (count - 1))
        found.append(quantile(drawn, NormalDist().cdf(bias + z / (1 - acceleration * z))))
    return found


@pytest.mark.parametrize("count", [5, 10, 40])
def test_the_interval_of_a_mean_is_an_expanded_bca(count):
    values = np.random.default_rng(count).exponential(size=count)
    mean, *ends = mean_interval(values)
    assert mean == values.mean()
    assert ends == pytest.approx(literal_bca(values.tolist()), rel=1e-9)


@pytest.mark.parametrize(("images", "end"), [(10, 0.00855), (20, 0.01588), (1000, 0.02480)])
def test_ends_lie_farther_out_for_few_images(images, end):
    """Hesterberg (2015): Phi(-sqrt(n / (n - 1)) t), whose table has 0.9 % for 10 and 1.6 % for 20."""
    assert expanded_ends(images) == pytest.approx([end, 1 - end], abs=2e-5)


def test_a_mean_of_few_and_skewed_values_has_finite_ends_within_them():
    for count in (2, 3, 10):
        values = np.zeros(count)
        values[-1] = 1000.0
        mean, low, high = mean_interval(values)
        assert 0 <= low <= mean <= high <= 1000
    assert mean_interval(np.array([3.0])) == (3, 3, 3)


@pytest.mark.parametrize("hits", [0, 1, 7, 19, 20])
def test_a_share_over_images_has_wilsons_interval(hits):
    values = np.arange(20) < hits
    assert share_interval(values.astype(float)) == pytest.approx((hits / 20, *literal_wilson(hits, 20)), abs=1e-12)


def test_a_share_of_all_or_none_is_not_certain():
    assert share_interval(np.ones(10)) == pytest.approx((1, 1 / (1 + 1.959963984540054**2 / 10), 1))
    assert share_interval(np.zeros(10))[1:] == pytest.approx((0, 0.2775), abs=1e-4)
    assert share_ends(1.0, 0.0, 50) == wilson(50, 50)


def test_shares_of_each_image_count_by_their_own_spread():
    """Ten images of three draws, a third apart: as sure as p (1 - p) / variance single hits."""
    values = np.array([1, 1, 1, 1, 2 / 3, 2 / 3, 1, 1 / 3, 1, 1])
    share, variance = values.mean(), sum((value - values.mean()) ** 2 for value in values) / 100
    trials = share * (1 - share) / variance
    assert trials > 10
    expected = literal_wilson(share * trials, trials)
    assert share_interval(values) == pytest.approx((share, *expected), abs=1e-12)


def literal_newcombe(one, other):
    """Newcombe 1998, paired, from the four counts of a table."""
    n = len(one)
    both, first, second = (
        sum(pair == kind for pair in zip(one, other, strict=True)) for kind in ((1, 1), (1, 0), (0, 1))
    )
    none = n - both - first - second
    p, q = (both + first) / n, (both + second) / n
    (l1, u1), (l2, u2) = literal_wilson(both + first, n), literal_wilson(both + second, n)
    margins = (both + first) * (second + none) * (both + second) * (first + none)
    phi = (both * none - first * second) / margins**0.5 if margins else 0.0
    low = (p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2
    high = (u1 - p) ** 2 - 2 * phi * (u1 - p) * (q - l2) + (q - l2) ** 2
    return p - q, p - q - low**0.5, p - q + high**0.5


@pytest.mark.parametrize("seed", range(8))
def test_two_shares_over_the_same_images_have_newcombes_interval(seed):
    rng = np.random.default_rng(seed)
    one, other = (rng.random((2, 15)) < [[0.8], [0.4]]).astype(float)
    assert paired_shares(one, other) == pytest.approx(literal_newcombe(one.tolist(), other.tolist()), abs=1e-12)


def test_hits_in_all_images_are_not_surely_far_above_what_hardly_varies():
    """Eight of eight beside a chance of a fifth: resamples alone would say [0.8, 0.8]."""
    apart, low, high = paired_shares(np.ones(8), np.full(8, 0.2))
    assert apart == pytest.approx(0.8)
    assert low == pytest.approx(0.8 - np.hypot(1 - wilson(8, 8)[0], wilson(1.6, 8)[1] - 0.2))
    assert high == pytest.approx(0.8 + (0.2 - wilson(1.6, 8)[0]))


def test_a_difference_of_two_intervals_by_hand():
    apart, low, high = separate_interval((10, 8, 13), (20, 16, 22))
    assert (apart, low, high) == pytest.approx((10, 10 - 5, 10 + math.hypot(2, 2)))
    assert separate_interval((3, 3, 3), (4, 4, 4)) == (1, 1, 1)
    assert separate_interval((3, 4, 5), (3, 1, 2))[1:] == pytest.approx((-math.hypot(2, 2), math.hypot(0, 0)))


@pytest.mark.parametrize(("shared", "least", "most"), [(0.0, 0.93, 0.97), (0.8, 0.98, 1.0)])
def test_a_difference_of_two_intervals_holds_that_of_means(shared, least, most):
    """Of means over pictures of their own in 95 of 100; over pictures that move both alike in more."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        both = np.sqrt(shared) * rng.normal(size=40)
        runs = [both + np.sqrt(1 - shared) * rng.normal(size=40) + place for place in (0.0, 0.3)]
        _, low, high = separate_interval(*(mean_interval(run) for run in runs))
        held.append(low <= 0.3 <= high)
    assert least <= np.mean(held) <= most


def test_several_tests_of_a_unit_are_made_one_by_simes_rule():
    p = np.array([[0.01, 0.5, np.nan, np.nan], [0.04, 0.6, 0.03, np.nan], [0.03, 0.7, 0.2, np.nan]])
    # (0.01 x 3, 0.03 x 3 / 2, 0.04), (1.5, 0.9, 0.7), (0.03 x 2, 0.2)
    np.testing.assert_allclose(any_of(p), [0.03, 0.7, 0.06, np.nan])
    rng = np.random.default_rng(0)
    assert np.mean(any_of(rng.random((9, 20000))) <= 0.05) == pytest.approx(0.05, abs=0.006)


def test_pairs_are_believed_among_all_pairs_and_all_units():
    p = np.array([[0.001, 0.5, np.nan], [0.02, 0.6, 0.03]])
    pairs = [[0.005, 0.6, np.nan], [0.05, 0.6, 0.05]]
    units = [0.006, 0.6, 0.045]  # of 0.002, 0.6 and 0.03
    wanted = np.maximum(pairs, [units, units])
    np.testing.assert_allclose(false_discovery_of_pairs(p), wanted)
    rng, believed = np.random.default_rng(1), []
    for _ in range(300):
        null = rng.random((6, 40))
        real = np.arange(40) < 10
        null[0, real] = rng.random(10) * 1e-4
        q = false_discovery_of_pairs(null) <= 0.05
        believed.append((q.any(0)[~real].sum() / max(1, q.any(0).sum()), q.any(0)[real].mean()))
    false, found = np.mean(believed, axis=0)
    assert false <= 0.05 < 0.9 < found


def test_a_mean_over_pictures_and_draws_has_an_interval_over_both():
    rng, hits, alone = np.random.default_rng(2), 0, 0
    for _ in range(200):
        values = 0.1 + 0.12 * rng.normal(size=(8, 1)) + 0.2 * rng.normal(size=(1, 16)) + 0.1 * rng.normal(size=(8, 16))
        value, low, high = crossed_interval(values)
        assert value == pytest.approx(values.mean())
        hits += low <= 0.1 <= high
        _, low, high = mean_interval(values[0])
        alone += low <= 0.1 <= high
    assert 0.91 <= hits / 200 <= 0.99
    assert alone / 200 < 0.8  # who looks at one draw alone
