"""Does the decision tree speak for its network? Real animals, nine categories, five folds, beside its rivals and nulls.

    python benchmarks/tree_categories.py DATA --scratch DIR [--categories cat] [--null shuffled|random] [--rule paper]

DATA holds animal-parts/, negatives/ and weights/squeezenet1_0.safetensors. The network that is explained: squeezenet1_0
up to features.12 with its real weights, max pooling, and two hidden layers trained for the category against the
negatives, on four fifths of the pictures; the tree grows from the same four fifths. Every picture is judged by the
network and the tree that did not see it. `--network interpretable` takes the fine-tuning of `interpretable.py` instead
(extra convolution and masks, two hidden layers), `--network linear` the same with its linear head, `--network
creatures` the shipped network on its own pictures. Nulls: labels shuffled before the training, or no training at all.
What is slow, features, training and outcomes, is kept in DIR.

One JSON line per category and one over all: figures, and the tree's minus each rival's, with 95 % intervals by a
bootstrap over picture files (a negative counts in several categories, and is drawn in all of them together).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks import interpretable
from microtome.datasets import Frame, open_dataset
from microtome.datasets.sampling import sampled
from microtome.disentangle.decision_tree import RationaleExamples, grow
from microtome.disentangle.deletion import groups_of, moved
from microtome.disentangle.fitted_tree import fit_tree, imitators
from microtome.disentangle.folds import FOLDS, split_by_file
from microtome.disentangle.rationales import FilterScale, LayersAbove, joined
from microtome.disentangle.readings import read_tree
from microtome.disentangle.rule_features import FeatureChoice
from microtome.disentangle.tree_metrics import answers, fitness
from microtome.networks.load import NetworkSpec, load_network

SIZE, EPOCHS, RATE, BATCH = (224, 224), 10, 1e-4, 16
RESAMPLES, CREATURES, MOST = 1000, 1200, 150


@dataclass
class Explained:
    """A network from one layer's maps on, and pictures as that layer sees them.

    `above` has the maps as its child `maps`; `files` name the pictures, `held` those that no training saw.
    """

    maps: torch.Tensor
    above: nn.Module
    output: int
    positive: np.ndarray
    files: list[str]
    held: np.ndarray


# ---- networks


def features(options) -> tuple[torch.Tensor, list[str], list[str]]:
    """features.12 of all negatives and animals, their files, and categories ('' for negatives)."""
    place = options.scratch / "features.pt"
    if not place.exists():
        spec = NetworkSpec(
            "torchvision.models:squeezenet1_0",
            {},
            str(options.data / "weights/squeezenet1_0.safetensors"),
            options.data,
        )
        base = load_network(spec).features
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        maps, files, names = [], [], []
        for form, root, crop in (("folder", "negatives", "none"), ("animal-parts", "animal-parts", "object")):
            dataset, frame = open_dataset(form, options.data / root, {}), Frame(SIZE, crop=crop)
            for start in range(0, len(dataset.records), BATCH):
                some = range(start, min(start + BATCH, len(dataset.records)))
                records = [dataset.records[i] for i in some]
                pictures = [
                    np.array(frame.place(r).picture(dataset.picture(i))) for i, r in zip(some, records, strict=True)
                ]
                with torch.no_grad():
                    maps.append(base((torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 - mean) / std))
                files += [f"{root}/{record.file}" for record in records]
                names += [str(record.label) if crop == "object" else "" for record in records]
        torch.save({"maps": torch.cat(maps), "files": files, "names": names}, place)
    found = torch.load(place, weights_only=True)
    return found["maps"], found["files"], found["names"]


def head() -> nn.Sequential:
    hidden = [nn.Dropout(0.5), nn.Linear(512 * 36, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 512), nn.ReLU()]
    parts = [nn.Identity(), nn.MaxPool2d(3, 2), nn.Flatten(), *hidden, nn.Dropout(0.5), nn.Linear(512, 1)]
    names = ["maps", *(str(number) for number in range(1, len(parts)))]
    return nn.Sequential(OrderedDict(zip(names, parts, strict=True)))


def with_head(options, category: str, fold: int) -> Explained:
    maps, files, names = features(options)
    some = [place for place, name in enumerate(names) if name in ("", category)]
    positive = np.array([names[place] == category for place in some])
    files = [files[place] for place in some]
    # split as the stage does, by the file's own name
    split = split_by_file([f.partition("/")[2] for f in files], [names[place] for place in some], seed=0, fold=fold)
    held = np.array(split) == "val"
    maps = maps[some] / (10 * maps[:95].mean())
    place = options.scratch / f"head-{options.null}-{category}-{fold}.pt"
    torch.manual_seed(fold)
    above = head()
    if not place.exists():
        if options.null != "random":
            train(above, maps, shown(positive, options.null, fold), np.flatnonzero(~held), fold)
        torch.save(above.state_dict(), place)
    above.load_state_dict(torch.load(place, weights_only=True))
    return Explained(maps, above.eval().requires_grad_(False), 0, positive, files, held)


def shown(positive: np.ndarray, null: str, fold: int) -> np.ndarray:
    """What the network is told that the pictures are."""
    return positive[np.random.default_rng([9, fold]).permutation(len(positive))] if null == "shuffled" else positive


def train(above: nn.Module, maps: torch.Tensor, labels: np.ndarray, inside: np.ndarray, fold: int) -> None:
    optimiser, rng = torch.optim.Adam(above.parameters(), RATE), np.random.default_rng([3, fold])
    wanted = torch.from_numpy(labels).float()
    above.train()
    for _ in range(EPOCHS):
        order = rng.permutation(inside)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            optimiser.zero_grad()
            binary_cross_entropy_with_logits(above(maps[some])[:, 0], wanted[some]).backward()
            optimiser.step()


RECIPES = {
    "interpretable": {"epochs": 10, "rate": 1e-3, "head": "small"},
    "linear": {"epochs": 4, "rate": 5e-3, "head": "linear"},
}
STRENGTHS = {"interpretable": 0.5, "linear": 1.0}


def fine_tuned(options, category: str, fold: int) -> Explained:
    """With hidden layers, by an older recipe of docs/interpretable-cnn.md; or with its linear head."""
    place = options.scratch / f"{options.network}-{category}-{fold}.pt"
    recipe = argparse.Namespace(
        data=options.data, keep=options.scratch, backbone="squeezenet1_0", folds=FOLDS, **RECIPES[options.network]
    )
    if not place.exists():
        source = interpretable.prepared(recipe, category)
        train, held = source.split(fold, FOLDS)
        trainer = interpretable.trained(recipe, source, train, strength=STRENGTHS[options.network], fold=fold)
        built = trainer.network.eval()
        with torch.no_grad():
            top = [built.top_mask(trainer.tail(some)) for some in source.kept[0].split(BATCH)]
            maps = torch.cat([built.extra_mask(built.extra_map(built.extra(some))) for some in top])
        inside = torch.from_numpy(np.isin(np.arange(len(source.labels)), held))
        about = {"positive": source.labels == 1, "files": source.files, "held": inside}
        torch.save({"maps": maps, "classifier": built.classifier.state_dict(), **about}, place)
    found, built = torch.load(place, weights_only=True), interpretable.network(recipe, {})
    built.classifier.load_state_dict(found["classifier"])
    parts = {"maps": nn.Identity(), "pool": built.pool, "flat": nn.Flatten(), "classifier": built.classifier}
    above = nn.Sequential(OrderedDict(parts)).eval().requires_grad_(False)
    positive, held = found["positive"].numpy(), found["held"].numpy()
    return Explained(found["maps"], above, 0, positive, found["files"], held)


def shipped(options, category: str, fold: int) -> Explained:
    """The network that the package ships, on as many pictures as its example takes."""
    weights = Path(__file__).resolve().parent.parent / "microtome/networks/weights/creature_net.safetensors"
    network = load_network(NetworkSpec("microtome.networks.small:creature_net", {}, str(weights), options.scratch))
    place = options.scratch / "creatures.pt"
    if not place.exists():
        dataset, frame = open_dataset("creatures", None, {"count": CREATURES, "seed": 5}), Frame((96, 96))
        maps = []
        for start in range(0, CREATURES, 48):
            some = [
                np.array(frame.place(dataset.records[i]).picture(dataset.picture(i))) for i in range(start, start + 48)
            ]
            with torch.no_grad():
                maps.append(network.features((torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25))
        names = [str(record.label) for record in dataset.records]
        torch.save({"maps": torch.cat(maps), "names": names, "files": [r.file for r in dataset.records]}, place)
    found = torch.load(place, weights_only=True)
    positive = np.array([name == category for name in found["names"]])
    held = np.array(split_by_file(found["files"], [str(p) for p in positive], seed=0, fold=fold)) == "val"
    groups = [np.flatnonzero((held == h) & (positive == p)) for h in (False, True) for p in (True, False)]
    some = np.concatenate([group[sampled(len(group), MOST, fold)] for group in groups])
    above = nn.Sequential(
        OrderedDict(maps=nn.Identity(), pool=network.pool, flat=nn.Flatten(), last=network.classifier)
    )
    with torch.no_grad():
        output = int(above(found["maps"][some[positive[some]]]).argmax(1).mode().values)
    files = [found["files"][i] for i in some]
    return Explained(found["maps"][some], above.eval().requires_grad_(False), output, positive[some], files, held[some])


NETWORKS = {"head": with_head, "interpretable": fine_tuned, "linear": fine_tuned, "creatures": shipped}


# ---- a tree, and what stands beside it


def judged(network: Explained, options) -> dict:
    """Of the held-out pictures: what each model says, how fit its reasons are, and what deleting filters does."""
    tail = LayersAbove(network.above, "maps", network.output)
    batches = [network.maps[start : start + BATCH] for start in range(0, len(network.maps), BATCH)]
    found = [tail.whole(batch) for batch in batches]
    raw = joined([one[0] for one in found])
    x, g = (torch.cat([one[place] for one in found]).flatten(2).numpy() for place in (1, 2))
    inside = np.flatnonzero(~network.held)
    base = inside[network.positive[inside]] if options.rule == "paper" else inside
    scale = FilterScale.of(raw.of(base))
    data, kept = scale.apply(raw)
    choice = FeatureChoice(raw, scale, kept, (x, g))
    inside, unseen = (np.flatnonzero(network.held[kept] == held) for held in (False, True))
    positive, features, root = network.positive[kept], "paper", []
    if options.rule == "paper":
        sides = (inside[positive[inside]], inside[~positive[inside]])
        read = read_tree(grow(RationaleExamples(*map(data.of, sides))), data)
    else:
        made = fit_tree(data.g, choice, inside, features=options.features, seed=0)
        read, features, root = made.read, made.features, [made.root(unseen)]
    mine, every = read.of(unseen), list(imitators(read, choice, (inside, unseen), cells=True, seed=0))
    levels = answers(mine)
    said = {f"tree {one.depth}": one for one in (*root, *levels[:3])} | {"tree leaf": levels[-1]}
    said |= {one.model: one for one in every}
    own, y, yes = mine.own, mine.y, positive[unseen]
    return {
        "files": [network.files[kept[i]] for i in unseen],
        "y": y, "positive": yes, "features": features,
        "score": {name: one.score for name, one in said.items()},
        "fitness": {n: np.where(yes, fitness(o.rho, own), np.nan) for n, o in said.items() if o.rho is not None},
        "error": {n: np.abs(o.score - y) / np.ptp(y) for n, o in said.items() if o.logits},
        "deletion": deletions(tail, network.maps[kept], read, (inside, unseen), (raw.x[kept], scale.filters)),
        "nodes": visits(read, inside, unseen, positive),
    }  # fmt: skip


def deletions(tail, maps, read, split, sums) -> dict:
    """How far decisions move without what each second-layer node names, by the mean size of a decision."""
    inside, unseen = split
    x, filters = sums
    top = np.array([path[0] for path in read.paths])
    result = {name: np.full(len(unseen), np.nan) for name in ("named", "random")}
    for node in np.unique(top[unseen]):
        base, there = inside[top[inside] == node], unseen[top[unseen] == node]
        if not len(base):
            continue
        few, sign = groups_of(read.rho[read.at(2)[base]].mean(0), x[base][:, filters].mean(0), 0)
        groups = np.zeros((len(few), x.shape[1]), bool)
        groups[:, filters] = few
        without = np.concatenate(
            [tail.without(maps[there[s : s + BATCH]], groups) for s in range(0, len(there), BATCH)]
        )
        size = np.abs(read.y[unseen]).mean()
        for name, value in zip(result, moved(read.y[there], without, sign), strict=True):
            result[name][np.isin(unseen, there)] = value / size
    return result


def visits(read, inside, unseen, positive) -> list[dict]:
    """The second layer: training pictures and held-out ones, and how many are of the category."""
    top = np.array([path[0] for path in read.paths])
    return [
        {
            name: [int((top[s] == node).sum()), int(positive[s[top[s] == node]].sum())]
            for name, s in (("grown", inside), ("held", unseen))
        }
        for node in np.unique(top[np.concatenate([inside, unseen])]).tolist()
    ]


# ---- figures


class Pooled:
    """Outcomes of several networks together, resampled by picture file."""

    def __init__(self, outcomes: list[dict]) -> None:
        self.outcomes = outcomes
        files = sorted({file for one in outcomes for file in one["files"]})
        place = {file: number for number, file in enumerate(files)}
        rng = np.random.default_rng(1)
        drawn = [np.bincount(rng.integers(len(files), size=len(files)), minlength=len(files)) for _ in range(RESAMPLES)]
        weight = np.concatenate([np.ones((1, len(files))), np.array(drawn, float)])
        self.weights = [weight[:, [place[file] for file in one["files"]]] for one in outcomes]

    def mean(self, values) -> np.ndarray:
        """(1 + RESAMPLES,) weighted mean over all pictures that have a value."""
        total = count = 0.0
        for one, weight in zip(self.outcomes, self.weights, strict=True):
            value = values(one)
            there = ~np.isnan(value)
            total, count = total + weight[:, there] @ value[there], count + weight[:, there].sum(1)
        return total / count

    def auc(self, name: str, truth) -> np.ndarray:
        """(1 + RESAMPLES,) area of each network, weighted, their mean."""
        areas = []
        for one, weight in zip(self.outcomes, self.weights, strict=True):
            score, yes = one["score"][name], truth(one)
            if yes.all() or not yes.any():
                continue
            above = (score[yes][:, None] > score[~yes]) + 0.5 * (score[yes][:, None] == score[~yes])
            mass = weight[:, yes].sum(1) * weight[:, ~yes].sum(1)
            hits = ((weight[:, yes] @ above) * weight[:, ~yes]).sum(1)
            areas.append(np.where(mass > 0, hits / np.maximum(mass, 1), np.nan))
        return np.nanmean(areas, 0) if areas else np.full(1 + RESAMPLES, np.nan)


def span(drawn: np.ndarray) -> list[float]:
    low, high = np.nanquantile(drawn[1:], (0.025, 0.975))
    return [round(float(value), 4) for value in (drawn[0], low, high)]


def line_of(outcomes: list[dict]) -> dict:
    pooled = Pooled(outcomes)
    models = [name for name in outcomes[0]["score"] if all(name in one["score"] for one in outcomes)]
    drawn: dict[str, dict[str, np.ndarray]] = {}
    for name in models:
        same = lambda one, name=name: ((one["score"][name] > 0) == (one["y"] > 0)).astype(float)  # noqa: E731
        drawn[name] = {
            "fidelity": pooled.mean(same),
            "positives": pooled.mean(lambda one, same=same: np.where(one["positive"], same(one), np.nan)),
            "others": pooled.mean(lambda one, same=same: np.where(one["positive"], np.nan, same(one))),
            "auc": pooled.auc(name, lambda one: one["y"] > 0),
            "auc of the truth": pooled.auc(name, lambda one: one["positive"]),
        }
        for measure in ("fitness", "error"):
            if name in outcomes[0][measure]:
                drawn[name][measure] = pooled.mean(lambda one, name=name, m=measure: one[m][name])
    base = "tree 2"
    compared = {
        f"minus {name}": {m: span(drawn[base][m] - found[m]) for m in ("fidelity", "auc", "fitness") if m in found}
        for name, found in drawn.items()
        if name != base
    }
    deletion = {name: pooled.mean(lambda one, name=name: one["deletion"][name]) for name in ("named", "random")}
    nodes = [one["nodes"] for one in outcomes]
    return {
        "images": sum(len(one["files"]) for one in outcomes),
        "network accuracy": span(pooled.mean(lambda one: ((one["y"] > 0) == one["positive"]).astype(float))),
        "features": sorted({one["features"] for one in outcomes}),
        "second layer": [min(map(len, nodes)), max(map(len, nodes))],
        "not visited": sum(node["held"][0] == 0 for one in nodes for node in one),
        "visited by the category": round(float(np.mean([sum(n["held"][1] > 0 for n in one) for one in nodes])), 2),
        "figures": {name: {m: span(v) for m, v in found.items()} for name, found in drawn.items()},
        "tree 2": compared,
        "leaf minus root": {m: span(drawn["tree leaf"][m] - v) for m, v in drawn.get("tree 1", {}).items()},
        "deletion": {n: span(v) for n, v in deletion.items()},
        "deletion apart": span(deletion["named"] - deletion["random"]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--network", choices=list(NETWORKS), default="head")
    parser.add_argument("--null", choices=("none", "shuffled", "random"), default="none")
    parser.add_argument("--rule", choices=("visitors", "paper"), default="visitors")
    parser.add_argument("--features", choices=("cells", "weighted", "uniform"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = {}
    for category in options.categories or categories(options):
        outcomes[category] = []
        for fold in options.folds:
            outcomes[category].append(outcome(options, category, fold))
            print(category, fold, outcomes[category][-1]["nodes"], file=sys.stderr, flush=True)
        report(options, category, outcomes[category])
    if len(outcomes) > 1:
        report(options, "all", [one for many in outcomes.values() for one in many])


def outcome(options, category: str, fold: int) -> dict:
    """Kept, too: to be deleted when the tree's code changes."""
    kind = "-".join([options.network, options.null, options.rule, options.features or "chosen", category, str(fold)])
    place = options.scratch / f"outcome-{kind}.pt"
    if not place.exists():
        torch.save(exchanged(judged(NETWORKS[options.network](options, category, fold), options)), place)
    return exchanged(torch.load(place, weights_only=True))


def exchanged(value):
    """Arrays as tensors, which are read without running code, and tensors as arrays."""
    if isinstance(value, dict):
        return {exchanged(key): exchanged(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(exchanged, value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.numpy()
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def categories(options) -> list[str]:
    if options.network == "creatures":
        return ["bird", "cat", "bear", "deer", "lizard", "dragon"]
    return sorted(
        {str(record.label) for record in open_dataset("animal-parts", options.data / "animal-parts", {}).records}
    )


def report(options, category: str, outcomes: list[dict]) -> None:
    about = {"network": options.network, "null": options.null, "rule": options.rule, "category": category}
    print(json.dumps({**about, **line_of(outcomes)}), flush=True)


if __name__ == "__main__":
    main()
