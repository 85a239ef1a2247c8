"""Do filters end on single planted parts? The audit examples/creatures-parts.yaml over five folds, its truth known.

    python benchmarks/planted.py [--folds K] [--strength S ...]

For every network (before, interpretable, twin, plain), layer and filter: on which part of the animal does the cell lie
in which the filter is highest? `purity` is the share of the held-out pictures in which it lies on the filter's most
frequent part, the background being none; the mean over filters, and its paired difference to the twin, with 95 %
bootstrap intervals over pictures. All five folds are judged together, each picture by the network that did not see it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.dissection import Quiet
from flows.plan import Plan, Request
from microtome.datasets.creatures import PARTS
from tasks.execution import execute, outside_of
from tasks.index.result import Index
from tasks.session import Session

NETWORKS = ("before", "interpretable", "twin", "plain")


def fold_parts(workspace: str, fold: int, strength: float) -> dict[tuple[str, str], dict[int, np.ndarray]]:
    """(network, layer) -> picture -> (filters,) part number under each filter's highest cell, 0 for none."""
    overrides = (
        f"stages.finetuning.fold={fold}",
        f"stages.finetuning.strength={strength}",
        "stages.stability.permutations=0",
        "stages.stability.bootstrap=0",
    )
    plan = Plan(Request(ROOT / "examples/creatures-parts.yaml", workspace=workspace, overrides=overrides))
    session = Session(plan.files, plan.settings, Quiet())
    done = {job.name: execute(job, session)[0] for job in plan.jobs if job.stage.name != "report"}
    source = Index(done["index:birds"], outside_of(plan.job("index:birds"))).source
    data, chosen = source.dataset, source.chosen
    first = next(concept.number for concept in data.concepts if concept.category == "part")
    found: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for network in NETWORKS:
        table = done[f"stability:{network}"].table("inferences").to_pandas()
        for (layer, image), rows in table.groupby(["layer", "image"]):
            plane = data.annotation(chosen[image]).planes["part"][0]
            x, y = (rows.sort_values("filter")[axis].to_numpy().astype(int) for axis in ("x", "y"))
            numbers = plane[np.clip(y, 0, plane.shape[0] - 1), np.clip(x, 0, plane.shape[1] - 1)]
            found.setdefault((network, layer), {})[image] = np.where(numbers > 0, numbers - first + 1, 0)
    return found


def purity(parts: np.ndarray) -> float:
    """Mean over filters of the share of (pictures, filters) that lies on the filter's most frequent part."""
    counts = np.stack([(parts == number).sum(0) for number in range(1, len(PARTS) + 1)])
    return float((counts.max(0) / len(parts)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--strength", type=float, nargs="+", default=[1.0])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace:
        for strength in options.strength:
            report(workspace, strength, range(options.folds))


def report(workspace: str, strength: float, folds: range) -> None:
    """A line for each network and layer."""
    together: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for fold in folds:
        for key, pictures in fold_parts(workspace, fold, strength).items():
            together.setdefault(key, {}).update(pictures)
    stacked = {key: np.stack([pictures[image] for image in sorted(pictures)]) for key, pictures in together.items()}
    rng = np.random.default_rng(0)
    count = len(next(iter(stacked.values())))
    draws = rng.integers(count, size=(1000, count))
    for (network, layer), parts in stacked.items():
        line = {"strength": strength, "network": network, "layer": layer, "pictures": count}
        line["purity"] = interval(parts, draws)
        line["on_animal"] = round(float((parts > 0).mean()), 4)
        if network in ("interpretable", "plain"):
            line["against_twin"] = interval(parts, draws, stacked["twin", layer])
        print(json.dumps(line), flush=True)


def interval(parts: np.ndarray, draws: np.ndarray, other: np.ndarray | None = None) -> list[float]:
    """Value, low, high; of the difference where there is another."""

    def value(rows: np.ndarray) -> float:
        return purity(parts[rows]) - (0 if other is None else purity(other[rows]))

    here = value(np.arange(len(parts)))
    drawn = np.array([value(rows) for rows in draws])
    low, high = np.quantile(drawn, (0.025, 0.975)) - drawn.mean() + here
    return [round(float(number), 4) for number in (here, low, high)]


if __name__ == "__main__":
    main()
