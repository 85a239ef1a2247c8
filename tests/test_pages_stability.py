"""The pages of location stability and fine-tuning, from findings made by hand: no workspace, no stage."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from microtome.quantify.shift import ShiftSummary
from microtome.quantify.stability_summary import FilterOnLandmark, Judged, LayerSummary, Rule
from microtome.report import views
from microtome.report.finetuning import Apart, Compared, Epoch, FinetuningFindings, Learned
from microtome.report.finetuning import page as finetuning_page
from microtome.report.stability import Pictured, Spotted, StabilityFindings, StableLayer, leading
from microtome.report.stability import page as stability_page

SUMMARY = LayerSummary(
    images=40,
    filters=8,
    null_filters=1,
    deviation=0.05,
    low=0.04,
    high=0.06,
    random=0.2,
    random_sd=0.01,
    centre=0.15,
    best_constant=0.1,
    tracking_share=0.5,
    beating_share=0.75,
    spread=0.123,
    entropy=2.5,
    tied_share=0.0,
    silent_share=0.0,
    sure_tracking_share=0.4,
)
NULL = replace(
    SUMMARY, deviation=None, low=None, high=None, tracking_share=None, beating_share=None, sure_tracking_share=None
)


def on(number: int, r2: float | None, q: float | None, landmark: str = "head") -> FilterOnLandmark:
    return FilterOnLandmark(number, "bird", landmark, 0.0512, r2, None, q)


def pictured(number: int) -> Pictured:
    return Pictured(on(number, 0.5, 0.012), [Spotted("assets/a/1.webp", "one.png", (10.04, 20.06), (11.14, 21.16))])


def stable(*rows: tuple[str, str | None, Rule | None, LayerSummary], rule: Rule = "lowest") -> StabilityFindings:
    layers: dict[str, list[Judged]] = {}
    for layer, category, by, summary in rows:
        layers.setdefault(layer, []).append(Judged(layer, category, by, summary))
    found = [StableLayer(name, judged, [pictured(3)]) for name, judged in layers.items()]
    return StabilityFindings(rule, (90, 96), found)


def parts_of(page: views.Page, kind: str) -> list:
    return [part for section in page.sections for part in section.parts if part.kind == kind]


def test_a_single_category() -> None:
    page = stability_page(stable(("conv", "bird", None, SUMMARY)))
    assert page.headline == (
        "The distance of the filters of conv to landmarks varies 0.50 times as much as that of one place held for "
        "every picture (0.0500 and 0.1000 of the picture's diagonal). From picture to picture 3 of 7 surely follow a "
        "landmark, if only a little."
    )
    assert page.figures.items == [
        ("follow a landmark", "3 of 7", "filters, surely"),
        ("instability D", "0.0500", "95 %: 0.0400 to 0.0600"),
        ("steadier than a held place", "5 of 7", "filters; its D 0.1000"),
    ]
    table, follow = parts_of(page, "table")
    assert follow.rows == [["landmark", "3 of 7"]]
    assert [line[:2] for line in table.rows] == [
        ["7 filters on bird (1 left out)", "0.0500 [0.0400, 0.0600]"],
        ["the best cell, held for every picture", "0.1000"],
        ["the exact centre of every picture", "0.1500"],
        ["random cells", "0.2000"],
    ]
    strip = table.rows[0][2]
    assert (strip.value, strip.low, strip.high) == pytest.approx((23.81, 19.05, 28.57))  # of 1.05 x random
    assert [line[2].value for line in table.rows[1:]] == [47.62, 71.43, 95.24]
    assert not [part for part in parts_of(page, "text") if part.style == "advice"]


@pytest.mark.parametrize(
    ("deviation", "held", "words"),
    [(0.05, 0.1, "0.50 times as much as"), (0.27, 0.1, "2.7 times as much as"), (0.05, 0.0, "more than")],
)
def test_steadiness_is_told_as_times_that_of_a_held_place(deviation: float, held: float, words: str) -> None:
    found = stable(("conv", "bird", None, replace(SUMMARY, deviation=deviation, best_constant=held)))
    assert stability_page(found).headline.startswith(
        f"The distance of the filters of conv to landmarks varies {words} that of one place held for every picture "
        f"({deviation:.4f} and {held:.4f} of the picture's diagonal)."
    )


def test_the_overview_says_what_is_marked_in_its_pictures() -> None:
    (layer,) = stable(("conv", "bird", None, SUMMARY)).layers
    one = layer.filters[0]
    found = StabilityFindings("lowest", (90, 96), [replace(layer, filters=[replace(one, spots=[*one.spots] * 3)])])
    page = stability_page(found)
    assert page.covered.startswith(f"Filter {one.found.filter} of conv: rings where it is highest, crosses on the ")
    assert len(page.cover) == 3
    empty = replace(layer, filters=[replace(one, spots=())])
    assert stability_page(replace(found, layers=[empty])).covered == ""


SHIFT = ShiftSummary(
    8, 5, 0.61, 0.55, 0.67, 0.4, 0.63, 0.58, 0.75, 0.06, 0.0555, 0.0888, 0.125,
    filters=7, sure=4, sure_deviation=0.0444, sure_frozen=0.0777, sure_tracking=0.25,
)  # fmt: skip


def test_steadiness_is_claimed_of_filters_that_follow_alone() -> None:
    found = stable(("conv", "bird", None, SUMMARY), ("conv", None, "lowest", SUMMARY))
    several = {"bird": replace(SHIFT, sure=1), "all: mean": SHIFT}
    tested = replace(found, layers=[replace(found.layers[0], shift=several)])
    page = stability_page(tested)
    assert page.headline == (
        "When what is shown is moved, 4 of 7 filters of conv surely go along more than half of the way (mean slope "
        "over all 0.61 [0.55, 0.67]; 1 goes all the way, 0 stays where it was). From picture to picture 3 of 7 surely "
        "follow a landmark, if only a little. The distance of the filters of conv to landmarks varies 0.50 times as "
        "much as that of one place held for every picture (0.0500 and 0.1000 of the picture's diagonal). Of those that "
        "move with the picture it varies by 0.0444, and would by 0.0777 if each stood still at its own mean place."
    )
    assert page.figures.items[0] == ("go along with a shift", "4 of 7", "filters, surely")
    loose = Judged("conv", "bird", None, replace(SUMMARY, best_constant=0.02))
    worse = replace(tested, layers=[replace(tested.layers[0], rows=[loose])])
    assert "varies 2.5 times as much as that of one place held" in stability_page(worse).headline
    _, follow, more = parts_of(page, "table")
    assert [name for name, _ in follow.columns] == ["category", "landmark", "slope, 95 %", "along"]
    assert follow.rows == [["all categories", "3", "0.61 [0.55, 0.67]", "4"], ["bird", "3", "0.61 [0.55, 0.67]", "1"]]
    assert follow.note.startswith("Counted are filters, of 7. ")
    assert [row[1] for row in more.rows] == ["0.40", "75%", "0.63", "0.58", "0.0444", "0.0777", "25%", "0.0600"]


def test_the_shift_test_of_a_single_category_and_of_nobody() -> None:
    found = stable(("conv", "bird", None, SUMMARY))
    alone = stability_page(replace(found, layers=[replace(found.layers[0], shift={"bird": SHIFT})]))
    steady, follow = alone.sections[:2]
    assert (steady.beside, follow.parts[0].rows) == (
        True, [["landmark", "3 of 7"], ["slope, 95 %", "0.61 [0.55, 0.67]"], ["along", "4 of 7"]],
    )  # fmt: skip
    nobody = replace(SHIFT, sure=0, sure_deviation=None, sure_frozen=None, sure_tracking=None)
    layers = [replace(found.layers[0], shift={"bird": nobody})]
    assert "Of none of them can it be said that it is steady" in stability_page(replace(found, layers=layers)).headline
    unsure = [replace(found.layers[0], shift={"bird": replace(SHIFT, slope=None, low=None, high=None)})]
    assert stability_page(replace(found, layers=unsure)).headline == stability_page(found).headline


def test_several_categories_are_judged_by_the_audits_rule() -> None:
    rows = [("conv", name, None, SUMMARY) for name in ("bird", "cat")]
    lowest = replace(SUMMARY, deviation=0.02)
    mean = replace(SUMMARY, deviation=0.07)
    findings = stable(*rows, ("conv", None, "lowest", lowest), ("conv", None, "highest-activation", mean))
    page = stability_page(findings)
    assert "varies 0.20 times as much" in page.headline
    other = stability_page(replace(findings, rule="highest-activation"))
    assert "varies 0.70 times as much" in other.headline
    table, follow = parts_of(page, "table")
    assert [row[0] for row in table.rows] == ["all categories", "bird", "cat"] == [row[0] for row in follow.rows]
    assert table.rows[0][1] == "0.0200 [0.0400, 0.0600]" == page.figures.items[1][1] + " [0.0400, 0.0600]"
    assert parts_of(other, "table")[0].rows[0][1] == "0.0700 [0.0400, 0.0600]"
    assert [cell for cell in table.rows[1] if isinstance(cell, str)] == ["bird", "0.0500 [0.0400, 0.0600]", "0.1000"]
    assert [mark[:2] for mark in table.rows[1][2].marks] == [(95.24, "chance"), (47.62, "aim")]
    assert "each filter in the category in which it is steadiest" in table.note
    assert "Of 8 filters up to 1 are left out" in table.note


def test_the_steadiest_layer_heads_the_page_and_one_without_deviation_comes_last() -> None:
    page = stability_page(stable(("dark", "bird", None, NULL), ("conv", "bird", None, SUMMARY)))
    assert "The distance of the filters of conv" in page.headline
    dark = parts_of(page, "table")[0].rows[0]
    assert (dark[1], dark[2].value, dark[2].low, dark[2].text) == ("–", None, None, "D –")
    alone = stability_page(stable(("dark", "bird", None, NULL)))
    assert alone.headline.startswith("No filter of dark is high in pictures enough")
    assert alone.figures.items[1] == ("instability D", "–", "")


def test_ties_and_silence_are_advised_against() -> None:
    bad = replace(SUMMARY, tied_share=0.06, silent_share=0.3)
    page = stability_page(stable(("conv", "bird", None, SUMMARY), ("conv", "cat", None, bad)))
    advice = [part.text for part in parts_of(page, "text") if part.style == "advice"]
    assert len(advice) == 2
    assert advice[0].startswith("In 6% of all pairs of a filter and a picture of cat several cells are equally high")
    assert advice[1].startswith("In 30% of all pairs of a filter and a picture of cat the filter is silent")


def test_a_filters_card() -> None:
    (gallery,) = parts_of(stability_page(stable(("conv", "bird", None, SUMMARY))), "gallery")
    (card,) = gallery.cards
    assert (card.title, card.anchor, card.note) == ("filter 3", "conv/3", "follows head of bird")
    assert [fact[:2] for fact in card.facts] == [("D", "0.051"), ("R²", "0.50")]
    (spot,) = card.spots
    assert (spot.circles, spot.crosses) == ([(10.0, 20.1, 10.0)], [(11.1, 21.2)])
    assert spot.alt == "one.png: filter 3 and head"
    partly = stable(("conv", "bird", None, SUMMARY))
    shown = replace(pictured(3), found=replace(pictured(3).found, r2=0.49))
    partly = replace(partly, layers=[replace(partly.layers[0], filters=[shown])])
    assert parts_of(stability_page(partly), "gallery")[0].cards[0].note == "partly follows head of bird"
    unsure = stable(("conv", "bird", None, SUMMARY))
    unsure = replace(unsure, layers=[replace(unsure.layers[0], filters=[replace(pictured(3), found=on(3, 0.5, 0.06))])])
    (gallery,) = parts_of(stability_page(unsure), "gallery")
    assert gallery.cards[0].note == "most with, not surely: head of bird"


def test_leading_filters_are_sure_ones_first_each_once() -> None:
    sure, unsure, unknown = on(1, 0.3, 0.05), on(2, 0.9, 0.06), on(3, 0.8, None)
    again, best, none = on(1, 0.2, 0.01, "tail"), on(4, 0.4, 0.0), on(5, None, None)
    assert leading([none, unknown, unsure, again, sure, best], 12) == [best, sure, unsure, unknown]
    assert leading([unsure, again, sure, best], 2) == [best, sure]
    tail = on(6, 0.1, 0.01, "tail")  # the best of each landmark before the next of any
    assert leading([sure, best, tail, unsure], 3) == [best, tail, sure]


def epochs(*phases: str) -> list[Epoch]:
    return [
        Epoch(number, phase, split, 0.5 / number, -0.01, 0.9, 0.85, 0.95, 20)
        for phase in phases
        for number in (1, 2)
        for split in ("train", "val")
    ]


def tuned(*phases: str, compared: Sequence[Compared] = (), stuck: Sequence[str] = ()) -> FinetuningFindings:
    filters = {phase: [pictured(7)] for phase in ("interpretable", "twin") if compared}
    network = {"load": "package:factory", "arguments": {"classes": 1}, "weights": "stages/x/network.safetensors"}
    learned = [
        Learned(phase, 20, 0.9, 0.85, 0.95, 0.95, 0.76, 0.99, 0.55, phase not in stuck, 0.005) for phase in phases
    ]  # type: ignore[arg-type]
    return FinetuningFindings(epochs(*phases), learned, compared, filters, (96, 96), network)


def layer(name: str, deviation: float | None) -> Judged:
    return Judged(name, "bird", None, replace(SUMMARY, deviation=deviation))


def test_training_alone() -> None:
    page = finetuning_page(tuned("interpretable"))
    assert page.headline == (
        "After 2 epochs with the filter loss the network answers 90.0% [85.0%, 95.0%] of 20 held-out pictures right; "
        "a linear probe of the features as they were 95.0% [76.0%, 99.0%]."
    )
    assert [section.heading for section in page.sections] == ["What is compared", "Training", "Use the network"]
    assert page.figures.items == [
        ("accuracy, interpretable", "90.0%", "95 %: 85.0% to 95.0%"),
        ("accuracy, best control", "95.0%", "a linear probe of the features as they were [76.0%, 99.0%]"),
    ]
    (table,) = parts_of(page, "table")
    (who,) = page.sections[0].parts
    assert who.items[0].startswith("interpretable: its layers and a new one on top")
    assert table.rows == [
        [
            "interpretable (masks and filter loss)",
            "90.0% [85.0%, 95.0%]",
            "0.250",
            "-0.01000",
            "0.005",
        ],
        ["linear probe of the backbone", "95.0% [76.0%, 99.0%]", "", "", ""],
        ["always the commonest class", "55.0%", "", "", ""],
    ]
    (code,) = parts_of(page, "code")
    assert code.text.startswith("network:\n  load: package:factory\n")
    (charts,) = parts_of(page, "charts")
    assert "interpretable held out 0.25" in charts.charts[0][2]


def test_networks_beside_their_twin() -> None:
    compared = [
        Compared(None, layer("conv", 0.08)),
        Compared("interpretable", layer("top_map", None)),
        Compared("interpretable", layer("extra_map", 0.05), Apart(-0.02, -0.03, 0.01)),
        Compared("twin", layer("extra_map", 0.07)),
    ]
    page = finetuning_page(tuned("interpretable", "twin", compared=compared))
    assert page.headline.endswith(
        "right; without that loss (its twin) 90.0% [85.0%, 95.0%]; a linear probe of the features as they were "
        "95.0% [76.0%, 99.0%].\nThe filters of its new layer are not surely steadier than the twin's (their "
        "instability differs by -0.0200 [-0.0300, +0.0100] of the picture's diagonal); they are steadier than the best "
        "control, one place held for every picture."
    )
    assert [item[:2] for item in page.figures.items] == [
        ("instability, interpretable", "0.0500"),
        ("instability, twin", "0.0700"),
        ("instability, best control", "0.1000"),
    ]
    new, below, _ = parts_of(page, "table")
    who = [item.partition(":")[0] for item in page.sections[0].parts[0].items]
    assert who == ["before fine-tuning", "interpretable", "twin"]
    assert [row[:2] for row in new.rows] == [
        ["interpretable", "0.0500 [0.0400, 0.0600]"], ["twin", "0.0700 [0.0400, 0.0600]"],
    ]  # fmt: skip
    assert [row[0] for row in below.rows] == ["before fine-tuning (conv)", "interpretable"]
    assert [mark[:2] for mark in new.rows[0][2].marks] == [(95.24, "aim")]
    assert new.legend[-1] == ("aim", "the best control, one place held for every picture: 0.1000")
    assert [row[3] for row in (*new.rows, *below.rows)] == ["-0.0200 [-0.0300, +0.0100]", "", "", "–"]
    assert [row[4:6] for row in new.rows] == [["–", "–"]] * 2
    (gallery,) = parts_of(page, "gallery")
    (card,) = gallery.cards
    assert (card.anchor, card.title, card.note) == ("interpretable/extra_map/7", "filter 7", "follows head of bird")
    assert [spot.caption for spot in card.spots] == ["filter loss", "twin"]
    assert [name for name, *_ in card.facts] == ["D, filter loss", "R², filter loss", "D, twin", "R², twin"]


@pytest.mark.parametrize(
    ("frozen", "said"),
    [
        (0.04, "they are less steady than the best control, its own filters frozen at their mean places."),
        (0.08, "they are steadier than the best control, its own filters frozen at their mean places."),
        (0.12, "they are steadier than the best control, one place held for every picture."),
    ],
)
def test_the_best_control_is_named(frozen, said) -> None:
    shift = replace(SHIFT, frozen=frozen)
    compared = [
        Compared("interpretable", layer("extra_map", 0.05), None, shift),
        Compared("twin", layer("extra_map", 0.07), None, shift),
    ]
    found = tuned("interpretable", "twin", compared=compared)
    assert said in finetuning_page(found).headline
    guessed = replace(found, learned=[replace(item, majority=0.96) for item in found.learned])
    assert "; always naming the commonest class 96.0%." in finetuning_page(guessed).headline


def test_where_nothing_was_learned_nothing_is_compared() -> None:
    compared = [Compared("interpretable", layer("extra_map", 0.05)), Compared("twin", layer("extra_map", 0.07))]
    page = finetuning_page(tuned("interpretable", "twin", compared=compared, stuck=["twin"]))
    assert page.headline.endswith("There is nothing to interpret.")
    assert "0.05" not in page.headline
    assert len(parts_of(page, "table")) == 1
    assert not parts_of(page, "gallery")
    (advice,) = [part.text for part in parts_of(page, "text") if part.style == "advice"]
    assert advice.startswith("The twin network answers 90.0% [85.0%, 95.0%] of the 20 held-out")
    assert "not surely more than always naming the commonest class (55.0%)" in advice
    assert "A linear probe of the features as they were answers 95.0% right" in advice
    only = finetuning_page(tuned("interpretable", "plain", compared=compared, stuck=["plain"]))
    assert len(parts_of(only, "table")) == 2  # the plain one is no part of the comparison


def test_a_training_that_stepped_back_says_so() -> None:
    found = tuned("interpretable")
    page = finetuning_page(replace(found, training=[replace(row, halvings=2) for row in found.training]))
    (text,) = [part.text for part in parts_of(page, "text") if "rate" in part.text]
    assert text == (
        "The training of the interpretable network diverged 2 times, and went on from the epoch before at half the "
        "rate."
    )


def test_fine_tuning_says_who_follows() -> None:
    compared = [
        Compared("interpretable", layer("extra_map", 0.05), None, SHIFT),
        Compared("twin", layer("extra_map", 0.07), None, replace(SHIFT, sure=6, low=None)),
    ]
    page = finetuning_page(tuned("interpretable", "twin", compared=compared))
    assert page.headline.endswith(
        "When what is shown is moved, 4 of 7 of its filters surely follow, 6 of 7 of the twin's."
    )
    table = parts_of(page, "table")[0]
    assert [row[4:6] for row in table.rows] == [["4 of 7", "0.61 [0.55, 0.67]"], ["6 of 7", "0.61"]]
    assert len(table.columns) == len(table.rows[0])


def test_without_a_twin_nothing_is_compared_with_it() -> None:
    compared = [Compared(None, layer("conv", 0.08)), Compared("interpretable", layer("extra_map", 0.05))]
    page = finetuning_page(tuned("interpretable", compared=compared))
    assert "twin" not in page.headline
    assert [row[3] for table in parts_of(page, "table")[:2] for row in table.rows] == [""] * 2
