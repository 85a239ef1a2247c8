"""Does squeezenet1_0 use what its units detect? 512 units of features.12, 500 photographs of animals. JSON lines.

    python benchmarks/ablation.py DATA [--images N] [--remove zero|mean|resampled] [--threads T] [--workspace FOLDER]

DATA holds broden-mini/ (labels of the units), animal-parts/ (the pictures that are decided) and
weights/squeezenet1_0.safetensors. A line for what the stage took, on the clock and of the processor, one for the layer,
then one per concept of several detectors and class. FOLDER keeps maps and labels for the next run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.animals import WEIGHTS
from benchmarks.dissection import Quiet, device_name
from flows.plan import Plan, Request
from tasks.execution import execute
from tasks.session import Session


def planned(folder: Path, options) -> Plan:
    """An audit of what is measured; its settings are those of docs/ablation.md."""
    data = options.data.resolve()
    content = {
        "name": "ablation",
        "network": {
            "load": "torchvision.models:squeezenet1_0", "weights": str(data / WEIGHTS), "layers": ["features.12"],
            "input": {"size": [224, 224], "resize": "shortest-side-crop"},
        },
        "datasets": {
            "main": {"format": "broden", "root": str(data / "broden-mini")},
            "animals": {"format": "animal-parts", "root": str(data / "animal-parts"), "crop": "none"},
        },
        "execution": {"threads": options.threads},
        "stages": {"ablation": {"dataset": "animals", "images": options.images, "remove": options.remove}},
    }  # fmt: skip
    file = folder / "audit.yaml"
    file.write_text(json.dumps(content))  # JSON is YAML
    return Plan(Request(file, workspace=options.workspace))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--remove", default="zero", choices=("zero", "mean", "resampled"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workspace")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        plan = planned(Path(folder), options)
        session = Session(plan.files, plan.settings, Quiet())
        for job in plan.jobs:
            began = time.perf_counter(), time.process_time()
            made, _ = execute(job, session)
            clock, processor = time.perf_counter() - began[0], time.process_time() - began[1]
            if job.stage.name == "ablation":
                break
        took = {"seconds": round(clock), "processor_seconds": round(processor), "threads": options.threads}
        print(json.dumps({"images": options.images, "remove": options.remove, **took, "machine": device_name("cpu")}))
        for name in ("ablation_layers", "ablation_groups"):
            for row in made.table(name).to_pylist():
                short = {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
                print(json.dumps(short), flush=True)


if __name__ == "__main__":
    main()
