"""Stage `stability`: how steadily filters sit on part landmarks, beside baselines that know nothing of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.networks import LayerGeometry
from microtome.quantify import stability as science
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
            _protocol(work),
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
    kept = science.best_filters(categories, work.parameters["filters"])
    drawn = science.resampled(
        categories, _protocol(work), resamples=work.parameters["bootstrap"], seed=work.parameters["seed"]
    )
    for number, item in enumerate(categories):
        images = shown.of_category[item.name]
        row = _summary(item.deviation[kept], drawn[:, number][:, kept])
        bases = item.baselines
        row |= {
            "category": item.name,
            "images": len(images),
            "random": bases.random,
            "random_sd": bases.random_sd,
            "centre": bases.centre,
            "best_constant": bases.best_constant,
            "tracking_share": _share(item.tracking, item.deviation, kept),
            "beating_share": _share(item.deviation < bases.best_constant, item.deviation, kept),
            "spread": float(item.spread.deviation[kept].mean()),
            "entropy": float(item.spread.entropy[kept].mean()),
            **_flaws(found.of(images), kept),
        }
        append(rows["stability_layers"], {"layer": layer.name, **row})
        _resample_rows(rows["stability_resamples"], layer.name, item.name, drawn[:, number][:, kept])
    if len(categories) > 1:
        for rule in science.RULES:
            row = _pooled_row(categories, drawn, kept, rule, found, shown)
            append(rows["stability_layers"], {"layer": layer.name, **row})
            together = pooled_resamples(categories, drawn, rule)[:, kept]
            _resample_rows(rows["stability_resamples"], layer.name, row["category"], together)


def _pooled_row(
    categories: Sequence[science.CategoryStability],
    drawn: NDArray[np.float64],
    kept: NDArray[np.bool_],
    rule: str,
    found: science.Inferences,
    shown: _Shown,
) -> dict[str, Any]:
    deviation = science.pooled(categories, rule)
    resampled = pooled_resamples(categories, drawn, rule)
    tracking = np.any([item.tracking for item in categories], axis=0)
    bases = {
        name: np.array([getattr(item.baselines, name) for item in categories])
        for name in ("random", "random_sd", "centre", "best_constant")
    }
    together = {name: float(value.min() if rule == "lowest" else value.mean()) for name, value in bases.items()}
    images = np.unique(np.concatenate(list(shown.of_category.values())))
    return {
        **_summary(deviation[kept], resampled[:, kept]),
        "category": f"all: {rule}",
        "images": len(images),
        **together,
        "tracking_share": _share(tracking, deviation, kept),
        "beating_share": _share(deviation < together["best_constant"], deviation, kept),
        "spread": float(np.mean([item.spread.deviation[kept].mean() for item in categories])),
        "entropy": float(np.mean([item.spread.entropy[kept].mean() for item in categories])),
        **_flaws(found.of(images), kept),
    }


def pooled_resamples(
    categories: Sequence[science.CategoryStability], drawn: NDArray[np.float64], rule: str
) -> NDArray[np.float64]:
    """(resamples, filters) of a pooling rule, the category that each filter is judged in held."""
    if rule == "mean":
        finite = np.isfinite(drawn)
        return np.where(finite, drawn, 0).sum(1) / np.where(finite.any(1), finite.sum(1), np.nan)
    choice = science.chosen_category(categories, rule)
    picked = np.take_along_axis(drawn, np.maximum(choice, 0)[None, None], 1)[:, 0]
    return np.where(choice >= 0, picked, np.nan)


def _summary(deviation: NDArray[np.float64], drawn: NDArray[np.float64]) -> dict[str, Any]:
    alive = np.isfinite(deviation)
    row: dict[str, Any] = {"filters": len(alive), "null_filters": int((~alive).sum())}
    row |= {"deviation": float(deviation[alive].mean()) if alive.any() else None, "low": None, "high": None}
    if alive.any() and len(drawn):
        means = drawn[:, alive].mean(1)
        # Images drawn twice make every resample a little steadier than the data: that bias is taken off.
        low, high = np.quantile(means, (0.025, 0.975)) - means.mean() + row["deviation"]
        row |= {"low": float(low), "high": float(high)}
    return row


def _share(flag: NDArray[np.bool_], deviation: NDArray[np.float64], kept: NDArray[np.bool_]) -> float | None:
    judged = kept & np.isfinite(deviation)
    return float(flag[judged].mean()) if judged.any() else None


def _flaws(found: science.Inferences, kept: NDArray[np.bool_]) -> dict[str, float]:
    return {"tied_share": float(found.tied[:, kept].mean()), "silent_share": float(found.silent[:, kept].mean())}


def _resample_rows(rows: Rows, layer: str, category: str, drawn: NDArray[np.float64]) -> None:
    """The layer's mean in each resample: the same resamples for every network, so that differences are paired."""
    alive = np.isfinite(drawn).all(0) if len(drawn) else np.zeros(drawn.shape[1], bool)
    for number, value in enumerate(drawn[:, alive].mean(1) if alive.any() else ()):
        append(rows, {"layer": layer, "category": category, "resample": number, "deviation": float(value)})


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
                fit.update(maps[offset], _part_masks(notes, offset, wanted))
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


def _part_masks(notes: Any, offset: int, wanted: Sequence[int]) -> NDArray[np.bool_]:
    """(parts, pixels) of one image."""
    present = notes.labels.present[offset]
    masks = np.zeros((len(wanted), notes.labels.planes.shape[2]), bool)
    for local, concept in enumerate(present, 1):
        if concept in wanted:
            masks[wanted.index(concept)] = (notes.labels.planes[offset] == local).any(0)
    return masks
