"""The page of a dissected layer, from rows made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from flows.console import counted
from microtome.quantify.resampling import ImageCounts
from microtome.report import overview, views
from microtome.report.dissection import DissectedLayer, LayerRow, SourceIou, TopImage, UnitRow, of_units, pages
from microtome.report.words import percent
from tasks.dissection.findings import FAILURES, _by_picture
from tasks.index.result import ConceptTable

LAYER: LayerRow = {
    "layer": "conv", "units": 3, "confirmed": 1, "confirmed_low": 0.0, "confirmed_high": 2.0, "detectors": 2,
    "detectors_low": 1.0, "detectors_high": 3.0, "unique_per_category": 2, "unique_low": 1.0, "unique_high": 2.0,
    "unique_per_unit": 2, "unique_per_unit_low": 1.0, "unique_per_unit_high": 2.0, "significant": 1,
    "significant_across": 2, "strata": 6, "saturated": 0, "dead": 0, "mean_iou": 0.05, "mean_iou_low": 0.045,
    "mean_iou_high": 0.0561, "min_iou": 0.04, "tail": 0.005, "images": 1200,
    "permutations": 200, "permutations_needed": 200, "rows": 4, "columns": 4, "jump_row": 8.0, "field_row": 31.0,
    "is_global": False, "apart": 0,
    "detectors_redrawn_low": None, "detectors_redrawn_high": None, "unique_redrawn_low": None,
    "unique_redrawn_high": None, "unique_per_unit_redrawn_low": None, "unique_per_unit_redrawn_high": None,
}  # fmt: skip
UNIT: UnitRow = {
    "layer": "conv", "unit": 0, "threshold": 1.5, "concept": "wing", "category": "part", "iou": 0.1, "iou_low": 0.08,
    "iou_high": 0.12, "null_p95": 0.02, "p_value": 0.005, "p_value_across": 0.01, "q_value": 0.015, "heldout_iou": 0.09,
    "label_stability": 0.9, "detector": True, "confirmed": True, "reason": None, "causal_class": None,
    "causal_drop": None, "causal_low": None, "causal_high": None, "causal_random": None,
}  # fmt: skip
UNASKED = {
    "confirmed": None, "confirmed_low": None, "confirmed_high": None, "significant": None, "significant_across": None,
    "permutations": 0,
}  # fmt: skip


BEYOND = "units with q ≤ 0.05, above IoU 0.04 or not"


def page(**changes):
    units = [
        UNIT,
        UNIT | {"unit": 1, "confirmed": False},
        UNIT | {"unit": 2, "iou": 0.01, "detector": False, "confirmed": False},
    ]
    (made,) = pages([DissectedLayer(LAYER | changes, units, {}, (8, 8))])
    return made


def test_the_opening_sentence_says_what_is_confirmed_first():
    assert page().headline == (
        "1 of 3 units (95 % interval 0 to 2) are confirmed detectors: their label holds on held-out pictures, which "
        "had no say in choosing it, and shuffled annotations do not reach it (q ≤ 0.05)."
    )
    assert page(**UNASKED).headline == (
        "2 of 3 units (95 % interval 1 to 3) lie above IoU 0.04 over 1,200 pictures, luck included. Without "
        "permutations none is confirmed."
    )


def test_confirmed_detectors_stand_before_the_raw_count():
    made = page()
    assert made.headline.startswith("1 of 3 units (95 % interval 0 to 2) are confirmed")
    assert made.figures[0] == ("detectors, luck included", "2", "95 %: 1 to 3; above IoU 0.04 over 1,200 pictures")
    assert page(confirmed_low=None, confirmed_high=None).headline.startswith("1 of 3 units are confirmed")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, f"{BEYOND}; shuffled across the 6 sources, 2"),
        ({"strata": 1}, BEYOND),
        (UNASKED, "not asked for"),
    ],
)
def test_what_lies_beyond_chance_says_what_was_exchanged(changes, note):
    (found,) = [figure for figure in page(**changes).figures if figure[0] == "beyond chance"]
    assert found[2] == note


def test_cards_tell_the_confirmed_from_the_raw():
    cards = {card.number: card for card in page().units}
    assert [(cards[unit].detector, cards[unit].confirmed) for unit in range(3)] == [
        (True, True), (True, False), (False, False),
    ]  # fmt: skip
    facts = {name: value for name, value, _ in cards[0].facts}
    assert facts["q"] == "≤ 0.015"
    told, alone = ({name: note for name, _, note in made.units[0].facts}["q"] for made in (page(), page(strata=1)))
    assert told.endswith("better ones; p ≤ 0.005 within sources, 0.01 across; 200 shuffles can show no less")
    assert alone.endswith("better ones; p ≤ 0.005; 200 shuffles can show no less")


@pytest.mark.parametrize(
    ("changes", "standing", "mark", "failed"),
    [
        ({}, "confirmed detector", ("✓ confirmed", "good"), []),
        (
            {"iou_low": 0.017},
            "confirmed detector; interval reaches below 0.04",
            ("✓ confirmed; interval reaches below 0.04", "warned"),
            [],
        ),
        (
            {"confirmed": False, "heldout_iou": 0.04},
            "detector, not confirmed; fails held out",
            ("? not confirmed", "warned"),
            ["held out"],
        ),
        (
            {"confirmed": False, "heldout_iou": 0.0, "q_value": 0.096},
            "detector, not confirmed; fails held out and q",
            ("? not confirmed", "warned"),
            ["held out", "q"],
        ),
        ({"detector": False, "heldout_iou": 0.0}, "below the limit", ("below the limit", "quiet"), []),
    ],
)
def test_a_card_says_what_is_to_be_held_against_it(changes, standing, mark, failed):
    (made,) = pages([DissectedLayer(LAYER, [UNIT | changes], {}, (8, 8))])
    (card,) = made.units
    assert card.standing == standing
    assert (card.mark.text, card.mark.state) == mark
    assert card.failed == failed
    assert set(failed) <= {name for name, _, _ in card.facts}


def test_a_p_value_that_no_exchange_reached_is_the_least_that_they_can_show():
    assert page().least == "the smallest value that 200 shuffles of the annotations can give"
    (made,) = pages([DissectedLayer(LAYER, [UNIT | {"p_value": 2 / 201}], {}, (8, 8))])
    assert made.least == ""
    assert {name: value for name, value, _ in made.units[0].facts}["q"] == "0.015"
    (unasked,) = pages([DissectedLayer(LAYER | UNASKED, [UNIT | {"p_value": None, "q_value": None}], {}, (8, 8))])
    (asked,) = [fact for fact in unasked.units[0].facts if fact[0] == "q"]
    assert asked == ("q", "–", "expected share of false discoveries among this unit and all better ones")


def test_the_overview_says_how_many_and_of_what():
    found = page().found
    assert (found.what, found.count, found.concepts) == ("confirmed detectors", "1 of 3 [0, 2]", "wing")
    assert page().brief[0] == ("confirmed detectors", "1", "95 %: 0 to 2")
    assert (found.strip.value, found.strip.low, found.strip.high) == (33.33, 0.0, 66.67)
    assert found.rule.endswith("annotations that are exchanged between pictures do not do as well (q ≤ 0.05).")
    units = [UNIT | {"unit": number, "concept": f"c{number // 2:02}", "confirmed": None} for number in range(30)]
    (made,) = pages([DissectedLayer(LAYER | UNASKED | {"units": 30, "detectors": 30}, units, {}, (8, 8))])
    assert (made.found.what, made.found.count) == ("detectors, luck included", "30 of 30 [1, 3]")
    assert made.found.tile is None
    assert made.brief[0][0] == "detectors, luck included"
    assert made.found.concepts.startswith("c00 (2), c01 (2)")
    assert made.found.concepts.endswith("c11 (2), and 3 more")
    assert made.found.rule.endswith("since it was not tested against chance.")
    table = overview._found([made])
    assert [name for name, _ in table.columns] == [
        "layer", "detectors, luck included, 95 %", "0 to all units", "of which concepts (so many units)",
    ]  # fmt: skip
    assert overview._found([]) is None


@pytest.mark.parametrize(
    ("share", "words"),
    [(None, "–"), (0.0, "0 %"), (0.001, "under 1 %"), (0.123, "12 %"), (0.999, "99 %"), (1.0, "100 %")],
)
def test_a_share_is_neither_nothing_nor_all_where_it_is_only_nearly_so(share, words):
    assert percent(share) == words


def test_bars_show_the_confirmed_within_all_detectors():
    (bars,) = page().charts
    assert bars == views.ConceptBars("part", [views.ConceptBar("wing", 1, 2)], 2)
    units = [UNIT | {"unit": number, "concept": f"c{number}", "confirmed": None} for number in range(30)]
    (many,) = pages([DissectedLayer(LAYER | UNASKED, units, {}, (8, 8))])[0].charts
    assert many.title == "part (the first 25 of 30)"
    assert many.bars[0] == views.ConceptBar("c0", None, 1)


def test_the_mean_iou_stands_beside_chance():
    def note(**changes):
        return {name: note for name, _, note in page(**changes).figures}["mean IoU of the labels"]

    chance = "by chance 0.0200"
    assert note() == f"95 %: 0.0450 to 0.0561; {chance}"
    assert note(mean_iou_low=None) == chance


def test_failures_are_where_most_is_missed_and_where_most_else_is_lit():
    """Against a literal twin over pictures one at a time; the last unit has no label."""
    random, images, units = np.random.default_rng(3), 23, 5
    concepts = ConceptTable(np.array([4, 7, 9]), ["a", "b", "c"], ["part", "object", "part"], ["object", "part"])
    lit, inside = random.integers(5, 50, (images, units)), random.integers(0, 5, (images, units, 3))
    annotated, labelled = random.random((images, 2)) < 0.7, random.integers(4, 40, (images, 3))
    labelled[:, 0] = np.where(random.random(images) < 0.2, inside[:, :, 0].max(1), 0)  # rare
    inside[:, :, 0] = np.minimum(inside[:, :, 0], labelled[:, :1])
    labels = {0: 4, 1: 7, 2: 9, 3: 9, 4: None}

    def counts(first, last):
        image, unit, concept = np.nonzero(inside[first:last])
        return ImageCounts(
            first, image + first, unit, concept, inside[first:last][image, unit, concept], lit[first:last],
            labelled[first:last], annotated[first:last],
        )  # fmt: skip

    tally = SimpleNamespace(image_counts=lambda *_: [counts(0, 8), counts(8, 9), counts(9, images)])
    strata = random.integers(0, 3, images)
    index = SimpleNamespace(concepts=concepts, strata=strata, strata_names=["ade", "dtd", "pascal"])
    seen, top = SimpleNamespace(index=index, tally=tally), {0: [3, 11], 2: [int(lit[:, 2].argmax())]}
    expected = set()
    sources = {}
    for unit, number in labels.items():
        for missed in (True, False) if number else ():
            at = concepts.number.tolist().index(number)
            category = concepts.categories.index(concepts.category[at])
            apart = {
                image: int((labelled[image, at] if missed else lit[image, unit]) - inside[image, unit, at])
                for image in range(images)
                if annotated[image, category]
            }
            shown = () if missed else top.get(unit, ())  # what the page begins with is not shown again
            left = [image for image in apart if apart[image] > 0 and image not in shown]
            order = sorted(left, key=lambda image: (-apart[image], image))
            expected |= {(unit, image, missed) for image in order[:FAILURES]}
            sources[unit] = [
                (name, sum(labelled[own, at] > 0), inside[own, unit, at].sum() / (
                    lit[own, unit].sum() + labelled[own, at].sum() - inside[own, unit, at].sum()))
                for number_, name in enumerate(index.strata_names)
                if labelled[own := [image for image in apart if strata[image] == number_], at].any()
            ]  # fmt: skip
    failed, by_source = _by_picture(seen, 0, labels, top)
    assert {unit: [tuple(item) for item in some] for unit, some in by_source.items()} == {
        unit: [(name, count, pytest.approx(value)) for name, count, value in some] for unit, some in sources.items()
    }
    found = [tuple(item) for item in failed]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert sum(missed for unit, _, missed in found if unit == 0) < FAILURES  # a rare concept is seldom missed


def test_units_of_different_concepts_stand_for_a_layer():
    top = {unit: [TopImage("a.webp", "a", 0, 1.0, "")] for unit in range(5)}
    units = [
        UNIT | {"unit": unit, "concept": concept, "iou": 0.9 - unit / 10, "confirmed": unit != 0}
        for unit, concept in enumerate(["sky", "wing", "wing", "head", "wing"])
    ]
    (made,) = pages([DissectedLayer(LAYER, units, top, (8, 8))])
    assert [unit.number for unit in made.cover] == [1, 3, 0]
    (one,) = pages([DissectedLayer(LAYER, [unit | {"concept": "sky"} for unit in units], top, (8, 8))])
    assert [unit.number for unit in one.cover] == [1, 2, 3]


def test_counts_stand_beside_what_a_baseline_would_show():
    def said(**changes):
        network = {"load": "m:f", "weights": "w.safetensors", **changes}
        stage = overview.Finished(
            "index", "", "", 0.0, 0.0, 0, {"images.parquet": 1, "concepts.parquet": 1}, {}, {"microtome": "1"}
        )
        audit = {"name": "a", "network": network, "seed": 0, "dataset": {"format": "creatures"}}
        return lambda layers: overview.overview(overview.Audited(audit, {"index": stage}), layers, []).baseline

    assert "audit the same network with random weights" in said()([page()])
    assert said(weights=None)([page()]).startswith("These weights are random")
    assert said()([]) == ""


def test_intervals_with_thresholds_of_their_own_stand_beside_the_others():
    assert "thresholds estimated anew" not in str(page())
    anew = {"detectors_redrawn_low": 0.0, "detectors_redrawn_high": 4.0}
    assert "95 %: 1 to 3; thresholds estimated anew: 0 to 4" in str(page(**anew))


def test_concepts_that_a_mask_never_meets_are_spoken_of():
    near = {"concept": "wing", "category": "part", "iou": 0.1, "iou_low": None, "iou_high": None, "pictures": 9}

    def note(count: int) -> str:
        layer = DissectedLayer(LAYER, [UNIT], {}, (8, 8), nearest={0: [near] * count})
        return of_units([layer])["conv", 0][0].parts[0].note

    assert note(3).endswith("All other concepts have an IoU of 0: its mask nowhere meets them.")
    assert note(10).endswith("over pixels in either, over all pictures.")


def test_a_gate_is_rounded_as_other_figures_unless_that_hides_what_it_missed():
    def words(value: float, limit: float | None) -> str:
        row = {"gate": "g", "value": value, "low": None, "high": None, "limit": limit}
        return overview._gate({**row, "verdict": "failed", "passed": False, "note": ""}).value

    assert [words(0.180561, 0.3), words(31.0, 30.0), words(0.29996, 0.3)] == ["0.181", "31", "0.29996"]
    assert [words(1234567.0, None), words(0.3, 0.3)] == ["1234567", "0.3"]


def test_a_drawing_stands_on_the_overview_with_its_nodes():
    levels = [views.Level("top", 0, [(8.0, 9.0, "node 1")], []), views.Level("low", 1, [(3.0, 4.0, "node 2")], [])]
    drawing = views.Drawing("t.webp", "a.jpg", (72, 96), levels)
    (spot,) = views.Page("p", "p.html", "", views.Figures([]), [views.Section("s", [drawing])]).cover
    assert spot.circles == [(8.0, 9.0, 2.0), (3.0, 4.0, 2.0)]


def test_a_cover_shows_before_and_after():
    spots = [views.Spot(f"{n}.webp", "", (8, 8), (), (), "before" if n < 5 else "after") for n in range(10)]
    gallery = views.Gallery([views.Card("unit 1", "a", "", spots)])
    shown = views.Page("p", "p.html", "", views.Figures([]), [views.Section("s", [gallery])]).cover
    assert [spot.thumb for spot in shown] == ["0.webp", "5.webp", "1.webp"]


def test_one_of_many_is_said_without_an_s():
    told = [counted(1, "layers"), counted(2, "layers"), counted(1, "units and pictures")]
    assert told == ["1 layer", "2 layers", "1 units and pictures"]


def test_a_card_says_what_is_lost_without_the_unit_where_that_was_asked_for():
    asked = {"causal_class": "bird", "causal_drop": 1.2, "causal_low": 1.0, "causal_high": 1.4, "causal_random": 0.1}
    layer = DissectedLayer(LAYER, [UNIT | asked, UNIT | {"unit": 1}], {}, (8, 8))
    (made,) = pages([layer])
    said = {card.number: card.causal for card in made.units}
    assert said[0].startswith("Without it bird loses 1.20 [1.00, 1.40] nats of log-odds, without a random unit")
    assert said[1] == ""


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (
            [("ade", 40, 0.2), ("pascal", 7, 0.1)],
            "Its label lies above the limit of 0.04 in 2 of 2 sources that show wing.",
        ),
        ([("ade", 40, 0.2), ("pascal", 7, 0.01)], "Its label holds in pictures of ade alone, one of 2 sources"),
        ([("", 40, 0.2)], "wing is annotated in pictures of no source alone"),
    ],
)
def test_a_label_that_holds_in_one_source_alone_is_told_apart(sources, said):
    found = [SourceIou(*item) for item in sources]
    layer = DissectedLayer(LAYER, [UNIT | {"concept": "wing"}], {}, (8, 8), sources={0: found})
    (told,) = of_units([layer]).values()
    (section,) = [one for one in told if one.heading == "Does its label hold in every source?"]
    text, table = section.parts
    assert text.text.startswith(said)
    assert [row[1] for row in table.rows] == [str(count) for _, count, _ in sources]
    without = DissectedLayer(LAYER, [UNIT | {"detector": False}], {}, (8, 8), sources={0: found})
    assert not [one for part in of_units([without]).values() for one in part if "source" in one.heading]
