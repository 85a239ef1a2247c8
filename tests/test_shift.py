"""The shift test: against a literal version, on positions that follow, stand still and jump; and the moved frames."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student

from microtome.datasets.base import Landmark, Record
from microtome.datasets.frame import Frame, moved
from microtome.networks import LayerGeometry
from microtome.quantify import stability as science
from microtome.quantify.shift import (
    Shifted,
    category_shift,
    false_discovery_of_following,
    following,
    frozen_deviation,
    frozen_resampled,
    shift_summary,
)
from microtome.quantify.significance import false_discovery

NAN = np.nan


def literal_regression(before, after, offset, pictures):
    """Slope and R^2, word by word; pictures may repeat."""
    together = of_offset = of_moved = 0.0
    for axis in (0, 1):
        o = [float(offset[i][axis]) for i in pictures]
        d = [float(after[i][axis] - before[i][axis]) for i in pictures]
        mean_o, mean_d = sum(o) / len(o), sum(d) / len(d)
        together += sum((a - mean_o) * (b - mean_d) for a, b in zip(o, d, strict=True))
        of_offset += sum((a - mean_o) ** 2 for a in o)
        of_moved += sum((b - mean_d) ** 2 for b in d)
    slope = together / of_offset
    return slope, (slope**2 * of_offset / of_moved if of_moved else 0.0)


def weights_of(pictures, resamples=200, seed=0):
    return np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)


def test_slopes_and_their_resamples_are_the_literal_ones():
    rng = np.random.default_rng(0)
    before, offset = rng.random((12, 3, 2)), rng.normal(size=(12, 2))
    after = before + offset[:, None] * [[[1.0]], [[0.3]], [[0.0]]][0] + 0.2 * rng.normal(size=(12, 3, 2))
    counts = rng.random((12, 3)) < 0.8
    weights = weights_of(12, 15)
    found = following(before, after, offset, counts, weights=weights)
    for f in range(3):
        shown = np.flatnonzero(counts[:, f])
        wanted = literal_regression(before[:, f], after[:, f], offset, shown)
        assert (found.slope[f], found.r2[f]) == pytest.approx(wanted, abs=1e-9)
        drawn = [literal_regression(before[:, f], after[:, f], offset, np.repeat(shown, w[shown]))[0] for w in weights]
        np.testing.assert_allclose(found.drawn[:, f], drawn, atol=1e-8)
        assert (found.low[f], found.high[f]) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=1e-8)


def test_a_blob_follows_a_constant_is_frozen_and_noise_does_neither():
    rng = np.random.default_rng(1)
    offset, thing = rng.uniform(-28, 28, (300, 2)), rng.uniform(60, 160, (300, 2))
    cell = 16 * np.floor(np.stack([thing, thing + offset]) / 16)  # as a grid sees it
    constant, noise = np.full((2, 300, 2), 112.0), rng.uniform(0, 224, (2, 300, 2))
    before, after = np.stack([cell, constant, noise], 2)
    found = following(before, after, offset, np.ones((300, 3), bool), weights=weights_of(300))
    assert found.slope == pytest.approx([1, 0, 0], abs=0.3)
    assert found.slope[0] == pytest.approx(1, abs=0.05)
    assert (found.slope[1], found.r2[1], found.low[1], found.high[1]) == (0, 0, 0, 0)
    assert found.r2[0] > 0.8 > 0.05 > found.r2[2]
    assert found.low[2] < 0 < found.high[2]
    assert found.follows.tolist() == [True, False, False]


def literal_p(before, after, offset, pictures):
    """Of a slope of 0.5 at most, word by word."""
    o = np.array([offset[i] for i in pictures]) - np.mean([offset[i] for i in pictures], axis=0)
    d = np.array([after[i] - before[i] for i in pictures])
    d = d - d.mean(0)
    u = [sum(o[i][axis] * (d[i][axis] - 0.5 * o[i][axis]) for axis in (0, 1)) for i in range(len(pictures))]
    n = len(u)
    return student.sf(sum(u) / math.sqrt(n / (n - 1) * sum(each**2 for each in u)), n - 2)


def test_the_p_value_of_a_slope_is_the_literal_one_and_says_what_its_interval_says():
    rng = np.random.default_rng(5)
    before, offset, share = rng.random((40, 60, 2)), rng.normal(size=(40, 2)), rng.uniform(0, 1.5, (60, 1))
    after = before + offset[:, None] * share + rng.normal(size=(40, 60, 2))
    counts = rng.random((40, 60)) < 0.8
    found = following(before, after, offset, counts, weights=weights_of(40, 1000))
    for f in range(60):
        shown = np.flatnonzero(counts[:, f])
        assert found.p_value[f] == pytest.approx(literal_p(before[:, f], after[:, f], offset, shown), rel=1e-9)
    assert ((found.p_value <= 0.025) == found.follows).mean() >= 0.9  # one-sided, as the lower end is
    exact = following(before[:, :2], before[:, :2] + np.array([0.5, 1])[:, None] * offset[:, None], offset,
                      counts[:, :2], weights=weights_of(40, 1))  # fmt: skip
    assert exact.p_value[0] == pytest.approx(0.5, abs=0.5)
    assert exact.p_value[1] < 1e-3


def half_followers(rng, world, pictures, positions):
    """Positions of slope 0.5: half of the way and noise; whole in half of the pictures, standing or jumping else."""
    offset = rng.uniform(0.075, 0.15, (pictures, 2)) * rng.choice([-1, 1], (pictures, 2)) * 224
    if world == "noise":
        return offset, 0.5 * offset[:, None] + rng.normal(0, 20, (pictures, positions, 2))
    goes = rng.random((pictures, positions, 1)) < 0.5
    jump = rng.integers(-12, 13, (pictures, positions, 2)) * 16 * (rng.random((pictures, positions, 2)) < 0.5)
    return offset, np.where(goes, offset[:, None], 0 if world == "standing" else jump)


@pytest.mark.parametrize("pictures", [20, 90])
@pytest.mark.parametrize("world", ["noise", "standing", "jumping"])
def test_positions_of_a_slope_of_a_half_hardly_ever_pass(world, pictures):
    """P(p <= level) is at most the level, give or take, far into the tail, where many tests are corrected."""
    rng, p = np.random.default_rng([6, pictures]), []
    for _ in range(40):
        offset, moved = half_followers(rng, world, pictures, 100)
        start = np.zeros_like(moved)
        counts, none = np.ones(moved.shape[:2], bool), np.zeros((0, pictures), int)
        p.append(following(start, moved, offset, counts, weights=none).p_value)
    p = np.concatenate(p)
    for level, most in ((0.05, 1.45), (0.005, 1.6), (0.001, 2.0)):
        assert (p <= level).mean() <= level * most, level
    assert (false_discovery(p) <= 0.05).mean() == 0


def test_a_drift_common_to_all_pictures_is_not_following():
    rng = np.random.default_rng(2)
    before, offset = rng.random((50, 1, 2)), rng.normal(size=(50, 2)) + 5
    found = following(before, before + 5, offset, np.ones((50, 1), bool), weights=weights_of(50))
    assert found.slope[0] == pytest.approx(0, abs=1e-9)


def test_the_interval_of_a_slope_covers_it():
    rng, hits = np.random.default_rng(3), 0
    for seed in range(200):
        offset = rng.uniform(-1, 1, (60, 2))
        jumps = (rng.random((60, 1)) < 0.4)[..., None]
        before = rng.normal(size=(60, 1, 2))
        after = np.where(jumps, rng.normal(size=(60, 1, 2)), before + offset[:, None])
        weights = weights_of(60, 300, seed)
        found = following(before, after, offset, np.ones((60, 1), bool), weights=weights)
        hits += found.low[0] <= 0.6 <= found.high[0]  # a share of .6 follows, the others go anywhere
    assert 0.9 <= hits / 200 <= 0.99


def test_fewer_than_three_pictures_say_nothing_and_no_resamples_no_interval():
    one = np.zeros((4, 1, 2))
    counts = np.array([[True], [True], [False], [False]])
    few = following(one, one, np.eye(4, 2), counts, weights=weights_of(4, 3))
    assert np.isnan([few.slope[0], few.low[0]]).all()
    none = following(one, one, np.eye(4, 2), np.ones((4, 1), bool), weights=np.zeros((0, 4), int))
    assert none.slope[0] == 0
    assert np.isnan(none.low[0])
    assert not none.follows[0]


def test_a_frozen_place_is_as_steady_as_its_landmark_allows():
    rng = np.random.default_rng(4)
    position, landmark, counts = rng.random((9, 2, 2)) * 90, rng.random((9, 2)) * 90, rng.random((9, 2)) < 0.7
    counts[:, 1] = [True] + [False] * 8
    found = frozen_deviation(position, landmark, counts, 100.0)
    shown = [i for i in range(9) if counts[i, 0]]
    mean = [sum(position[i, 0, axis] for i in shown) / len(shown) for axis in (0, 1)]
    away = [math.hypot(mean[0] - landmark[i, 0], mean[1] - landmark[i, 1]) / 100 for i in shown]
    assert found[0] == pytest.approx(np.std(away, ddof=1), rel=1e-12)
    assert np.isnan(found[1])


# ---- a layer


def judged(seed=0):
    """A filter that follows a thing and one that stands still, on a thing that moves."""
    rng = np.random.default_rng(seed)
    of = LayerGeometry("toy", 3, (14, 14), (8.0, 8.0), (16.0, 16.0), (30.0, 30.0), False)
    offset, thing = rng.uniform(-28, 28, (60, 2)), rng.uniform(60, 160, (60, 2))
    maps = np.zeros((2, 60, 3, 14, 14), np.float32)
    for phase, where in enumerate((thing, thing + offset)):
        column, row = np.floor(where / 16).astype(int).T
        maps[phase, np.arange(60), 0, row, column] = 1
    maps[:, :, 1, 7, 7] = 1
    found = [science.infer(part) for part in maps]
    protocol = science.Protocol((224, 224))
    item = science.category_stability("thing", found[0], of, {"eye": thing}, protocol=protocol, permutations=99)
    centres = science.cell_centres(of)
    inside = rng.random(60) < 0.7
    got = category_shift(
        item, (centres[found[0].cell], centres[found[1].cell]), {"eye": thing}, Shifted(offset, inside),
        protocol=protocol, weights=weights_of(60),
    )  # fmt: skip
    return item, got, inside


def test_a_category_says_who_follows_and_what_standing_still_would_reach():
    item, got, inside = judged()
    assert got.following.follows.tolist() == [True, False, False]
    assert got.inside_share == inside.mean()
    assert got.inside[0] == pytest.approx(1, abs=0.15)
    assert got.mirrored[0] == pytest.approx(1, abs=0.25)
    assert got.frozen[1] == pytest.approx(item.deviation[1])  # it stands still already
    assert got.frozen[0] > 2 * item.deviation[0]
    assert np.isnan(got.frozen[2])  # silent, so NULL


def test_a_layers_summary_is_over_filters_that_are_not_null_then_over_categories():
    (_, one, _), (_, two, _) = judged(), judged(1)
    every = np.ones(3, bool)
    rates = false_discovery_of_following([one, two]) <= 0.05
    alone, both = shift_summary([one], every, rates[:1]), shift_summary([one, two], every, rates)
    assert (alone.positions, alone.follow, both.positions, both.follow) == (2, 1, 4, 2)
    assert alone.slope == pytest.approx(one.following.slope[:2].mean())
    assert both.slope == pytest.approx(np.mean([c.following.slope[:2].mean() for c in (one, two)]))
    drawn = np.mean([c.following.drawn[:, :2].mean(1) for c in (one, two)], axis=0)
    assert (both.low, both.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert alone.following_deviation == one.deviation[0]
    assert alone.following_frozen == one.frozen[0]
    assert alone.following_tracking == 1
    assert alone.frozen == pytest.approx(one.frozen[:2].mean())
    assert (alone.filters, alone.sure, both.filters, both.sure) == (2, 1, 2, 1)
    assert (alone.sure_deviation, alone.sure_frozen, alone.sure_tracking) == (one.deviation[0], one.frozen[0], 1)
    assert both.sure_deviation == pytest.approx(np.mean([one.deviation[0], two.deviation[0]]))
    still = shift_summary([one], np.array([False, True, False]), rates[:1])
    assert (still.follow, still.slope, still.following_deviation, still.following_tracking) == (0, 0, None, None)
    assert (still.sure, still.sure_deviation) == (0, None)
    nothing = shift_summary([one], np.array([False, False, True]), rates[:1])
    assert (nothing.positions, nothing.slope, nothing.low) == (0, None, None)


# ---- moved frames


def gradient(width, height):
    """A picture whose pixels say where they are: red the column, green the row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], 2).astype(np.uint8))


BOX = Record("a", "all", 200, 150, "cat", (60, 40, 140, 120))


def test_frozen_places_are_resampled_with_their_top_pictures_chosen_anew():
    rng = np.random.default_rng(3)
    thing, place, score = rng.uniform(0, 96, (14, 2)), rng.uniform(0, 96, (14, 2, 2)), rng.random((14, 2))
    thing[4] = NAN
    of = LayerGeometry("toy", 2, (4, 4), (24.0, 24.0), (12.0, 12.0), (24.0, 24.0), False)
    cell = np.arange(28).reshape(14, 2)
    found = science.Inferences(cell, score.astype(np.float32), np.zeros(cell.shape, bool))
    protocol = science.Protocol((96, 96), 5)
    item = science.category_stability(
        "thing", found, of, {"eye": thing}, protocol=protocol, permutations=0, centres=place.reshape(-1, 2)
    )
    weights = np.concatenate([np.ones((1, 14), int), weights_of(14, 8)])
    got = frozen_resampled(item, place, {"eye": thing}, protocol=protocol, weights=weights)
    for row, weight in zip(got, weights, strict=True):
        for f in range(2):
            order = sorted(np.repeat(np.arange(14), weight), key=lambda i: -np.float32(score[i, f]))
            top = [i for i in order if np.isfinite(thing[i]).all()][:5]
            mean = np.mean([place[i, f] for i in top], axis=0)
            away = [math.dist(mean, thing[i]) / math.hypot(96, 96) for i in top]
            assert row[f] == pytest.approx(np.std(away, ddof=1), abs=1e-9)
    counts = item.landmarks["eye"].counts
    np.testing.assert_allclose(got[0], frozen_deviation(place, thing, counts, protocol.diagonal))


def test_a_window_is_moved_inside_the_picture_and_shows_what_is_there():
    frame = Frame((80, 80), crop="object")
    still, got = frame.place(BOX), moved(frame.place(BOX), (200, 150), (10.2, -5.0))
    assert got.inside
    assert got.offset == (10, -5)  # whole pixels of the stored picture
    one, two = (np.asarray(place.picture(gradient(200, 150))).astype(int) for place in (still, got.placement))
    np.testing.assert_array_equal(two[:75, 10:], one[5:, :70])
    mark = Landmark("eye", 100, 80)
    before, after = still.landmark(mark), got.placement.landmark(mark)
    assert (after.x - before.x, after.y - before.y) == got.offset


def test_an_axis_without_room_is_moved_the_other_way_and_mirrored_only_without_either():
    frame = Frame((80, 80), crop="object")
    at_the_left = Record("a", "all", 200, 150, "cat", (0, 40, 80, 120))
    got = moved(frame.place(at_the_left), (200, 150), (10.0, 5.0))
    assert (got.inside, got.offset) == (True, (-10, 5))
    whole = Record("a", "all", 80, 80, "cat", None)
    mirrored = moved(frame.place(whole), (80, 80), (10.0, -5.0))
    assert (mirrored.inside, mirrored.offset) == (False, (10, -5))
    shown = np.asarray(mirrored.placement.picture(gradient(80, 80))).astype(int)
    np.testing.assert_array_equal(shown[0, :, 0], [*range(9, -1, -1), *range(70)])
    np.testing.assert_array_equal(shown[:, 0, 1], [*range(5, 80), *range(79, 74, -1)])


@pytest.mark.parametrize("resize", ["squash", "shortest-side-crop"])
def test_what_a_resized_picture_shows_moves_by_the_offset(resize):
    frame = Frame((64, 64), resize=resize)
    record = Record("a", "all", 160, 120, "cat", None)
    got = moved(frame.place(record), (160, 120), (3.0, 2.0))
    picture = gradient(160, 120)
    one, two = (np.asarray(place.picture(picture)).astype(float) for place in (frame.place(record), got.placement))
    scale = (160 if resize == "squash" else 120 / 73 * 64) / 64, 120 / (64 if resize == "squash" else 73)
    middle = (slice(16, 48), slice(16, 48))
    assert (one - two)[middle][..., 0].mean() == pytest.approx(got.offset[0] * scale[0], abs=1)
    assert (one - two)[middle][..., 1].mean() == pytest.approx(got.offset[1] * scale[1], abs=1)
    assert got.inside == (resize == "shortest-side-crop")
