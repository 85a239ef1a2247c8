"""A new data set format, attribution method and page take what docs/architecture.md says, and nothing else."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from microtome.datasets.creatures import Creatures
from microtome.visualize.methods import methods
from microtome.visualize.names import METHODS
from tests.conftest import NETWORK, clean_environment, write_audit

ROOT = Path(__file__).parent.parent

FORMAT = '''
"""Pictures whose left half is labelled."""

import numpy as np

from microtome.datasets.base import Annotation, Concept, Dataset, Record, find_pictures, open_picture, sized


class Halves(Dataset):
    def __init__(self, root):
        self._pictures = find_pictures(root)
        self.records = [Record(p.name, "all", *size) for p, size in zip(self._pictures, sized(self._pictures))]
        self.concepts = [Concept(1, "left", "side")]

    def picture(self, index):
        return open_picture(self._pictures[index])

    def annotation(self, index):
        record = self.records[index]
        plane = np.zeros((1, record.height, record.width), np.int32)
        plane[:, :, : record.width // 2] = 1
        return Annotation({"side": plane})

    def files(self):
        return self._pictures
'''
PAGE = '''
"""Page of thresholds."""

from dataclasses import dataclass

from microtome.report import views


@dataclass(frozen=True)
class ThresholdFindings:
    highest: float


def page(found: ThresholdFindings) -> views.Page:
    return views.Page("thresholds", "thresholds.html", f"Highest {found.highest:.4f}.", views.Figures([]), [])
'''
FINDINGS = '''
"""What the report shows of thresholds."""

from microtome.report.thresholds import ThresholdFindings
from tasks.pages.shown import Shown
from tasks.thresholds.result import Thresholds


def findings(shown: Shown) -> ThresholdFindings:
    return ThresholdFindings(max(shown.result("thresholds", Thresholds).table("top_images").column("peak").to_pylist()))
'''
METHOD = '        "black": lambda network, x, c, of=None: 0 * x,'
SHOWN = '    page=PageOf("tasks.thresholds.findings:findings", "microtome.report.thresholds:page"),'
ADDED = (  # file, line, and the lines before it that the page asks for
    ("microtome/datasets/formats.py", '    "coco":', '    "halves": "microtome.datasets.halves:Halves",'),
    ("microtome/visualize/methods.py", '        "grad-cam":', METHOD),
    ("microtome/visualize/methods.py", '    "rise": f', '    "black": "",'),
    ("microtome/report/saliency.py", '    "grad-cam":', '    "black": "Shows nothing at all.",'),
    ("tasks/thresholds/__init__.py", "    cost=", SHOWN),
    ("tasks/thresholds/__init__.py", "from tasks.stage import Job, Stage", "from tasks.stage import PageOf"),
    ("microtome/visualize/names.py", '    "gradient"', '    "black",'),
)
AUDIT = {
    "name": "tiny",
    "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
    "dataset": {"format": "halves", "root": "pictures"},
    "stages": {
        "dissection": {"bootstrap": 0, "permutations": 0},
        "saliency": {"images": 1, "methods": ["gradient", "black"]},
        "reliability": {"images": 2, "randomised": 2, "methods": ["gradient", "black"]},
        "report": {"top_images": 1},
    },
}
RUN = """
import json, sys
from pathlib import Path
from flows.plan import Plan, Request
from tasks.execution import execute
from tests.test_pipeline import Silent
from tasks.session import Session

plan = Plan(Request(Path("audit.yaml")))
session = Session(plan.files, plan.settings, Silent())
done = {job.name: execute(job, session)[0] for job in plan.jobs}
report = done["report"]
print(json.dumps({
    "pages": {name: report.read(name).decode() for name in report.names() if name.endswith(".html")},
    "concepts": done["index"].table("concepts").to_pylist(),
    "units": done["dissection"].table("units").to_pylist(),
    "saliency": done["saliency"].table("saliency").to_pylist(),
    "reliability": done["reliability"].table("reliability").to_pylist(),
    "peaks": done["thresholds"].table("top_images").column("peak").to_pylist(),
}))
"""


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """A copy of the project with a format, a method and a page more."""
    root = tmp_path_factory.mktemp("grown")
    for room in ("flows", "tasks", "storage", "microtome", "tests", "docs"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "microtome/datasets/halves.py").write_text(FORMAT)
    (root / "microtome/report/thresholds.py").write_text(PAGE)
    (root / "tasks/thresholds/findings.py").write_text(FINDINGS)
    for file, line, added in ADDED:
        text = (root / file).read_text()
        assert text.count(f"\n{line}") == 1, (file, line)
        (root / file).write_text(text.replace(f"\n{line}", f"\n{added}\n{line}"))
    return root


@pytest.fixture(scope="module")
def in_copy(grown, tmp_path_factory):
    """Runs Python with the copy's packages, in a folder with an audit file."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "nets.py").write_text(NETWORK)
    (folder / "pictures").mkdir()
    creatures = Creatures(count=6, size=64, seed=5)
    for index in range(6):
        creatures.picture(index).save(folder / f"pictures/{index}.png")
    write_audit(folder / "audit.yaml", AUDIT)
    environment = clean_environment(folder) | {"PYTHONPATH": str(grown)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-P", *arguments]
        return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="module")
def found(in_copy) -> dict:
    done = in_copy("-c", RUN)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_format_is_read_and_scored(found):
    assert [(row["concept"], row["category"], row["images"]) for row in found["concepts"]] == [("left", "side", 6)]
    assert found["concepts"][0]["coverage"] == pytest.approx(3.0)  # six pictures, half of each
    assert {row["concept"] for row in found["units"]} <= {"left", None}


def test_a_new_method_is_drawn_judged_and_explained(found):
    assert [row["method"] for row in found["saliency"]] == ["gradient", "black"]
    assert [row["scale"] == 0 for row in found["saliency"]] == [False, True]
    assert {row["method"] for row in found["reliability"]} == {"gradient", "black"}
    assert "Shows nothing at all." in found["pages"]["saliency.html"]


def test_a_new_page_is_in_the_report(found):
    assert f"Highest {max(found['peaks']):.4f}." in found["pages"]["thresholds.html"]
    assert 'href="thresholds.html"' in found["pages"]["index.html"]


def test_the_new_names_are_offered_and_the_reference_can_be_written_anew(in_copy, grown):
    check = "from microtome.datasets.formats import code_root\ncode_root('halve')"
    assert "did you mean 'halves'" in in_copy("-c", check).stderr
    assert in_copy("-m", "flows.reference").returncode == 0
    stages = (grown / "docs/stages.md").read_text()
    assert stages.count("`black` \\| `gradient`") == 2


def test_every_method_that_has_a_name_has_a_function():
    assert tuple(methods()) == METHODS
