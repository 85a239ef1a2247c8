"""What a graph is worth: log-likelihood, steadiness beside raw filters under one rule, purity of its nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.graph import GraphLayer
from microtome.disentangle.graph_inference import Seen
from microtome.quantify import stability as science
from tasks.graph_reading import Chosen, Made, landmarks_of
from tasks.reading import ConceptTable, annotation_blocks
from tasks.rows import Rows, append
from tasks.stage import Work

TOP_IMAGES = 20
PURITY_IMAGES = 20
RESAMPLES = 300


def metric_rows(
    work: Work, graph: Sequence[GraphLayer], seen: Sequence[Seen], made: Sequence[Made], chosen: Chosen
) -> Rows:
    """Rows of `graph_metrics`."""
    rows: Rows = defaultdict(list)
    for layer, part in zip(graph, made, strict=True):
        for number, value in enumerate(layer.log_likelihood):
            about = {"layer": part.geometry.name, "metric": "log-likelihood", "round": number + 1, "of": "training"}
            append(rows, {**about, **_value(value)})
    marks = landmarks_of(work, chosen.images)
    for seen_layer, part in zip(seen, made, strict=True) if marks else ():
        for row in _stability(work, seen_layer, part, marks):
            append(rows, {"layer": part.geometry.name, "round": None, **row})
    return rows


def _stability(work: Work, seen: Seen, part: Made, marks: Mapping[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    """As many top nodes as the layer has filters in the graph, each judged in its top pictures; paired resamples."""
    size = work.job.reach["frame"].size
    protocol = science.Protocol(size, TOP_IMAGES)
    score = seen.score.flatten(1).cpu().numpy()
    best = np.argsort(-score.mean(0), kind="stable")[: len(part.filters)]
    place = seen.position.flatten(1, 2).cpu().numpy()[:, best] * np.array(size[::-1])
    cell = np.arange(place.shape[0] * place.shape[1]).reshape(place.shape[:2])
    nodes = science.Inferences(cell, score[:, best].astype(np.float32), np.zeros(cell.shape, bool))
    raw = science.infer(part.maps.maps.cpu().numpy())
    found, drawn = [], {}
    for name, inferences, where in (("nodes", nodes, place.reshape(-1, 2).astype(float)), ("filters", raw, None)):
        judged = science.category_stability(
            name,
            inferences,
            part.geometry,
            marks,
            protocol,
            permutations=work.parameters["permutations"],
            centres=where,
        )
        drawn[name] = science.resampled([judged], protocol, resamples=RESAMPLES, seed=0)[:, 0], judged.deviation
        found.append({"metric": "instability", "of": name, **_interval(*drawn[name])})
        found += _shares(name, judged)
    apart = [np.nanmean(values, 1) for values, _ in drawn.values()]
    truth = [float(np.nanmean(deviation)) for _, deviation in drawn.values()]
    low, high = np.quantile(apart[0] - apart[1], (0.025, 0.975)) - (apart[0] - apart[1]).mean() + truth[0] - truth[1]
    between = {"value": truth[0] - truth[1], "low": float(low), "high": float(high), "n": len(score)}
    found.append({"metric": "instability", "of": "nodes minus filters", **between})
    for name in ("random", "centre", "best_constant"):
        value = _value(getattr(judged.baselines, name))
        found.append({"metric": "instability", "of": name.replace("_", " "), **value})
    return found


def _shares(name: str, judged: science.CategoryStability) -> list[dict[str, Any]]:
    """Frozen positions are steady, too: who beats the best of them on the same pictures, or follows a landmark?"""
    marks, limits = judged.landmarks.values(), judged.baselines.best_by_landmark
    beats = np.any([mark.deviation < limit for mark, limit in zip(marks, limits, strict=True)], axis=0)
    shares = {"beats best constant": beats, "tracks a landmark": judged.tracking, "either": beats | judged.tracking}
    rows = [{"metric": metric, "of": name, **_value(float(flag.mean()), len(flag))} for metric, flag in shares.items()]
    spread = float(judged.spread.deviation.mean())
    return [*rows, {"metric": "own spread", "of": name, **_value(spread, len(judged.deviation))}]


def _interval(drawn: NDArray[np.float64], deviation: NDArray[np.float64]) -> dict[str, Any]:
    """Mean over nodes; the interval over pictures, with the bias of resampling taken off."""
    value, means = float(np.nanmean(deviation)), np.nanmean(drawn, 1)
    low, high = np.quantile(means, (0.025, 0.975)) - means.mean() + value
    return {"value": value, "low": float(low), "high": float(high), "n": int(np.isfinite(deviation).sum())}


def _value(value: float, count: int | None = None) -> dict[str, Any]:
    return {"value": float(value), "low": None, "high": None, "n": count}


def purity(work: Work, seen: Sequence[Seen], chosen: Chosen) -> list[list[tuple[float, str]] | None]:
    """Per layer and node: the part concept that it is on in most of its top pictures, and that share of them."""
    concepts = ConceptTable.of(work.inputs["index"])
    wanted = [n for n, category in enumerate(concepts.category) if category == "part"]
    if not wanted:
        return [None] * len(seen)
    shape = work.job.reach["frame"].masks
    masks = _part_masks(work, chosen.images, wanted, shape[0] * shape[1])
    found: list[list[tuple[float, str]] | None] = []
    for layer in seen:
        position = layer.position.flatten(1, 2).cpu().numpy()
        score = layer.score.flatten(1).cpu().numpy()
        top = np.argsort(-score, axis=0, kind="stable")[:PURITY_IMAGES]
        column = np.clip((position[..., 0] * shape[1]).astype(int), 0, shape[1] - 1)
        row = np.clip((position[..., 1] * shape[0]).astype(int), 0, shape[0] - 1)
        pixel = row * shape[1] + column
        nodes = np.arange(pixel.shape[1])
        on = np.stack([masks[images, :, pixel[images, nodes]] for images in top])
        share = on.mean(0)
        found.append([(float(s.max()), concepts.name[wanted[int(s.argmax())]]) for s in share])
    return found


def _part_masks(work: Work, images: NDArray[np.int64], wanted: Sequence[int], pixels: int) -> NDArray[np.bool_]:
    """(images, parts, pixels)."""
    masks = np.zeros((len(images), len(wanted), pixels), bool)
    for block in annotation_blocks(work.inputs["index"], pixels):
        for offset in range(len(block.labels.planes)):
            place = np.flatnonzero(images == block.first + offset)
            if len(place):
                for local, concept in enumerate(block.labels.present[offset], 1):
                    if concept in wanted:
                        masks[place[0], wanted.index(concept)] = (block.labels.planes[offset] == local).any(0)
    return masks
