"""A new stage is its own folder and one line of the registry: nothing else of the project knows of it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NETWORK, clean_environment, write_audit

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """A copy of the project with one more stage."""
    root = tmp_path_factory.mktemp("grown")
    for room in ("flows", "tasks", "storage", "microtome"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests/toy", root / "tasks/brightness", ignore=shutil.ignore_patterns("__pycache__"))
    registry = root / "tasks/registry.py"
    text = registry.read_text().replace("    gates.STAGE,\n", "    brightness.STAGE,\n    gates.STAGE,\n")
    registry.write_text(text.replace("from tasks import (", "from tasks import (\n    brightness,", 1)
                        if "from tasks import (" in text
                        else text.replace("from tasks import ", "from tasks import brightness, ", 1))  # fmt: skip
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def microtome(grown, folder, broden, server):
    """Runs a command of the copy on an audit that asks for the new stage; where it is said so, with a server."""
    (folder / "nets.py").write_text(NETWORK)
    content = {
        "name": "tiny",
        "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"brightness": {"gamma": 2.0}},
        "gates": [{"metric": "brightness.brightness", "where": {"image": 0}, "min": 0.05}],
    }
    write_audit(folder / "audit.yaml", content)

    def run(*arguments: str, served: bool = False) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "flows.cli", *arguments]
        environment = (server if served else clean_environment(folder)) | {"PYTHONPATH": str(grown)}
        return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_a_new_stage_is_everywhere(microtome):
    """Planned, run, cached, judged, queried, shown and rerun."""
    assert re.search(r"brightness +would run +small +\d+ \(by a probe\)", microtome("plan", "audit.yaml").stdout)
    first = microtome("audit", "audit.yaml", served=True)
    assert first.returncode == 0, first.stderr
    assert "passed  brightness.brightness of image 0: min 0.05" in first.stdout
    second = microtome("audit", "audit.yaml")
    assert second.stderr.count("cached") == 5
    rows = json.loads(microtome("sql", "select avg(brightness) mean from brightness", "--format", "json").stdout)
    report = Path(re.search(r"report +(.*)", second.stdout)[1]).with_name("brightness.html")
    assert f"Mean brightness {rows[0]['mean']:.3f}." in report.read_text()
    gate = "{metric: brightness.brightness, where: {image: 0}, min: 0.99}"
    failed = microtome("audit", "audit.yaml", "--set", f"gates=[{gate}]", served=True)
    assert failed.returncode == 1
    again = microtome("rerun", "brightness", "audit.yaml", served=True)
    assert again.returncode == 0, again.stderr
    assert "brightness   done in" in again.stderr
    assert "index        cached" in again.stderr


def test_its_options_are_checked_and_offered(microtome, folder):
    wrong = microtome("plan", "audit.yaml", "--set", "stages.brightness.gama=1")
    assert wrong.returncode == 2
    assert "did you mean 'gamma'" in wrong.stderr
    assert microtome("init", "new.yaml").returncode == 0
    assert "# brightness: {gamma: 2.2}" in (folder / "new.yaml").read_text()
