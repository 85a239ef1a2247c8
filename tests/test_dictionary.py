"""Dictionaries: each fit against a literal version, known answers, how steady they are, and through an audit."""

from itertools import combinations, permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from scipy.stats import t as student

from microtome.errors import InputError
from microtome.quantify.dictionary.autoencoder import AutoencoderPlan, SparseAutoencoder, codes, fitted, largest
from microtome.quantify.dictionary.cells import drawn_cells, shuffled
from microtome.quantify.dictionary.directions import Directions, Reading, normalised
from microtome.quantify.dictionary.matching import matched, matched_cosine
from microtome.quantify.dictionary.nmf import codes as nmf_codes
from microtome.quantify.dictionary.nmf import nmf
from microtome.quantify.dictionary.rotation import one_hot, random_vectors, rotation
from microtome.report import dictionary as report
from tasks.directions import DirectionsOptions
from tasks.directions.result import Fit, bases, fits, packed, unpacked
from tests.conftest import CREATURE_NET, soak, write_audit
from tests.test_pipeline import run

pytestmark = pytest.mark.filterwarnings("ignore:Maximum number of iterations")  # short fits are enough here


def planted(seed, *, atoms=6, each=4, cells=3000):
    """Sparse codes times known atoms, each of channels of its own and without negative entries."""
    rng = np.random.default_rng(seed)
    truth, _ = normalised(np.kron(np.eye(atoms), np.ones(each)) * rng.uniform(0.6, 1, atoms * each))
    code = rng.gamma(2, size=(cells, atoms)) * (rng.random((cells, atoms)) < 0.15)
    return truth, (code @ truth).astype(np.float32)


def unrelated(seed, *, channels=12, cells=1500):
    """Channels that have nothing in common."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(cells, channels)), 0).astype(np.float32)


# directions and what cells are along them


def test_rotations_are_orthonormal_and_uniform():
    rng = np.random.default_rng(0)
    whole = rotation(16, 16, rng).vectors
    assert np.allclose(whole @ whole.T, np.eye(16), atol=1e-6)
    assert rotation(16, 5, rng).vectors.shape == (5, 16)
    drawn = np.stack([rotation(4, 4, rng).vectors for _ in range(4000)]).astype(float)
    assert np.abs(drawn.mean(0)).max() < 0.04  # without the signs of R the diagonal would lie at -0.4
    assert np.abs((drawn**2).mean(0) - 1 / 4).max() < 0.02
    assert np.abs(np.linalg.det(drawn).mean()) < 0.06  # reflections as often as not


def test_a_map_along_one_hot_directions_is_the_map_to_the_bit():
    maps = np.random.default_rng(1).normal(size=(7, 3, 5)).astype(np.float32)
    assert one_hot(7, 7).of_map(maps).tobytes() == maps.tobytes()
    assert one_hot(7, 3).of_map(maps).tobytes() == maps[:3].tobytes()


def test_a_map_is_read_cell_by_cell():
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(6, 2, 3)).astype(np.float32)
    turned = rotation(6, 4, rng)
    found = turned.of_map(maps)
    for row, column in np.ndindex(2, 3):
        for direction in range(4):
            expected = sum(
                float(a) * float(b) for a, b in zip(turned.vectors[direction], maps[:, row, column], strict=True)
            )
            assert found[direction, row, column] == pytest.approx(expected, abs=1e-5)


def test_a_reading_adds_up_what_codes_leave():
    rng = np.random.default_rng(3)
    maps = np.abs(rng.normal(size=(6, 2, 3))).astype(np.float32)
    maps[:, 0, 0] = 0
    few = rotation(6, 4, rng)
    found = Reading.of(few, maps, few.of_map(maps))
    error = square = active = 0.0
    for row, column in np.ndindex(2, 3):
        x = maps[:, row, column].astype(float)
        z = few.vectors.astype(float) @ x
        error += float(((x - few.vectors.T @ z) ** 2).sum())
        square += float(x @ x)
        active += float(np.abs(z).sum() ** 2 / (z @ z)) if (row, column) != (0, 0) else 0.0
    assert (found.error, found.square, found.active) == pytest.approx((error, square, active), rel=1e-5)
    assert found.total == pytest.approx(maps.reshape(6, -1).sum(1), rel=1e-6)
    assert found.cells == 5
    assert Reading.of(one_hot(6, 6), maps, maps).error == 0


def test_a_dictionary_is_stored_to_the_bit():
    rng = np.random.default_rng(4)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 5), (3, 5), (5,))]
    for directions in (Directions("sae", *arrays, 2), rotation(5, 3, rng), one_hot(5, 5)):
        again = unpacked(directions.method, packed(directions))
        assert again.active == directions.active
        for name in ("vectors", "encoder", "offset"):
            assert getattr(again, name).tobytes() == getattr(directions, name).tobytes()


# cells


def test_cells_are_drawn_once_from_the_chosen_pictures_whatever_the_blocks():
    maps = np.arange(10 * 4 * 2 * 3, dtype=np.float32).reshape(10, 4, 2, 3)
    chosen = np.array([1, 2, 5, 9])

    def drawn(size, most):
        blocks = ((first, maps[first : first + size]) for first in range(0, 10, size))
        return drawn_cells(blocks, chosen, most, np.random.default_rng(0))

    every = {tuple(maps[image, :, row, column]) for image in chosen for row in range(2) for column in range(3)}
    assert set(map(tuple, drawn(3, 1000))) == every
    some = drawn(4, 11)
    assert len(some) == len(set(map(tuple, some))) == 11
    assert set(map(tuple, some)) < every
    assert some.tobytes() == drawn(10, 11).tobytes() == drawn(1, 11).tobytes()


def test_shuffled_channels_keep_their_values_and_lose_one_another():
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(4000, 1))
    cells = (shared + 0.1 * rng.normal(size=(4000, 3))).astype(np.float32)
    apart = shuffled(cells, rng)
    assert (np.sort(apart, axis=0) == np.sort(cells, axis=0)).all()
    assert np.abs(np.corrcoef(apart.T) - np.eye(3)).max() < 0.06 < 0.9 < np.corrcoef(cells.T).min()


# NMF


def test_nmf_finds_a_planted_dictionary_from_every_start():
    truth, cells = planted(0)
    for seed in range(3):
        found = nmf(cells, len(truth), seed).vectors
        assert (found >= 0).all()
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        assert matched(truth, found).mean() > 0.98
    assert nmf(cells, len(truth), 1).vectors.tobytes() == nmf(cells, len(truth), 1).vectors.tobytes()


def test_codes_of_nmf_are_all_but_the_least_squares_ones():
    truth, cells = planted(1)
    found = nmf_codes(cells[:40], truth)
    assert (found >= 0).all()
    left = ((cells[:40] - found @ truth) ** 2).sum()
    least = sum(nnls(truth.T.astype(float), cell.astype(float))[1] ** 2 for cell in cells[:40])
    assert left <= least + 0.01 * (cells[:40] ** 2).sum()


# the autoencoder


def literal_codes(cells, encoder, offset, active):
    """z = ReLU(TopK(E (x - b))), cell by cell."""
    found = np.zeros((len(cells), len(encoder)))
    for row, cell in enumerate(cells):
        before = [float(weights @ (cell - offset)) for weights in encoder]
        for place in sorted(range(len(before)), key=lambda place: -before[place])[:active]:
            found[row, place] = max(0.0, before[place])
    return found


def literal_errors(cells, parts, active, dead):
    """Both terms of the loss, as the module's docstring has them; `fixed` is the error that the second one explains."""
    decoder, encoder, offset, fixed = parts
    code = literal_codes(cells, encoder, offset, active)
    left = cells - (code @ decoder + offset)
    helped = literal_codes(cells, encoder[dead], offset, min(len(dead), max(1, cells.shape[1] // 2)))
    again = (left if fixed is None else fixed) - helped @ decoder[dead]
    return (left**2).sum(1).mean(), (again**2).sum(1).mean(), left


def autoencoder(seed, *, directions=9, channels=6, active=3):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=shape) for shape in ((directions, channels), (directions, channels), (channels,))]
    model = SparseAutoencoder(torch.from_numpy(parts[0]), torch.from_numpy(parts[2]), active)
    model.encoder.data = torch.from_numpy(parts[1])
    return model, parts, rng.normal(size=(11, channels))


def test_the_autoencoder_is_its_formula():
    model, (decoder, encoder, offset), cells = autoencoder(0)
    dead = [1, 4, 7, 8]
    error, again, fired = model(torch.from_numpy(cells), torch.tensor([place in dead for place in range(9)]))
    expected, helped, _ = literal_errors(cells, (decoder, encoder, offset, None), 3, dead)
    assert (error.item(), again.item()) == pytest.approx((expected, helped), rel=1e-12)
    assert fired.tolist() == (literal_codes(cells, encoder, offset, 3) > 0).any(0).tolist()
    assert model(torch.from_numpy(cells), torch.zeros(9, dtype=torch.bool))[1].item() == 0
    small = [part.astype(np.float32) for part in (cells, encoder, offset)]
    assert np.allclose(codes(*small, 3), literal_codes(cells, encoder, offset, 3), atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    """Of the whole loss; the error that the dead are to explain is held, as in the paper."""
    model, parts, cells = autoencoder(1)
    dead, step = [0, 5], 1e-6
    error, again, _ = model(torch.from_numpy(cells), torch.tensor([place in dead for place in range(9)]))
    (error + again / 32).backward()
    *_, fixed = literal_errors(cells, (*parts, None), 3, dead)

    def loss():
        found = literal_errors(cells, (*parts, fixed), 3, dead)
        return found[0] + found[1] / 32

    for part, gradient in zip(parts, (model.decoder.grad, model.encoder.grad, model.offset.grad), strict=True):
        for place in np.ndindex(part.shape):
            value = part[place]
            part[place] = value + step
            above = loss()
            part[place] = value - step
            below = loss()
            part[place] = value
            assert float(gradient[place]) == pytest.approx((above - below) / (2 * step), abs=1e-5)


def test_only_the_largest_stay_and_none_below_zero():
    values = torch.tensor([[3.0, -1.0, 2.0, 5.0], [-4.0, -3.0, -2.0, -1.0]])
    assert largest(values, 2).tolist() == [[3, 0, 0, 5], [0, 0, 0, 0]]


def test_the_autoencoder_finds_a_planted_dictionary_and_the_same_again():
    truth, cells = planted(2)
    plan = AutoencoderPlan(directions=6, active=3, steps=800)
    found = fitted(cells, plan, 0)
    assert matched(truth, found.vectors).mean() > 0.9
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    code = found.codes(cells)
    assert (code > 0).sum(1).max() <= 3
    assert (code > 0).any(0).all()  # none is dead
    assert ((cells - found.decoded(code)) ** 2).sum() < 0.05 * ((cells - cells.mean(0)) ** 2).sum()
    short = AutoencoderPlan(6, 3, 20)
    one, other = fitted(cells, short, 3), fitted(cells, short, 3)
    assert all(getattr(one, n).tobytes() == getattr(other, n).tobytes() for n in ("vectors", "encoder", "offset"))
    scaled = fitted(1000 * cells, short, 3)  # rates suit any layer
    assert np.allclose(scaled.vectors, one.vectors, atol=1e-3)


def test_constant_maps_are_no_trouble():
    cells = np.zeros((50, 5), np.float32)
    found = fitted(cells, AutoencoderPlan(5, 2, 5), 0)
    assert np.isfinite(found.vectors).all()
    assert (found.codes(cells) >= 0).all()
    assert (nmf(cells, 3, 0).of_map(cells.T.reshape(5, 10, 5)) == 0).all()


# how steady


def test_each_direction_is_matched_once_and_as_well_as_can_be():
    rng = np.random.default_rng(6)
    one, other = (random_vectors((5, 4), rng, positive=False) for _ in range(2))
    cosine = one.astype(float) @ other.astype(float).T
    best = max(sum(cosine[row, place] for row, place in enumerate(order)) for order in permutations(range(5)))
    assert matched(one, other).sum() == pytest.approx(best)
    assert matched(one, one[::-1]) == pytest.approx(np.ones(5), abs=1e-6)
    assert matched(one, np.zeros_like(one)).tolist() == [0] * 5
    assert (random_vectors((5, 4), rng, positive=True) >= 0).all()


def test_the_interval_is_the_jackknifes_over_starts():
    rng = np.random.default_rng(7)
    starts = [random_vectors((4, 6), rng, positive=True) for _ in range(6)]
    pairs = {pair: matched(starts[pair[0]], starts[pair[1]]).mean() for pair in combinations(range(6), 2)}
    whole = np.mean(list(pairs.values()))
    left = [np.mean([value for pair, value in pairs.items() if i not in pair]) for i in range(6)]
    spread = np.sqrt(5 / 6 * sum((value - np.mean(left)) ** 2 for value in left))
    found = matched_cosine(starts)
    expected = (whole, whole - student.ppf(0.975, 5) * spread, whole + student.ppf(0.975, 5) * spread)
    assert (found.cosine, found.low, found.high) == pytest.approx(expected)
    assert found.of_direction == pytest.approx(np.mean([matched(starts[0], one) for one in starts[1:]], axis=0))
    with pytest.raises(ValueError, match="at least 3 dictionaries, got 2"):
        matched_cosine(starts[:2])


def test_the_interval_holds_the_mean_over_all_starts():
    """95 % are meant: starts whose steadiness varies, so that pairs that share one vary together."""
    truth = random_vectors((3, 8), np.random.default_rng(8), positive=False)

    def start(rng):
        return normalised(truth + rng.gamma(2, 0.15) * rng.normal(size=truth.shape))[0]

    rng = np.random.default_rng(9)
    many = [start(rng) for _ in range(400)]
    mean = np.mean([matched(one, other).mean() for one, other in zip(many[::2], many[1::2], strict=True)])
    trials = soak(200, 2000)
    found = [matched_cosine([start(rng) for _ in range(5)]) for _ in range(trials)]
    assert sum(one.low <= mean <= one.high for one in found) / trials > 0.9


def agreed(cells, directions, method, steps=400):
    fit = {
        "nmf": lambda data, seed: nmf(data, directions, seed).vectors,
        "sae": lambda data, seed: fitted(data, AutoencoderPlan(directions, 2, steps), seed).vectors,
    }[method]
    apart = shuffled(cells, np.random.default_rng(0))
    return [matched_cosine([fit(data, seed) for seed in range(5)]) for data in (cells, apart)]


@pytest.mark.parametrize("method", ["nmf", "sae"])
def test_a_planted_dictionary_is_steadier_than_its_control_and_unrelated_channels_are_not(method):
    truth, cells = planted(3)
    own, control = agreed(cells, len(truth), method)
    assert own.low > control.high
    own, control = agreed(unrelated(4), 12, method, steps=100)
    assert own.low < control.high
    assert control.low < own.high


# through an audit


def test_which_dictionaries_are_fitted():
    options = DirectionsOptions(methods=["rotation", "nmf"], rotations=2)
    assert [fit.basis for fit in bases(options)] == ["rotation 1", "rotation 2", "nmf"]
    every = list(fits(options))
    assert len(every) == len(set(every)) == 2 + 10
    assert Fit("nmf", 3, shuffled=True) in every
    with pytest.raises(ValueError, match="each method once"):
        DirectionsOptions(methods=["nmf", "nmf"])


STAGES = {
    "dissection": {"bootstrap": 50, "permutations": 11},
    "formulas": {"length": 1},
    "dictionary": {"methods": ["one-hot", "rotation", "nmf", "sae"], "rotations": 2, "cells": 300, "steps": 20},
    "report": {"top_images": 3},
}


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    content = {
        "name": "dictionary",
        "network": dict(CREATURE_NET),
        "dataset": {"format": "creatures", "count": 60, "seed": 3},
        "stages": STAGES,
        "gates": [{"metric": "dictionary_bases.share", "layer": "features.12", "where": {"basis": "nmf"}, "min": 0}],
    }
    return write_audit(tmp_path_factory.mktemp("dictionary") / "audit.yaml", content)


@pytest.fixture(scope="module")
def done(audit):
    """Creatures, the shipped network."""
    return run(audit)


def test_a_unit_is_dissected_the_same_as_unit_as_formula_and_as_one_hot_direction(done):
    """To the bit: thresholds, counts, null, intervals, held-out half."""
    units = done["dissection"][0].table("units").to_pandas()
    formulas = done["formulas"][0].table("formulas").to_pandas()
    made = done["dictionary"][0].table("dictionary").to_pandas()
    shared = [name for name in made if name in units and name not in ("layer", "unit")]
    assert len(shared) == 16
    for basis in ("units", "one-hot"):
        mine = made[made.basis == basis].reset_index(drop=True)
        assert mine[shared].equals(units[shared])
        assert mine.direction.tolist() == units.unit.tolist() == mine.unit.tolist()
        assert mine.concept.fillna("").tolist() == formulas.formula.fillna("").tolist()
        assert mine.iou.tolist() == formulas.iou.tolist()
        assert mine.heldout_iou.tolist() == formulas.heldout_iou.tolist()
        assert (mine.iou_low.tolist(), mine.iou_high.tolist()) == (
            formulas.iou_low.tolist(),
            formulas.iou_high.tolist(),
        )
    for name in ("iou", "thresholds", "tails"):
        own, along = (done[stage][0].table(name).to_pandas() for stage in _stages(name))
        along = along[along.layer == "features.12/one-hot"].drop(columns="layer").reset_index(drop=True)
        assert own.drop(columns="layer").equals(along)


def _stages(table):
    stage = "tally" if table == "iou" else "thresholds"
    return stage, f"{stage}:dictionary"


def test_the_units_row_is_the_dissections_and_the_others_follow_from_their_directions(done):
    (layer,) = done["dissection"][0].table("layers").to_pylist()
    rows = done["dictionary"][0].table("dictionary_bases").to_pylist()
    assert [row["basis"] for row in rows] == ["units", "one-hot", "rotation 1", "rotation 2", "nmf", "sae"]
    made = done["dictionary"][0].table("dictionary").to_pandas()
    names = ("confirmed", "confirmed_low", "confirmed_high", "detectors", "detectors_low", "significant", "mean_iou")
    for row in rows:
        mine = made[made.basis == row["basis"]]
        assert row["confirmed"] == mine.confirmed.sum()
        assert row["detectors"] == mine.detector.sum()
        assert row["unique"] == mine[mine.detector].concept.nunique()
        assert row["confirmed_unique"] == mine[mine.confirmed].concept.nunique()
        assert row["share"] == row["confirmed"] / row["directions"] == row["confirmed"] / len(mine)
        assert row["heldout_iou"] == pytest.approx(mine.heldout_iou.mean())
        assert row["apart"] == pytest.approx(row["share"] - rows[0]["share"])
        assert row["apart_low"] <= row["apart"] <= row["apart_high"]
        assert row["unique_apart_low"] <= row["unique_apart"] == row["unique"] - rows[0]["unique"]
        assert row["judged"] == 30
    for row in rows[:2]:
        assert {name: row[name] for name in names} == {name: layer[name] for name in names}
        assert row["unique"] == layer["unique_per_unit"]
        assert (row["apart_low"], row["apart_high"], row["unique_apart_low"], row["unique_apart_high"]) == (0, 0, 0, 0)
        assert (row["explained"], row["explained_low"], row["near_unit"]) == (1, 1, 64)
    for row in rows[2:4]:
        assert row["explained"] == pytest.approx(1)
        assert row["active"] > 10
    assert 0 < rows[5]["explained_low"] < rows[5]["explained"] < rows[5]["explained_high"] < 1
    assert rows[5]["active"] <= 8


def test_how_steady_is_told_beside_the_controls(done):
    rows = done["dictionary"][0].table("dictionary_stability").to_pylist()
    assert [row["method"] for row in rows] == ["nmf", "sae"]
    made = done["dictionary"][0].table("dictionary").to_pandas()
    for row in rows:
        assert row["random_low"] <= row["random"] <= row["random_high"]
        assert row["beyond_random"] == (row["cosine_low"] > row["random_high"])
        assert row["steady"] == (row["beyond_random"] and row["cosine_low"] > row["shuffled_high"])
        assert made[made.basis == row["method"]].cosine.between(-1, 1 + 1e-6).all()
    assert made[made.basis.isin(["units", "rotation 1"])].cosine.isna().all()


def test_directions_are_stored_for_use(done):
    stored = done["directions"][0].table("directions").to_pandas()
    assert stored.groupby("basis").size().to_dict() == dict.fromkeys(
        ["one-hot", "rotation 1", "rotation 2", "nmf", "sae"], 64
    )
    nmf_rows = np.stack(stored[stored.basis == "nmf"].sort_values("direction")["values"].to_list())
    assert np.allclose(np.linalg.norm(nmf_rows, axis=1), 1, atol=1e-5)
    made = done["dictionary"][0].table("dictionary").to_pandas()
    mine = made[made.basis == "nmf"]
    assert mine.unit.tolist() == nmf_rows.argmax(1).tolist()
    assert mine.unit_cosine.to_numpy() == pytest.approx(nmf_rows.max(1))
    assert done["gates"][0].table("gates").column("passed").to_pylist() == [True]


def test_the_page_says_what_the_tables_say(done):
    text = done["report"][0].read("dictionary.html").decode()
    rows = {row["basis"]: row for row in done["dictionary"][0].table("dictionary_bases").to_pylist()}
    assert f"Of the 64 units of features.12 {100 * rows['units']['share']:.0f}\u00a0%" in text
    assert f"of NMF, {100 * rows['nmf']['share']:.0f}\u00a0%" in text
    assert f"{rows['sae']['confirmed']} of 64 [" in text
    assert "Do other starts find the same directions of features.12?" in text
    assert "Directions of the TopK autoencoder in features.12" in text


def test_threads_change_no_byte(audit, done, tmp_path):
    """And an audit that is done costs a look."""
    assert all(cached for _, cached in run(audit).values())
    again = run(audit, f"workspace={tmp_path / 'other'}", "execution.threads=2", until="dictionary")
    for stage in ("directions", "projected", "dictionary"):
        names = done[stage][0].names()
        assert names == again[stage][0].names()
        for name in names:
            assert done[stage][0].read(name) == again[stage][0].read(name), (stage, name)


def test_without_resamples_and_permutations_and_with_few_directions(tmp_path):
    content = {
        "name": "few",
        "network": {**CREATURE_NET, "layers": ["features.9"]},
        "dataset": {"format": "creatures", "count": 40, "seed": 3},
        "stages": {
            "dissection": {"bootstrap": 0, "permutations": 0},
            "dictionary": {"methods": ["rotation", "sae"], "directions": 5, "rotations": 1, "cells": 200, "steps": 5},
        },
    }
    found = run(write_audit(tmp_path / "audit.yaml", content))
    rows = found["dictionary"][0].table("dictionary_bases").to_pylist()
    assert [row["directions"] for row in rows[1:]] == [5, 5]
    assert all(row["confirmed"] is row["share"] is row["apart"] is row["detectors_low"] is None for row in rows)
    assert rows[1]["explained"] < 0.9
    text = found["report"][0].read("dictionary.html").decode()
    assert "detectors, luck included" in text
    assert "Without permutations" in text


def test_nmf_refuses_negative_maps_before_any_fit(tmp_path):
    content = {
        "name": "signed",
        "network": {**CREATURE_NET, "layers": ["features.11"]},
        "dataset": {"format": "creatures", "count": 20, "seed": 3},
        "stages": {"dictionary": {}},
    }
    file = write_audit(tmp_path / "audit.yaml", content)
    with pytest.raises(InputError, match=r"nmf needs maps without negative values, got -.* in layer features\.11"):
        run(file)
    assert not list(tmp_path.rglob("*.safetensors"))


# the page, by hand


def basis_row(method, share, low, high, **others):
    names = dict.fromkeys(report.BasisRow.__annotations__, None)
    ends = {"apart": share - 0.5, "apart_low": low - 0.5, "apart_high": high - 0.5}
    counts = {"confirmed": round(10 * share), "confirmed_low": 10 * low, "confirmed_high": 10 * high}
    row = {**names, **ends, **counts, "share": share, "share_low": low, "share_high": high}
    known = {"layer": "a", "basis": method, "method": method, "directions": 10, "unique": 3, "heldout_iou": 0.1}
    return {**row, **known, "active": 2.0, "near_unit": 0, "dead": 0, "judged": 5, **others}


def test_a_verdict_asks_every_draw_of_a_basis():
    units = basis_row("units", 0.5, 0.4, 0.6, unique=7)
    ends = {"unique": 2, "unique_apart_low": -6, "unique_apart_high": -4}
    fewer, same = basis_row("rotation", 0.2, 0.1, 0.3, **ends), basis_row("rotation", 0.4, 0.3, 0.6, **ends)
    more = basis_row("nmf", 0.9, 0.8, 1.0, directions=4, near_unit=3)
    assert report._verdict([report._rate(fewer)]) == "surely fewer"
    assert report._verdict([report._rate(row) for row in (fewer, same)]) == ""
    assert report._verdict([report._rate(more)]) == "surely more"
    unsure = basis_row("sae", 0.5, 0.4, 0.6, apart_low=None)
    assert report._verdict([report._rate(unsure)]) == ""
    layer = SimpleNamespace(bases=[units, fewer, same, more], units=units, name="a", steady=[], learned=["nmf"])
    assert report._headline(layer) == (
        "Confirmed detectors beside the units of a: NMF has surely more; of a random rotation no difference is sure. "
        "Of the 10 units of a 50% [40%, 60%] are confirmed detectors, and detectors name 7 concepts; of a random "
        "rotation, 30% and 2 concepts (surely fewer); of NMF, 90% (surely more), where 3 of 4 directions are all but a "
        "unit."
    )


def test_nothing_is_claimed_of_what_is_not_beyond_both_controls():
    row = {"method": "nmf", "cosine": 0.8, "cosine_low": 0.7, "cosine_high": 0.9, "random": 0.3, "shuffled": 0.75}
    assert report._said({**row, "steady": False}) == (
        "The directions of NMF are not shown to be steady: matched cosine 0.80 [0.70, 0.90] with other starts, beside "
        "0.75 where channels are shuffled and 0.30 of random directions."
    )
    assert "are steadier than both controls: matched" in report._said({**row, "steady": True})
