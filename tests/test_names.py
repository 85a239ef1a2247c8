"""Names from data stay text wherever they go (docs/security.md; also test_report, _storage, _sql, _artifacts)."""

import io
import json
from dataclasses import replace
from pathlib import Path

import networkx
import pytest

from flows.query import answer
from microtome.report.single import inline
from storage import RunRecord, open_files
from storage.runs import StageRun
from tests.conftest import opened, write_audit
from tests.test_pipeline import run

ROOT = Path(__file__).parent.parent
EVIL = ["<img src=x onerror=alert(1)>", "'; drop table units;--", "]]>", "a\nb", "\u202eabc", '"&<']


def test_graphml_holds_any_layer_name():
    graph = networkx.DiGraph()
    for number, name in enumerate(EVIL):
        graph.add_node(number, layer=name)
    back = networkx.parse_graphml("\n".join(networkx.generate_graphml(graph)), node_type=int)
    assert [back.nodes[number]["layer"] for number in range(len(EVIL))] == EVIL


EVIL_AUDIT = """
from dataclasses import replace
import torch
from torch import nn
from microtome.datasets.creatures import Creatures

EVIL = {evil!r}


def named(name):
    return f"{{EVIL[hash_of(name) % len(EVIL)]}} {{name}}"


def hash_of(name):
    return sum(map(ord, name))


class Evil(Creatures):
    def __init__(self, root=None):
        super().__init__(count=60, size=64, seed=3)
        self.records = [
            replace(record, file=f"{{EVIL[number % len(EVIL)]}}/{{number}}.png", label=named(record.label))
            for number, record in enumerate(self.records)
        ]
        self.concepts = [replace(c, name=named(c.name)) for c in self.concepts]

    def landmarks(self, index):
        return tuple(replace(mark, name=named(mark.name)) for mark in super().landmarks(index))


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.ReLU())
    net.add_module("<img src=x onerror=alert(1)>'; drop table units;--", nn.Conv2d(8, 12, 3, stride=2, padding=1))
    net.add_module("relu", nn.ReLU())
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", nn.Flatten())
    net.add_module("head", nn.Linear(12, 4))
    return net
"""
LAYER = "<img src=x onerror=alert(1)>'; drop table units;--"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory):
    """An audit whose every name wants to be something else; its workspace, and stage -> artifact."""
    folder = tmp_path_factory.mktemp("evil")
    (folder / "evil_names.py").write_text(EVIL_AUDIT.format(evil=EVIL))
    content = {
        "name": f"{EVIL[0]} {EVIL[1]}",
        "network": {"load": "evil_names:network", "layers": [LAYER], "input": {"size": [64, 64]}},
        "dataset": {"format": "evil_names:Evil"},
        "stages": {
            "dissection": {"bootstrap": 20, "permutations": 10},
            "stability": {"top_images": 10, "bootstrap": 20, "permutations": 20},
            "graph": {"images": 60, "filters": 6, "rounds": 3, "permutations": 10},
            "saliency": {"images": 2, "methods": ["gradient"]},
            "report": {"top_images": 3},
        },
    }
    done = run(write_audit(folder / "audit.yaml", content))
    return folder / ".microtome", {name: artifact for name, (artifact, _) in done.items()}


def test_tables_and_sql_keep_evil_names_as_they_are(evil):
    workspace, done = evil
    names = set(done["index"].table("concepts").column("concept").to_pylist())
    assert all(any(name.startswith(bad) for name in names) for bad in EVIL)
    stages = {name: StageRun(folder=artifact.folder) for name, artifact in done.items()}
    record = replace(RunRecord.start("evil", LAYER, {}), status="done", stages=stages)
    said = io.StringIO()
    query = "select distinct concept, layer from iou order by concept"
    answer(open_files(str(workspace)), [record], query, "json", out=said)
    rows = json.loads(said.getvalue())
    assert {row["concept"] for row in rows} <= names
    assert {row["layer"] for row in rows} == {LAYER}
    shown = io.StringIO()
    answer(open_files(str(workspace)), [record], query, "table", out=shown)
    assert "\u202e" not in shown.getvalue()  # a terminal would turn the line around


def test_graphml_of_an_evil_audit_is_read_back(evil):
    _, done = evil
    graph = networkx.parse_graphml(done["graph"].read("graph.graphml").decode(), node_type=int)
    assert {about["layer"] for _, about in graph.nodes(data=True)} == {LAYER}


@pytest.mark.browser
def test_pages_of_an_evil_audit_show_names_and_do_nothing_else(evil, browser, tmp_path):
    workspace, done = evil
    folder = Path(open_files(str(workspace)).location(done["report"].folder))
    single = tmp_path / "single.html"
    single.write_text(inline(folder), encoding="utf-8")
    own = sorted(folder.glob("unit/*/*.html"))
    assert len(own) == 12
    pages = [*sorted(folder.glob("*.html")), single, *own[:4]]
    assert len(pages) >= 10
    seen = ""
    for page in pages:
        tab, heard = opened(browser, page)
        dialogs: list[str] = []
        tab.on("dialog", lambda dialog: dialogs.append(dialog.message))  # noqa: B023
        tab.reload()
        tab.wait_for_timeout(200)
        assert (page.name, heard, dialogs) == (page.name, [], [])
        assert tab.locator("img[src=x]").count() == 0
        seen += tab.locator("body").inner_text()
        tab.close()
    for bad in ("<img src=x onerror=alert(1)>", "'; drop table units;--", "]]>", '"&<'):
        assert bad in seen, bad
    assert LAYER in seen
