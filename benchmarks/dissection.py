"""What a whole dissection costs beside the forward pass: one JSON line per network and number of threads.

    python benchmarks/dissection.py [--networks alexnet vgg16 resnet50 squeezenet1_0] [--threads 1 2] [--images N]
    python benchmarks/dissection.py --memory            peak memory and time per image at 200 and at 2,000 images

Each line comes from a process of its own; all times are per image, on the clock, and in `processor` of the processor,
which other work on the machine disturbs less. `forward_ms` is the bare forward pass up to the layer, no hook but the
one that ends it, in the same process, engine and threads, before and after the stages, averaged. `stages_ms` is each
stage of the default audit: index (checking, masks), activations (decoding, forward pass, storage), thresholds, tally,
null (200 permutations; its loop is compiled anew, as in any process), dissection (1,000 resamples), report; `scores` is
the dissection without either. `whole` is all of them but `scores`; `cold` is index to tally, and scores; `warm` the
same, the index being there. Ratios are these by the forward pass. `overhead_ms` is what of `cold` was spent outside the
calls of the network, and `slowdown` how much longer these calls took there than the bare pass. Building the network
(its weights are random) is not counted. 48 images go through index to scores first, untimed, as the forward pass has
its first call untimed. Needs no Prefect.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

LAYERS = {"alexnet": "features.11", "vgg16": "features.29", "resnet50": "layer4", "squeezenet1_0": "features.12"}
IMAGES = {"alexnet": 2000, "vgg16": 2000, "resnet50": 2000, "squeezenet1_0": 2000}
SIZE = 224


class Quiet:
    """Progress that nobody sees."""

    def begin(self, *_: object) -> None: ...
    def advance(self, *_: object) -> None: ...
    def end(self, *_: object) -> None: ...
    def say(self, *_: object) -> None: ...


class WithTextureNumbers:
    """Creatures as Broden has them: texture is a label of the whole picture."""

    def __init__(self, count: int) -> None:
        from microtome.datasets.creatures import Creatures

        self._data = Creatures(count=count, size=SIZE)
        self.records, self.concepts = self._data.records, self._data.concepts
        self.picture = self._data.picture

    def annotation(self, index: int):
        from microtome.datasets import Annotation

        notes = self._data.annotation(index)
        planes = {name: plane for name, plane in notes.planes.items() if name != "texture"}
        texture = int(notes.planes["texture"].max())
        return Annotation(planes, {**notes.labels, "texture": (texture,) if texture else ()})


def planned(network: str, workspace: Path, root: Path, threads: int, *, limit: int | None = None) -> dict:
    """The stages of a default audit, and its scores alone, planned from audit files as users write them."""
    from flows.plan import Plan, Request

    file = workspace / "audit.yaml"
    content = {
        "name": "benchmark",
        "network": {
            "load": f"torchvision.models:{network}", "layers": [LAYERS[network]], "input": {"size": [SIZE, SIZE]},
        },
        "dataset": {"format": "broden", "root": str(root), **({"limit": limit} if limit else {})},
        "execution": {"threads": threads},
        "stages": {"dissection": {}},
    }  # fmt: skip
    file.write_text(json.dumps(content))  # JSON is YAML
    bare_file = ("stages.dissection.bootstrap=0", "stages.dissection.permutations=0", "stages.report=false")
    whole, plain = Plan(Request(file)), Plan(Request(file, overrides=bare_file))
    jobs = {job.name: job for job in whole.jobs}
    first = {name: jobs.pop(name) for name in ("index", "activations", "thresholds", "tally")}
    return {"plan": whole, "jobs": {**first, "scores": plain.job("dissection"), **jobs}}


def bare(network: str, layer: str, device: str) -> tuple[float, float]:
    """Milliseconds per image of the bare forward pass up to the layer: on the clock, and of the processor."""
    import torch

    from microtome.networks import Capture, NetworkSpec, load_network, walk

    module = load_network(NetworkSpec(f"torchvision.models:{network}", {}))
    layers = walk(module, (SIZE, SIZE), [layer])
    module.to(device)
    batch = torch.rand(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    rounds = 12 if device == "cpu" else 40
    with Capture(module, layers) as capture:
        capture(batch)
        began = time.perf_counter(), time.process_time()
        for _ in range(rounds):
            capture(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        return tuple(
            (now - then) / (rounds * 16) * 1e3
            for now, then in zip((time.perf_counter(), time.process_time()), began, strict=True)
        )


def one(network: str, images: int, threads: int, device: str, data: Path) -> dict:
    """One line."""
    import torch

    from microtome.memory import keep_freed
    from tasks.execution import execute
    from tasks.session import Session

    keep_freed()  # as the stages do, so that both sides have it
    torch.set_num_threads(threads)
    layer = LAYERS[network]
    before = bare(network, layer, device)
    clock: dict[str, float] = {}
    processor: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        first, whole_set = (planned(network, place, data, threads, limit=limit) for limit in (48, None))
        session = Session(first["plan"].files, replace(first["plan"].settings, device=device), Quiet())
        for job in planned_but_null(first["jobs"]).values():
            execute(job, session)
        inside = timed_calls()
        for name, job in whole_set["jobs"].items():
            began = time.perf_counter(), time.process_time()
            execute(job, session)
            clock[name] = (time.perf_counter() - began[0]) / images * 1e3
            processor[name] = (time.process_time() - began[1]) / images * 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        whole_set["plan"].planner.network.load()
        built = (time.perf_counter() - began) / images * 1e3
    called = sum(inside) / images * 1e3
    for took in (clock, processor):
        took["activations"] -= built
    forward, forward_processor = ((a + b) / 2 for a, b in zip(before, bare(network, layer, device), strict=True))
    sums = summed(clock)
    return {
        "network": network,
        "layer": layer,
        "images": images,
        "threads": threads,
        "forward_ms": round(forward, 2),
        **{f"{name}_ms": round(value, 2) for name, value in sums.items()},
        "ratio": {name: round(value / forward, 2) for name, value in sums.items()},
        "ratio_processor": {name: round(value / forward_processor, 2) for name, value in summed(processor).items()},
        "overhead_ms": round(sums["cold"] - called, 2),
        "slowdown": round(called / forward, 3),
        "pictures_per_second": round(1e3 / sums["whole"], 1),
        "stages_ms": {name: round(value, 2) for name, value in clock.items()},
        "processor": {
            "forward_ms": round(forward_processor, 2),
            "stages_ms": {name: round(value, 2) for name, value in processor.items()},
        },
        "peak_mib": round(peak),
        "device": device_name(device),
    }


def planned_but_null(jobs: dict) -> dict:
    """Stages that run without a null: its loop is compiled in the timed run, as in any new process."""
    return {name: jobs[name] for name in ("index", "activations", "thresholds", "tally", "scores")}


def summed(took: dict[str, float]) -> dict[str, float]:
    """Of the whole default audit; without null, bootstrap and report; and of that with an index at hand."""
    cold = sum(took[name] for name in ("index", "activations", "thresholds", "tally", "scores"))
    return {"whole": sum(took.values()) - took["scores"], "cold": cold, "warm": cold - took["index"]}


def timed_calls() -> list[float]:
    """From now on, the seconds of every call of the network in this process."""
    import torch

    from microtome.networks import Capture

    seconds: list[float] = []
    call = Capture.__call__

    def timed(self, batch):
        began = time.perf_counter()
        maps = call(self, batch)
        if batch.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        return maps

    Capture.__call__ = timed
    return seconds


def device_name(device: str) -> str:
    """What the figures were measured on."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return f"{model}, torch {torch.__version__}"


def main() -> None:
    from microtome.datasets.broden import write_broden

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="instead of each network's own number")
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="AlexNet at 200 and at 2,000 images")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data:
        print(json.dumps(one(options.networks[0], options.images, options.threads[0], options.device, options.data)))
        return
    plan = [(n, options.images or IMAGES[n], t) for n in options.networks for t in options.threads]
    plan = [("alexnet", count, 2) for count in (200, 2000)] if options.memory else plan
    with tempfile.TemporaryDirectory() as folder:
        for network, images, threads in plan:
            data = Path(folder) / str(images)
            if not data.exists():
                write_broden(WithTextureNumbers(images), data)
            call = [sys.executable, __file__, "--networks", network, "--images", str(images)]
            call += ["--threads", str(threads), "--device", options.device, "--data", str(data)]
            subprocess.run(call, check=True)


if __name__ == "__main__":
    main()
