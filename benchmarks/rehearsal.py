"""Broden's size, rehearsed: is an audit of it foreseen, and does its memory stay? One JSON line per number of pictures.

    python benchmarks/rehearsal.py [--pictures 2000 63305] [--side 112] [--data FOLDER]

Pictures are generated in Broden's layout with as many concepts as Broden has, 1,197 (468 scenes, 405 objects, 234
parts, 32 materials, 47 textures, 11 colours): masks of objects, parts, materials and colours, labels of scenes and
textures. They are dissected by squeezenet1_0's features.12 with the defaults of an audit file: index to report, 1,000
resamples and 200 permutations.

Seconds are of the processor (one thread): `foreseen` before the first stage, as `microtome plan` says, and `taken`.
`peaks_mib` is each stage's peak of memory that is the process's own, looked at twenty times a second; `tails_mib` what
the exact tails take (units x kept values x 4 bytes), which `thresholds` holds; `beyond_mib` the highest peak without
them. Pages of scratch files, which the system takes back when it needs them, are in `with_files_mib` alone. Each line
comes from a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

NETWORK, LAYER = "squeezenet1_0", "features.12"
CONCEPTS = {"scene": 468, "object": 405, "part": 234, "material": 32, "texture": 47, "color": 11}  # 1,197 in all
SHOWN = {"object": 6, "part": 3, "material": 3, "color": 4}  # regions of a picture's masks


class BrodenSized:
    """Pictures of coloured blocks, their masks drawn at random: how many there are matters here, not what they show.

    Args:
        count: of pictures.
        side: height and width, in pixels.
    """

    def __init__(self, count: int, side: int) -> None:
        from microtome.datasets import Concept, Record

        self._side = side
        self.records = [Record(f"{number}.jpg", "train", side, side) for number in range(count)]
        names = [(f"{category} {place}", category) for category, many in CONCEPTS.items() for place in range(many)]
        self.concepts = [Concept(number, *about) for number, about in enumerate(names, start=1)]
        starts = np.cumsum([1, *CONCEPTS.values()])
        self._first = dict(zip(CONCEPTS, starts.tolist(), strict=False))

    def picture(self, index: int) -> Image.Image:
        rng = np.random.default_rng([index, 1])
        coarse = rng.integers(0, 256, (14, 14, 3), np.uint8)
        return Image.fromarray(coarse).resize((self._side, self._side), Image.Resampling.BICUBIC)

    def annotation(self, index: int):
        from microtome.datasets import Annotation

        rng = np.random.default_rng([index, 2])
        planes = {category: self._plane(category, regions, rng) for category, regions in SHOWN.items()}
        labels = {category: (self._number(category, rng),) for category in ("scene", "texture")}
        return Annotation(planes, labels)

    def _plane(self, category: str, regions: int, rng: np.random.Generator) -> np.ndarray:
        plane = np.zeros((1, self._side, self._side), np.int32)
        for _ in range(regions):
            top, left = rng.integers(0, self._side * 3 // 4, 2)
            high, wide = rng.integers(self._side // 8, self._side // 2, 2)
            plane[0, top : top + high, left : left + wide] = self._number(category, rng)
        return plane

    def _number(self, category: str, rng: np.random.Generator) -> int:
        """Frequent and rare concepts, as in Broden: the share of the n-th falls as 1 / n."""
        many = CONCEPTS[category]
        return self._first[category] + int(many ** rng.random()) - 1


def audit_file(folder: Path, data: Path, side: int) -> Path:
    file = folder / "audit.yaml"
    content = {
        "name": "rehearsal",
        "network": {"load": f"torchvision.models:{NETWORK}", "layers": [LAYER], "input": {"size": [side, side]}},
        "dataset": {"format": "broden", "root": str(data)},
        "execution": {"threads": 1},
        "stages": {"dissection": {}},
    }
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


class Peaks:
    """The largest memory of this process's own in each stage, without pages of files, in MiB."""

    def __init__(self) -> None:
        self.by_stage: dict[str, float] = {}
        self._highest, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def ended(self, stage: str) -> None:
        """What was seen since the last stage ended is this one's."""
        self.by_stage[stage], self._highest = max(self.by_stage.get(stage, 0.0), self._highest), 0.0

    def _look(self) -> None:
        while not self._over.wait(0.05):
            status = Path("/proc/self/status").read_text()
            self._highest = max(self._highest, int(status.partition("RssAnon:")[2].split()[0]) / 1024)


def one(data: Path, pictures: int, side: int) -> dict[str, object]:
    """One line."""
    import torch

    from benchmarks.dissection import device_name
    from benchmarks.foreseen import by_stage_foreseen, by_stage_taken
    from flows.plan import Plan, Request
    from storage import StageStore

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        plan = Plan(Request(audit_file(Path(folder), data, side)))
        plan.preflight()
        foreseen = by_stage_foreseen(plan)
        began = time.perf_counter()
        with Peaks() as peaks:
            taken = by_stage_taken(plan, ended=peaks.ended)
        clock = time.perf_counter() - began
        activations = StageStore(plan.files).find(plan.job("activations").key)
        layer = activations.json("layers.json")["layers"][0]
    values = pictures * layer["grid"][0] * layer["grid"][1]
    tails = layer["units"] * 0.01 * values * 4 / 2**20  # as many as `keep` of the stage has by default
    held = {name: mib - (tails if name == "thresholds" else 0) for name, mib in peaks.by_stage.items()}
    return {
        "pictures": pictures,
        "concepts": sum(CONCEPTS.values()),
        "side": side,
        "foreseen_s": round(sum(foreseen.values())),
        "taken_s": round(sum(taken.values())),
        "clock_s": round(clock),
        "stages_s": {name: [round(foreseen.get(name, 0.0)), round(taken[name], 1)] for name in taken},
        "peaks_mib": {name: round(mib) for name, mib in peaks.by_stage.items()},
        "tails_mib": round(tails),
        "beyond_mib": round(max(held.values())),
        "with_files_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "device": device_name("cpu"),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[2000, 63305])
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--data", type=Path, help="folder of pictures that were made already, or are to be kept")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inner:
        print(json.dumps(one(options.data, options.pictures[0], options.side)), flush=True)
        return
    from microtome.datasets.broden import write_broden

    with tempfile.TemporaryDirectory() as folder:
        for pictures in options.pictures:
            data = (options.data or Path(folder)) / f"{pictures}-{options.side}"
            if not data.exists():
                write_broden(BrodenSized(pictures, options.side), data)
            call = [sys.executable, __file__, "--inner", "--pictures", str(pictures), "--side", str(options.side)]
            subprocess.run([*call, "--data", str(data)], check=True)


if __name__ == "__main__":
    main()
