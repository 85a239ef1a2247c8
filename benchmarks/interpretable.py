"""Does the filter loss make filters steadier, and do they follow parts? Five folds, all categories, with controls.

    python benchmarks/interpretable.py DATA --keep FOLDER [--categories cat dog] [--strength S ...] [--folds K]
        [--backbone efficientnet-lite0 --rate auto --side 416]

DATA holds animal-parts/, negatives/ and weights/squeezenet1_0.safetensors. For every category and fold a squeezenet1_0
is fine-tuned on the category against the negatives: with masks and filter loss, with masks alone (`twin`); same seed,
order and start. Each picture is judged by the network that did not train on it. One JSON line per category, then one
over all: location instability D, R^2 on the landmarks, the shift test, exclusivity of filters, accuracy beside the
linear probe's; paired differences to the twin with 95 % intervals by a bootstrap over pictures. FOLDER keeps what was
computed: a run that was stopped goes on. Needs torch, torchvision, scikit-learn and pyarrow; no Prefect.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from microtome.datasets import Frame, open_dataset
from microtome.datasets.base import chosen
from microtome.datasets.source import Source
from microtome.disentangle.folds import split_by_file
from microtome.disentangle.interpretable import frozen_below, interpretable_cnn
from microtome.disentangle.names import LAYERS
from microtome.disentangle.probe import fit_probe
from microtome.disentangle.rate import found_rate
from microtome.disentangle.training import Trainer, TrainingRecipe
from microtome.networks import walk
from microtome.networks.normalisation import Normalisation
from microtome.quantify import stability
from microtome.quantify.shift import following

SHIFT, RESAMPLES = 0.15, 1000
SCALE = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TWIN, INTERPRETABLE, AUTO = "twin", "interpretable", "auto"
BACKBONES = {
    "squeezenet1_0": ("torchvision.models:squeezenet1_0", "weights/squeezenet1_0.safetensors"),
    "efficientnet-lite0": ("benchmarks.efficientnet_lite:chain", None),  # brings its weights
}


@dataclass(frozen=True)
class Pictures:
    """Frozen features of a category's animals, then of the negatives; (2, pictures, ...), as they are and mirrored."""

    kept: torch.Tensor
    moved: torch.Tensor
    offset: np.ndarray
    labels: torch.Tensor
    files: list[str]
    points: dict[str, np.ndarray]

    def features(self, images, mirrored):
        return self.kept[torch.tensor(mirrored, dtype=torch.long), torch.tensor(list(images))]

    def split(self, fold: int, folds: int) -> tuple[list[int], list[int]]:
        """Places to train on, and places that are held out."""
        names = [str(label) for label in self.labels.tolist()]
        split = split_by_file(self.files, names, fold=fold, folds=folds, seed=0)
        return tuple([place for place, name in enumerate(split) if name == which] for which in ("train", "val"))


def network(options, mask):
    """Of the options `data`, `backbone` and `head`."""
    load, file = BACKBONES[options.backbone]
    weights = str(options.data / file) if file else None
    return interpretable_cnn(load, size=size(options), weights=weights, mask=mask, head=options.head)


def size(options) -> tuple[int, int]:
    """Of the network's input, in pixels: a larger one has more cells."""
    return options.side, options.side


def answers(base, source: Source, *, mirror: bool) -> torch.Tensor:
    """(1 or 2, pictures, channels, rows, columns) of the frozen part."""
    parts = []
    for start in range(0, len(source), 16):
        some = range(start, min(start + 16, len(source)))
        batch = torch.from_numpy(np.stack([source.normalised(image) for image in some]))
        with torch.no_grad():
            parts.append(torch.stack([base(batch), base(batch.flip(3))] if mirror else [base(batch)]))
    return torch.cat(parts, 1)


def prepared(options, category: str) -> Pictures:
    """The features are kept, too."""
    found = kept(options.keep / f"{category}-features.npz", lambda: features_of(options, category))
    points = {name.removeprefix("at "): value for name, value in found.items() if name.startswith("at ")}
    features = [torch.from_numpy(found[name]) for name in ("features", "moved", "labels")]
    return Pictures(features[0], features[1], found["offset"], features[2], found["files"].tolist(), points)


def features_of(options, category: str) -> dict[str, np.ndarray]:
    data, built = options.data, network(options, {})
    base = built.features[: frozen_below(built.features, None)].eval()
    animals, others = (
        open_dataset("animal-parts", data / "animal-parts", {}),
        open_dataset("folder", data / "negatives", {}),
    )
    wanted = chosen(animals.records, categories=[category])
    frame = Frame(size(options), crop="object")
    still, moved = Source(animals, frame, SCALE, wanted), Source(animals, frame, SCALE, wanted, shift=SHIFT)
    negatives = Source(others, Frame(size(options)), SCALE, range(len(others.records)))
    marks = [still.landmarks(image) for image in range(len(still))]
    features = torch.cat([answers(base, still, mirror=True), answers(base, negatives, mirror=True)], 1)
    return {
        "features": features.numpy(),
        "moved": answers(base, moved, mirror=False)[0].numpy(),
        "offset": np.array([moved.moved(image).offset for image in range(len(moved))]),
        "labels": np.array([1] * len(still) + [0] * len(negatives)),
        "files": np.array([source.record(image).file for source in (still, negatives) for image in range(len(source))]),
        **{f"at {name}": np.array([mark[name] for mark in marks]) for name in ("front_legs", "head")},
    }


def trained(options, source: Pictures, train: list[int], *, strength: float, fold: int) -> Trainer:
    built = network(options, {})
    first = 0.0 if options.rate == AUTO else float(options.rate)
    recipe = TrainingRecipe(options.epochs, 16, (first, first / 10), strength, fold)
    trainer = Trainer(built, frozen_below(built.features, None), recipe)
    trainer.start(source, train)
    if options.rate == AUTO:
        trainer.train_at(found_rate(trainer, source, train))
    for epoch in range(recipe.epochs):
        trainer.epoch(epoch, source, train)
    trainer.finish(source, train)
    return trainer


def layers_of(trainer: Trainer, features: torch.Tensor) -> list[np.ndarray]:
    """Maps of both layers."""
    trainer.network.eval()
    with torch.inference_mode():
        return [item.numpy() for item in trainer.network.above(trainer.tail(features))[1]]


def outcome(trainer: Trainer, source: Pictures, held: list[int]) -> dict[str, np.ndarray]:
    """What one network says of the held-out pictures."""
    result, logits = trainer.evaluate(source, held)
    right = (logits[:, 0].numpy() > 0) == source.labels[held].numpy().astype(bool)
    found = {"right": right, "task": np.array(result.task_loss), "halvings": np.array(trainer.halvings)}
    own = [place for place in held if source.labels[place] == 1]
    maps, moved = layers_of(trainer, source.kept[0, held]), layers_of(trainer, source.moved[own])
    for name, still, after in zip(LAYERS, maps, moved, strict=True):
        positive = source.labels[held].numpy() == 1
        inferred = stability.infer(still[positive])
        found |= {f"{name}.{key}": getattr(inferred, key) for key in ("cell", "score", "tied")}
        found |= {f"{name}.after": stability.infer(after).cell, f"{name}.highest": still.max((2, 3))}
    return found


def probe_of(options, source: Pictures, fold: tuple[list[int], list[int]]) -> np.ndarray:
    """Which held-out pictures the linear probe of the top convolution's answers gets right."""
    train, held = fold
    built = network(options, {})
    tail = built.features[frozen_below(built.features, None) :].eval()
    with torch.inference_mode():
        read = [
            torch.cat([tail(some).mean((2, 3)) for some in side.split(32)]).double().numpy() for side in source.kept
        ]
    labels = source.labels.numpy()
    probe = fit_probe(np.concatenate([side[train] for side in read]), np.concatenate([labels[train]] * 2))
    return probe.right(read[0][held], labels[held])


def kept(file: Path, make):
    """What a file holds; made and written first where it is not there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(part, **make())
        part.rename(file)
    with np.load(file) as content:
        return dict(content)


def one(options, source: Pictures, category: str, fold: int) -> dict[str, dict[str, np.ndarray]]:
    """Every variant of a fold."""
    train, held = source.split(fold, options.folds)
    found = {}
    for name, strength in options.variants.items():

        def make(name=name, strength=strength):
            began = time.perf_counter()
            trainer = trained(options, source, train, strength=strength, fold=fold)
            made = outcome(trainer, source, held)
            right, seconds = made["right"].mean(), time.perf_counter() - began
            print(f"{category} fold {fold} {name}: accuracy {right:.3f}, {seconds:.0f} s", file=sys.stderr, flush=True)
            return made

        found[name] = kept(options.keep / f"{category}-{fold}-{name}.npz", make)
    where = options.keep / f"{category}-{fold}-probe.npz"
    right = kept(where, lambda: {"right": probe_of(options, source, (train, held)), "held": np.array(held)})
    return {**found, "probe": right}


def together(folds: list[dict], source: Pictures) -> dict:
    """A category's folds as one: everything in the order of the pictures that were held out."""
    held = np.concatenate([fold["probe"]["held"] for fold in folds])
    own = np.flatnonzero(source.labels[held].numpy() == 1)
    pictures = held[own]
    joined = {
        name: {key: np.concatenate([np.atleast_1d(fold[name][key]) for fold in folds]) for key in folds[0][name]}
        for name in folds[0]
    }
    points = {name: marks[pictures] for name, marks in source.points.items()}
    positive = source.labels[held].numpy() == 1
    fold = np.concatenate([[number] * len(item["probe"]["held"]) for number, item in enumerate(folds)])
    return {"of": joined, "points": points, "offset": source.offset[pictures], "positive": positive, "fold": fold}


@dataclass(frozen=True)
class Measured:
    """One layer of one network in one category; the last three are of every resample: (1 + resamples,), the first real.

    Args:
        stability: as the stage has it.
        exclusivity: how often a filter is higher in a picture of the category than in another, mean over filters (AUC).
        deviation, r2, slope: means over filters that are not silent.
    """

    stability: stability.CategoryStability
    exclusivity: float
    deviation: np.ndarray
    r2: np.ndarray
    slope: np.ndarray


def measured(item: dict, name: str, layer, network: str, seed: int) -> Measured:
    of, centres = item["of"][network], stability.cell_centres(layer)
    found = stability.Inferences(*(of[f"{layer.name}.{key}"] for key in ("cell", "score", "tied")))
    judged = stability.category_stability(
        name, found, layer, item["points"], protocol=stability.Protocol(item["size"], 1000)
    )
    images = len(found.cell)
    weights = np.random.default_rng([1, seed]).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    weights = np.concatenate([np.ones((1, images), np.int64), weights])
    alive = np.isfinite(judged.deviation)
    before, after = centres[found.cell][:, alive], centres[of[f"{layer.name}.after"]][:, alive]
    follows = following(before, after, item["offset"], np.ones(before.shape[:2], bool), weights=weights)
    deviation = np.mean([spread_of(mark.distance[:, alive], weights) for mark in judged.landmarks.values()], axis=0)
    r2 = np.mean([explained(before, mark, weights) for mark in item["points"].values()], axis=0)
    exclusive = auc(of[f"{layer.name}.highest"], item["positive"])[alive].mean()
    return Measured(judged, float(exclusive), deviation, r2, follows.drawn.mean(1))


def spread_of(distance: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resamples,) standard deviation over pictures, mean over filters."""
    total = weights.sum(1, keepdims=True)
    mean, square = weights @ distance / total, weights @ distance**2 / total
    return np.sqrt(np.maximum(square - mean**2, 0) * total / (total - 1)).mean(1)


def explained(position: np.ndarray, marks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(resamples,) share of the positions' variance that the landmark explains linearly, mean over filters."""
    flat = position.reshape(len(position), -1)
    found = []
    for weight in weights:
        design = np.c_[np.ones(len(marks)), marks]
        inner = np.linalg.pinv(design.T @ (weight[:, None] * design))
        fitted = design @ (inner @ (design.T @ (weight[:, None] * flat)))
        centre = weight @ flat / weight.sum()
        total = (weight @ (flat - centre) ** 2).reshape(-1, 2).sum(1)
        left = (weight @ (flat - fitted) ** 2).reshape(-1, 2).sum(1)
        found.append(np.mean(np.where(total > 0, 1 - left / np.maximum(total, 1e-12), 0)))
    return np.array(found)


def auc(highest: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """(filters,) how often a filter is higher in a picture of the category than in another one; a tie is half."""
    own, other = highest[positive][:, None], highest[~positive][None]
    return ((own > other).mean((0, 1)) + (own == other).mean((0, 1)) / 2).astype(float)


def line_of(items: list[Measured], twins: list[Measured] | None) -> dict:
    """Categories together, beside the twin."""
    line = {key: interval(np.mean([getattr(i, key) for i in items], axis=0)) for key in ("deviation", "r2", "slope")}
    of = [item.stability for item in items]
    line["tracking"] = rounded(np.mean([item.tracking.mean() for item in of]))
    line["best_constant"] = rounded(np.mean([item.baselines.best_constant for item in of]))
    line["spread"] = rounded(np.mean([item.spread.deviation.mean() for item in of]))
    line["exclusivity"] = rounded(np.mean([item.exclusivity for item in items]))
    line["silent"] = int(sum(np.isnan(item.deviation).sum() for item in of))
    if twins:
        for key in ("deviation", "r2", "slope"):
            apart = [getattr(own, key) - getattr(other, key) for own, other in zip(items, twins, strict=True)]
            line[f"{key}_against_twin"] = interval(np.mean(apart, axis=0))
    return line


def interval(drawn: np.ndarray) -> list[float]:
    """The real value, and the 95 % interval of its resamples, freed of their bias."""
    low, high = np.quantile(drawn[1:], (0.025, 0.975)) - drawn[1:].mean() + drawn[0]
    return [rounded(value) for value in (drawn[0], low, high)]


def rounded(value: float) -> float:
    return round(float(value), 4)


def accuracies(items: list[dict], names: list[str]) -> dict:
    """Over all held-out pictures; the interpretable network's paired differences to its twin and to the probe."""
    flat = {name: np.concatenate([item["of"][name]["right"] for item in items]).astype(float) for name in names}
    found: dict = {name: rounded(value.mean()) for name, value in flat.items()}
    rng = np.random.default_rng(3)
    own = [name for name in names if name not in (TWIN, "probe")]
    for name in own:
        for other in (TWIN, "probe"):
            apart = flat[name] - flat[other]
            drawn = [apart.mean(), *(apart[rng.integers(len(apart), size=len(apart))].mean() for _ in range(RESAMPLES))]
            found[f"{name}_against_{other}"] = interval(np.array(drawn))
    return found


def worse(items: dict[str, dict], name: str, layer: str) -> list[str]:
    """Categories whose D is significantly above the twin's: one-sided p of the resamples' spread, Holm over them."""
    from scipy.stats import norm

    p = {}
    for category, item in items.items():
        apart = item[layer][name].deviation - item[layer][TWIN].deviation
        p[category] = float(norm.sf(apart[0] / max(apart[1:].std(ddof=1), 1e-12)))
    found = []
    for rank, category in enumerate(sorted(p, key=p.get)):
        if p[category] * (len(p) - rank) > 0.05:
            break
        found.append(category)
    return found


def report(options, layers, items: dict[str, dict], measures: dict[str, dict]) -> None:
    """A line per category, and one over all."""
    groups = [[name] for name in items] + ([list(items)] if len(items) > 1 else [])
    for group in groups:
        line: dict = {
            "backbone": options.backbone,
            "category": group[0] if len(group) == 1 else "all",
            "side": options.side,
            "rate": options.rate,
            "epochs": options.epochs,
        }
        line |= {"folds": options.done, "strength": options.variants}
        for layer in layers:
            of = {name: [measures[category][layer.name][name] for category in group] for name in options.variants}
            line[layer.name] = {name: line_of(own, of[TWIN] if name != TWIN else None) for name, own in of.items()}
            if len(group) > 1:
                line[layer.name]["worse"] = {
                    name: worse(measures, name, layer.name) for name in options.variants if name != TWIN
                }
        line["accuracy"] = accuracies([items[category] for category in group], [*options.variants, "probe"])
        print(json.dumps(line), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--strength", type=float, nargs="+", default=[1.0])
    parser.add_argument("--rate", default=5e-3, help=f"of the first epoch; {AUTO} for the range test")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--head", default="linear")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="squeezenet1_0")
    parser.add_argument("--side", type=int, default=224, help="of pictures, in pixels")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--some", type=int, help="of the folds; all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, required=True)
    options = parser.parse_args()
    several = len(options.strength) > 1
    named = {f"{INTERPRETABLE} {s:g}" if several else INTERPRETABLE: s for s in options.strength}
    options.variants = {TWIN: 0.0, **named}
    options.done = options.some or options.folds
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    records = open_dataset("animal-parts", options.data / "animal-parts", {}).records
    wanted = options.categories or sorted({str(record.label) for record in records})
    sources, folds = {}, {category: [] for category in wanted}
    for fold in range(options.done):  # fold by fold, so that a run that is stopped has whole folds
        for category in wanted:
            if category not in sources:
                sources[category] = prepared(options, category)
            folds[category].append(one(options, sources[category], category, fold))
    layers = walk(network(options, None).requires_grad_(False).eval(), size(options), list(LAYERS))
    items = {
        category: {**together(found, sources[category]), "size": size(options)} for category, found in folds.items()
    }
    measures = {
        category: {
            layer.name: {name: measured(item, category, layer, name, number) for name in options.variants}
            for layer in layers
        }
        for number, (category, item) in enumerate(items.items())
    }
    report(options, layers, items, measures)


if __name__ == "__main__":
    main()
