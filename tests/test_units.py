"""Pages of single units: where they lie, what they tell, what a browser does with them, how large they are."""

import io
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from microtome.report import views
from microtome.report.charts import histogram
from microtome.report.dissection import DissectedLayer, Failure, HistogramRow, NearConcept, TopImage, of_units, pages
from microtome.report.overlay import FINE, SHEET, dim_path, mask_sheet, outline_path
from microtome.report.render import render, render_units
from microtome.report.unit import unit_pages
from microtome.report.words import overlap
from tests.conftest import opened
from tests.test_pages_dissection import LAYER, UNIT
from tests.test_report import folder, report  # noqa: F401  (a fixture)

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_two_layers_never_share_a_page(names):
    places = [views.UnitKey(name, 3).page for name in names]
    assert places[0] != places[1]
    for place in places:
        assert re.fullmatch(r"unit/[A-Za-z0-9._~-]+/3\.html", place)
        assert not place.startswith("unit/.")


def test_usual_layers_keep_their_names():
    assert views.UnitKey("layer4.0-conv_2", 17).page == "unit/layer4.0-conv_2/17.html"
    assert views.UnitKey("a/b", 0).page == "unit/a~2f~b/0.html"


def lines(path):
    """The closed lines of a path, as corners (x, y) in pixels."""
    found = []
    for x, y, steps in re.findall(r"M(-?\d+) ?(-?\d+)([^M]*)z", path):
        at = np.array([int(x), int(y)])
        corners = [at]
        for way, first, second in re.findall(r"([hvl])(-?\d+)(?: (-?\d+))?", steps):
            step = {"h": (first, 0), "v": (0, first)}.get(way, (first, second))
            at = at + np.array([int(value) for value in step])
            corners.append(at)
        found.append(np.array(corners) / FINE)
    return found


def encloses(path, height, width):
    """Whether the centre of each pixel lies inside, filled even-odd."""
    y, x = np.mgrid[:height, :width] + 0.5
    crossed = np.zeros((height, width), int)
    for corners in lines(path):
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
            if y0 != y1:
                crossed += ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return crossed % 2 == 1


@given(masks)
@settings(max_examples=40, deadline=None)
def test_an_outline_parts_what_is_in_from_what_is_out(mask):
    """The centre of every pixel stays on its side, and the line near the border of the pixels."""
    np.testing.assert_array_equal(encloses(outline_path(mask), *mask.shape), mask)
    np.testing.assert_array_equal(encloses(dim_path(mask), *mask.shape), ~mask)
    large = np.pad(mask, 1).repeat(16, 0).repeat(16, 1)
    edge = np.argwhere(large ^ np.roll(large, 1, 0) | large ^ np.roll(large, 1, 1))
    for corners in lines(outline_path(mask)):
        for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
            for x, y in (start, (start + end) / 2):
                apart = np.hypot(*(edge - 16 * (np.array([y, x]) + 1)).T).min() / 16
                assert apart < 0.54


def test_a_slope_is_a_line_and_pixels_that_touch_at_a_corner_stay_apart():
    assert outline_path(np.zeros((3, 3), bool)) == ""
    assert outline_path(np.ones((2, 3), bool)) == "M0 5v-2l3 -3h6l3 3v2l-3 3h-6z"
    assert outline_path(np.eye(4, dtype=bool)).count("M") == 4
    stairs = np.tri(12, dtype=bool)
    (slope,) = lines(outline_path(stairs))
    steps = np.diff(slope, axis=0)
    assert (steps[:, 0] == steps[:, 1]).sum() >= 20  # one direction, all along the staircase


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))))
@settings(max_examples=30, deadline=None)
def test_a_sheet_holds_each_mask_in_its_place(drawn):
    """Clear where a mask is, dark elsewhere, side by side in rows; nothing over what is no picture."""
    sheet = Image.open(io.BytesIO(mask_sheet(drawn))).convert("RGBA")
    count, height, width = drawn.shape
    times = sheet.height // height // -(-count // SHEET)
    alpha = np.asarray(sheet)[times // 2 :: times, times // 2 :: times, 3]
    for place in range(-(-count // SHEET) * SHEET):
        row, column = divmod(place, SHEET)
        part = alpha[row * height : (row + 1) * height, column * width : (column + 1) * width]
        expected = drawn[place] if place < count else np.ones((height, width), bool)
        np.testing.assert_array_equal(part == 0, expected)


def test_an_outline_lies_about_what_is_annotated_and_not_on_it():
    """Finer than a mask's pixel, so that it hides neither the annotation nor the unit's own mask within it."""
    drawn, annotated = np.zeros((2, 10, 10), bool), np.zeros((2, 10, 10), bool)
    drawn[0, :5], annotated[0, 3:6, 3:6] = True, True
    sheet = np.asarray(Image.open(io.BytesIO(mask_sheet(drawn, annotated))).convert("RGBA"))
    side = sheet.shape[0]
    assert (side, sheet.shape[1]) == (150, 150 * SHEET)
    yellow = (sheet[..., 3] == 255) & (sheet[..., 2] < 100)
    inner = np.zeros((side, side), bool)
    inner[50:85, 50:85] = True  # corners are cut, sides are not
    assert not (yellow[:, :side] & inner).any()
    assert not yellow[53:82, 45:90].any()
    border = np.argwhere(yellow[:, :side])
    assert (border.min(), border.max()) == (43, 91)  # two pixels about 45 to 89
    assert not yellow[:, side:].any()
    white = (sheet[..., :3] == 255).all(2) & (sheet[..., 3] > 0)
    assert np.argwhere(white[:, :side])[:, 0].tolist() == [75] * (side - yellow[75, :side].sum())


def test_a_histogram_says_what_lies_above_the_threshold():
    title, svg, words = histogram(-1.0, 0.5, [1, 100, 10, 4, 2], (0.45, 0.06))
    assert words == "117 values from -1 to 1.5; threshold 0.45, ≤ 6 % above"
    assert ">threshold 0.45, ≤ 6 % above<" in svg
    assert all(f'text-anchor="end">{count}<' in svg for count in (1, 10))
    below, above = re.findall(r'<path fill="var\(--\w+\)" d="([^"]+)"', svg)
    assert (below.count("M"), above.count("M")) == (3, 2)
    assert below.startswith(f"M0.0 160V{160 * (1 - np.log10(2) / np.log10(101)):.1f}".rstrip("0"))
    assert ">0<" in svg
    assert title == ""


def test_values_on_the_threshold_itself_are_not_drawn_as_above_it():
    """A unit that is zero all but everywhere: its threshold is zero, and so is what the first bar counts."""
    _, svg, words = histogram(0.0, 0.5, [9990, 0, 10], (0.0, 0.005))
    assert words == "10,000 values from 0 to 1.5; threshold 0, ≤ 0.5 % above"
    below, above = re.findall(r'<path fill="var\(--\w+\)" d="([^"]*)"', svg)
    assert (below.count("M"), above.count("M")) == (1, 2)


NEAREST: list[NearConcept] = [
    {"concept": "wing", "category": "part", "iou": 0.1, "iou_low": 0.08, "iou_high": 0.12, "pictures": 52},
    {"concept": "bird", "category": "object", "iou": 0.05, "iou_low": None, "iou_high": None, "pictures": 1200},
]
VALUES: HistogramRow = {"start": 0.0, "width": 0.5, "counts": [90, 5, 3, 2]}


def dissected(shown=0, **changes):
    """Three units, of which the first has pictures."""
    top = TopImage(
        "assets/0a/s/000001.webp", "a.jpg", 0, 2.0, "M0 0h8", "M1 1h2", "wing covers 4 % of the picture", [2]
    )
    units = [UNIT | changes, UNIT | {"unit": 1, "confirmed": False}, UNIT | {"unit": 2, "detector": False}]
    failures = [
        Failure("assets/0a/s/000002.webp", "b.jpg", missed, share, "M0 0h8", "", f"marked {share}")
        for missed, share in ((True, 1.0), (True, 0.999), (False, 0.5))
    ]
    return DissectedLayer(
        LAYER, units, {0: [top]}, (8, 8), {}, {0: NEAREST}, {0: VALUES}, failures={0: failures[:shown]},
        shares={0: (0.5, 0.03)},
    )  # fmt: skip


def told(**changes):
    layer = dissected(**changes)
    return unit_pages(pages([layer]), [of_units([layer])])


def test_units_stand_beside_each_other_by_number():
    made = told()
    assert [page.key.number for page in made] == [0, 1, 2]
    assert made[0].previous is made[2].following is None
    assert all(one.following == other.key and other.previous == one.key for one, other in pairwise(made))


def test_a_unit_that_only_another_stage_knows_has_a_page_too():
    section = views.Section("Made", [views.Text("text")])
    first, last = views.UnitKey("conv", 7), views.UnitKey("other", 0)
    made = unit_pages(pages([dissected()]), [{last: [section], first: [section]}])
    assert [page.key for page in made][-2:] == [first, last]
    assert made[-1].headline.startswith("Not dissected")
    assert made[-1].previous is None
    assert [page.key.number for page in made[:-1]] == [0, 1, 2, 7]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Its IoU with wing is 0.100 [0.080, 0.120]. The label holds on held-out pictures, too, and shuffled "),
        ({"confirmed": None}, "Its IoU with wing is 0.100 [0.080, 0.120]. It was not tested against chance."),
        ({"confirmed": False}, "Its IoU with wing is 0.100 [0.080, 0.120], but it is not confirmed"),
        (
            {"confirmed": False, "heldout_iou": 0.04, "q_value": 0.06},
            "Its IoU with wing is 0.100 [0.080, 0.120], but it is not confirmed: on the half of the pictures that was "
            "not used to choose the label its IoU is 0.040, not above 0.04, and chance may reach it (q =",
        ),
        (
            {"detector": False, "confirmed": False, "iou": 0.0012, "iou_low": 0.0, "iou_high": 0.0021},
            "Yet it answers to wing more than chance explains (q ≤ 0.015). Where a part is annotated, wing covers 50 % "
            "of what it lights, and it lights 3 % of wing: an IoU of 0.0012 [0.0000, 0.0021], and a detector needs "
            "more than 0.04.",
        ),
        (
            {"detector": False, "confirmed": False, "iou": 0.01, "iou_low": 0.005, "iou_high": 0.02, "q_value": 0.5},
            "The nearest to what it lights is wing, but shuffled annotations do as well (q = 0.5). Where a",
        ),
        (
            {"detector": False, "confirmed": False, "iou": 0.03, "iou_low": 0.02, "iou_high": 0.05, "q_value": None},
            "The nearest to what it lights is wing. Where a part is annotated, wing covers 50 % of what it lights, and "
            "it lights 3 % of wing: an IoU of 0.030 [0.020, 0.050], and a detector needs more than 0.04, which its "
            "interval reaches: other",
        ),
        (
            {"detector": False, "confirmed": False, "iou": 0.03, "heldout_iou": 0.0001},
            "It answers to wing more than chance explains (q ≤ 0.015), but less than half as well on held-out",
        ),
        (
            {"iou_low": 0.03},
            "Its IoU with wing is 0.100 [0.030, 0.120]. The label holds on held-out pictures, too, and shuffled "
            "annotations do not reach it; but its interval reaches below the limit of 0.04.",
        ),
        (
            {"concept": None, "category": None, "iou": 0.0, "detector": False},
            "What it lights meets nothing that is annotated.",
        ),
        ({"reason": "dead: it has the same value everywhere"}, "This unit is dead: it has the same value everywhere."),
    ],
)
def test_the_first_sentence_says_what_the_unit_is(changes, words):
    assert told(**changes)[0].headline.startswith(words)


def test_a_detectors_page_says_how_its_label_and_what_it_lights_overlap():
    (first, *_) = told()
    assert first.headline.endswith(
        "Where a part is annotated, wing covers 50 % of what it lights, and it lights 3 % of wing. Also above the "
        "limit: bird."
    )
    layer = dissected()
    layer.shares.clear()
    layer.nearest.clear()
    assert unit_pages(pages([layer]), [])[0].headline.endswith("annotations do not reach it.")


def test_a_dead_unit_says_its_value_and_what_follows():
    (section, *rest) = told(reason="dead: it has the same value everywhere", concept=None, threshold=0.25)[0].sections
    assert section.heading == "What that means"
    assert section.parts[0].items[0].startswith("Its value is 0.25 at every place of all ")
    assert "Its values" not in {other.heading for other in rest}
    assert [part.links for part in section.parts if isinstance(part, views.Links)] == [[("unit 1", "unit/conv/1.html")]]


def test_the_listing_has_what_makes_an_iou_sure():
    made = told()
    report = views.Report("t", "n", "d", pages([dissected()]), (), "", units=made)
    first = report.listing["units"][0]
    assert first[:6] == [0, 0, "wing", "part", "confirmed detector", "0.100"]
    facts = {name: value for name, value, _ in made[0].card.facts}
    thumb = made[0].card.pictures[0].thumb
    assert first[6:] == ["[0.080, 0.120]", "0.090", facts["q"], facts["by chance"], thumb, "", ""]
    card = replace(made[0].card, masks="assets/masks/0.webp", pictures=made[0].card.pictures * 6)
    masked = replace(report, units=[replace(made[0], card=card)]).listing["units"][0]
    assert masked[-2:] == ["assets/masks/0.webp", "2"]
    dead = told(reason="dead: it has the same value everywhere")
    assert replace(report, units=dead).listing["units"][0][4:] == ["dead", *[""] * 8]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.12345, "0.123"),
        (0.0051, "0.005"),
        (0.0012, "0.0012"),
        (0.00012, "0.0001"),
        (0.00004, "0.00004"),
    ],
)
def test_an_iou_keeps_digits_that_tell_it_from_nothing(value, words):
    assert overlap(value) == words


def test_nearest_concepts_stand_with_their_intervals_beside_chance_and_held_out():
    sections = {section.heading: section for section in told()[0].sections}
    (table,) = sections["Nearest concepts"].parts
    assert [row[:4] for row in table.rows] == [
        ["wing", "part", "52", "0.100 [0.080, 0.120]"],
        ["bird", "object", "1,200", "0.050"],
    ]
    assert [kind for kind, _ in table.legend] == ["dot", "range", "limit", "null", "held"]
    marks = [[text for _, _, text in row[4].marks] for row in table.rows]
    assert marks == [["limit 0.04", "chance 0.020", "held out 0.090"], ["limit 0.04", "chance 0.020"]]
    assert "held" not in dict(told(heldout_iou=None)[0].sections[1].parts[0].legend)


def test_a_unit_shows_what_it_misses_and_what_else_it_lights():
    layer = dissected(shown=3)
    sections = {section.heading: section.parts for section in of_units([layer])["conv", 0]}
    missed, plates, elsewhere, others = sections["Where it fails"]
    assert missed.text.startswith("Missed: most of wing is annotated")
    assert [plate.told for plate in plates.plates] == [
        "all of it missed; marked 1.0",
        "99 % of it missed; marked 0.999",
    ]
    assert elsewhere.text.startswith("Elsewhere: the unit lights most where no wing")
    assert [plate.told for plate in others.plates] == ["50 % of its mask lies elsewhere; marked 0.5"]
    assert not plates.switches
    assert "Where it fails" not in {section.heading for section in told()[0].sections}
    layer.units[0]["detector"] = False  # what is no detector fails no label
    assert "Where it fails" not in {section.heading for section in of_units([layer])["conv", 0]}


def test_a_page_leads_to_its_neighbours_its_layer_and_the_other_units_of_its_pictures():
    layer = dissected()
    made = pages([layer])
    shown = views.Report("t", "n", "d", made, [], "", unit_pages(made, [of_units([layer])]))
    text = dict(render_units(shown))["unit/conv/0.html"].decode()
    for place in ("unit/conv/1.html", "layer-000.html#conv/0", "unit/conv/2.html", "index.html", "units.html"):
        assert f'href="../../{place}"' in text
    assert 'src="../../assets/0a/l/000001.jpg"' in text
    assert "a.jpg" in text
    assert 'href="unit/conv/0.html"' in render(shown)["layer-000.html"].decode()


def test_pages_of_large_layers_stay_light():
    """The whole page of 2,048 units below 3 MB, a unit's own below 300 kB."""
    made = report(2048)
    assert len(render(made)["layer-000.html"]) < 3_000_000
    assert len(next(render_units(made))[1]) < 300_000


@pytest.mark.browser
@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("17", [17]), ("017", [17]), ("#17", [17]), ("unit 17", [17]), ("Unit no. 17", [17]), ("u17", [17]),
        ("１７", [17]), ("layer 17", [17]), ("layer/17", [17]), ("layer:017", [17]), ("LAYER unit 17", [17]),
        ("head 17", [17]), ("head 18", []), ("sky 510", [510]), ("999", []), ("other/17", []),
    ],
)  # fmt: skip
def test_a_unit_is_found_in_any_writing(browser, folder, text, numbers):  # noqa: F811
    tab, heard = opened(browser, folder / "unit/layer/3.html")
    tab.fill(".seek input", text)
    tab.press(".seek input", "Enter")
    tab.wait_for_selector(".listing")
    links = tab.evaluate("[...document.querySelectorAll('[data-found] a')].map(a => a.getAttribute('href'))")
    assert links == [f"unit/layer/{number}.html" for number in numbers]
    assert tab.input_value("[data-state=q]") == text
    assert heard == []


@pytest.mark.browser
def test_the_search_lives_in_the_address_and_leads_to_units(browser, folder):  # noqa: F811
    tab, heard = opened(browser, folder / "units.html")
    assert tab.text_content("[data-count]") == "512 units, the first 200 shown"
    assert tab.locator("[data-found] tr").count() == 200
    tab.fill("[data-state=q]", "<script>")
    tab.select_option("[data-state=order]", "unit")
    assert tab.text_content("[data-count]") == "128 of 512 units"
    other, _ = opened(browser, folder / "units.html")
    other.goto(tab.url)
    assert other.text_content("[data-count]") == "128 of 512 units"
    other.click("[data-found] a >> nth=1")
    assert other.url.endswith("unit/layer/4.html")
    assert heard == []


@pytest.mark.browser
def test_what_lies_over_a_units_pictures_is_switched_and_stays_so(browser, folder):  # noqa: F811
    tab, heard = opened(browser, folder / "unit/layer/2.html")

    def seen(what):
        return tab.evaluate(f"getComputedStyle(document.querySelector('.plate {what}')).display") != "none"

    assert (seen(".m"), seen(".note")) == (True, True)
    tab.uncheck("[data-state=mask]")
    assert (seen(".m"), seen(".note")) == (False, True)
    tab.uncheck("[data-state=annotation]")
    tab.check("[data-state=mask]")
    tab.keyboard.press("m")  # all at once, and back to what it was
    assert (seen(".m"), seen(".note")) == (False, False)
    assert tab.is_disabled("[data-state=annotation]")
    assert tab.url.endswith("annotation=false&overlays=false")
    tab.keyboard.press("m")
    assert (seen(".m"), seen(".note")) == (True, False)
    tab.uncheck("[data-state=mask]")
    tab.focus(".seek input")
    tab.keyboard.press("m")
    assert tab.is_checked("[data-state=overlays]")
    tab.click("[rel=next]")
    tab.wait_for_load_state()  # its script reads the address
    assert tab.url.endswith("unit/layer/3.html?annotation=false&mask=false")
    assert (seen(".m"), seen(".note")) == (False, False)
    tab.focus("[data-state=overlays]")  # and from no field of words
    tab.keyboard.press("p")
    tab.wait_for_url("**/unit/layer/2.html*")
    tab.keyboard.press("n")
    tab.wait_for_url("**/unit/layer/3.html*")
    tab.locator(".plate .pic").first.click()
    tab.keyboard.press("p")  # an enlarged picture stays
    assert tab.locator("dialog[open]").count() == 1
    tab.keyboard.press("Escape")
    tab.click("[rel=prev]")
    tab.wait_for_load_state()
    tab.check("[data-state=mask]")
    tab.check("[data-state=annotation]")
    assert tab.url.endswith("unit/layer/2.html")
    assert heard == []


@pytest.mark.browser
def test_the_listing_is_sorted_by_what_makes_a_label_sure(browser, tmp_path):
    made = unit_pages([layer := pages([dissected()])[0]], [])
    numbers = {0: ("0.09", "≤ 0.02"), 1: ("–", "0.001"), 2: ("0.1", "–")}
    units = [
        replace(page, card=replace(page.card, facts=[("held out", held, ""), ("q", q, "")], pictures=()))
        for page, (held, q) in zip(made, numbers.values(), strict=True)
    ]
    shown = views.Report("t", "n", "d", [layer], (), "", units=units)
    (tmp_path / "units.html").write_bytes(render(shown)["units.html"])
    tab, heard = opened(browser, tmp_path / "units.html")

    def order():
        links = tab.evaluate("[...document.querySelectorAll('[data-found] a')].map(a => a.textContent)")
        return [int(link.rpartition(" ")[2]) for link in links]

    tab.select_option("[data-state=order]", "held")
    assert order() == [2, 0, 1]
    tab.select_option("[data-state=order]", "q")
    assert order() == [1, 0, 2]
    assert "0.100 [0.080, 0.120]" in tab.inner_text("[data-found]")
    assert heard == []


@pytest.mark.browser
def test_what_is_wider_than_the_screen_shows_that_it_goes_on(browser, tmp_path):
    table = views.Table([(f"column {number}", True) for number in range(12)], [["0.123 [0.100, 0.200]"] * 12] * 12)
    made = views.Page("wide", "wide.html", "Wide.", views.Figures(()), [views.Section("Table", [table])])
    (tmp_path / "wide.html").write_bytes(render(views.Report("t", "n", "d", (), [made], "footer"))["wide.html"])
    tab, heard = opened(browser, tmp_path / "wide.html", 390)
    assert tab.locator(".scroll.more").count() == 1
    tab.evaluate("document.querySelector('.scroll').scrollLeft = 1e6")
    tab.wait_for_function("document.querySelectorAll('.scroll.more').length === 0")
    assert heard == []


@pytest.mark.browser
def test_a_picture_of_the_overview_leads_to_its_unit(browser, folder):  # noqa: F811
    tab, heard = opened(browser, folder / "index.html")
    picture = tab.locator(".cover .sheet img").first
    picture.focus()
    tab.keyboard.press("Enter")
    unit = tab.locator(".cover .label a").first.get_attribute("href")
    assert tab.locator(".zoom a").get_attribute("href").endswith(unit)
    assert heard == []


@pytest.mark.browser
def test_a_picture_that_is_clicked_is_enlarged(browser, folder):  # noqa: F811
    tab, heard = opened(browser, folder / "layer-000.html")
    tab.click(".sheet img >> nth=1")
    box = "document.querySelector('.zoom .pic')"
    assert tab.evaluate(f"{box}.querySelector('img').src").endswith("/assets/0a/l/000000.jpg")
    assert tab.evaluate(f"{box}.querySelector('.m').style.backgroundPosition") == "25% 0%"
    assert tab.evaluate(f"{box}.getBoundingClientRect().width") > 400
    before = tab.evaluate(f"{box}.getBoundingClientRect().width")
    tab.keyboard.press("+")
    assert tab.evaluate(f"{box}.getBoundingClientRect().width") > 1.4 * before
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(f"{box}.querySelector('.m').style.backgroundPosition") == "50% 0%"
    tab.keyboard.press("Escape")
    assert not tab.evaluate("document.querySelector('.zoom').open")
    tab.goto((folder / "unit/layer/2.html").as_uri())
    tab.focus(".plate .pic")
    tab.keyboard.press("Enter")
    assert tab.evaluate(f"{box}.querySelectorAll('svg .m').length") == 1
    assert tab.text_content(".zoom .file") == "<script>alert('x')</script>/a\nb'\".png"
    assert heard == []


@pytest.mark.browser
def test_the_single_file_finds_cards(browser, folder, tmp_path):  # noqa: F811
    from microtome.report.single import inline

    (tmp_path / "one").mkdir()
    (tmp_path / "one/one.html").write_text(inline(folder), encoding="utf-8")
    tab, heard = opened(browser, tmp_path / "one/one.html")
    tab.fill(".seek input", "layer/17")
    tab.press(".seek input", "Enter")
    assert tab.get_attribute("[data-found] a", "href") == "#layer/17"
    tab.click(".sheet img >> nth=1")
    tab.wait_for_timeout(200)
    assert tab.evaluate("document.querySelector('.zoom img').naturalWidth") == 112
    assert heard == []
