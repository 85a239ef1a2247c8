"""How long `microtome compare` and `microtome history` take, beside what they are made from.

Two audits of a network with 2,000 units over 548 generated pictures (their bootstrap, 1,000 draws in which every unit
is scored against every concept, is what a comparison would cost that labelled anew), and 200 recorded runs. Prints a
line of JSON; ratios first, since seconds are the machine's.

    python benchmarks/comparison.py [FOLDER]     FOLDER keeps the audits, so that a second call only compares
"""

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml

from storage import RunStore, open_files

UNITS, PICTURES, RUNS = 2000, 548, 200
NETWORK = f"""
import torch
from torch import nn

def wide(seed=0, moved=0.0):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Conv2d(16, {UNITS}, 3, padding=1), nn.ReLU())
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += moved * parameter.std() * torch.randn_like(parameter)
    return network
"""


def audit(folder: Path, name: str, moved: float) -> None:
    """Run one audit, where it is not done yet."""
    content = {
        "name": name,
        "network": {
            "load": "wide:wide", "arguments": {"moved": moved}, "layers": ["4"], "input": {"size": [64, 64]},
        },
        "dataset": {"format": "creatures", "count": PICTURES, "seed": 3, "size": 64},
        "workspace": "workspace",
        "stages": {"dissection": {"permutations": 20}, "report": {"top_images": 5}},
    }  # fmt: skip
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    microtome("audit", str(file))


def microtome(*arguments: str) -> float:
    """Seconds of processor time of a command's process, its start included: other work on the machine adds none."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "flows.cli", *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best(*arguments: str) -> float:
    """Of three."""
    return min(microtome(*arguments) for _ in range(3))


def main(folder: Path) -> None:
    (folder / "wide.py").write_text(NETWORK)
    audit(folder, "first", 0.0)
    audit(folder, "second", 0.3)
    place = str(folder / "workspace")
    store = RunStore(open_files(place))
    last = store.find("first")
    for number in range(RUNS - sum(run.name == "long" for run in store.all())):
        store.save(replace(last, run_id=f"20200101-000000-{number:06d}", name="long", started=1.6e9 + number * 86400))
    stage = json.loads((folder / "workspace" / last.stages["dissection"]["folder"] / "manifest.json").read_text())
    runs, show = best("runs", "--workspace", place), best("show", "first", "--workspace", place)
    compare = best("compare", "first", "second", "--workspace", place)
    history = best("history", "long", "--workspace", place)
    print(
        json.dumps(
            {
                "units": UNITS,
                "pictures": PICTURES,
                "compare over show": round(compare / show, 2),
                "compare over the dissection's bootstrap": round(compare / stage["seconds"], 3),
                "runs": RUNS,
                "history over runs": round(history / runs, 2),
                "seconds of processor time here, of two cores": {
                    name: round(value, 2)
                    for name, value in {
                        "runs": runs, "show": show, "compare": compare, "history": history,
                        "dissection": stage["seconds"],
                    }.items()
                },
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
