"""The report: escaping, determinism, overlays, and a real browser."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

from microtome.errors import InputError
from microtome.report import views
from microtome.report.charts import curves, histogram, lines, signed_bars
from microtome.report.overlay import dim_path, mask_sheet, outline_path
from microtome.report.render import INDEX, apart, completed, explained_once, render, render_units, typeset
from microtome.report.single import inline, with_pictures
from microtome.report.unit import unit_pages
from tests.conftest import long_form, opened, write_audit
from tests.faults import faults

EVIL = "<script>alert('x')</script>"


def unit(number: int, concept: str, category: str, iou: float) -> views.Unit:
    scale = views.IouScale(50.0, 40.0, 60.0, 20.0, 10.0)
    picture = views.Picture("assets/0a/s/000000.webp", f"{concept}.jpg")
    facts = [("held out", "0.1", "explained")]
    anchor = f"layer/{number}"
    return views.Unit(
        number,
        anchor,
        concept,
        category,
        iou > 0.04,
        iou > 0.1,
        f"{iou:.3f}",
        "",
        facts,
        scale,
        [picture] * 5,
        "",
        iou,
        0.5,
        "assets/masks/000/0.png",
    )


def report(units: int = 6) -> views.Report:
    names = [EVIL, "head", "sky & sea", "red"]
    cards = [unit(i, names[i % 4], ["part", "color"][i % 2], (units - i) / units / 5) for i in range(units)]
    chart = views.ConceptBars("part", [views.ConceptBar(EVIL, 2, 3), views.ConceptBar("head", 0, 1)], 3)
    layer = views.Layer(
        "layer", "layer-000.html", "headline", [("a", "1", "")], [chart], cards, ["color", "part"], [], (4, 4)
    )
    told = {views.UnitKey("layer", card.number): told_of(card) for card in cards}
    own = unit_pages([layer], [told])
    strip = views.Strip(40.0, 30.0, 50.0, [(20.0, "null", EVIL), (60.0, "held", EVIL)], EVIL)
    found = views.Table(
        [("layer", False), ("detectors", True), ("", False)],
        [[views.Links([("layer", "layer-000.html")]), "1 of 6 [0, 2]", strip]],
        EVIL,
        [("dot", EVIL), ("range", EVIL), ("null", EVIL), ("held", EVIL)],
    )
    return views.Report(EVIL, EVIL, EVIL, [layer], [page()], "footer", own, found=found)


CONCLUSION = views.Conclusion(
    [views.Gate(EVIL, "1", "2", False, "")],
    [("Network", EVIL)],
    [views.StageLine("index", "1 s", "1 MB", "abc")],
    EVIL,
)


def told_of(card: views.Unit) -> list[views.Section]:
    """A section with all that only units' pages have."""
    dim, outline = dim_path(np.eye(4, dtype=bool)), outline_path(np.eye(4, dtype=bool))
    others = [views.UnitKey("layer", 0), views.UnitKey("elsewhere", 7)]
    plates = [
        views.Plate("assets/0a/s/000000.webp", f"{EVIL}/a\nb'\".png", number, EVIL, dim, outline, others)
        for number in (1, 2, 3)
    ]
    drawn = views.Charts([histogram(-1.0, 0.5, [1, 100, 10, 0, 1], (0.4, 0.005))])
    where = views.Links([(EVIL, "method.html#one/1")])
    return [views.Section(EVIL, [views.Plates(plates, (4, 4), card.concept), drawn, where])]


def page() -> views.Page:
    """A page with every kind of part."""
    rows = [
        {"epoch": e, "phase": p, "split": s, "loss": 1 / e}
        for e in (1, 2)
        for p in ("a", "b")
        for s in ("train", "val")
    ]
    strip = views.Strip(40.0, 30.0, 50.0, [(70.0, "chance", EVIL), (20.0, "aim", EVIL)], EVIL)
    spot = views.Spot("assets/0a/s/000000.webp", EVIL, (64, 64), [(9, 9, 5)], [(30, 30)], EVIL)
    parts = [
        views.Figures([(EVIL, "1", EVIL)]),
        views.Text(EVIL, "advice"),
        views.Code(EVIL),
        views.Table([(EVIL, False), ("b", True), ("c", False)], [[EVIL, EVIL, strip]], EVIL),
        views.Charts([curves(EVIL, rows, "loss")]),
        views.Gallery([views.Card(EVIL, "one/1", EVIL, [spot], [(EVIL, EVIL, EVIL)])], True),
        views.Gallery([views.Card("unit 2", "two/2", EVIL, [spot], unit=views.UnitKey("layer", 2))]),
        views.Table([("unit", False), ("other", False)], [[views.UnitKey("layer", 3), views.UnitKey("gone", 3)]]),
        views.Table([(f"column {n}", True) for n in range(30)], [["0.1234 [0.1, 0.2]"] * 30]),
    ]
    names = views.Branch(EVIL, EVIL, "", [views.Branch(f"{EVIL} {n}", EVIL, "one/1", ()) for n in (1, 2)], open=True)
    joined = views.Joined(3, 3, 60, 60, EVIL)
    levels = [views.Level(EVIL, n, [(3, 3, EVIL), (60, 60, EVIL)], [joined]) for n in (0, 1)]
    drawing = views.Drawing(
        "assets/0a/s/000000.webp", EVIL, (64, 64), levels, [views.Word(30, 30, EVIL, (20, 20), True)], names
    )
    units = [views.UnitKey("layer", 2), None]
    bars = signed_bars(EVIL, [(EVIL, 1.0, -2.0), ("filter 123 (of a part with a long name)", -123.45, 123.45)], units)
    drawn = [drawing, drawing, drawing, views.Outline(names)]
    sections = [
        views.Section(EVIL, parts),
        views.Section("drawn", drawn),
        views.Section("folded", [bars, bars, bars, views.Text(EVIL)], folded=True),
    ]
    return views.Page("method", "method.html", EVIL, parts[0], sections, [(EVIL, EVIL)])


def test_names_from_data_are_shown_and_not_run():
    for name, content in everything(report()).items():
        text = content.decode()
        assert EVIL not in text, name
        assert "&lt;script&gt;" in text
        assert len(re.findall(r"<script", text)) == (2 if name == "units.html" else 1)


def everything(made: views.Report) -> dict[str, bytes]:
    pages = render(made)
    return {**pages, INDEX: completed(pages[INDEX], CONCLUSION), **dict(render_units(made))}


ODD = ["a\x01b", "a\0b", "\x1b[31m", "\ud800", "\uffff", "\u202eabc", "a\nb", "]]>", "'; drop table units;--", EVIL]


@pytest.mark.parametrize("name", ODD)
def test_charts_are_xml_whatever_the_names(name):
    """A control character in a concept's name made the renderer abort the process."""
    rows = [{"x": 0, "y": 1.0, "line": name}, {"x": 1, "y": 2.0, "line": name}]
    svg = lines("t", rows, "x")[1]
    assert not any(element.tag.endswith("script") for element in ElementTree.fromstring(svg).iter())


def test_pictures_with_odd_names_are_found(tmp_path):
    name = "a&b'c\"d #1?.webp"
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / name).write_bytes(b"picture")
    page = f'<img src="assets/{escape(name)}">'
    assert with_pictures(page, tmp_path) == '<img src="data:image/webp;base64,cGljdHVyZQ==">'


@pytest.mark.parametrize("name", ["assets/../../secret", "assets/../secret", "assets/link", "assets/gone", "assets/."])
def test_a_page_of_somebody_elses_puts_no_other_file_into_the_single_one(tmp_path, name):
    folder = tmp_path / "report"
    (folder / "assets").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "secret").write_text("secret")
    (folder / "assets" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="its pictures must lie in"):
        with_pictures(f'<img src="{name}">', folder)


def test_same_view_same_bytes():
    assert everything(report()) == everything(report())


def test_charts_take_their_colours_from_the_page():
    svg = histogram(0.0, 1.0, [3, 1], (0.5, 0.3))[1] + lines("t", [{"x": 0, "y": 1.0, "line": "a"}], "x")[1]
    assert "currentColor" in svg
    assert "var(--bar)" in svg
    assert not re.search(r"https?://(?!www\.w3\.org)", svg)


@pytest.mark.parametrize(
    ("text", "set_"),
    [
        ("+0.11 [-0.78, -3]", "+0.11 [\u22120.78,\u00a0\u22123]"),
        ("[0.1, 0.2] of [a, b]", "[0.1,\u00a00.2] of [a, b]"),
        ("92% of 95 %", "92\u00a0% of 95\u00a0%"),
        ("run 20261130-235033, 1.5e-05, x-3, fine-tuning", "run 20261130-235033, 1.5e-05, x-3, fine-tuning"),
    ],
)
def test_numbers_have_a_true_minus_and_a_space_before_percent(text, set_):
    assert typeset(text) == set_


def test_a_headline_is_told_sentence_by_sentence():
    assert apart("3 of 4, 0.1 [0.0, 0.2] of a.b. The rest (q ≤ 0.05) is not. 1 of 3 is.\nAnother line") == [
        "3 of 4, 0.1 [0.0, 0.2] of a.b.",
        "The rest (q ≤ 0.05) is not.",
        "1 of 3 is.",
        "Another line",
    ]


def test_a_note_stands_below_the_first_of_its_tables_alone():
    table = views.Table([("a", False)], [["b"]], "what a is")
    first, second = explained_once([views.Section("one", [table, views.Text("t")]), views.Section("two", [table])])
    assert (first.parts[0].note, second.parts[0].note, first.parts[1].text) == ("what a is", "", "t")
    assert second.parts[0].rows == table.rows


def test_the_first_page_begins_with_what_became_of_the_gates():
    def mark(*verdicts):
        gates = [views.Gate("g", "1", "2", verdict != "failed", "", verdict) for verdict in verdicts]
        text = completed(render(report())["index.html"], views.Conclusion(gates)).decode()
        return re.sub("<[^>]+>", "", text[text.index("</h1>") : text.index('id="found"')])

    assert "✗ 1 of 2 gates failed" in mark("failed", "passed")
    assert "✓ The gate passed" in mark("passed")
    assert "✓ No gate of 3 failed: 1 passed, 1 only warned, 1 could not be judged" in mark(
        "passed", "warned", "not judged"
    )
    assert "gate" not in mark()


def test_nothing_points_outside():
    for content in everything(report()).values():
        assert not re.search(r"""(src|href)=["'](https?:)?//""", content.decode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A written report of 512 units; read only."""
    from PIL import Image

    tmp_path = tmp_path_factory.mktemp("report")
    for name, content in everything(report(512)).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for name, side in (("s/000000.webp", 112), ("l/000000.jpg", 224)):
        (tmp_path / "assets/0a" / name).parent.mkdir(parents=True)
        Image.new("RGB", (side, side), "teal").save(tmp_path / "assets/0a" / name)
    (tmp_path / "assets/masks/000").mkdir(parents=True)
    (tmp_path / "assets/masks/000/0.png").write_bytes(mask_sheet(np.ones((5, 4, 4), bool)))
    return tmp_path


def test_one_file_has_everything_or_says_what_is_too_large(folder):
    text = inline(folder)
    assert 'src="assets' not in text
    assert 'href="#layer-000.html"' in text
    assert 'href="unit/' not in text
    assert '<a href="#layer/2">unit 2</a>' in text
    assert "leaves out the pages of its 512 single units" in text
    with pytest.raises(InputError, match=r"one file may have 0 MB, got .*thumbnails"):
        inline(folder, limit=1000)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
@pytest.mark.parametrize("page", ["index.html", "layer-000.html", "method.html", "units.html", "unit/layer/2.html"])
def test_a_browser_finds_no_fault_in_any_page(browser, folder, page, width, scheme):
    assert faults(browser, folder / page, width, scheme=scheme) == []


@pytest.mark.browser
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("<p style='width: 900px'>text</p>", "pixels wide on a screen of 390"),
        ("<p>the option `rate`</p>", "has a literal backtick: the option `rate`"),
        (
            "<div style='overflow: hidden'><table style='width: 900px'><tr><td>row</td></tr></table></div>",
            "is cut: row",
        ),
        ("<p style='color: #888'>dim</p>", "cannot be read: dim (rgb(136, 136, 136) on rgb(255, 255, 255))"),
        ("<svg><text y='9' fill='#888'>dim</text></svg>", "cannot be read: dim"),
        ("<h3>deep</h3>", "skips a level: 3"),
        ("<a href='#nowhere'>there</a>", "leads nowhere: nowhere"),
        ("<img src='gone.png' alt='gone'>", "is not there: "),
        ("<img src='page.html'>", "has no words: "),
        ("<script>console.log('heard')</script>", "heard"),
    ],
)
def test_each_fault_of_a_page_is_found(browser, tmp_path, wrong, said):
    """The checks can fail."""
    head = "<!doctype html><meta name=viewport content='width=device-width'><body style='background: #fff'><h1>one</h1>"
    (tmp_path / "page.html").write_text(head + wrong)
    assert any(said in fault for fault in faults(browser, tmp_path / "page.html", 390))
    (tmp_path / "page.html").write_text(head + "<pre>`code`</pre>")
    assert faults(browser, tmp_path / "page.html", 390) == []


@pytest.mark.browser
def test_sort_filter_masks_and_anchors(browser, folder):
    tab, heard = opened(browser, folder / "layer-000.html")

    def shown() -> list[int]:
        return tab.evaluate("[...document.querySelectorAll('.card:not([hidden])')].map(c => +c.dataset.unit)")

    assert shown()[:3] == [0, 1, 2]
    tab.select_option("[data-state=sort]", "label")
    assert tab.evaluate("document.querySelector('.card').dataset.label") == EVIL
    tab.select_option("[data-state=sort]", "unit")
    tab.fill("[data-state=find]", "HEAD")
    assert shown() == list(range(1, 512, 4))
    assert tab.text_content("[data-count]") == "128 of 512 units"
    tab.fill("[data-state=find]", "017")
    assert shown() == [17]
    tab.fill("[data-state=find]", "")
    tab.select_option("[data-state=category]", "part")
    tab.check("[data-state=detectors]")
    assert 0 < len(shown()) < 256
    tab.uncheck("[data-state=overlays]")
    assert tab.evaluate("getComputedStyle(document.querySelector('.sheet .m')).display") == "none"
    query = "sort=unit&category=part&detectors=true&overlays=false"
    assert tab.url.endswith(f"layer-000.html?{query}")
    kept = shown()
    again, _ = opened(browser, folder / "layer-000.html")
    again.goto(tab.url)
    assert again.evaluate("[...document.querySelectorAll('.card:not([hidden])')].map(c => +c.dataset.unit)") == kept
    assert again.evaluate("getComputedStyle(document.querySelector('.sheet .m')).display") == "none"
    tab.goto((folder / "layer-000.html").as_uri() + "#layer/300")
    assert abs(tab.evaluate("document.getElementById('layer/300').getBoundingClientRect().top")) < 400
    assert heard == []


@pytest.mark.browser
def test_the_single_file_works_alone(browser, folder, tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/one.html").write_text(inline(folder), encoding="utf-8")
    tab, heard = opened(browser, tmp_path / "alone/one.html")
    assert heard == []
    assert tab.evaluate("document.querySelectorAll('.units .card').length") == 512
    tab.locator("img").first.scroll_into_view_if_needed()
    tab.wait_for_timeout(300)  # the policy forbids the eval that waiting for a condition needs
    assert tab.evaluate("document.images[0].naturalWidth") == 112


def test_the_whole_report_of_an_audit(tmp_path):
    """On creatures: every unit has its card, five pictures with masks of the right size, and its figures."""
    from tests.conftest import NETWORK
    from tests.test_pipeline import run

    (tmp_path / "nets.py").write_text(NETWORK)
    content = {
        "name": "creatures & co",
        "network": {"load": "nets:tiny", "layers": ["1", "4"], "input": {"size": [48, 48]}},
        "dataset": {"format": "creatures", "count": 60, "size": 48},
        "stages": {"dissection": {"bootstrap": 20, "permutations": 0}},
    }
    done = run(write_audit(tmp_path / "audit.yaml", content))
    artifact, units = done["report"][0], done["dissection"][0].table("units").to_pylist()
    page = artifact.read("layer-001.html").decode()
    assert page.count('<article class="card"') == 12
    assert page.count('<div class="pics sheet"') == 12
    assert page.count("/s/0000") == 60
    assert 'id="4/11"' in page
    own, other = (
        artifact.read(next(f"unit/{row['layer']}/{row['unit']}.html" for row in units if row["detector"] is wanted))
        for wanted in (True, False)
    )
    assert b"Where it fails" not in other  # it has no label that it would fail
    own = own.decode()
    highest = own[own.index("Where it is highest") : own.index("Where it fails")]
    assert highest.count('<div class="pic"') == 5
    assert 0 < own.count('<div class="pic"') - 5 <= 6  # three that it misses, three where it lights something else
    assert "M-4-4h104v104h-104z" in own
    assert all(heading in own for heading in ("Where it is highest", "Nearest concepts", "Its values"))
    for name in set(re.findall(r'src="../../(assets/[^"]+)"', own)):
        assert artifact.has(name)
    index = artifact.read("index.html").decode()
    assert "creatures &amp; co" in index
    assert "12 units with their pictures" in index
    for name in set(re.findall(r'src="(assets/[^"]+)"', page)):
        assert artifact.has(name)


@pytest.mark.soak
@long_form
@pytest.mark.browser
def test_a_browser_finds_no_fault_in_the_pages_of_every_stage(browser, tmp_path):
    from tests.conftest import every_stage
    from tests.test_pipeline import run

    report = run(every_stage(tmp_path))["report"][0]
    folder = Path(report.files.location(report.folder))
    pages = [*folder.glob("*.html"), next(folder.glob("unit/*/*.html"))]
    assert len(pages) >= 13
    found = [fault for page in pages for width in (1440, 390) for fault in faults(browser, page, width)]
    found += [fault for page in pages for fault in faults(browser, page, 1440, scheme="dark")]
    assert found == []
