"""Formulas: bounds on random masks, the search against brute force, by hand, and through an audit."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.quantify.formulas import bounds, checks, grammar
from microtome.quantify.formulas.best import FormulaSearch, SearchLimits
from microtome.quantify.formulas.grammar import FORMS, Form
from microtome.quantify.formulas.words import ConceptCells, UnitWords, lit_by_unit, memo
from microtome.quantify.null import AllLabels
from microtome.quantify.resampling import permutation_plan
from microtome.quantify.words import SIDE, LitWords, label_words, pixels_of, tiles, tiling, whole_words
from microtome.report import formulas as report
from tests.conftest import CREATURE_NET, change_audit, write_audit
from tests.test_pipeline import run

MASKS = (9, 20)  # six tiles, four of them not full
PIXELS = MASKS[0] * MASKS[1]


# a world of random masks


class World:
    """Random lit pixels and labels as dense arrays, and the same as words.

    Concepts of one category may overlap here, which no bound may mind.
    """

    def __init__(self, seed, *, images=14, units=6, concepts=8, categories=3, whole=True):
        rng = np.random.default_rng(seed)
        self.category = np.sort(np.append(np.arange(categories), rng.integers(0, categories, concepts - categories)))
        rate = rng.uniform(0.02, 0.5, concepts)
        self.masks = rng.random((images, concepts, PIXELS)) < rate[:, None]
        self.masks &= (rng.random((images, concepts)) < 0.7)[:, :, None]
        self.masks &= (rng.random((images, categories)) < 0.7)[:, self.category, None]  # some annotate no such thing
        self.whole = rng.random((images, concepts)) < (0.08 if whole else 0)
        self.masks |= self.whole[:, :, None]
        likes = rng.integers(0, concepts, (units, 2))
        self.lit = rng.random((images, units, PIXELS)) < 0.05
        for unit, (one, other) in enumerate(likes):
            both = self.masks[:, one] | self.masks[:, other]
            self.lit[:, unit] |= both & (rng.random((images, PIXELS)) < 0.6)
        self.annotated = np.stack([self.masks[:, self.category == c].any((1, 2)) for c in range(categories)], axis=1)

    @property
    def cells(self):
        """As the index has them: two planes, and labels of whole pictures."""
        records, start = [], []
        for image, masks in enumerate(self.masks):
            start.append([])
            for category in range(self.annotated.shape[1]):
                start[-1].append(sum(map(len, records)))
                for concept in np.flatnonzero(self.category == category):
                    if self.whole[image, concept]:
                        records.append(whole_words(np.array([concept])))
                    else:
                        records.append(label_words(masks[concept].astype(np.uint16), np.array([concept]), MASKS))
        return ConceptCells.of(AllLabels(np.concatenate(records), np.array(start)), self.category, MASKS)

    @property
    def units(self):
        return [packed(self.lit[:, unit]) for unit in range(self.lit.shape[1])]


def packed(lit):
    """(images, pixels) as words."""
    rows, columns = tiling(MASKS)
    whole = np.zeros((len(lit), rows * SIDE, columns * SIDE), bool)
    whole[:, : MASKS[0], : MASKS[1]] = lit.reshape(-1, *MASKS)
    bits = whole.reshape(len(lit), rows, SIDE, columns, SIDE).swapaxes(2, 3).reshape(len(lit) * rows * columns, -1)
    found = np.packbits(bits, axis=1, bitorder="little").view("<u8").ravel()
    cell = np.flatnonzero(found)
    return UnitWords(cell.astype(np.int64), found[cell].astype(np.uint64))


# literally


def literal_mask(form, a, b, c):
    """Where a formula holds, as it is written in Python."""
    written = FORMS[form].replace("and not", "& ~").replace("and", "&").replace("or", "|")
    return eval(written.format(a="a", b="b", c="c"), {"a": a, "b": b, "c": c})


def literal_iou(world, unit, formula, chosen=None):
    """Over the pictures in which every category of the formula is annotated."""
    categories = {world.category[concept] for concept in formula.concepts}
    total = both = lit = 0
    for image in range(len(world.masks)) if chosen is None else chosen:
        if all(world.annotated[image, category] for category in categories):
            mask = literal_mask(
                formula.form, *(world.masks[image, place] for place in (formula.a, formula.b, formula.c))
            )
            both += int((mask & world.lit[image, unit]).sum())
            total += int(mask.sum())
            lit += int(world.lit[image, unit].sum())
    return both / (lit + total - both) if lit + total - both else 0.0


def all_formulas(concepts):
    """Every left-deep formula of up to three different concepts, as it can be written, without regard to meaning."""
    yield from (Form(0, a) for a in range(concepts))
    for a, b in permutations(range(concepts), 2):
        yield from (Form(form, a, b) for form in (1, 2, 3))
    for a, b, c in permutations(range(concepts), 3):
        yield from (Form(form, a, b, c) for form in range(4, 12))


def in_order(formula):
    """Whether what commutes is in ascending order."""
    form, a, b, c = formula
    if form in (1, 2, 5, 6, 7, 9):
        return a < b
    if form in (4, 8):
        return a < b < c
    return form != 11 or b < c


def lit_by_domain(world, formula):
    """(units,) IoU of a formula, from dense masks at once."""
    inside = world.annotated[:, [world.category[concept] for concept in formula.concepts]].all(1)
    held = literal_mask(formula.form, *(world.masks[inside, place] for place in formula[1:])).ravel()
    lit = world.lit[inside].swapaxes(0, 1).reshape(world.lit.shape[1], -1).astype(np.float32)  # exact, and quick
    both, activation = lit @ held.astype(np.float32), lit.sum(1)
    return both.astype(int), activation.astype(int), held.sum()


def every_meaning(world):
    """(formulas, units) IoU of every formula that is in order, and the formulas, in order."""
    formulas = sorted(filter(in_order, all_formulas(len(world.category))))
    scores = []
    for formula in formulas:
        both, lit, held = lit_by_domain(world, formula)
        union = lit + held - both
        scores.append(np.divide(both, union, out=np.zeros(len(lit)), where=(union > 0) & (lit > 0)))
    return formulas, np.array(scores)


def test_dense_and_literal_scores_are_the_same():
    world = World(4, images=5, units=3, concepts=5)
    formulas, scores = every_meaning(world)
    for place in range(0, len(formulas), 17):
        for unit in range(3):
            assert scores[place, unit] == literal_iou(world, unit, formulas[place])


def test_the_grammar_has_each_meaning_once():
    """Of all ways to write formulas of three concepts, 1, 4 and 23 meanings each, whatever the concepts are."""
    truth = np.array([[row >> place & 1 for row in range(8)] for place in range(3)], bool)

    def meaning(formula):
        return literal_mask(formula.form, *(truth[place] for place in formula[1:])).tobytes()

    written = list(all_formulas(3))
    ordered = list(filter(in_order, written))
    assert len({meaning(formula) for formula in written}) == len(ordered) == 3 * 1 + 3 * 4 + 23
    assert {meaning(formula) for formula in written} == {meaning(formula) for formula in ordered}


@pytest.mark.parametrize(("seed", "shape"), [(0, (14, 50, 20)), (1, (8, 6, 7)), (2, (5, 4, 4))])
def test_the_search_finds_what_brute_force_finds(seed, shape):
    """50 units, 20 concepts: every unit's best formula, its IoU and the order among equal ones; whether any reaches."""
    images, units, concepts = shape
    world = World(seed, images=images, units=units, concepts=concepts)
    formulas, scores = every_meaning(world)
    search, seen = FormulaSearch(world.cells, world.annotated), memo()
    for unit, lit in enumerate(world.units):
        found = search.best(lit, SearchLimits(), seen)
        assert found.proven
        for length in (1, 2, 3):
            allowed = [place for place, formula in enumerate(formulas) if len(formula.concepts) <= length]
            best = allowed[int(scores[allowed, unit].argmax())]  # of equal ones the first
            assert (found.best[length - 1], found.iou[length - 1]) == (formulas[best], scores[best, unit])
        top = scores[:, unit].max()
        assert search.reaches(lit, top, SearchLimits(), seen)
        assert not search.reaches(lit, np.nextafter(top, 2), SearchLimits(), seen)
        assert found.beam_iou <= found.iou[2]
        assert found.beam_iou == scores[formulas.index(found.beam), unit]


def test_a_formula_is_counted_again_picture_by_picture():
    world = World(5)
    search = FormulaSearch(world.cells, world.annotated)
    rng = np.random.default_rng(0)
    formulas = list(filter(in_order, all_formulas(len(world.category))))
    for place in rng.choice(len(formulas), 60, replace=False):
        formula, unit = formulas[place], int(rng.integers(6))
        both, lit, held = search.by_image(world.units[unit], formula)
        for image in range(len(world.masks)):
            inside = all(world.annotated[image, world.category[concept]] for concept in formula.concepts)
            mask = literal_mask(formula.form, *(world.masks[image, part] for part in formula[1:])) & inside
            expected = (mask & world.lit[image, unit]).sum(), world.lit[image, unit].sum() * inside, mask.sum()
            assert (both[image], lit[image], held[image]) == expected


def test_some_pictures_and_exchanged_annotations():
    """A half is as good as a data set of its own; exchanged annotations as good as a data set with them."""
    world = World(6, images=10, units=5, concepts=7)
    half = np.arange(10) % 2 == 0
    part = World(6, images=10, units=5, concepts=7)
    for name in ("masks", "lit", "annotated", "whole"):
        setattr(part, name, getattr(world, name)[half])
    search, alone = (
        FormulaSearch(world.cells, world.annotated & half[:, None]),
        FormulaSearch(part.cells, part.annotated),
    )
    for lit, other in zip(world.units, part.units, strict=True):
        found, expected = search.best(lit, SearchLimits(), memo()), alone.best(other, SearchLimits(), memo())
        assert (found.best, found.iou, found.beam_iou) == (expected.best, expected.iou, expected.beam_iou)

    rng = np.random.default_rng(1)
    plan = np.stack(permutation_plan(world.annotated, 1, rng, np.zeros(10, int)))[:, 0]
    moved = World(6, images=10, units=5, concepts=7)
    moved.masks = np.stack([world.masks[plan[category], c] for c, category in enumerate(world.category)], 1)
    moved.whole = np.stack([world.whole[plan[category], c] for c, category in enumerate(world.category)], 1)
    exchanged, expected = FormulaSearch(world.cells, world.annotated, plan), FormulaSearch(moved.cells, world.annotated)
    for lit in world.units:
        assert exchanged.best(lit, SearchLimits(), memo()) == expected.best(lit, SearchLimits(), memo())


def test_effort_ends_the_search_and_says_how_far_off_it_may_be():
    world = World(7, images=8, units=8, concepts=12)
    search = FormulaSearch(world.cells, world.annotated)
    ended = 0
    for lit in world.units:
        whole, short = (
            search.best(lit, SearchLimits(), memo()),
            search.best(lit, SearchLimits(beam=1, effort=1), memo()),
        )
        assert short.iou[2] <= whole.iou[2] <= short.bound
        assert short == search.best(lit, SearchLimits(beam=1, effort=1), memo())  # the same again
        ended += not short.proven
        assert short.looked <= whole.looked or short.proven
    assert ended


def test_formulas_of_few_pictures_are_left_out():
    world = World(8, images=12, units=4, concepts=6)
    number = {
        tuple(sorted(some)): int(world.annotated[:, list(some)].all(1).sum())
        for size in (2, 3)
        for some in combinations(range(3), size)
    }
    least = max(number.values()) + 1
    search = FormulaSearch(world.cells, world.annotated, least=least)
    for lit in world.units:
        for formula in search.best(lit, SearchLimits(), memo()).best:
            assert len({world.category[concept] for concept in formula.concepts}) == 1
    usual = FormulaSearch(world.cells, world.annotated, least=min(number.values()))
    free = FormulaSearch(world.cells, world.annotated)
    assert all(usual.best(lit, SearchLimits(), memo()) == free.best(lit, SearchLimits(), memo()) for lit in world.units)


def test_a_unit_that_lights_nothing_has_no_formula():
    world = World(9)
    search = FormulaSearch(world.cells, world.annotated)
    nothing = UnitWords(np.zeros(0, np.int64), np.zeros(0, np.uint64))
    found = search.best(nothing, SearchLimits(), memo())
    assert (found.best, found.iou, found.bound, found.beam_iou) == ((Form(0, 0),) * 3, (0.0,) * 3, 0.0, 0.0)
    assert search.reaches(nothing, 0.0, SearchLimits(), memo())
    assert not search.reaches(nothing, 1e-9, SearchLimits(), memo())


# each bound, on random masks


def masks_of(draw, count, pixels=24):
    return [np.array(draw(st.lists(st.booleans(), min_size=pixels, max_size=pixels))) for _ in range(count)]


@st.composite
def scenes(draw):
    """What a unit lights, at least one pixel of it, and three concepts."""
    lit, *concepts = masks_of(draw, 4)
    lit[0] = True
    return lit, concepts


def counted(lit, concepts):
    """Counts of one, of pairs, and of all three, on lit pixels and on others."""
    a, b, c = concepts
    return [[int((mask & where).sum()) for mask in (a, b, c, a & b, a & c, b & c, a & b & c)] for where in (lit, ~lit)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(scenes())
def test_forms_of_three_are_counted_by_inclusion_and_exclusion_and_bounded_by_their_parts(scene):
    lit, concepts = scene
    (*m, t), (*o, u) = counted(lit, concepts)
    room = int(lit.sum())
    ranges = [bounds.shared.py_func(m, room), bounds.shared.py_func(o, sum(o[:3]))]
    assert ranges[0][0] <= t <= ranges[0][1]
    assert ranges[1][0] <= u <= ranges[1][1]
    for form in range(4, 12):
        mask = literal_mask(form, *concepts)
        both, others = int((mask & lit).sum()), int((mask & ~lit).sum())
        bases, sign = [grammar.base.py_func(form, each) for each in (m, o)], int(grammar.SIGN[form])
        assert (bases[0] + sign * t, bases[1] + sign * u) == (both, others)
        truth = both / (room + others)
        assert bounds.leaf_bound.py_func(bases, sign, room, ranges) >= truth
        assert bounds.leaf_bound.py_func(bases, sign, room, ((t, t), ranges[1])) >= truth
        assert bounds.leaf_bound.py_func(bases, sign, room, ((t, t), (u, u))) == truth


@settings(max_examples=150, deadline=None, derandomize=True)
@given(scenes())
def test_what_grows_and_what_is_cut_is_bounded(scene):
    lit, (f, g, h) = scene
    room = int(lit.sum())

    def on(mask):
        return int((mask & lit).sum()), int((mask & ~lit).sum())

    (i, o), more, less = on(f), max(on(g)[0], on(h)[0]), max(on(f & g)[1], on(f & h)[1])
    for other in (g, h):  # any of a set
        for mask, bound in (
            (f | other, bounds.grown.py_func(i, o, room, more)),
            (f & ~other, bounds.cut.py_func(i, o, room, less)),
            (f & other, bounds.cut.py_func(min(i, more), o, room, o)),
        ):
            both, others = on(mask)
            assert both / (room + others) <= bound
        # what covers `other` cannot do better than to light all that is lit
        both, others = on(f | other)
        assert both / (room + others) <= room / (room + on(other)[1])


# words


def test_words_and_pixels():
    rng = np.random.default_rng(0)
    lit = rng.random((3, PIXELS)) < 0.3
    found = packed(lit)
    for image in range(3):
        here = found.cell // tiles(MASKS) == image
        words = np.zeros(tiles(MASKS), np.uint64)
        words[found.cell[here] % tiles(MASKS)] = found.word[here]
        np.testing.assert_array_equal(pixels_of(words, MASKS).ravel(), lit[image])


def test_what_units_light_is_sorted_by_unit():
    first = LitWords(np.array([0, 0, 7]), np.array([1, 2, 1]), np.array([3, 4, 5], np.uint64))
    second = LitWords(np.array([2]), np.array([1]), np.array([6], np.uint64))
    none, one, two = lit_by_unit([(0, 2, first), (2, 1, second)], 3, 6)
    assert len(none.cell) == 0
    assert (one.cell.tolist(), one.word.tolist()) == ([0, 7, 14], [3, 5, 6])
    assert (two.cell.tolist(), two.word.tolist()) == ([0], [4])


# what a formula is worth


def test_iou_under_weights_is_that_of_the_drawn_pictures():
    counts = np.array([[1, 0, 2], [4, 0, 3], [2, 5, 2]])
    weights = np.array([[1, 1, 1], [0, 3, 0], [2, 0, 1]], np.int32)
    assert checks.iou_under(counts, weights).tolist() == [3 / (7 + 9 - 3), 0.0, 4 / (11 + 6 - 4)]


def test_a_price_for_length_is_paid_by_the_longer():
    ious, lengths = (
        np.array([[0.1, 0.12, 0.15], [0.1, 0.1, 0.1], [0.0, 0.3, 0.3]]),
        np.array([[1, 2, 3], [1, 1, 1], [1, 2, 2]]),
    )
    assert checks.chosen(ious, lengths, 0.0).tolist() == [2, 0, 1]
    assert checks.chosen(ious, lengths, 0.02).tolist() == [2, 0, 1]
    assert checks.chosen(ious, lengths, 0.04).tolist() == [0, 0, 1]
    held = np.array([[0.05, 0.02, 0.01], [0.2, 0.2, 0.2], [0.0, 0.1, 0.1]])
    halves = checks.Halves(ious, lengths, held, np.repeat(held[:, :, None], 3, 2), 10)
    point = halves.point(0.04)
    assert (point.length, point.chosen_iou) == (4 / 3, pytest.approx(0.5 / 3))
    assert (point.heldout.value, point.gain.value) == (pytest.approx(0.35 / 3), pytest.approx(0.1 / 3))
    assert (point.gain.low, point.gain.high) == (pytest.approx(0.1 / 3), pytest.approx(0.1 / 3))
    assert [each.penalty for each in halves.curve()] == list(checks.PENALTIES)


# through an audit


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Creatures, the shipped network."""
    folder = tmp_path_factory.mktemp("formulas")
    content = {
        "name": "formulas",
        "network": dict(CREATURE_NET),
        "dataset": {"format": "creatures", "count": 120, "seed": 3},
        "stages": {
            "dissection": {"bootstrap": 50, "permutations": 11},
            "formulas": {"pictures": 10},
            "report": {"top_images": 3},
        },
        "gates": [{"metric": "formula_layers.proven_share", "min": 1, "layer": "features.12"}],
    }
    return run(write_audit(folder / "audit.yaml", content))


def test_a_formula_of_one_concept_is_the_dissections_label_to_the_bit(done):
    made = done["formulas"][0].table("formulas").to_pandas()
    units = done["dissection"][0].table("units").to_pandas()
    assert made.concept.fillna("").tolist() == units.concept.fillna("").tolist()
    assert made.concept_iou.tolist() == units.iou.tolist()
    assert made.concept_heldout_iou.tolist() == units.heldout_iou.tolist()
    single = made.length == 1
    assert (made[single].iou_low.tolist(), made[single].iou_high.tolist()) == (
        units[single].iou_low.tolist(),
        units[single].iou_high.tolist(),
    )
    assert (made.iou >= made.concept_iou).all()


def test_rows_hold_together(done):
    made = done["formulas"][0].table("formulas").to_pandas()
    (layer,) = done["formulas"][0].table("formula_layers").to_pylist()
    lit = made.activation > 0
    union = made.activation + made.label_pixels - made.intersection
    assert made.iou[lit].tolist() == (made.intersection / union)[lit].tolist()
    assert made.proven.all()
    assert layer["proven_share"] == 1
    assert layer["beaten"] == int(made.beaten.sum()) == int((made.iou > made.beam_iou).sum())
    assert layer["gain"] == pytest.approx((made.iou - made.concept_iou).mean())
    assert layer["heldout_gain"] == pytest.approx(made.heldout_gain.mean())
    null = done["formulas"][0]
    reached = np.concatenate(
        [null.table(name.removesuffix(".parquet")).column("reached").to_numpy() for name in null.names("formula_null/")]
    ).reshape(11, -1)
    assert made.p_value.tolist() == ((1 + reached.sum(0)) / 12).tolist()
    curve = done["formulas"][0].table("formula_curve").to_pandas()
    assert curve.length.is_monotonic_decreasing
    assert curve.gain[0] == pytest.approx(layer["heldout_gain"])
    assert done["gates"][0].table("gates").column("passed").to_pylist() == [True]


def test_what_a_unit_of_creatures_detects_is_a_formula_of_its_parts(done):
    """The page says what the tables say, and shows the pictures."""
    text = done["report"][0].read("formulas.html").decode()
    assert "is proven for all 64 units of features.12" in text
    assert "outline the formula, as annotated" in text
    assert "The price of length in features.12" in text


def test_a_page_of_searches_that_were_ended():
    row = {"proven": 3, "units": 4, "permutations": 0}
    assert "More `effort`" in report._advice(row)[0].text
    assert "nothing says what chance" in report._advice({**row, "proven": 4})[0].text
    assert report._advice({"proven": 4, "units": 4, "permutations": 9}) == []
    unit = {"proven": False, "gap": 0.0123}
    assert "higher by up to 0.012" in report._proof(unit)


def test_without_resamples_and_permutations(tmp_path, audit_file):
    change_audit(
        audit_file,
        stages={"dissection": {"bootstrap": 0, "permutations": 0}, "formulas": {"length": 2, "pictures": 1}},
    )
    found = run(audit_file)
    rows = found["formulas"][0].table("formulas").to_pylist()
    assert all(row["iou_low"] is row["gain_low"] is row["q_value"] is None for row in rows)
    assert max(row["length"] for row in rows) <= 2
    (layer,) = found["formulas"][0].table("formula_layers").to_pylist()
    assert layer["significant"] is layer["heldout_gain_low"] is None
    assert "Without permutations" in found["report"][0].read("formulas.html").decode()
    assert all(cached for _, cached in run(audit_file).values())
