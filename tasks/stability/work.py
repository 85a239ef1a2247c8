"""Stage `stability`: how steadily filters sit on part landmarks, beside baselines that know nothing of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.networks import LayerGeometry
from microtome.quantify import stability as science
from microtome.quantify import stability_summary as summary
from microtome.quantify.partiou import PartFit
from storage import Artifact
from tasks.reading import ConceptTable, activation_blocks, annotation_blocks, layers_of
from tasks.rows import Rows, append
from tasks.stage import Work

TABLES = ("stability", "stability_layers", "stability_resamples", "inferences")


def run(work: Work) -> None:
    """Judge every layer."""
    layers = layers_of(work.inputs["activations"])
    shown = _Shown(work)
    work.begin(len(layers), "layers")
    rows: dict[str, Rows] = {name: defaultdict(list) for name in TABLES}
    parts: Rows = defaultdict(list)
    for number, layer in enumerate(layers):
        found = _inferences(work.inputs["activations"], number)
        categories = _categories(work, layer, found, shown)
        _filter_rows(rows["stability"], layer, categories)
        _layer_rows(work, rows, layer, categories, found, shown)
        _inference_rows(rows["inferences"], layer, found, shown)
        _part_rows(work, parts, number, layer, shown)
        work.advance(1)
    for name, columns in {**rows, "part_interpretability": parts}.items():
        if columns:
            work.draft.table(name, columns)


class _Shown:
    """Which images count, their categories, and where their landmarks are."""

    def __init__(self, work: Work) -> None:
        table = work.inputs["landmarks"].table("landmarks").to_pydict()
        self.images = len(work.inputs["index"].table("images", ["image"]))
        self.of_category: dict[str, NDArray[np.int64]] = {}
        self.landmarks: dict[str, dict[str, NDArray[np.float64]]] = {}
        allowed = _held_out(work)
        image, category = np.array(table["image"]), np.array(table["category"])
        name, point = np.array(table["landmark"]), np.stack([table["x"], table["y"]], 1)
        for label in sorted(set(table["category"])):
            mine = category == label
            members = np.unique(image[mine])
            members = members if allowed is None else members[np.isin(members, allowed)]
            if not len(members):
                continue
            self.of_category[label] = members
            self.landmarks[label] = {
                mark: _places(members, image[mine & (name == mark)], point[mine & (name == mark)])
                for mark in sorted(set(name[mine]))
            }


def _places(members: NDArray, image: NDArray, point: NDArray) -> NDArray[np.float64]:
    """(members, 2) a landmark's place in each image; NaN where there is none, or several."""
    places = np.full((len(members), 2), np.nan)
    found, first, count = np.unique(image, return_index=True, return_counts=True)
    for number, at, times in zip(found, first, count, strict=True):
        if times == 1 and number in members:
            places[np.searchsorted(members, number)] = point[at]
    return places


def _held_out(work: Work) -> NDArray[np.int64] | None:
    """The images that a fine-tuned network did not train on; None where there is no such network."""
    if "split" not in work.inputs:
        return None
    rows = work.inputs["split"].table("finetuning_images").to_pylist()
    return np.array([row["image"] for row in rows if row["dataset"] == "dataset" and row["split"] == "val"])


def _inferences(activations: Artifact, number: int) -> science.Inferences:
    parts = [
        science.infer(block.tensors.astype(np.float32, copy=False)) for block in activation_blocks(activations, number)
    ]
    return science.Inferences(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("cell", "score", "tied"))
    )


def _protocol(work: Work) -> science.Protocol:
    wanted = work.parameters
    return science.Protocol(work.job.reach["frame"].size, wanted["top_images"], wanted["firing_only"])


def _categories(
    work: Work, layer: LayerGeometry, found: science.Inferences, shown: _Shown
) -> list[science.CategoryStability]:
    return [
        science.category_stability(
            name,
            found.of(images),
            layer,
            shown.landmarks[name],
            protocol=_protocol(work),
            permutations=work.parameters["permutations"],
            seed=work.parameters["seed"],
        )
        for name, images in shown.of_category.items()
    ]


def _filter_rows(rows: Rows, layer: LayerGeometry, categories: Sequence[science.CategoryStability]) -> None:
    for item in categories:
        for name, mark in item.landmarks.items():
            null = ~np.isfinite(item.deviation)
            columns = {
                "layer": [layer.name] * layer.units,
                "filter": range(layer.units),
                "category": [item.name] * layer.units,
                "landmark": [name] * layer.units,
                "images": mark.images,
                "deviation": _or_none(np.where(null, np.nan, mark.deviation)),
                "r2": _or_none(mark.r2),
                "p_value": _or_none(mark.p_value),
                "q_value": _or_none(mark.q_value),
                "localising": item.localising[name],
                "score": mark.score,
                "spread": item.spread.deviation,
                "entropy": item.spread.entropy,
                "reason": [reason or None for reason in item.reasons],
            }
            for column, values in columns.items():
                rows[column].extend(values)


def _or_none(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _layer_rows(
    work: Work,
    rows: dict[str, Rows],
    layer: LayerGeometry,
    categories: Sequence[science.CategoryStability],
    found: science.Inferences,
    shown: _Shown,
) -> None:
    kept = summary.best_filters(categories, work.parameters["filters"])
    drawn = science.resampled(
        categories, _protocol(work), resamples=work.parameters["bootstrap"], seed=work.parameters["seed"]
    )
    for number, item in enumerate(categories):
        own = found.of(shown.of_category[item.name])
        row = summary.category_summary(item, drawn[:, number], kept, own)
        append(rows["stability_layers"], {"layer": layer.name, "category": item.name, **asdict(row)})
        _resample_rows(rows["stability_resamples"], layer.name, item.name, drawn[:, number][:, kept])
    if len(categories) > 1:
        every = found.of(np.unique(np.concatenate(list(shown.of_category.values()))))
        for rule in summary.RULES:
            row = summary.pooled_summary(categories, drawn, kept, every, rule=rule)
            name = f"all: {rule}"
            append(rows["stability_layers"], {"layer": layer.name, "category": name, **asdict(row)})
            together = summary.pooled_resamples(categories, drawn, rule)[:, kept]
            _resample_rows(rows["stability_resamples"], layer.name, name, together)


def _resample_rows(rows: Rows, layer: str, category: str, drawn: NDArray[np.float64]) -> None:
    """The layer's mean in each resample: the same resamples for every network, so that differences are paired."""
    for number, value in enumerate(summary.layer_means(drawn).tolist()):
        append(rows, {"layer": layer, "category": category, "resample": number, "deviation": value})


def _inference_rows(rows: Rows, layer: LayerGeometry, found: science.Inferences, shown: _Shown) -> None:
    images = np.unique(np.concatenate(list(shown.of_category.values())))
    some = found.of(images)
    where = science.cell_centres(layer)[some.cell]
    columns: dict[str, Any] = {
        "layer": [layer.name] * some.cell.size,
        "image": np.repeat(images, layer.units),
        "filter": np.tile(np.arange(layer.units), len(images)),
        "x": where[..., 0].ravel(),
        "y": where[..., 1].ravel(),
        "score": some.score.ravel(),
    }
    for name, values in columns.items():
        rows[name].extend(values)


def _part_rows(work: Work, rows: Rows, number: int, layer: LayerGeometry, shown: _Shown) -> None:
    """Part interpretability, where the data set has part masks."""
    concepts = ConceptTable.of(work.inputs["index"])
    wanted = [index for index, category in enumerate(concepts.category) if category == "part"]
    if not wanted:
        return
    masks = work.job.reach["frame"].masks
    for name, images in shown.of_category.items():
        fit = PartFit(layer, work.job.reach["frame"].size, masks, len(wanted), radius=work.parameters["part_radius"])
        tail = _category_maps(work, number, images)
        fit.threshold(tail)
        for notes, maps, inside in _blocks(work, number, images, masks[0] * masks[1]):
            for offset in inside:
                fit.update(maps[offset], notes.labels.masks(offset, wanted))
        share, seen = fit.compute()
        for place, concept in enumerate(wanted):
            if seen[place]:
                columns = {
                    "layer": [layer.name] * layer.units,
                    "filter": range(layer.units),
                    "category": [name] * layer.units,
                    "part": [concepts.name[concept]] * layer.units,
                    "images": [int(seen[place])] * layer.units,
                    "share": share[:, place],
                }
                for column, values in columns.items():
                    rows[column].extend(values)


def _category_maps(work: Work, number: int, images: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    blocks = activation_blocks(work.inputs["activations"], number)
    return [
        block.tensors[np.isin(np.arange(block.first, block.first + len(block.tensors)), images)].astype(np.float32)
        for block in blocks
    ]


def _blocks(work: Work, number: int, images: NDArray[np.int64], pixels: int) -> Any:
    notes = annotation_blocks(work.inputs["index"], pixels)
    for annotated, block in zip(notes, activation_blocks(work.inputs["activations"], number), strict=True):
        inside = np.flatnonzero(np.isin(np.arange(block.first, block.first + len(block.tensors)), images))
        yield annotated, block.tensors, inside
