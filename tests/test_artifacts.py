"""What Prefect's interface shows of a run, and how it is sent: without a server; with one, tests/test_prefect.py."""

import io
import json
import re
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from flows import posting, turns
from flows.artifacts import SERVED, artifacts_of, cell, headline, key_of, markdown, place_of
from flows.posting import Posting, Reported
from flows.run import Outcome
from flows.text import printable
from microtome.datasets.source import webp
from microtome.errors import Interrupted
from microtome.report import views
from microtome.report.cover import GAP, cover
from microtome.report.overlay import SHEET, mask_sheet
from storage import RunRecord, open_files
from tests.test_names import EVIL

HOSTILE = [
    *EVIL,
    "[x](javascript:alert(1))",
    "![y](http://evil.example/p.png)",
    "http://evil.example",
    "| a | b |",
    "`code` **bold** _under_ ~~gone~~",
    "# title",
    "- item",
    "> quote",
    "<http://evil.example>",
    "&lt;b&gt;",
    "a\\",
]
ORDINARY = ["layers.unique_per_unit of features.12: min 5, certain", "judged nothing: [26, 32] (before: 32)"]


def gate(name="units.iou", verdict="failed", **changes):
    row = {"gate": name, "value": 0.5, "limit": 0.6, "passed": verdict != "failed", "verdict": verdict}
    return row | {"low": 0.4, "high": 0.6, "note": ""} | changes


def run(*gates, figures=(), name="nightly", status="gate failed", stages=None):
    return RunRecord("20261129-030000-abcdef", name, "net", 0.0, 1.0, status, stages or {}, gates, figures)


def tokens(text: str) -> list:
    """Everything that CommonMark with tables makes of a text."""
    found = MarkdownIt("commonmark").enable("table").parse(text)
    return [one for token in found for one in [token, *(token.children or [])]]


def shown(text: str) -> str:
    return "".join(token.content for token in tokens(text) if token.type == "text").replace("\u2060", "")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_text_in_markdown(name):
    for text in (markdown(name), f"| a |\n|-|\n| {markdown(name)} |", f"# {markdown(name)}", cell(name)):
        kinds = {token.type for token in tokens(text)}
        assert not kinds & {"html_inline", "html_block", "link_open", "image", "code_inline", "em_open", "strong_open"}
        assert printable(name).strip() in shown(text)
    assert not re.search(r"https?://|www\.|\w@\w", markdown(name))  # where the newer interface would see an address


def test_the_check_of_markdown_can_fail():
    assert "image" in {token.type for token in tokens(HOSTILE[7])}
    assert "html_block" in {token.type for token in tokens(EVIL[0])}


def test_cells_of_ordinary_names_are_the_names():
    """Prefect's newer interface shows a backslash as one."""
    assert [cell(name) for name in ORDINARY] == ORDINARY
    assert cell("q <= 0.05") == r"q \<= 0.05"


def test_keys_are_prefects_and_two_audits_have_two():
    names = ["nightly", "Nightly", "nightly run", "nightly-run", "größe", "質", "監査", "a" * 100, "<img>"]
    keys = [key_of(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key) for key in keys)
    assert keys[0] == "nightly"
    assert keys[3] == "nightly-run"


def test_the_verdict_in_words():
    assert headline(run(status="done")) == "done"
    assert headline(run(gate(verdict="passed"), status="done")) == "no gate failed"
    some = [gate(), gate(verdict="warned"), gate(verdict="not judged"), gate(verdict="passed")]
    assert headline(run(*some)) == "1 of 4 gates failed, 1 with a warning, 1 not judged"


def test_what_is_made_of_a_run(tmp_path, monkeypatch):
    """A run without a report, then one whose report has a cover, seen from a web server."""
    files = open_files(str(tmp_path))
    figures = [
        {"stage": "tree", "figure": f"f{n}", "row": "", "value": 1.0, "low": None, "high": None} for n in range(20)
    ]
    made = {one.key: one for one in artifacts_of(Outcome(run(gate(), figures=tuple(figures)), None), files)}
    assert list(made) == ["nightly-verdict", "nightly-gates", "nightly-figures"]
    assert made["nightly-verdict"].data.startswith("# nightly: 1 of 1 gates failed\n")
    assert "8 more figures are in nightly-figures." in made["nightly-verdict"].data
    assert json.loads(made["nightly-gates"].data) == [
        {
            "verdict": "failed",
            "gate": "units.iou",
            "value": "0.5",
            "95 % interval": "0.4 to 0.6",
            "limit": "0.6",
            "note": "",
        }
    ]
    assert len(json.loads(made["nightly-figures"].data)) == 20
    page = tmp_path / "stages/report/x y/index.html"
    assert place_of(page, files) == page.as_uri()
    monkeypatch.setenv(SERVED, "http://reports.example/w/")
    assert place_of(page, files) == "http://reports.example/w/stages/report/x%20y/index.html"


def unit(number: int, masks: str = "") -> views.Unit:
    pictures = [views.Picture(f"{number}.webp", "")] * 2
    scale = views.IouScale(0.0, None, None, None, 0.0)
    return views.Unit(number, "", "wing", "", True, True, "", "", (), scale, pictures, "", 0.0, 0.0, masks)


def report(layers=(), pages=()) -> views.Report:
    return views.Report("t", "n", "d", layers, pages, "")


def test_the_cover_shows_the_first_units_dimmed_where_they_do_not_light():
    masks = np.zeros((2, 10, 10), bool)
    masks[:, :, :5] = True
    grey = webp(np.full((40, 40, 3), 200, np.uint8))
    files = {"1.webp": grey, "2.webp": grey, "m.png": mask_sheet(masks)}
    layers = [views.Layer(name, "", "", (), (), [unit(1, "m.png"), unit(2)], (), (), (10, 10)) for name in ("3", "4")]
    found = cover(report(layers), files.__getitem__)
    assert found.caption == "Units of 4, a row each, from the top: 1 (wing), 2 (wing)."
    picture = np.asarray(Image.open(io.BytesIO(found.picture)))
    assert picture.shape == (2 * 40 + GAP, 80, 3)
    assert abs(int(picture[20, 10, 0]) - 200) < 8  # lit
    assert picture[20, 30, 0] < 110  # not lit
    assert picture[20, 70, 0] < 110  # nor in the second picture
    assert abs(int(picture[70, 30, 0]) - 200) < 8  # a unit without masks
    assert SHEET >= 2


def test_without_a_dissection_the_cover_is_of_the_first_page_with_pictures():
    grey = webp(np.full((30, 60, 3), 200, np.uint8))
    spots = [views.Spot("a.webp", "", (10, 10), (), ())] * views.COVER
    gallery = views.Gallery([views.Card("c", "", "", spots)])
    sections = {"one": (), "two": [views.Section("", [gallery])]}
    pages = [views.Page(name, "", "", views.Figures(()), parts) for name, parts in sections.items()]
    found = cover(report(pages=pages), {"a.webp": grey}.__getitem__)
    assert found.caption == "From the page about two."
    assert Image.open(io.BytesIO(found.picture)).size == (60 * views.COVER, 30)
    assert cover(report(pages=pages[:1]), {}.__getitem__) is None


def test_whatever_fails_while_sending_is_a_warning(monkeypatch, capsys):
    monkeypatch.setattr(posting, "get_client", lambda sync_client: nullcontext(SimpleNamespace()))
    monkeypatch.setattr(posting, "PATIENCE", 0.3)
    sent, held = [], threading.Event()
    post = Posting()
    post.put(lambda client: client.nonsense)
    post.put(lambda client: sent.append(client))
    post.finish()
    assert len(sent) == 1
    assert "warning: not everything is shown in Prefect: AttributeError" in capsys.readouterr().err
    post.put(lambda _: held.wait(20))
    began = time.monotonic()
    post.finish()
    held.set()
    assert time.monotonic() - began < 5
    assert "the server takes more than 0.3 s" in capsys.readouterr().err


class Client:
    """Keeps what it is asked to show."""

    def __init__(self):
        self.shown = []

    def create_artifact(self, artifact):
        self.shown.append((artifact.data, artifact.description))
        return SimpleNamespace(id="01a2290d-3a84-706a-8b2a-2be83bb849e8")

    def update_artifact(self, _, artifact):
        self.shown.append((artifact.data, artifact.description))


class Quiet:
    """Progress that goes nowhere."""

    def __getattr__(self, _):
        return lambda *_: None


def test_progress_is_shown_of_long_stages_only(monkeypatch):
    client = Client()
    monkeypatch.setattr(posting, "get_client", lambda sync_client: nullcontext(client))
    post = Posting()
    told = Reported(Quiet(), post)
    for long, every in ((100.0, 0.0), (0.0, 0.0), (0.0, 100.0)):
        monkeypatch.setattr(posting, "LONG", long)
        monkeypatch.setattr(posting, "EVERY", every)
        told.begin("tally", 4, "images")
        for _ in range(4):
            told.advance("tally", 1)
            post.finish()
        told.end("tally", "done in 9.0 s")
        post.finish()
    steps = [(25.0 * n, f"tally: {n} of 4 images") for n in (1, 2, 3, 4)]
    end = (100.0, r"tally: done in 9\.0 s")
    assert client.shown == [*steps, end, steps[0], end]


def job(tag: str = "cpu", *, computes: bool = True):
    stage = SimpleNamespace(determined_by=frozenset({"device"} if computes else ()))
    return SimpleNamespace(stage=stage, settings=SimpleNamespace(device={"gpu": "cuda"}.get(tag, tag)), name="tally")


def session():
    return SimpleNamespace(stop=threading.Event(), progress=Quiet())


def test_only_what_computes_on_the_device_asks_for_a_turn(monkeypatch):
    asked = []
    monkeypatch.setattr(turns, "_Slot", lambda tag: asked.append(tag) or SimpleNamespace(wait=print, give_back=print))
    for one in (job(), job("gpu"), job(computes=False)):
        with turns.turn(one, session()):
            pass
    assert asked == ["cpu", "gpu"]


def test_a_server_that_is_away_gives_a_turn_at_once(monkeypatch):
    def away(sync_client):
        raise ConnectionError

    monkeypatch.setattr(turns, "get_client", away)
    with turns.turn(job(), session()):
        pass


def test_waiting_for_a_turn_ends_when_the_user_stops_or_the_server_is_gone(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(turns._Slot, "_granted", lambda *_: over.wait(20) and None)
    monkeypatch.setattr(turns, "SILENT", 0.0)
    monkeypatch.setattr(turns, "server_place", lambda: "")
    monkeypatch.setattr(turns, "unanswered", lambda _: "")
    monkeypatch.setattr(turns, "get_client", lambda sync_client: nullcontext())
    stopped = session()
    stopped.stop.set()
    with pytest.raises(Interrupted), turns.turn(job(), stopped):
        pytest.fail("it went on without a turn")
    monkeypatch.setattr(turns, "unanswered", lambda _: "gone")
    with turns.turn(job(), session()):
        pass
    over.set()
