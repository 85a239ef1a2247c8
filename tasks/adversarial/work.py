"""Stage `adversarial`: attacks, their controls of the same size, and what moves inside the network."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.quantify.intervals import mean_interval
from microtome.quantify.kept_labels import OwnCounts, joined_counts
from microtome.visualize.adversarial import Attack, attack, fgsm, moved, same_size_noise
from microtome.visualize.attribution import Scaled, answer_of, at_rest
from tasks.concepts import Detectors
from tasks.explained import Paths, Patterns
from tasks.pictures import Pictures, file_of, pixel_network, sampled
from tasks.reading import layers_of
from tasks.rows import Rows, append
from tasks.stage import Work

BATCH = 8
SHOWN = 6


def run(work: Work) -> None:
    """Attack a sample of the pictures; every attack beside noise of the same size."""
    torch.set_num_threads(work.session.threads)
    network, pictures = pixel_network(work), Pictures(work)
    geometry = layers_of(work.inputs["activations"])
    layers = [layer.name for layer in geometry]
    chosen = sampled(len(pictures), work.parameters["images"], work.parameters["seed"])
    found = {layer.name: Detectors(work, layer, chosen) for layer in geometry} if "dissection" in work.inputs else {}
    detectors = {name: item for name, item in found.items() if len(item.units)}
    attacks = _attacks(work)
    explained = _explained(work, network)
    work.begin(len(chosen) * len(attacks), "attacked pictures")
    rows: Rows = defaultdict(list)
    shown: Rows = defaultdict(list)
    for name, how in attacks:
        measured: dict[tuple[str, str], list[NDArray[np.float64]]] = defaultdict(list)
        concepts: dict[tuple[str, str], list[OwnCounts]] = defaultdict(list)
        for start in range(0, len(chosen), BATCH):
            some = chosen[start : start + BATCH]
            x = pictures.batch(some, work.session.device)
            with torch.no_grad(), at_rest(network):
                classes = network(x).argmax(1)
            changed = attack(network, x, classes, how)
            control = same_size_noise(x, changed, work.parameters["seed"])
            for what, other in ((name, changed), (f"noise like {name}", control)):
                for measure, values in _moved(network, layers, x, other, classes).items():
                    measured[what, measure].append(values)
                for measure, values in _explanations(explained, (x, other), some).items():
                    measured[what, measure].append(values)
                for layer, item in detectors.items():
                    concepts[what, layer].append(item.counts(_maps(network, other, layer), some))
            _show(work, shown, name, how, (some, x, changed, classes), network)
            work.advance(len(some))
        for (what, measure), parts in measured.items():
            values = np.concatenate(parts)
            values = values[np.isfinite(values)]  # explanations speak of their own category only
            if len(values) > 1:
                _row(rows, what, how, measure, values)
        for (what, layer), counted in concepts.items():
            _concept_row(rows, what, how, layer, (joined_counts(counted), detectors[layer].min_iou))
    work.draft.table("adversarial", rows)
    work.draft.table("attacked_images", shown)


@dataclass(frozen=True)
class _Explained:
    """The audit's explanations of this network, where it has them."""

    paths: Paths | None
    patterns: Patterns | None


def _explained(work: Work, network: Scaled) -> _Explained:
    return _Explained(
        Paths(work, network) if "tree" in work.inputs else None,
        Patterns(work, network) if "graph" in work.inputs else None,
    )


def _explanations(
    explained: _Explained, pictures: tuple[torch.Tensor, torch.Tensor], images: list[int]
) -> dict[str, NDArray[np.float64]]:
    found = explained.paths.moved(*pictures) if explained.paths else {}
    return found | (explained.patterns.moved(*pictures, images) if explained.patterns else {})


def _maps(network: torch.nn.Module, pictures: torch.Tensor, layer: str) -> torch.Tensor:
    with torch.no_grad(), at_rest(network):
        return answer_of(network, pictures, layer)


def _concept_row(rows: Rows, name: str, how: Attack, layer: str, about: tuple[OwnCounts, float]) -> None:
    """Share of the layer's detectors that still detect their own label on these pictures."""
    counts, min_iou = about
    result = (*counts.kept_interval(min_iou), len(counts.label))
    _append(rows, name, how, f"{layer}: detectors that keep their label", result)


def _append(rows: Rows, name: str, how: Attack, measure: str, result: tuple[float, float, float, int]) -> None:
    row = {"attack": name, "norm": how.norm, "eps": how.eps * 255, "measure": measure}
    append(rows, {**row, **dict(zip(("value", "low", "high", "n"), result, strict=True))})


def _attacks(work: Work) -> list[tuple[str, Attack]]:
    steps, seed = work.parameters["steps"], work.parameters["seed"]
    found: list[tuple[str, Attack]] = []
    for eps in work.parameters["eps"]:
        found.append(("fgsm", fgsm(eps / 255)))
        found += [
            ("pgd" if norm == "linf" else "pgd l2", Attack(eps / 255, norm, steps=steps, seed=seed))
            for norm in work.parameters["norms"]
        ]
    return found


def _moved(
    network: torch.nn.Module, layers: list[str], x: torch.Tensor, other: torch.Tensor, classes: torch.Tensor
) -> dict[str, NDArray[np.float64]]:
    """Per picture: whether the prediction flipped, how much the class lost, and what moved inside."""
    found = moved(network, x, other, classes, layers=layers)
    inside: dict[str, NDArray[np.float64]] = {}
    for name, units in found.layers.items():
        inside |= {f"{name}: change of units": units.change, f"{name}: strongest units kept": units.kept}
    outside = {"prediction flipped": found.flipped, "logit lost": found.logit_lost}
    return {**outside, **inside, "saliency, spearman": found.saliency}


def _row(rows: Rows, name: str, how: Attack, measure: str, values: NDArray[np.float64]) -> None:
    _append(rows, name, how, measure, (*mean_interval(values), len(values)))


def _show(
    work: Work,
    rows: Rows,
    name: str,
    how: Attack,
    batch: tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor],
    network: torch.nn.Module,
) -> None:
    """Keep the first pictures of each attack, for the report."""
    images, x, changed, classes = batch
    with torch.no_grad(), at_rest(network):
        now = network(changed).argmax(1)
    there = sum(a == name and e == how.eps * 255 and n == how.norm for a, e, n in _listed(rows))
    for place in range(min(len(images), max(0, SHOWN - there))):
        stem = f"attacked/{name.replace(' ', '-')}-{how.eps * 255:g}/{images[place]:06d}"
        difference = 0.5 + 0.5 * (changed[place] - x[place]) / how.eps
        for kind, picture in (("changed", changed[place]), ("difference", difference.clamp(0, 1))):
            content = (picture.cpu().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            work.draft.write(f"{stem}-{kind}.webp", file_of(content, quality=92))
        row = {
            "attack": name,
            "norm": how.norm,
            "eps": how.eps * 255,
            "image": images[place],
            "before": int(classes[place]),
            "after": int(now[place]),
            "file": stem,
        }
        append(rows, row)


def _listed(rows: Rows) -> list[tuple[str, float, str]]:
    return list(zip(rows["attack"], rows["eps"], rows["norm"], strict=True)) if rows else []
