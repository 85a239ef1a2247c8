"""Location stability: a literal re-implementation, toys worked out by hand, properties, baselines, NULL cases."""

import numpy as np
import pytest

from microtome.networks import LayerGeometry
from microtome.quantify import stability as science
from microtome.quantify import stability_summary as summary
from microtome.quantify.partiou import PartFit
from microtome.quantify.significance import false_discovery_of_pairs
from microtome.quantify.stability import Inferences, Protocol
from tests import literal

SIZE = (96, 96)


def layer(units: int = 4, cells: int = 6) -> LayerGeometry:
    return LayerGeometry("toy", units, (cells, cells), (8.0, 8.0), (16.0, 16.0), (32.0, 32.0), False)


def cells_at(points: np.ndarray, of: LayerGeometry) -> np.ndarray:
    """The cell nearest to each point, row-major."""
    centres = science.cell_centres(of)
    return np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)


def random_case(seed: int = 0, images: int = 40, units: int = 4):
    rng = np.random.default_rng(seed)
    of = layer(units)
    maps = rng.standard_normal((images, units, *of.grid)).astype(np.float32)
    landmarks = {"head": rng.uniform(0, 96, (images, 2)), "tail": rng.uniform(0, 96, (images, 2))}
    landmarks["tail"][rng.random(images) < 0.3] = np.nan
    return of, maps, landmarks


@pytest.mark.parametrize("top", [5, 100])
def test_deviation_equals_the_literal_formula(top: int) -> None:
    of, maps, landmarks = random_case()
    found = science.infer(maps)
    got = science.category_stability("c", found, of, landmarks, protocol=Protocol(SIZE, top), permutations=0)
    for name, marks in landmarks.items():
        wanted = literal.deviation(maps, marks, of.start, of.jump, SIZE, top)
        np.testing.assert_allclose(got.landmarks[name].deviation, wanted, rtol=1e-12)
    np.testing.assert_allclose(
        got.deviation, np.mean([mark.deviation for mark in got.landmarks.values()], axis=0), rtol=1e-12
    )


def test_a_filter_that_sits_beside_its_landmark_has_no_deviation_and_tracks_it() -> None:
    of = layer(2)
    rng = np.random.default_rng(1)
    cells = rng.integers(36, size=30)
    landmark = science.cell_centres(of)[cells] + (3.0, -2.0)
    found = Inferences(
        np.stack([cells, np.full(30, 14)], 1).astype(np.int32), np.ones((30, 2), np.float32), np.zeros((30, 2), bool)
    )
    got = science.category_stability("c", found, of, {"head": landmark}, protocol=Protocol(SIZE), permutations=99)
    assert got.deviation[0] == pytest.approx(0, abs=1e-12)
    mark = got.landmarks["head"]
    assert mark.r2[0] == pytest.approx(1, abs=1e-12)
    assert mark.p_value[0] == pytest.approx(0.01)
    assert got.localising["head"][0]
    assert got.tracking[0]
    assert mark.r2[1] == 0
    assert mark.p_value[1] == 1
    assert not got.tracking[1]


def test_tracking_equals_least_squares() -> None:
    rng = np.random.default_rng(2)
    position, landmark = rng.normal(size=(25, 3, 2)), rng.normal(size=(25, 2))
    got, p = science.track(position, landmark, np.ones((25, 3), bool), permutations=199, seed=0)
    for number in range(3):
        assert got[number] == pytest.approx(literal.r_squared(position[:, number], landmark), rel=1e-10)
    assert ((p > 0) & (p <= 1)).all()


def test_permutation_p_values_are_uniform_without_an_effect() -> None:
    rng = np.random.default_rng(3)
    position, landmark = rng.normal(size=(20, 400, 2)), rng.normal(size=(20, 2))
    _, p = science.track(position, landmark, np.ones((20, 400), bool), permutations=199, seed=0)
    assert abs((p <= 0.05).mean() - 0.05) < 0.035
    assert abs(p.mean() - 0.5) < 0.05


def test_order_of_images_and_filters_does_not_matter() -> None:
    of, maps, landmarks = random_case(4)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(maps)), rng.permutation(of.units)
    straight = science.category_stability(
        "c", science.infer(maps), of, landmarks, protocol=Protocol(SIZE, 7), permutations=0
    )
    mixed = science.category_stability(
        "c",
        science.infer(maps[rows][:, columns]),
        of,
        {name: marks[rows] for name, marks in landmarks.items()},
        protocol=Protocol(SIZE, 7),
        permutations=0,
    )
    np.testing.assert_allclose(mixed.deviation, straight.deviation[columns], rtol=1e-12)
    assert mixed.baselines.best_constant == pytest.approx(straight.baselines.best_constant, rel=1e-12)


def test_equal_scores_are_taken_in_file_order_and_ties_at_the_first_cell() -> None:
    maps = np.zeros((4, 1, 2, 2), np.float32)
    maps[:, 0, 0, 1] = maps[:, 0, 1, 1] = 2.0
    found = science.infer(maps)
    assert found.cell.ravel().tolist() == [1] * 4
    assert found.tied.all()
    of = LayerGeometry("toy", 1, (2, 2), (24.0, 24.0), (48.0, 48.0), (48.0, 48.0), False)
    marks = np.array([[72.0, 24.0], [62.0, 24.0], [0.0, 0.0], [0.0, 0.0]])
    got = science.landmark_stability(found, science.cell_centres(of), marks, Protocol(SIZE, 2), permutations=0, seed=0)
    assert got.images.tolist() == [2]
    assert got.deviation[0] == pytest.approx(np.std([0, 10], ddof=1) / np.hypot(96, 96))


def test_inferences_block_by_block_are_those_of_all_together() -> None:
    _, maps, _ = random_case(3)
    whole, parts = science.infer(maps), science.joined([science.infer(maps[:7]), science.infer(maps[7:])])
    for name in ("cell", "score", "tied"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_null_filters_say_why() -> None:
    of, maps, landmarks = random_case(5)
    maps[:, 1] = -np.abs(maps[:, 1])
    one = {"head": np.full((40, 2), np.nan), "tail": landmarks["tail"]}
    one["head"][3] = (5, 5)
    got = science.category_stability("c", science.infer(maps), of, landmarks, protocol=Protocol(SIZE), permutations=0)
    assert got.reasons[1] == "silent: its highest score is not above 0"
    assert np.isnan(got.deviation[1])
    assert np.isfinite(got.deviation[[0, 2, 3]]).all()
    few = science.category_stability("c", science.infer(maps), of, one, protocol=Protocol(SIZE), permutations=0)
    assert few.reasons[0] == "fewer than 2 images for head"
    assert np.isnan(few.deviation).all()
    rule = summary.pooled([got, few], "lowest")
    np.testing.assert_array_equal(np.isnan(rule), [False, True, False, False])


def test_firing_only_leaves_out_silent_images() -> None:
    of, maps, landmarks = random_case(6)
    maps[:10] = 0
    both = [
        science.category_stability(
            "c", science.infer(maps), of, landmarks, protocol=Protocol(SIZE, 100, firing), permutations=0
        )
        for firing in (False, True)
    ]
    assert both[0].landmarks["head"].images.tolist() == [40] * 4
    assert both[1].landmarks["head"].images.tolist() == [30] * 4
    alone = science.category_stability(
        "c",
        science.infer(maps[10:]),
        of,
        {k: v[10:] for k, v in landmarks.items()},
        protocol=Protocol(SIZE),
        permutations=0,
    )
    np.testing.assert_allclose(both[1].deviation, alone.deviation, rtol=1e-12)


def test_baselines_by_hand() -> None:
    of = layer(1, 2)
    marks = np.array([[10.0, 20.0], [80.0, 90.0], [40.0, 10.0]])
    got = science.baselines(science.cell_centres(of), [marks], Protocol(SIZE))
    diagonal = np.hypot(96, 96)
    centre = np.linalg.norm(marks - 48, axis=1) / diagonal
    assert got.centre == pytest.approx(centre.std(ddof=1), rel=1e-12)
    each = [(np.linalg.norm(marks - cell, axis=1) / diagonal).std(ddof=1) for cell in science.cell_centres(of)]
    assert got.best_constant == pytest.approx(min(each), rel=1e-12)
    assert got.best_cell == int(np.argmin(each))


def test_pooling_rules() -> None:
    of, maps, landmarks = random_case(7)
    other = {name: marks[::-1].copy() for name, marks in landmarks.items()}
    both = [
        science.category_stability(
            str(turn), science.infer(maps + turn), of, marks, protocol=Protocol(SIZE), permutations=0
        )
        for turn, marks in enumerate((landmarks, other))
    ]
    deviation = np.array([item.deviation for item in both])
    np.testing.assert_allclose(summary.pooled(both, "lowest"), deviation.min(0))
    np.testing.assert_allclose(summary.pooled(both, "mean"), deviation.mean(0))
    np.testing.assert_allclose(summary.pooled(both, "highest-activation"), deviation[1])
    assert summary.best_filters(both, 2).sum() == 2


def test_a_resample_that_draws_every_image_once_changes_nothing() -> None:
    of, maps, landmarks = random_case(8)
    for top in (6, 100):
        got = science.landmark_stability(
            science.infer(maps),
            science.cell_centres(of),
            landmarks["tail"],
            Protocol(SIZE, top),
            permutations=0,
            seed=0,
        )
        again = science._resampled_deviation(got, np.ones(len(maps), np.int64), top)
        np.testing.assert_allclose(again, got.deviation, rtol=1e-12)


def test_a_resample_equals_the_data_set_that_it_stands_for() -> None:
    of, maps, landmarks = random_case(9)
    weight = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40))
    rows = np.repeat(np.arange(40), weight)
    for top in (6, 100):
        protocol, centres = Protocol(SIZE, top), science.cell_centres(of)
        whole = science.landmark_stability(
            science.infer(maps), centres, landmarks["tail"], protocol, permutations=0, seed=0
        )
        drawn = science.landmark_stability(
            science.infer(maps[rows]), centres, landmarks["tail"][rows], protocol, permutations=0, seed=0
        )
        np.testing.assert_allclose(science._resampled_deviation(whole, weight, top), drawn.deviation, rtol=1e-10)


def test_part_fit_by_hand() -> None:
    of = layer(2, 6)
    maps = np.zeros((20, 2, 6, 6), np.float32)
    maps[:, 0, 2, 3] = np.arange(20, 0, -1)  # fires at (56, 40); threshold: floor(0.005 * 720) = 3 may lie above
    masks = np.zeros((20, 1, 48 * 48), bool)
    y, x = np.mgrid[1:97:2, 1:97:2]
    masks[:, 0] = (np.hypot(x - 56, y - 40) <= 12).ravel()
    masks[1] = False
    fit = PartFit(of, SIZE, (48, 48), 1, radius=12)
    assert fit.threshold([maps[:10], maps[10:]]).tolist() == [17.0, 0.0]
    for image in range(20):
        fit.update(maps[image], masks[image])
    share, seen = fit.compute()
    assert seen.tolist() == [19]
    assert share[0, 0] == pytest.approx(2 / 19)  # 20, 19, 18 lie above 17; the image with 19 shows no part
    assert share[1, 0] == 0


def two_categories() -> tuple[list[science.CategoryStability], list[science.Inferences], np.ndarray]:
    """Two categories of one layer, one filter NULL in the first, another in both; and 40 resamples."""
    of, maps, landmarks = random_case(10)
    other = {name: marks[::-1].copy() for name, marks in landmarks.items()}
    first, second = maps.copy(), maps[::-1].copy()
    first[:, 1] = -1 - np.abs(first[:, 1])
    first[:, 2] = second[:, 2] = -1.0
    found = [science.infer(part) for part in (first, second)]
    both = [
        science.category_stability(name, item, of, marks, protocol=Protocol(SIZE), permutations=50)
        for name, item, marks in zip("ab", found, (landmarks, other), strict=True)
    ]
    return both, found, science.resampled(both, Protocol(SIZE), resamples=40, seed=0)


def test_who_surely_tracks_is_over_all_that_the_layer_was_asked() -> None:
    both, _, _ = two_categories()
    rates = summary.false_discovery_of_tracking(both)
    names = [(number, name) for number, item in enumerate(both) for name in item.landmarks]
    p = np.array([np.where(np.isnan(both[n].deviation), np.nan, both[n].landmarks[name].p_value) for n, name in names])
    np.testing.assert_array_equal([rates[n][name] for n, name in names], false_discovery_of_pairs(p))
    assert [np.isnan(next(iter(marks.values()))[1]) for marks in rates] == [True, False]  # NULL in the first alone
    sure = summary.surely_tracking([{"a": np.array([0.04, 0.06, np.nan])}, {"b": np.array([0.9, 0.9, 0.05])}])
    assert sure.tolist() == [True, False, True]


def literal_interval(value: float, means: list[float]) -> list[float]:
    return [float(np.quantile(means, share)) - sum(means) / len(means) + value for share in (0.025, 0.975)]


def test_a_layer_in_one_category() -> None:
    both, found, drawn = two_categories()
    kept = np.array([True, True, True, False])
    sure = both[0].tracking
    got = summary.category_summary(both[0], drawn[:, 0], kept, found[0], sure=sure)
    assert (got.images, got.filters, got.null_filters) == (40, 3, 2)  # of the three that count only filter 0 is left
    assert got.deviation == both[0].deviation[0]
    assert [got.low, got.high] == pytest.approx(literal_interval(got.deviation, drawn[:, 0, 0].tolist()), rel=1e-12)
    assert got.tracking_share == float(both[0].tracking[0])
    assert got.sure_tracking_share == float(sure[0])
    assert got.beating_share == float(both[0].deviation[0] < both[0].baselines.best_constant)
    assert got.silent_share == pytest.approx((found[0].score[:, :3] <= 0).mean())
    assert got.spread == pytest.approx(both[0].spread.deviation[:3].mean())
    none = summary.category_summary(both[0], drawn[:, 0], np.array([False, True, True, False]), found[0], sure=sure)
    assert (none.deviation, none.low, none.tracking_share, none.beating_share) == (None, None, None, None)
    assert summary.category_summary(both[0], drawn[:0, 0], kept, found[0], sure=sure).low is None


@pytest.mark.parametrize("rule", summary.RULES)
def test_a_layer_over_all_categories(rule: str) -> None:
    both, found, drawn = two_categories()
    every = np.ones(4, bool)
    got = summary.pooled_summary(both, drawn, every, found[1], rule=rule, sure=both[1].tracking)
    resamples = summary.pooled_resamples(both, drawn, rule)
    deviation = np.array([item.deviation for item in both])
    choice = summary.chosen_category(both, rule) if rule != "mean" else None
    wanted = []
    for place in range(40):
        values = []
        for number in (0, 1, 3):
            if rule == "mean":
                alive = [c for c in (0, 1) if np.isfinite(deviation[c, number])]
                values.append(sum(drawn[place, c, number] for c in alive) / len(alive))
            else:
                values.append(drawn[place, choice[number], number])
        np.testing.assert_allclose(resamples[place, [0, 1, 3]], values, rtol=1e-12)
        wanted.append(sum(values) / 3)
    assert np.isnan(resamples[:, 2]).all()
    assert got.null_filters == 1
    assert got.deviation == pytest.approx(summary.pooled(both, rule)[[0, 1, 3]].mean(), rel=1e-12)
    assert [got.low, got.high] == pytest.approx(literal_interval(got.deviation, wanted), rel=1e-12)
    np.testing.assert_allclose(summary.layer_means(resamples), wanted, rtol=1e-12)
    limits = [item.baselines.best_constant for item in both]
    assert got.best_constant == (min(limits) if rule == "lowest" else pytest.approx(sum(limits) / 2))
    beating = summary.pooled(both, rule)[[0, 1, 3]] < got.best_constant
    assert got.beating_share == pytest.approx(beating.mean())


def test_layer_means_of_nothing_are_nothing() -> None:
    assert len(summary.layer_means(np.full((5, 3), np.nan))) == 0
    assert len(summary.layer_means(np.zeros((0, 3)))) == 0
