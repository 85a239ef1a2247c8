"""The tables of the contract: names, columns, types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_I32, _I64, _F32, _F64, _S, _B = pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.bool_()


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


SCHEMAS: Mapping[str, pa.Schema] = {
    "images": _schema(image=_I32, split=_S, file=_S, width=_I32, height=_I32, sha256=_S, label=_S),
    "concepts": _schema(concept_id=_I32, concept=_S, category=_S, coverage=_F64, images=_I32),
    "label_counts": _schema(image=_I32, concept_id=_I32, pixels=_I32),
    "thresholds": _schema(
        layer=_S, unit=_I32, tail=_F64, threshold=_F32, samples=_I64, min=_F32, max=_F32, mean=_F64, std=_F64,
        zero_share=_F64,
    ),
    "tails": _schema(layer=_S, unit=_I32, values=pa.list_(_F32)),
    "top_images": _schema(layer=_S, unit=_I32, rank=_I32, image=_I32, peak=_F32),
    "iou": _schema(
        layer=_S, unit=_I32, concept_id=_I32, concept=_S, category=_S, intersection=_I64, activation=_I64,
        label_pixels=_I64, iou=_F64,
    ),
    "units": _schema(
        layer=_S, unit=_I32, threshold=_F32, concept=_S, category=_S, iou=_F64, iou_low=_F64, iou_high=_F64,
        null_p95=_F64, p_value=_F64, q_value=_F64, heldout_iou=_F64, label_stability=_F64, detector=_B,
        concept_id=_I32, reason=_S,
    ),
    "layers": _schema(
        layer=_S, units=_I32, detectors=_I32, unique_per_category=_I32, unique_low=_F64, unique_high=_F64,
        unique_per_unit=_I32, unique_per_unit_low=_F64, unique_per_unit_high=_F64, detectors_low=_F64,
        detectors_high=_F64, significant=_I32, saturated=_I32, dead=_I32, mean_iou=_F64, min_iou=_F64, tail=_F64,
        images=_I32, permutations=_I32, permutations_needed=_I32, rows=_I32, columns=_I32, start_row=_F64,
        start_column=_F64, jump_row=_F64, jump_column=_F64, field_row=_F64, field_column=_F64, is_global=_B,
    ),
    "counts": _schema(layer=_S, image=_I32, unit=_I32, concept_id=_I32, intersection=_I32),
    "activated": _schema(layer=_S, image=_I32, unit=_I32, pixels=_I32),
    "null": _schema(layer=_S, unit=_I32, permutation=_I32, best_iou=_F64),
    "landmarks": _schema(image=_I32, category=_S, landmark=_S, x=_F64, y=_F64),
    "stability": _schema(
        layer=_S, filter=_I32, category=_S, landmark=_S, images=_I32, deviation=_F64, r2=_F64, p_value=_F64,
        localising=_B, reason=_S, q_value=_F64, score=_F64, spread=_F64, entropy=_F64,
    ),
    "stability_layers": _schema(
        layer=_S, category=_S, deviation=_F64, low=_F64, high=_F64, random=_F64, centre=_F64, best_constant=_F64,
        tracking_share=_F64, images=_I32, filters=_I32, null_filters=_I32, random_sd=_F64, beating_share=_F64,
        tied_share=_F64, silent_share=_F64, spread=_F64, entropy=_F64,
    ),
    "stability_resamples": _schema(layer=_S, category=_S, resample=_I32, deviation=_F64),
    "inferences": _schema(layer=_S, image=_I32, filter=_I32, x=_F32, y=_F32, score=_F32),
    "part_interpretability": _schema(layer=_S, filter=_I32, category=_S, part=_S, images=_I32, share=_F64),
    "training": _schema(
        epoch=_I32, phase=_S, split=_S, task_loss=_F64, filter_loss=_F64, accuracy=_F64, low=_F64, high=_F64,
        images=_I32, rate=_F64,
    ),
    "finetuning_images": _schema(dataset=_S, image=_I32, label=_I32, split=_S, predicted=_I32, logit=_F64),
    "filter_categories": _schema(layer=_S, filter=_I32, category=_S),
    "tree_nodes": _schema(
        node=_I32, parent=_I32, depth=_I32, images=_I32, filters=_I32, bias=_F64, visitors=_I32, held_out=_I32
    ),
    "tree_merges": _schema(step=_I32, left=_I32, right=_I32, node=_I32, gain=_F64),
    "tree_metrics": _schema(depth=_I32, metric=_S, value=_F64, low=_F64, high=_F64, images=_I32, model=_S),
    "tree_paths": _schema(image=_I32, depth=_I32, node=_I32, cosine=_F64, dataset=_S),
    "tree_images": _schema(dataset=_S, image=_I32, file=_S, positive=_B, split=_S, y=_F64, leaf=_I32),
    "tree_filters": _schema(filter=_I32, size=_F64, dropped=_B, part=_S, share=_F64),
    "graph_nodes": _schema(
        layer=_S, filter=_I32, node=_I32, x=_F64, y=_F64, sigma=_F64, score=_F64, home_x=_F64, home_y=_F64, purity=_F64,
        concept=_S,
    ),
    "graph_edges": _schema(child=_I32, parent=_I32, weight=_F64, dx=_F64, dy=_F64),
    "graph_inferences": _schema(image=_I32, node=_I32, x=_F32, y=_F32, score=_F32),
    "graph_images": _schema(image=_I32, file=_S, split=_S, category=_S),
    "graph_metrics": _schema(
        layer=_S, metric=_S, of=_S, round=_I32, value=_F64, low=_F64, high=_F64, n=_I32
    ),
    "parts": _schema(
        part=_S, boxes=_I32, pattern=_I32, layer=_S, filter=_I32, dx=_F64, dy=_F64, score=_F64, template=_I32
    ),
    "part_errors": _schema(part=_S, boxes=_I32, method=_S, image=_I32, error=_F64, draw=_I32, x=_F64, y=_F64),
    "part_summary": _schema(
        part=_S, boxes=_I32, method=_S, error=_F64, low=_F64, high=_F64, share=_F64, share_low=_F64, share_high=_F64,
        images=_I32,
    ),
    "saliency": _schema(image=_I32, target=_I32, method=_S, scale=_F64, file=_S),
    "features": _schema(
        layer=_S, unit=_I32, objective=_F64, transformed=_F64, natural_max=_F64, ratio=_F64, high_frequency=_F64,
        dead=_B, file=_S, peak=_F64,
    ),
    "unit_crops": _schema(layer=_S, unit=_I32, image=_I32, kind=_S, x0=_I32, y0=_I32, x1=_I32, y1=_I32, file=_S),
    "occlusion": _schema(
        layer=_S, unit=_I32, size_x=_I32, size_y=_I32, theoretical=_F64, images=_I32, file=_S
    ),
    "minimal_images": _schema(
        image=_I32, segments=_I32, kept=_I32, score=_F64, whole_score=_F64, area=_F64, file=_S
    ),
    "reliability": _schema(
        method=_S, test=_S, shift_or_layer=_S, value=_F64, low=_F64, high=_F64, n=_I32, passed=_B
    ),
    "adversarial": _schema(
        attack=_S, norm=_S, eps=_F64, measure=_S, value=_F64, low=_F64, high=_F64, n=_I32
    ),
    "attacked_images": _schema(attack=_S, norm=_S, eps=_F64, image=_I32, before=_I32, after=_I32, file=_S),
    "gates": _schema(gate=_S, value=_F64, limit=_F64, passed=_B),
}  # fmt: skip


def conform(name: str, columns: Mapping[str, Any] | pa.Table) -> pa.Table:
    """A table with the contract's columns, in its order and types.

    Raises:
        ValueError: a table that the contract does not have, or other columns than it says.
    """
    if name not in SCHEMAS:
        raise ValueError(f"table must be one of {', '.join(SCHEMAS)}, got {name!r}")
    schema = SCHEMAS[name]
    given = columns.column_names if isinstance(columns, pa.Table) else list(columns)
    if set(given) != set(schema.names):
        raise ValueError(f"table {name} must have the columns {', '.join(schema.names)}, got {', '.join(given)}")
    if isinstance(columns, pa.Table):
        return columns.select(schema.names).cast(schema)
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema=schema)
