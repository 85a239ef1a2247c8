"""The page of a dissected layer, from rows made by hand."""

import pytest

from flows.console import counted
from microtome.report import overview, views
from microtome.report.dissection import DissectedLayer, LayerRow, UnitRow, of_units, pages

LAYER: LayerRow = {
    "layer": "conv", "units": 3, "confirmed": 1, "confirmed_low": 0.0, "confirmed_high": 2.0, "detectors": 2,
    "detectors_low": 1.0, "detectors_high": 3.0, "unique_per_category": 2, "unique_low": 1.0, "unique_high": 2.0,
    "unique_per_unit": 2, "unique_per_unit_low": 1.0, "unique_per_unit_high": 2.0, "significant": 1,
    "significant_across": 2, "strata": 6, "saturated": 0, "dead": 0, "mean_iou": 0.05, "min_iou": 0.04, "images": 1200,
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
        "1 of 3 units (95 % interval 0 to 2) are confirmed detectors: they pass on the images that did not choose "
        "their label, and chance does not reach them (q ≤ 0.05). Luck included, 2 of 3 units (95 % interval 1 to 3) "
        "lie above IoU 0.04 over 1,200 images; their labels are 2 different concepts."
    )
    assert page(**UNASKED).headline == (
        "2 of 3 units (95 % interval 1 to 3) lie above IoU 0.04 over 1,200 images; their labels are 2 different "
        "concepts. Without permutations none is confirmed."
    )
    assert page(unique_per_unit=1).headline.endswith("their label is one concept.")
    assert page(detectors=0, unique_per_unit=0).headline.endswith("over 1,200 images.")


def test_confirmed_detectors_stand_before_the_raw_count():
    assert page().figures[:2] == [
        ("confirmed detectors", "1", "95 %: 0 to 2"),
        ("detectors, raw", "2", "95 %: 1 to 3"),
    ]
    assert page(**UNASKED).figures[0] == ("confirmed detectors", "–", "not asked for")
    assert page(confirmed_low=None, confirmed_high=None).figures[0] == ("confirmed detectors", "1", "")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, "of 3 units of whatever IoU, at q ≤ 0.05, within 6 strata; 2 across them"),
        ({"strata": 1}, "of 3 units of whatever IoU, at q ≤ 0.05"),
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
    assert (facts["p"], facts["p across"]) == ("0.005", "0.01")
    assert "p across" not in {name for name, _, _ in page(strata=1).units[0].facts}


def test_intervals_with_thresholds_of_their_own_stand_beside_the_others():
    assert "thresholds estimated anew" not in str(page())
    anew = {"detectors_redrawn_low": 0.0, "detectors_redrawn_high": 4.0}
    assert "95 %: 1 to 3; thresholds estimated anew: 0 to 4" in str(page(**anew))


def test_concepts_that_a_mask_never_meets_are_spoken_of():
    near = {"concept": "wing", "category": "part", "iou": 0.1, "iou_low": None, "iou_high": None}

    def note(count: int) -> str:
        layer = DissectedLayer(LAYER, [UNIT], {}, (8, 8), nearest={0: [near] * count})
        return of_units([layer])["conv", 0][0].parts[0].note

    assert note(3).endswith("All other concepts have an IoU of 0: its mask nowhere meets them.")
    assert note(10).endswith("is the IoU on pictures that did not choose the label.")


def test_a_gate_is_rounded_as_other_figures_unless_that_hides_what_it_missed():
    def words(value: float, limit: float | None) -> str:
        row = {"gate": "g", "value": value, "low": None, "high": None, "limit": limit}
        return overview._gate({**row, "verdict": "failed", "passed": False, "note": ""}).value

    assert [words(0.180561, 0.3), words(31.0, 30.0), words(0.29996, 0.3)] == ["0.181", "31", "0.29996"]
    assert [words(1234567.0, None), words(0.3, 0.3)] == ["1234567", "0.3"]


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
