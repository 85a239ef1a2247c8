"""Parts by looks and place, and their errors over pictures and draws: against literal versions, and on toys."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from microtome.disentangle.exemplars import (
    BETA,
    BETAS,
    BROAD,
    DOUBT,
    PSEUDO,
    SPREADS,
    TOLERANCE,
    Looks,
    blend,
    exemplar,
    matched,
    placed,
    template,
    weighed,
)
from microtome.disentangle.graph_keys import Locator
from microtome.disentangle.part_errors import Tried, comparisons, part_shift, summaries
from microtome.disentangle.parts import TOP_FILTERS, top_filters
from microtome.quantify.crossed import (
    CrossedWeights,
    crossed_difference,
    crossed_mean,
    crossed_resamples,
    crossed_weights,
    holm,
)
from microtome.quantify.shift import following

ROWS, COLUMNS, FILTERS = 5, 6, 4


class Literal:
    """The equations of `exemplars`, word by word in Python floats."""

    def __init__(self, maps, x, y):
        images, filters, self.rows, self.columns = maps.shape
        self.x, self.y, self.images, self.filters = x, y, range(images), range(filters)
        self.z = {}
        for i in self.images:
            for r in range(self.rows):
                for c in range(self.columns):
                    vector = [float(maps[i, f, r, c]) for f in self.filters]
                    self.z[i, r, c] = [v / math.sqrt(sum(w * w for w in vector)) for v in vector]
        self.mu = [sum(vector[f] for vector in self.z.values()) / len(self.z) for f in self.filters]

    def nearest(self, place):
        row = min(range(self.rows), key=lambda r: abs(self.y[r] - place[1]))
        return row, min(range(self.columns), key=lambda c: abs(self.x[c] - place[0]))

    def steps(self, spread):
        reach = range(-round(1.5 * spread), round(1.5 * spread) + 1)
        return [(a, b) for a in reach for b in reach]

    def template(self, boxes, spread):
        found = {}
        for a, b in self.steps(spread):
            seen = []
            for image, place in boxes.items():
                row, column = self.nearest(place)
                if (image, row + a, column + b) in self.z:
                    seen.append(self.z[image, row + a, column + b])
            found[a, b] = [sum(v[f] - self.mu[f] for v in seen) / max(1, len(seen)) for f in self.filters]
        return found

    def score(self, boxes, image, spread):
        wanted, found = self.template(boxes, spread), []
        for r in range(self.rows):
            for c in range(self.columns):
                total = weight = 0.0
                for a, b in self.steps(spread):
                    if (image, r + a, c + b) in self.z:
                        g = math.exp(-(a * a + b * b) / (2 * spread**2))
                        total += g * sum(t * z for t, z in zip(wanted[a, b], self.z[image, r + a, c + b], strict=True))
                        weight += g
                found.append(total / weight)
        return found

    def cells(self):
        return [(self.x[c], self.y[r]) for r in range(self.rows) for c in range(self.columns)]

    def place(self, boxes):
        n, log = len(boxes), [0.0] * (self.rows * self.columns)
        for axis in (0, 1):
            values = [place[axis] for place in boxes.values()]
            m = sum(values) / n
            variance = sum((v - m) ** 2 for v in values) / (n - 1) if n > 1 else 0.0
            shrunk = (n * variance + PSEUDO * BROAD**2) / (n + PSEUDO)
            log = [own - (cell[axis] - m) ** 2 / (2 * shrunk) for own, cell in zip(log, self.cells(), strict=True)]
        return log

    def share(self, boxes, image, beta, spread):
        pairs = zip(self.score(boxes, image, spread), self.place(boxes), strict=True)
        each = [math.exp(beta * s + p) for s, p in pairs]
        return [own / sum(each) for own in each]

    def worth(self, boxes, beta, spread):
        total, jump = -(math.log(beta / BETA) ** 2) / (2 * DOUBT**2), max(self.x[1] - self.x[0], self.y[1] - self.y[0])
        for image, (x, y) in boxes.items():
            others = {other: place for other, place in boxes.items() if other != image}
            share = self.share(others, image, beta, spread)
            near = [math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * (TOLERANCE * jump) ** 2)) for u, v in self.cells()]
            total += math.log(sum(p * g for p, g in zip(share, near, strict=True)))
        return total


@pytest.fixture(scope="module")
def toy():
    rng = np.random.default_rng(0)
    maps = rng.random((4, FILTERS, ROWS, COLUMNS)).astype(np.float32)
    x, y = (np.arange(COLUMNS) + 0.5) / COLUMNS, (np.arange(ROWS) + 0.4) / ROWS
    boxes = {0: (0.1, 0.15), 2: (0.62, 0.5), 3: (0.97, 0.93)}  # two of them at the border
    return Looks.of(maps, x, y), Literal(maps, x, y), boxes


@pytest.mark.parametrize("spread", SPREADS)
def test_scores_are_the_literal_ones(toy, spread):
    looks, literal, boxes = toy
    made = template(looks, boxes, spread)
    for (a, b), wanted in literal.template(boxes, spread).items():
        reach = made.shape[0] // 2
        np.testing.assert_allclose(made[a + reach, b + reach], wanted, atol=1e-6)
    found = matched(looks, made, np.array([1, 3]), spread)
    for row, image in zip(found, (1, 3), strict=True):
        np.testing.assert_allclose(row, literal.score(boxes, image, spread), atol=1e-6)


def test_places_are_the_literal_ones(toy):
    looks, literal, boxes = toy
    for some in (boxes, {0: boxes[0]}):
        np.testing.assert_allclose(placed(looks, some), literal.place(some), rtol=1e-12)


def test_the_blend_is_the_literal_one_under_the_weighing_that_fits_the_boxes_best(toy):
    looks, literal, boxes = toy
    where, chosen = blend(looks, boxes)
    worth = {(beta, spread): literal.worth(boxes, beta, spread) for beta in BETAS for spread in SPREADS}
    assert worth[chosen.beta, chosen.spread] == pytest.approx(max(worth.values()), abs=1e-4)
    for image in range(4):
        share = literal.share(boxes, image, chosen.beta, chosen.spread)
        wanted = [sum(p * cell[axis] for p, cell in zip(share, literal.cells(), strict=True)) for axis in (0, 1)]
        np.testing.assert_allclose(where[image], wanted, atol=1e-5)


def planted(images, seed, *, side=12):
    """A thing some three cells wide, of four filters, at a known cell in clutter."""
    rng = np.random.default_rng(seed)
    maps = 0.3 * np.abs(rng.standard_normal((images, 16, side, side))).astype(np.float32)
    cell = rng.integers(1, side - 1, (images, 2))
    axis = np.arange(side)
    x, y = (np.exp(-np.square(axis - cell[:, [n]]) / 2) for n in (0, 1))
    maps[:, :4] += (2 * y[:, None, :, None] * x[:, None, None, :]).astype(np.float32)
    centres = (axis + 0.5) / side
    return Looks.of(maps, centres, centres), centres[cell]


def test_a_thing_with_a_look_of_its_own_is_found_wherever_it_is():
    looks, places = planted(60, 0)
    boxes = {n: tuple(places[n]) for n in range(6)}
    where, chosen = blend(looks, boxes)
    assert np.linalg.norm(where - places, axis=1)[6:].mean() < 1 / 12
    assert chosen.beta >= BETA
    np.testing.assert_allclose(exemplar(looks, boxes)[:6], places[:6], atol=1e-6)  # its own box is the nearest of all


def test_where_nothing_looks_like_the_part_the_blend_stays_at_the_mean_place():
    looks, _ = planted(60, 1)
    rng = np.random.default_rng(2)
    places = 0.6 + 0.05 * rng.standard_normal((60, 2))
    boxes = {n: tuple(places[n]) for n in range(6)}
    where, chosen = blend(looks, boxes)
    assert chosen.beta < BETA
    assert np.abs(where - np.mean(list(boxes.values()), 0)).max() < 0.1


def test_an_exemplar_moves_by_what_its_box_lies_off_its_cell():
    looks, places = planted(20, 3)
    boxes = {0: (places[0, 0] + 0.03, places[0, 1] - 0.02)}
    found = exemplar(looks, boxes)
    cells = (found - (0.03, -0.02)) * 12 - 0.5
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-9)
    assert np.mean(np.linalg.norm(found - places - (0.03, -0.02), axis=1) < 2 / 12) > 0.8


def test_one_box_is_refused():
    looks, places = planted(5, 4)
    with pytest.raises(ValueError, match="two boxes or more, got 1"):
        blend(looks, {0: tuple(places[0])})


def test_the_choice_does_not_depend_on_the_order_of_boxes_or_on_other_peoples_scale():
    looks, places = planted(30, 5)
    boxes = {n: tuple(places[n]) for n in range(5)}
    louder = Looks.of(np.ascontiguousarray(looks.vectors.transpose(0, 3, 1, 2)) * 7, looks.x, looks.y)
    assert weighed(looks, boxes) == weighed(louder, dict(reversed(boxes.items())))


def test_top_filters_are_the_mean_of_the_best_moved_peaks():
    rng = np.random.default_rng(6)
    peaks, boxes = rng.random((9, 14, 2)), {1: (0.2, 0.3), 4: (0.5, 0.9)}
    missed, says = [], []
    for f in range(14):
        moved = np.mean([np.array(place) - peaks[image, f] for image, place in boxes.items()], axis=0)
        missed.append(np.mean([np.hypot(*(peaks[i, f] + moved - place)) for i, place in boxes.items()]))
        says.append(peaks[:, f] + moved)
    best = sorted(range(14), key=lambda f: missed[f])[:TOP_FILTERS]
    np.testing.assert_allclose(top_filters(peaks, boxes), np.mean([says[f] for f in best], axis=0))


def test_other_images_after_these_change_nothing_of_these_and_parts_follow_what_they_show():
    looks, places = planted(60, 0)
    boxes = {n: tuple(places[n]) for n in range(6)}
    offset = np.random.default_rng(9).integers(-1, 2, (60, 2)) / 12
    vectors = np.stack(
        [
            np.roll(own, (round(y * 12), round(x * 12)), (0, 1))
            for own, (x, y) in zip(looks.vectors, offset, strict=True)
        ]
    )
    both = looks.joined(Looks(vectors, vectors.mean((0, 1, 2)), looks.x, looks.y))
    where, chosen = blend(both, boxes)
    alone, chosen_alone = blend(looks, boxes)
    np.testing.assert_allclose(where[:60], alone, atol=1e-6)
    assert chosen == chosen_alone
    error = np.linalg.norm(alone - places, axis=1)
    error[:6] = NAN
    item = Tried("thing", 6, {Locator.BLEND: error[None], Locator.MEAN_POSITION: error[None]})
    found = part_shift(item, Locator.BLEND, (where[None, :60], where[None, 60:]), offset)
    wanted = following(alone[:, None], where[60:, None], offset, np.isfinite(error)[:, None], weights=np.ones((0, 60)))
    assert found.slope == pytest.approx(wanted.slope[0])
    assert 0.5 < found.low <= found.slope <= found.high < 1.3
    assert found.images == 54
    still = np.full((1, 60, 2), 0.5)
    frozen = part_shift(item, Locator.MEAN_POSITION, (still, still), offset)
    assert (frozen.slope, frozen.low, frozen.high, frozen.r2) == (0, 0, 0, 0)


# ---- over pictures and draws

NAN = np.nan


def test_a_crossed_mean_counts_each_picture_once():
    values = np.array([[1.0, NAN, 4.0, NAN], [3.0, NAN, NAN, 6.0]])
    assert crossed_mean(values) == pytest.approx((2 + 4 + 6) / 3)
    weights = CrossedWeights(np.array([[1.0, 5, 1, 1], [2, 0, 0, 1]]), np.array([[1.0, 1], [0, 2]]))
    np.testing.assert_allclose(crossed_resamples(values, weights), [(2 + 4 + 6) / 3, (3 * 2 + 6) / 3])


def test_crossed_resamples_are_the_mean_of_the_table_that_they_stand_for():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((4, 7)) < 0.2, NAN, rng.random((4, 7)))
    weights = crossed_weights(7, 4, seed=(1, 3), resamples=20)
    for picture, draw, got in zip(weights.pictures, weights.draws, crossed_resamples(values, weights), strict=True):
        rows, columns = (np.repeat(np.arange(len(w)), w.astype(int)) for w in (draw, picture))
        assert got == pytest.approx(crossed_mean(values[np.ix_(rows, columns)]))


def test_pictures_are_shared_by_all_numbers_of_boxes_and_draws_are_not():
    one, two, other = (crossed_weights(30, 5, seed=seed, resamples=9) for seed in ((1, 3), (1, 6), (2, 3)))
    np.testing.assert_array_equal(one.pictures, two.pictures)
    assert (one.draws != two.draws).any()
    assert (one.pictures != other.pictures).any()


def test_crossed_intervals_cover_the_truth_where_pictures_and_draws_both_vary():
    rng, hits = np.random.default_rng(0), 0
    for seed in range(200):
        values = 0.5 * rng.standard_normal(40) + 0.3 * rng.standard_normal((10, 1)) + rng.standard_normal((10, 40))
        drawn = crossed_resamples(values, crossed_weights(40, 10, seed=(seed, 0), resamples=300))
        found = crossed_difference(crossed_mean(values), drawn)
        hits += found.low <= 0 <= found.high
    assert 180 <= hits <= 200


def test_a_difference_has_the_p_of_its_resamples_deviation():
    drawn = np.array([-3.0, -1, -2, -2])
    found = crossed_difference(-2.0, drawn)
    assert found.p_value == pytest.approx(2 * norm.sf(2 / drawn.std(ddof=1)))
    assert (crossed_difference(0.0, np.zeros(5)).p_value, crossed_difference(-1.0, np.full(5, -1.0)).p_value) == (1, 0)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.5]), [0.04, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1, 1])


def tried(part, boxes, seed):
    rng = np.random.default_rng(seed)
    errors = {method: rng.random((3, 20)) * size for method, size in (
        (Locator.BLEND, 0.1), (Locator.MEAN_POSITION, 0.3), (Locator.EXEMPLAR, 0.2)
    )}  # fmt: skip
    given = rng.random((3, 20)) < 0.2
    return Tried(part, boxes, {method: np.where(given, NAN, own) for method, own in errors.items()})


def test_summaries_say_means_and_near_hits():
    item = tried("head", 3, 0)
    rows = {row.method: row for row in summaries([item])}
    own = item.errors[Locator.MEAN_POSITION]
    row = rows[Locator.MEAN_POSITION]
    assert row.error == pytest.approx(crossed_mean(own))
    near = [
        np.mean([value < 0.1 for value in column if value == value]) for column in own.T if np.isfinite(column).any()
    ]
    assert row.share == pytest.approx(np.mean(near))
    assert row.low <= row.error <= row.high
    assert row.share_low <= row.share <= row.share_high
    assert row.images == np.isfinite(own).any(0).sum()


def test_comparisons_begin_with_the_best_rival_and_pool_all_cells():
    items = [tried("head", 3, 0), tried("head", 6, 1), tried("legs", 3, 2)]
    rows = comparisons(items)
    assert [(row.rival, row.part, row.boxes) for row in rows] == [
        (rival, part, boxes)
        for rival in (Locator.EXEMPLAR, Locator.MEAN_POSITION)
        for part, boxes in ((None, None), ("head", 3), ("head", 6), ("legs", 3))
    ]
    together, *each = rows[:4]
    assert together.difference == pytest.approx(np.mean([row.difference for row in each]))
    assert together.holm is None
    np.testing.assert_allclose([row.holm for row in each], holm([row.p_value for row in each]))
    wanted = np.mean(
        [crossed_resamples(i.errors[Locator.BLEND] - i.errors[Locator.EXEMPLAR], i.weights) for i in items], axis=0
    )
    np.testing.assert_allclose([together.low, together.high], np.quantile(wanted, (0.025, 0.975)))
    assert together.high < 0
