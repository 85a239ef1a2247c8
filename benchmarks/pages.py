"""How long the report takes, how large its pages are, and how soon a browser has them ready.

    python benchmarks/pages.py [--units N] [--images N] [--threads T]

Audits generated creatures with a layer of so many random units, whole, in a workspace of its own; then writes the pages
of the units alone again, and opens pages in headless Chromium, where there is one. One line: seconds of the stage, on
the clock and of the processor, beside those of the forward pass over the same pictures, and of what a changed gate
makes again, pages of units per second, sizes in bytes, and milliseconds to DOMContentLoaded, after which every control
works, beside those of an empty page in the same browser.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import yaml
from torch import nn

from benchmarks.dissection import device_name
from flows.plan import Plan, Request
from microtome.report.render import render_units
from storage import Artifact
from tasks.execution import execute
from tasks.pages import work
from tasks.session import Session

OPENINGS = 5


class Quiet:
    """Says nothing of progress, and never stops."""

    stop = threading.Event()

    def __getattr__(self, name: str) -> object:
        return lambda *args, **more: None


def wide(units: int) -> nn.Module:
    """One convolution of so many units that looks at 96 x 96 pictures in 12 x 12 cells."""
    torch.manual_seed(0)
    body = [
        nn.Conv2d(3, 32, 5, stride=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(32, units, 3, stride=2, padding=1),
        nn.ReLU(),
    ]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(units, 6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        line = _measured(Path(name), options.units, options.images)
    print(json.dumps({"units": options.units, "images": options.images, **line, "device": device_name("cpu")}))


def _measured(folder: Path, units: int, images: int) -> dict[str, object]:
    reports = []
    made, work.overview = work.overview, lambda *parts: reports.append(made(*parts)) or reports[-1]
    done, cpu = {}, {}
    began = time.process_time()
    for name, artifact in _audited(folder, units, images):
        done[name], cpu[name] = artifact, time.process_time() - began
        began = time.process_time()
    report, pages = done["report"], done["pages"]
    began = time.process_time()
    written = sum(len(content) for _, content in render_units(reports[0]))
    took = time.process_time() - began
    seconds, forward = pages.manifest["seconds"], done["activations"].manifest["seconds"]
    sizes = {name: entry["bytes"] for name, entry in report.manifest["files"].items()}
    own = [size for name, size in sizes.items() if name.startswith("unit/")]
    return {
        "pages_s": round(seconds, 2),
        "changed_gate_s": round(report.manifest["seconds"], 2),
        "forward_s": round(forward, 2),
        "pages_over_forward": round(seconds / forward, 2),
        "pages_cpu_s": round(cpu["pages"], 2),
        "pages_cpu_over_forward_cpu": round(cpu["pages"] / cpu["activations"], 2),
        "unit_pages_per_cpu_s": round(len(own) / took),
        "unit_page_over_forward_of_a_picture": round(took / len(own) / (cpu["activations"] / images), 2),
        "layer_page_bytes": sizes["layer-000.html"],
        "largest_unit_page_bytes": max(own),
        "unit_pages_bytes": written,
        "whole_bytes": report.size,
        "files": len(sizes),
        **_opened(Path(report.files.location(report.folder))),
    }


def _audited(folder: Path, units: int, images: int) -> Iterator[tuple[str, Artifact]]:
    content = {
        "name": "pages",
        "network": {
            "load": "benchmarks.pages:wide",
            "arguments": {"units": units},
            "layers": ["3"],
            "input": {"size": [96, 96]},
        },
        "dataset": {"format": "creatures", "count": images, "seed": 3},
        "workspace": str(folder / "workspace"),
        "stages": {"dissection": {"bootstrap": 20, "permutations": 0}, "report": {"top_images": 5}},
    }
    (folder / "audit.yaml").write_text(yaml.safe_dump(content))
    plan = Plan(Request(folder / "audit.yaml"))
    session = Session(plan.files, plan.settings, Quiet())
    for job in plan.jobs:
        yield job.name, execute(job, session)[0]


def _opened(folder: Path) -> dict[str, object]:
    """Milliseconds to DOMContentLoaded, medians of several openings, and to a sorted layer."""
    place = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if place is None:
        return {"browser": None}
    from playwright.sync_api import sync_playwright

    (folder / "empty.html").write_text("<!doctype html><title>empty</title>")
    pages = {"empty": "empty.html", "layer": "layer-000.html", "unit": "unit/3/0.html", "search": "units.html"}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=place, args=["--no-sandbox", "--disable-gpu"])
        took = {name: _ready(browser, folder / page) for name, page in pages.items()}
        tab = browser.new_page()
        tab.goto((folder / "layer-000.html").as_uri())
        began = time.perf_counter()
        tab.select_option("[data-state=sort]", "label")
        took["sorting"] = (time.perf_counter() - began) * 1000
        browser.close()
    ratio = round(took["layer"] / took["empty"], 1)
    return {**{f"{name}_ms": round(value) for name, value in took.items()}, "layer_over_empty": ratio}


def _ready(browser: object, page: Path) -> float:
    asked = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    found = []
    for _ in range(OPENINGS):
        tab = browser.new_page()  # type: ignore[attr-defined]
        tab.goto(page.as_uri())
        found.append(tab.evaluate(asked))
        tab.close()
    return statistics.median(found)


if __name__ == "__main__":
    main()
