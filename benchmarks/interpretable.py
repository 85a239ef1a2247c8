"""Does the filter loss make filters steadier, and do they follow parts? Five folds, all categories, with controls.

    python benchmarks/interpretable.py DATA [--categories cat dog] [--strength S] [--rate R] [--epochs N] [--folds K]

DATA holds animal-parts/, negatives/ and weights/squeezenet1_0.safetensors. For every category and fold a squeezenet1_0
is fine-tuned on the category against the negatives: with masks and filter loss, with masks alone (`twin`), with neither
(`plain`); same seed, order and dropout. Each image is judged by the network that did not train on it. One JSON line per
category, then one over all: location instability D, its paired difference to the twin, share of filters that track a
landmark, accuracy; 95 % intervals by a bootstrap over images, paired. Needs torch, torchvision and pyarrow; no Prefect.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from microtome.datasets import Frame, open_dataset
from microtome.datasets.base import chosen
from microtome.disentangle.folds import split_by_file
from microtome.disentangle.interpretable import frozen_below, interpretable_cnn
from microtome.disentangle.names import LAYERS
from microtome.disentangle.training import Trainer, TrainingRecipe
from microtome.networks import walk
from microtome.quantify import stability

SIZE = (224, 224)
VARIANTS = {"interpretable": (1.0, {}), "twin": (0.0, {}), "plain": (0.0, None)}


@dataclass
class Images:
    """Frozen features of pictures and their mirror images: (2, images, channels, rows, columns)."""

    kept: torch.Tensor
    labels: torch.Tensor

    def features(self, images, mirrored):
        return self.kept[torch.tensor(mirrored, dtype=torch.long), torch.tensor(list(images))]


def network(data: Path, mask):
    weights = str(data / "weights/squeezenet1_0.safetensors")
    return interpretable_cnn("torchvision.models:squeezenet1_0", size=SIZE, weights=weights, mask=mask)


def prepared(data: Path, category: str):
    """Frozen features of a category's animals and the negatives, their records, and landmarks in the frame."""
    built = network(data, None)
    base = built.features[: frozen_below(built.features, None)].eval()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    features, records, marks = [], [], []
    for form, root, crop in (("animal-parts", "animal-parts", "object"), ("folder", "negatives", "none")):
        dataset, frame = open_dataset(form, data / root, {}), Frame(SIZE, crop=crop)
        wanted = chosen(dataset.records, categories=[category] if crop == "object" else None)
        for start in range(0, len(wanted), 16):
            some = wanted[start : start + 16]
            places = [frame.place(dataset.records[i]) for i in some]
            pictures = [np.array(place.picture(dataset.picture(i))) for place, i in zip(places, some, strict=True)]
            batch = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 - mean) / std
            with torch.no_grad():
                features.append(torch.stack([base(batch), base(batch.flip(3))]))
            for place, i in zip(places, some, strict=True):
                records.append(dataset.records[i])
                marks.append({m.name: (place.landmark(m).x, place.landmark(m).y) for m in dataset.landmarks(i)})
    return torch.cat(features, 1), records, marks


def trained(data: Path, source: Images, train: list[int], options, variant: str, fold: int):
    strength, mask = VARIANTS[variant]
    built = network(data, mask)
    recipe = TrainingRecipe(options.epochs, 16, (options.rate, options.rate / 10), strength * options.strength, fold)
    trainer = Trainer(built, frozen_below(built.features, None), recipe)
    for epoch in range(recipe.epochs):
        for _ in trainer.epoch(epoch, source, train):
            pass
    return trainer


def inferred(trainer: Trainer, source: Images, images: list[int]) -> list[stability.Inferences]:
    trainer.network.eval()
    with torch.inference_mode():
        maps = trainer.network.above(trainer.tail(source.features(images, [False] * len(images))))[1]
    return [stability.infer(item.numpy()) for item in maps]


def one(category: str, options) -> dict:
    """Every fold of a category: inferences of each variant in the images that its networks did not see."""
    torch.set_num_threads(options.threads)
    features, records, marks = prepared(options.data, category)
    labels = torch.tensor([int(record.label == category) for record in records])
    source = Images(features, labels)
    positives = [place for place, record in enumerate(records) if record.label == category]
    files, names = [record.file for record in records], [str(record.label) for record in records]
    found = {name: {} for name in options.variants}
    right = {name: {} for name in options.variants}
    for fold in range(options.folds):
        split = split_by_file(files, names, fold=fold, seed=0)
        train, held = ([i for i, s in enumerate(split) if s == which] for which in ("train", "val"))
        for variant in options.variants:
            began = time.perf_counter()
            trainer = trained(options.data, source, train, options, variant, fold)
            result, logits = trainer.evaluate(source, held)
            shown = [i for i in held if i in set(positives)]
            for place, i in enumerate(shown):
                found[variant][i] = (fold, place)
            found[variant][f"fold{fold}"] = inferred(trainer, source, shown)
            for i, logit in zip(held, logits[:, 0].tolist(), strict=True):
                right[variant][i] = (logit > 0) == bool(labels[i])
            say(
                f"{category} fold {fold} {variant}: accuracy {result.accuracy:.3f}, task {result.task_loss:.3f}, "
                f"-MI {result.filter_loss:.5f}, {time.perf_counter() - began:.0f} s"
            )
    seen = [i for i in positives if i in found[options.variants[0]]]
    points = {name: np.array([marks[i][name] for i in seen]) for name in ("front_legs", "head")}
    together = {
        variant: [collected(found[variant], seen, number) for number in range(2)] for variant in options.variants
    }
    return {"inferences": together, "points": points, "right": right}


def collected(found: dict, seen: list[int], number: int) -> stability.Inferences:
    rows = {}
    for name in ("cell", "score", "tied"):
        rows[name] = np.stack([getattr(found[f"fold{found[i][0]}"][number], name)[found[i][1]] for i in seen])
    return stability.Inferences(**rows)


def judged(outcomes: dict, layer, number: int, options) -> dict:
    """One layer over the given categories."""
    protocol = stability.Protocol(SIZE, 100)
    each, drawn = {}, {}
    for variant in options.variants:
        each[variant] = [
            stability.category_stability(
                name, item["inferences"][variant][number], layer, item["points"], protocol=protocol
            )
            for name, item in outcomes.items()
        ]
        drawn[variant] = stability.resampled(each[variant], protocol, resamples=1000, seed=1)
    lines = {}
    for variant in options.variants:
        deviation = np.array([item.deviation for item in each[variant]])
        tracking = np.array([item.tracking for item in each[variant]])
        lines[variant] = {
            "deviation": mean_of(deviation, drawn[variant]),
            "tracking": round(float(tracking.mean()), 4),
            "beating": round(float(np.mean([i.deviation < i.baselines.best_constant for i in each[variant]])), 4),
            "r2": round(float(np.nanmean([[m.r2 for m in i.landmarks.values()] for i in each[variant]])), 4),
            "spread": round(float(np.mean([item.spread.deviation.mean() for item in each[variant]])), 4),
            "null": int(np.isnan(deviation).sum()),
        }
        if variant != "twin" and "twin" in each:
            other = np.array([item.deviation for item in each["twin"]])
            lines[variant]["against_twin"] = mean_of(deviation - other, drawn[variant] - drawn["twin"])
            lines[variant]["tracking_against_twin"] = tracking_difference(outcomes, layer, number, variant, protocol)
    lines["best_constant"] = round(float(np.mean([i.baselines.best_constant for i in each[options.variants[0]]])), 4)
    return lines


def tracking_difference(outcomes, layer, number, variant, protocol, resamples=200) -> list[float]:
    """Mean R^2 of the filters minus the twin's, with a paired bootstrap over images."""
    centres = stability.cell_centres(layer)
    differences, rng = [], np.random.default_rng(2)
    for turn in range(resamples + 1):
        values = []
        for item in outcomes.values():
            count = len(item["points"]["head"])
            rows = np.arange(count) if turn == 0 else rng.integers(count, size=count)
            r2 = []
            for which in (variant, "twin"):
                cells = item["inferences"][which][number].cell[rows]
                r2.append(np.mean([mean_r2(centres[cells], marks[rows]) for marks in item["points"].values()]))
            values.append(r2[0] - r2[1])
        differences.append(np.mean(values))
    low, high = np.quantile(differences[1:], (0.025, 0.975)) - np.mean(differences[1:]) + differences[0]
    return [round(float(v), 4) for v in (differences[0], low, high)]


def mean_r2(position: np.ndarray, landmark: np.ndarray) -> float:
    """Mean over filters of R^2 of (images, filters, 2) positions on (images, 2) landmarks."""
    left = np.linalg.svd(landmark - landmark.mean(0), full_matrices=False)[0]
    outcome = position - position.mean(0)
    total = np.square(outcome).sum((0, 2))
    seen = np.square(np.tensordot(left.T, outcome, 1)).sum((0, 2))
    return float(np.divide(seen, total, out=np.zeros(len(total)), where=total > 0).mean())


def mean_of(value: np.ndarray, drawn: np.ndarray) -> list[float]:
    """Mean with its interval, freed of the bootstrap's bias."""
    means = np.nanmean(drawn, axis=(1, 2))
    low, high = np.quantile(means, (0.025, 0.975)) - means.mean() + np.nanmean(value)
    return [round(float(v), 4) for v in (np.nanmean(value), low, high)]


def accuracies(outcomes: dict, options) -> dict:
    """Accuracy over all held-out images, and its paired difference to the twin."""
    flat = {v: np.concatenate([[*item["right"][v].values()] for item in outcomes.values()]) for v in options.variants}
    rng = np.random.default_rng(3)
    lines = {name: round(float(value.mean()), 4) for name, value in flat.items()}
    if "twin" in flat and "interpretable" in flat:
        apart = flat["interpretable"].astype(float) - flat["twin"]
        means = [apart[rng.integers(len(apart), size=len(apart))].mean() for _ in range(1000)]
        lines["against_twin"] = [round(float(v), 4) for v in (apart.mean(), *np.quantile(means, (0.025, 0.975)))]
    return lines


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--strength", type=float, default=3e-5)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="categories at a time, a process each")
    options = parser.parse_args()
    records = open_dataset("animal-parts", options.data / "animal-parts", {}).records
    wanted = options.categories or sorted({str(record.label) for record in records})
    layers = walk(network(options.data, None).requires_grad_(False).eval(), SIZE, list(LAYERS))
    outcomes = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for category, outcome in zip(wanted, pool.map(partial(one, options=options), wanted), strict=True):
            outcomes[category] = outcome
            report({category: outcome}, layers, options, category)
    if len(wanted) > 1:
        report(outcomes, layers, options, "all")


def report(outcomes: dict, layers, options, name: str) -> None:
    line = {"category": name, "strength": options.strength, "rate": options.rate, "epochs": options.epochs}
    line |= {layer.name: judged(outcomes, layer, number, options) for number, layer in enumerate(layers)}
    print(json.dumps({**line, "accuracy": accuracies(outcomes, options)}), flush=True)


if __name__ == "__main__":
    main()
