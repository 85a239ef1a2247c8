"""Fixtures: small data sets that the tests make themselves, an audit file, and the real data where it is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import yaml

from flows.migrated import migrated
from microtome.datasets.broden import write_broden
from microtome.datasets.creatures import Creatures
from storage import Artifact

NETWORK = """
import torch
from torch import nn

def tiny(seed=0, inplace=True):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.ReLU(inplace=inplace), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(inplace=inplace),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    )
"""

Number = TypeVar("Number", int, float)
_COUNTED: Counter[str] = Counter()


def soak(short: Number, long: Number) -> Number:
    """How much a test does: `short` in `make test`, `long` in `make soak`. Mark such a test `@pytest.mark.soak`."""
    return long if os.environ.get("MICROTOME_SOAK") == "1" else short


long_form = pytest.mark.skipif(soak(short=1, long=0) == 1, reason="make soak runs it")
"""Beside `@pytest.mark.soak`: for a test that has no short form."""

LONG = (
    "deaths", "prefect", "cli", "finetuning", "server_gone", "signals", "workers", "direct", "new_stage", "full_disk",
    "small", "scores", "real_weights", "known_answers", "claims", "objects", "dictionary", "drift", "object_workers",
    "readonly", "probe", "visualize", "units",
)  # fmt: skip


def pytest_xdist_auto_num_workers() -> int:
    """Half as many processes again as cores, since many tests wait for servers and processes; as memory permits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores + (cores + 1) // 2, psutil.virtual_memory().available >> 31))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no core waits at the end for one that was begun last."""
    names = [f"test_{name}.py" for name in LONG]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else len(names))


def count(what: str, number: int = 1) -> None:
    """Add to what is printed when all tests have ended: `count("kills")`, `count("mutated weights files", 413)`."""
    _COUNTED[what] += number


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _COUNTED:
        form = "long form" if soak(0, 1) else "short form"
        terminalreporter.section(f"what was done ({form})")
        for what, number in sorted(_COUNTED.items()):
            terminalreporter.write_line(f"{number:>9,}  {what}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs and weights; skips where MICROTOME_REAL_DATA does not name it."""
    place = os.environ.get("MICROTOME_REAL_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("MICROTOME_REAL_DATA does not name a folder: the real photographs and weights are not here")
    return Path(place)


@pytest.fixture(scope="session")
def broden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 creatures of 64 x 64 pixels in Broden's layout; read only."""
    root = tmp_path_factory.mktemp("data") / "broden"
    write_broden(Creatures(count=70, size=64, seed=5), root)
    return root


@pytest.fixture
def audit_file(tmp_path: Path, broden: Path) -> Path:
    """An audit of a tiny network on the Broden creatures."""
    (tmp_path / "nets.py").write_text(NETWORK)
    content = {
        "name": "tiny",
        "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": str(broden)},
        "stages": {"dissection": {"bootstrap": 50, "permutations": 20}, "report": {"top_images": 3}},
    }
    return write_audit(tmp_path / "audit.yaml", content)


WEIGHTS = Path(__file__).parent.parent / "microtome/networks/weights/creature_net.safetensors"
CREATURE_NET = {
    "load": "microtome.networks.small:creature_net",
    "weights": str(WEIGHTS),
    "layers": ["features.12"],
    "input": {"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3},
}
"""The shipped network, as an audit file has it."""


def every_stage(folder: Path) -> Path:
    """An audit with every stage there is, as small as each can be: some ten seconds of work on one core."""
    content = {
        "name": "everything",
        "network": dict(CREATURE_NET),
        "datasets": {
            "birds": {"format": "creatures", "count": 400, "seed": 3, "categories": ["bird"]},
            "others": {"format": "creatures", "count": 40, "seed": 6, "categories": ["cat", "deer"]},
        },
        "stages": {
            "dissection": {"dataset": "birds", "bootstrap": 20, "permutations": 20, "redrawn": 4},
            "formulas": {"length": 2},
            "dictionary": {"directions": 4, "rotations": 1, "cells": 200, "steps": 4},
            "ablation": {"dataset": "birds", "images": 20},
            "scores": {"draws": 2},
            "stability": {"dataset": "birds", "top_images": 10, "bootstrap": 20, "permutations": 20},
            "finetuning": {"dataset": "birds", "negatives": "others", "epochs": 2},
            "tree": {"dataset": "birds", "negatives": "others", "images": 20},
            "graph": {"dataset": "birds", "filters": 4, "rounds": 2, "permutations": 10},
            "parts": {"dataset": "birds", "filters": 4, "boxes": [3], "draws": 1},
            "saliency": {"dataset": "birds", "images": 2},
            "features": {"dataset": "birds", "units": 2, "steps": 4},
            "occlusion": {"dataset": "birds", "units": 1, "top_images": 1, "stride": 24, "minimal_images": 1},
            "reliability": {"dataset": "birds", "images": 2, "randomised": 2, "methods": ["gradient", "guided"]},
            "adversarial": {"dataset": "birds", "images": 4, "eps": [4], "steps": 2},
            "report": {"top_images": 3},
        },
        "gates": [{"metric": "layers.detectors", "min": 0}],
        "execution": {"shard_images": 48, "threads": 1},
    }
    return write_audit(folder / "audit.yaml", content)


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """What each job of `every_stage` leaves where nothing happens to it; made once, by all processes of a test run."""
    from flows.plan import Plan, Request
    from tasks.execution import execute
    from tasks.session import Session
    from tests.test_pipeline import Silent

    file = every_stage(tmp_path_factory.mktemp("everything"))
    plan = Plan(Request(file, workspace=str(shared(tmp_path_factory) / "everything")))
    session = Session(plan.files, plan.settings, Silent())
    return {job.name: execute(job, session)[0] for job in plan.jobs}


@pytest.fixture(scope="session")
def finished_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, an audit file, and, as `whole`, the workspace in which it ran twice: copy it."""
    from flows.plan import Plan, Request
    from flows.run import from_cache
    from tests.test_pipeline import run

    folder = tmp_path_factory.mktemp("finished")
    write_broden(Creatures(count=12, size=64, seed=5), folder / "data")
    (folder / "nets.py").write_text(NETWORK)
    content = {
        "name": "tiny",
        "network": {"load": "nets:tiny", "layers": ["4"], "input": {"size": [64, 64]}},
        "dataset": {"format": "broden", "root": "data"},
        "stages": {"dissection": {"bootstrap": 10, "permutations": 5}, "report": {"top_images": 1}},
        "gates": [{"metric": "layers.detectors", "min": 0}],
    }
    file = write_audit(folder / "audit.yaml", content)
    run(file)
    for _ in range(2):
        from_cache(Plan(Request(file)))
    (folder / ".microtome").rename(folder / "whole")
    return folder


def contents(artifact: Artifact) -> dict[str, str]:
    """Checksums of a stage's files; without the report's pages, which tell when the audit was, and how long it took."""
    entries = artifact.manifest["files"]
    return {name: entry["sha256"] for name, entry in entries.items() if not name.endswith(".html")}


def write_audit(file: Path, content: dict) -> Path:
    """Write an audit file."""
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def change_audit(file: Path, **changes: object) -> None:
    """Replace top-level keys of an audit file."""
    write_audit(file, {**yaml.safe_load(file.read_text()), **changes})


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder of this test run's own for what microtome keeps between workspaces."""
    os.environ["XDG_CACHE_HOME"] = str(shared(tmp_path_factory) / "cache")


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this test run, of all processes that run tests beside each other."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if own.name.startswith("popen-") else own


@pytest.fixture(scope="session")
def real_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For audits of the real data, whichever process runs them: what two of them have in common is made once."""
    return shared(tmp_path_factory) / "real"


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory):
    """Runs `microtome ...` in a process and an empty home of its own; gives the finished process."""
    home = tmp_path_factory.mktemp("home")

    def run(*arguments: object, cwd: Path | None = None, env: dict | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *map(str, arguments)],
            cwd=cwd,
            env=clean_environment(home) | (env or {}),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def clean_environment(home: Path) -> dict[str, str]:
    """The environment without settings of Prefect's, with another home and this project importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"HOME": str(home), "PYTHONPATH": str(Path(__file__).parent.parent)}


def server_environment(home: Path) -> dict[str, str]:
    """The environment of a Prefect server with a home and a port of its own, and of whoever asks it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return clean_environment(home) | {
        "PREFECT_HOME": str(home / "prefect"),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }


def begin_server(environment: dict[str, str]) -> subprocess.Popen:
    """A Prefect server, as soon as it answers."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    home = Path(environment["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    with migrated(home):  # only the first server of all tests makes its database
        process = subprocess.Popen([Path(sys.executable).with_name("prefect"), "server", "start"], env=own, **quiet)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
    return process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server, for one file, since it works even if nobody asks: the environment that points at it."""
    environment = server_environment(tmp_path_factory.mktemp("server"))
    process = begin_server(environment)
    yield environment
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium of this machine."""
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if place is None:
        pytest.skip("no Chromium on this machine: the report is not looked at in a browser")
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    switches += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=place, args=switches)
        yield started
        started.close()


def opened(browser, page: Path, width: int = 1280):
    """The page, and what it said and asked for."""
    tab = browser.new_page(viewport={"width": width, "height": 844})
    heard: list[str] = []
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.on("request", lambda request: heard.append(request.url) if not request.url.startswith("file:") else None)
    tab.goto(page.as_uri())
    return tab, heard


def asked(environment: dict[str, str], path: str, body: dict[str, object]) -> list:
    """What a Prefect server answers to a filter."""
    place = f"{environment['PREFECT_API_URL']}/{path}"
    request = urllib.request.Request(place, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=20))
