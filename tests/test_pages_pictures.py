"""Pages of saliency, attacks, features and fields, from rows made by hand; names of a network's outputs."""

import pytest
from torch import nn

from microtome.networks.classes import class_names
from microtome.networks.small import creature_net
from microtome.report import adversarial, features, fields, saliency, views
from microtome.report.adversarial import AttackedPicture, AttackFindings, AttackKind
from microtome.report.saliency import INVARIANCE, SaliencyFindings, SaliencyMaps
from microtome.visualize.measures import AttackMeasure, MeasureKind

LIMITS = {INVARIANCE: 0.001, "randomisation": 0.2, "class sensitivity": 0.8}


def judged(method, test, value, low, high, passed):
    return {
        "method": method, "test": test, "shift_or_layer": "x", "value": value, "low": low, "high": high,
        "passed": passed,
    }  # fmt: skip


def verdicts(*, randomised, invariant=True):
    rows = [
        judged("gradient", INVARIANCE, 1.0, 0.99, 1.0, invariant),
        judged("gradient", "randomisation last, cosine", *randomised, randomised[0] <= 0.2),
        judged("gradient", "class sensitivity", 0.1, 0.0, 0.2, True),
    ]
    return saliency.page(SaliencyFindings(rows, [], [], [], LIMITS))


def marks(made):
    return made.sections[0].parts[0].rows[0][1:]


def test_the_limits_stand_on_the_page():
    table, told = verdicts(randomised=(0.1, 0.05, 0.15)).sections[0].parts
    assert "Each of the 3 verdicts stands for itself" in table.note
    assert [line.partition(":")[0] for line in told.items] == [
        "Input invariance, at most 0.001", "Randomisation, at most 0.2", "Class sensitivity, at most 0.8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "cell", "headline"),
    [
        ((0.1, 0.05, 0.15), ("✓ passes", "good", "0.10 [0.05, 0.15]"), "Gradient passes every test."),
        ((0.1, 0.05, 0.2), ("✓ passes", "good", "0.10 [0.05, 0.20]"), "Gradient passes every test."),
        (
            (0.15, 0.05, 0.25),
            ("? undecided", "warned", "0.15 [0.05, 0.25]"),
            "No method passes every test. Undecided, since an interval reaches across a limit: gradient.",
        ),
        (
            (0.25, 0.15, 0.35),
            ("? undecided", "warned", "0.25 [0.15, 0.35]"),
            "No method passes every test. Undecided, since an interval reaches across a limit: gradient.",
        ),
        (
            (0.4, 0.3, 0.5),
            ("✗ fails", "bad", "0.40 [0.30, 0.50]"),
            "No method passes every test. Gradient fails at least one: its maps can look",
        ),
        ((-0.001, -0.004, 0.004), ("✓ passes", "good", "0.00 [0.00, 0.00]"), "Gradient passes every test."),
    ],
)
def test_a_method_passes_fails_or_is_undecided(interval, cell, headline):
    made = verdicts(randomised=interval)
    assert marks(made)[1] == views.Badge(*cell)
    assert made.headline.startswith(headline)


def test_every_picture_has_to_keep_the_limit_of_input_invariance():
    assert marks(verdicts(randomised=(0.1, 0.0, 0.1), invariant=False))[0].text == "✗ fails"


def test_a_method_that_was_not_tested_says_so():
    rows = [judged("gradient", "class sensitivity", 0.1, 0.0, 0.2, True)]
    shown = [SaliencyMaps(number, "a.png", "a.webp", (8, 8), {"gradient": "g", "rise": "r"}) for number in (1, 2)]
    made = saliency.page(SaliencyFindings(rows, shown, [], [], LIMITS))
    assert made.headline == "Gradient passes every test. Not tested: RISE."
    assert made.figures.items[0] == ("methods tested", "1", "all but RISE")
    first, verdict, more, *_ = made.sections
    assert [section.heading for section in (first, more)] == ["One picture, by every method", "More pictures"]
    assert [spot.caption for spot in first.parts[1].cards[0].spots] == ["picture", "gradient ✓", "RISE –"]
    assert [cell.text for cell in verdict.parts[0].rows[1][1:]] == ["– not tested"] * 3
    assert verdict.parts[0].rows[0][1].text == "– void"
    untold = saliency.page(SaliencyFindings([], shown, [], [], LIMITS))
    assert "Not tested" not in untold.headline


@pytest.mark.parametrize(
    ("measure", "low", "high", "mark"),
    [
        ("deletion", -0.2, -0.1, "✓"), ("deletion", 0.1, 0.2, "✗"), ("deletion", -0.1, 0.1, "?"),
        ("insertion", 0.1, 0.2, "✓"), ("insertion", -0.2, -0.1, "✗"), ("insertion", 0.0, 0.1, "?"),
    ],
)  # fmt: skip
def test_what_the_network_uses_has_three_states_too(measure, low, high, mark):
    row = {
        "method": "gradient", "measure": measure, "value": 0.3, "low": 0.2, "high": 0.4, "chance": 0.3, "n": 9,
        "apart": (low + high) / 2, "apart_low": low, "apart_high": high, "better": mark == "✓", "control": "edges",
        "beyond": 0.0, "beyond_low": low, "beyond_high": high, "beats": mark == "✓",
    }  # fmt: skip
    made = saliency.page(SaliencyFindings([], [], [], [row]))
    table = made.sections[0].parts[-1]
    assert table.rows[0][2].text == mark
    than = "surely says more of what the network uses than the picture's edges or centre, which know no network, in"
    who, where = ("Gradient", "one of 1 measures at least") if mark == "✓" else ("No method", "any of 1 measures")
    assert made.headline.endswith(f"{who} {than} {where} (9 pictures).")


def attacked(before_name, after_name):
    kinds = [AttackKind("pgd", 4.0), AttackKind("noise like pgd", 4.0)]
    flipped, lost = AttackMeasure(MeasureKind.FLIPPED), AttackMeasure(MeasureKind.LOGIT_LOST)
    figures = {}
    for kind, value in zip(kinds, (0.3125, 0.0), strict=True):
        row = {"attack": kind.name, "eps": 4.0, "n": 48, "detectors": None}
        figures[kind, flipped] = {**row, "measure": str(flipped), "value": value, "low": 0.0, "high": 0.45}
        figures[kind, lost] = {**row, "measure": str(lost), "value": -0.001, "low": -0.04, "high": 0.03}
    row = {"attack": "pgd", "norm": "linf", "eps": 4.0, "image": 3, "before": 5, "after": 1, "file": "f"}
    picture = AttackedPicture({**row, "before_name": before_name, "after_name": after_name}, "a.jpg", "t", "c", "d")
    return adversarial.page(AttackFindings(figures, [picture], (8, 8), 20))


def test_one_figure_is_rounded_in_one_way():
    made = attacked("dragon", "cat")
    tables = [part for section in made.sections for part in section.parts if isinstance(part, views.Table)]
    assert made.headline == (
        "The attack, PGD that moves no pixel by more than 4 of 255 grey levels, flips 31% [0%, 45%] of 48 "
        "predictions; random noise of the same size flips 0% [0%, 45%]."
    )
    assert made.figures.items == [("PGD, 4/255", "31%", "predictions flipped, 95 %: 0% to 45%; noise of that size 0%")]
    assert tables[0].rows[0] == ["PGD, 4/255", "31% [0%, 45%]", "0% [0%, 45%]", *["0.00 [-0.04, 0.03]"] * 2]
    assert all(len(table.columns) <= 5 for table in tables)


@pytest.mark.parametrize(("names", "words"), [(("dragon", "cat"), "dragon → cat"), ((None, None), "class 5 → class 1")])
def test_classes_have_names_where_anybody_says_them(names, words):
    made = attacked(*names)
    text, gallery = made.sections[0].parts
    assert (gallery.cards[0].title, gallery.cards[0].note) == ("PGD, 4/255", words)
    assert ("nobody says" in text.text) == (names[0] is None)


class Own(nn.Sequential):
    classes = ("tick", "trick")


@pytest.mark.parametrize(
    ("network", "load", "outputs", "first"),
    [
        (Own(), "mine:make", 2, "tick"),
        (Own(), "mine:make", 3, None),
        (nn.Sequential(), "torchvision.models:squeezenet1_0", 1000, "tench"),
        (nn.Sequential(), "torchvision.models:squeezenet1_0", 10, None),
        (nn.Sequential(), "torchvision.models:no_such", 1000, None),
        (creature_net(), "microtome.networks.small:creature_net", 6, "bird"),
        (creature_net(4), "microtome.networks.small:creature_net", 4, None),
    ],
)
def test_names_of_outputs(network, load, outputs, first):
    names = class_names(network, load, outputs)
    assert (names[0] if names else None) == first


FEATURE = {
    "layer": "conv", "unit": 3, "natural_max": 2.0, "ratio": 1.5, "high_frequency": 0.2, "unreached": False,
    "file": "f",
}  # fmt: skip


def test_features_name_their_unit_and_are_told_on_its_page():
    unit = features.SyntheticUnit(FEATURE, "made.webp", [], [])
    lost = features.SyntheticUnit(FEATURE | {"unit": 4, "ratio": 0.0, "unreached": True}, "grey.webp", [], [])
    found = features.FeatureFindings([unit, lost], (8, 8))
    made = features.page(found)
    assert made.headline == (
        "Made pictures reach 1.50 times their unit's highest natural activation. 1 of 1 exceed it (21% "
        "to 100% of units drawn like these, 95 %): they lie beyond anything in these pictures. For 1 unit none could "
        "be made: no gradient reaches it."
    )
    assert [card.unit for card in made.sections[0].parts[-1].cards] == [("conv", 3), ("conv", 4)]
    assert features.page(features.FeatureFindings([lost], (8, 8))).headline.startswith("For 1 unit none could be made")
    assert [len(card.spots) for card in made.sections[0].parts[-1].cards] == [1, 0]  # no grey picture is called made
    assert [card.facts[0][1] for card in made.sections[0].parts[-1].cards] == ["1.50", "–"]
    (section,) = features.of_units(found)["conv", 3]
    assert section.parts[-1].cards[0].links == [("on the page of features", "features.html#features/conv/3")]


def field_row(unit: int, size: int, whole: int) -> fields.OcclusionRow:
    return {
        "layer": "conv", "unit": unit, "size_x": size, "size_y": 20, "theoretical": 55.0, "images": 4, "whole": whole,
        "file": "f",
    }  # fmt: skip


def test_a_field_stands_beside_the_pictures_that_it_was_measured_over():
    seen = fields.CoveredPicture("t.webp", "a.jpg", (40.0, 30.0))
    found = fields.FieldFindings(
        [fields.MeasuredField(field_row(3, 30, 2), "m.webp", (80, 80), [seen])], [], (96, 96), 11
    )
    made = fields.page(found)
    gallery = made.sections[0].parts[1]
    first, second = gallery.cards[0].spots
    assert (first.circles, first.boxes) == ((), [(40.0, 40.0, 65.0, 65.0)])  # 55, and five on either side
    assert (second.thumb, second.boxes) == ("t.webp", [(40.0, 30.0, 30, 20)])
    assert [fact[:2] for fact in gallery.cards[0].facts][-1] == ("pictures", "4, 2 show it whole")
    assert set(fields.of_units(found)) == {("conv", 3)}


def test_fields_that_the_edge_cuts_are_left_out_of_the_median_and_counted():
    def made(*rows: fields.OcclusionRow) -> views.Page:
        return fields.page(
            fields.FieldFindings([fields.MeasuredField(row, "m.webp", (80, 80)) for row in rows], [], (96, 96), 11)
        )

    page = made(field_row(1, 30, 1), field_row(2, 50, 4), field_row(3, 10, 0))
    assert page.headline == (
        "Units of conv look at about 30 of the 55 pixels across that they could (median of 2 units, 25 to 35; 1 more "
        "left out, whose field the picture's edge cuts in every picture)."
    )
    cut = page.sections[0].parts[1].cards[2]
    assert (cut.note, cut.facts[0][1]) == ("cut by the edge", "at least 10 × 20 px")
    assert (
        made(cut_row := field_row(3, 10, 0)).headline
        == "How far units of conv look is not sure: the picture's edge cuts the field of each of 1."
    )
    assert cut_row["whole"] == 0


def test_a_minimal_image_stands_beside_what_chance_would_leave():
    row: fields.MinimalRow = {
        "image": 7, "segments": 30, "kept": 2, "score": 9.0, "whole_score": 18.0, "area": 0.1, "file": "f", "target": 3,
        "target_name": "deer", "kept_at_random": 0.25,
    }  # fmt: skip
    unnamed: fields.MinimalRow = {**row, "target_name": None, "kept_at_random": 0.75}
    stripped = [fields.StrippedPicture(each, "a.png", "t.webp", "l.webp") for each in (row, unnamed)]
    (section,) = fields.page(fields.FieldFindings([], stripped, (96, 96), 11)).sections[1:]
    text, gallery = section.parts
    assert "the prediction stays in 50 % of the draws [" in text.text
    assert [card.facts[0][1] for card in gallery.cards] == ["deer", "class 3"]
    assert [card.facts[-1][1] for card in gallery.cards] == ["25 %", "75 %, so what is left says little"]


def test_each_picture_stands_once_by_the_weakest_attack_that_flips_it():
    flipped = AttackMeasure(MeasureKind.FLIPPED)
    kinds = [AttackKind(name, eps) for eps in (1.0, 4.0) for name in ("fgsm", "noise like fgsm")]
    row = {"measure": str(flipped), "value": 0.5, "low": 0.2, "high": 0.8, "n": 4, "detectors": None}
    figures = {(kind, flipped): {**row, "attack": kind.name, "eps": kind.eps} for kind in kinds}

    def picture(eps, image, after):
        row = {"attack": "fgsm", "norm": "linf", "eps": eps, "image": image, "before": 5, "after": after, "file": "f"}
        return AttackedPicture({**row, "before_name": "cat", "after_name": f"n{after}"}, "a.jpg", "t", "c", "d")

    shown = [picture(4.0, 3, 1), picture(1.0, 3, 1), picture(1.0, 4, 5), picture(4.0, 4, 2)]
    first, others, kept, *_ = adversarial.page(AttackFindings(figures, shown, (8, 8), 20)).sections

    def cards(section):
        return [(card.title, card.anchor.rpartition("/")[2]) for card in section.parts[-1].cards]

    assert cards(first) == [("FGSM, 1/255", "3"), ("FGSM, 4/255", "4")]
    assert cards(others) == [("FGSM, 4/255", "3")]
    assert cards(kept) == [("FGSM, 1/255", "4")]
    assert [section.folded for section in (first, others, kept)] == [False, True, True]


def test_noise_stands_beside_each_attack_and_detectors_are_counted():
    flipped, kept = AttackMeasure(MeasureKind.FLIPPED), AttackMeasure(MeasureKind.LABELS_KEPT, "conv")
    figures = {}
    for name, value in (("pgd", 0.5), ("noise like pgd", 0.1)):
        for measure, detectors in ((flipped, None), (kept, 17)):
            row = {
                "attack": name,
                "eps": 0.25,
                "measure": str(measure),
                "value": value,
                "low": 0.05,
                "high": 0.8,
                "n": 64,
                "detectors": detectors,
            }
            figures[AttackKind(name, 0.25), measure] = row
    sections = adversarial.page(AttackFindings(figures, [], (8, 8), 7)).sections
    tables = [part for section in sections for part in section.parts if isinstance(part, views.Table)]
    assert [name for name, _ in tables[0].columns] == ["attack", "prediction flipped", "by noise"]
    assert tables[0].rows == [["PGD, 0.25/255", "50% [5%, 80%]", "10% [5%, 80%]"]]
    assert tables[1].rows == [["PGD, 0.25/255", "50% [5%, 80%] of 17", "10% [5%, 80%] of 17"]]
    note = sections[0].parts[0].text
    assert "in 7 steps of a quarter of the bound, from one random start" in note
    assert "survives no 8-bit file" in note
    whole = {(AttackKind(kind.name, 4.0), measure): {**row, "eps": 4.0} for (kind, measure), row in figures.items()}
    note = adversarial.page(AttackFindings(whole, [], (8, 8), 1)).sections[0].parts[0].text
    assert "in one step of the whole bound" in note
    assert "8-bit" not in note
