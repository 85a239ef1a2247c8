"""The stages, in the order in which they are planned: one line each."""

from __future__ import annotations

from collections.abc import Mapping

from storage import TableSchema
from tasks import (
    ablation,
    activations,
    adversarial,
    dictionary,
    directions,
    dissection,
    drift,
    features,
    finetuning,
    formulas,
    gates,
    graph,
    imported,
    index,
    landmarks,
    null,
    occlusion,
    pages,
    parts,
    projected,
    redrawn,
    reliability,
    report,
    saliency,
    scores,
    stability,
    tally,
    thresholds,
    tree,
)
from tasks.stage import Metric, Stage

STAGES: tuple[Stage, ...] = (
    index.STAGE,
    activations.STAGE,
    thresholds.STAGE,
    tally.STAGE,
    null.STAGE,
    redrawn.STAGE,
    ablation.STAGE,
    dissection.STAGE,
    formulas.STAGE,
    directions.STAGE,
    projected.STAGE,
    dictionary.STAGE,
    imported.STAGE,
    scores.STAGE,
    landmarks.STAGE,
    finetuning.STAGE,
    drift.STAGE,
    stability.STAGE,
    tree.STAGE,
    graph.STAGE,
    parts.STAGE,
    saliency.STAGE,
    reliability.STAGE,
    features.STAGE,
    occlusion.STAGE,
    adversarial.STAGE,
    gates.STAGE,
    pages.STAGE,
    report.STAGE,
)

BY_NAME: Mapping[str, Stage] = {stage.name: stage for stage in STAGES}
TABLES: tuple[TableSchema, ...] = tuple(table for stage in STAGES for table in stage.tables)
METRICS: Mapping[str, Metric] = {f"{metric.table}.{metric.column}": metric for s in STAGES for metric in s.metrics}
