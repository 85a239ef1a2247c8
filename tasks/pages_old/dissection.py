"""Pages of a dissection: a layer each, its units with their top images and masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtome.networks import LayerGeometry
from microtome.report import views
from microtome.report.charts import concept_bars
from microtome.report.overlay import dim_path
from tasks.reading import layers_of
from tasks.report.common import about, files_of, rows_of, thumb, thumbnails, worded
from tasks.stage import Work
from tasks.tally import Lighter


def pages(work: Work) -> list[views.Layer]:
    """A page per layer."""
    looked_at = about(work, "dissection")
    layers = layers_of(looked_at.inputs["activations"])
    work.begin(len(layers), "pages")
    found, images = [], set()
    for number, layer in enumerate(layers):
        page, used = _layer(looked_at, number, layer, work.parameters["top_images"])
        found.append(page)
        images |= used
        work.advance(1)
    thumbnails(looked_at, images)
    return found


def _layer(work: Work, number: int, layer: LayerGeometry, shown: int) -> tuple[views.Layer, set[int]]:
    """A layer's page, and the images that it shows."""
    row = rows_of(work.inputs["dissection"], "layers", layer=layer.name)[0]
    units = rows_of(work.inputs["dissection"], "units", layer=layer.name)
    top = [item for item in rows_of(work.inputs["thresholds"], "top_images", layer=layer.name) if item["rank"] < shown]
    lighter = Lighter(work, number, layer, work.inputs["tally"].parameters)
    dims = _dims(work, lighter, {(item["image"], item["unit"]) for item in top})
    files = files_of(work.inputs["index"])
    pictures: dict[int, list[views.Picture]] = {}
    for item in top:
        pictures.setdefault(item["unit"], []).append(_picture(work, item, files, dims))
    widest = max(max(unit["iou_high"] or unit["iou"] for unit in units), 2 * row["min_iou"])
    cards = [_unit(unit, pictures.get(unit["unit"], []), widest, row["min_iou"]) for unit in units]
    page = views.Layer(
        name=layer.name,
        page=f"layer-{number:03d}.html",
        headline=_headline(row),
        figures=_figures(row),
        charts=_charts(units),
        units=sorted(cards, key=lambda card: (-card.iou_sort, card.number)),
        categories=sorted({card.category for card in cards if card.category}),
        advice=_advice(row),
        mask=work.job.reach["frame"].masks,
    )
    return page, {item["image"] for item in top}


def _dims(work: Work, lighter: Lighter, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """The masks of the wanted (image, unit) pairs, as paths."""
    masks = work.job.reach["frame"].masks
    by_image: dict[int, set[int]] = {}
    for image, unit in wanted:
        by_image.setdefault(image, set()).add(unit)
    found = {pair: dim_path(np.zeros(masks, bool)) for pair in wanted}
    for notes, maps in lighter.blocks():
        for offset in range(len(maps)):
            image = notes.first + offset
            if image not in by_image:
                continue
            lit = lighter.light(maps[offset : offset + 1])
            for unit in sorted(by_image[image]):
                mask = np.zeros(masks[0] * masks[1], bool)
                mask[lit.pixel[lit.unit == unit].cpu().numpy()] = True
                found[image, unit] = dim_path(mask.reshape(masks))
    return found


def _picture(
    work: Work, item: Mapping[str, Any], files: Sequence[str], dims: Mapping[tuple[int, int], str]
) -> views.Picture:
    image, unit = item["image"], item["unit"]
    alt = f"{files[image]}, number {item['rank'] + 1} of unit {unit}, peak {item['peak']:.3g}"
    return views.Picture(thumb(work, image), alt, dims[image, unit], f"{item['peak']:.3g}")


def _unit(row: Mapping[str, Any], pictures: Sequence[views.Picture], widest: float, limit: float) -> views.Unit:
    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * min(value / widest, 1.0), 2)

    low, high = row["iou_low"], row["iou_high"]
    return views.Unit(
        number=row["unit"],
        anchor=f"{row['layer']}/{row['unit']}",
        concept=row["concept"] or "",
        category=row["category"] or "",
        detector=row["detector"],
        iou=f"{row['iou']:.3f}",
        interval="" if low is None else f"[{low:.3f}, {high:.3f}]",
        facts=_facts(row),
        scale=views.IouScale(
            place(row["iou"]) or 0.0, place(low), place(high), place(row["null_p95"]), place(limit) or 0.0
        ),
        pictures=pictures,
        reason=row["reason"] or "",
        iou_sort=row["iou"],
        q_sort=1.0 if row["q_value"] is None else row["q_value"],
    )


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            "held out",
            worded(row["heldout_iou"], ".3f"),
            "IoU on one half of the images of the label that wins on the other",
        ),
        ("null 95 %", worded(row["null_p95"], ".3f"), "IoU that the best label reaches with exchanged annotations"),
        ("q", worded(row["q_value"], ".2g"), "false discovery rate, Benjamini-Hochberg over the layer's units"),
        ("stability", worded(row["label_stability"], ".0%"), "share of resamples in which the same label wins"),
        ("threshold", worded(row["threshold"], ".3g"), "value that the unit exceeds in the tail's share of places"),
        ("p", worded(row["p_value"], ".2g"), "(1 + permutations at least as good) / (1 + permutations)"),
    ]


def _headline(row: Mapping[str, Any]) -> str:
    return (
        f"{row['detectors']} of {row['units']} units detect {row['unique_per_unit']} concepts "
        f"at IoU > {row['min_iou']:g}, over {row['images']:,} images."
    )


def _figures(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    def between(low: float | None, high: float | None) -> str:
        return "" if low is None or high is None else f"95 %: {low:.0f} to {high:.0f}"

    chance = "not asked for" if row["significant"] is None else f"of {row['units']} units, at q ≤ 0.05"
    return [
        ("detectors", str(row["detectors"]), between(row["detectors_low"], row["detectors_high"])),
        ("unique, per category", str(row["unique_per_category"]), between(row["unique_low"], row["unique_high"])),
        (
            "unique, per unit",
            str(row["unique_per_unit"]),
            between(row["unique_per_unit_low"], row["unique_per_unit_high"]),
        ),
        ("beyond chance", "–" if row["significant"] is None else str(row["significant"]), chance),
        ("mean best IoU", f"{row['mean_iou']:.4f}", ""),
        (
            "receptive field",
            f"{row['field_row']:g} px",
            f"every {row['jump_row']:g} px, {row['rows']} × {row['columns']} cells",
        ),
    ]


def _advice(row: Mapping[str, Any]) -> list[str]:
    advice = []
    if row["saturated"]:
        advice.append(
            f"{_units(row['saturated'])} saturated: the threshold is the maximum, so nothing lies above it. "
            "Dissect the layer before the activation instead."
        )
    if row["dead"]:
        advice.append(f"{_units(row['dead'])} dead: the same value everywhere, in every picture.")
    if row["permutations_needed"] > row["permutations"]:
        advice.append(
            f"With {row['permutations']} permutations no q-value here can fall to 0.05; "
            f"{row['permutations_needed']} would allow it."
        )
    if row["is_global"]:
        advice.append(
            "Something before this layer mixes all positions (attention, pooled gates): its units see the whole "
            "picture, and the receptive field above leaves that out."
        )
    return advice


def _units(count: int) -> str:
    return f"{count} unit is" if count == 1 else f"{count} units are"


def _charts(units: Sequence[Mapping[str, Any]]) -> list[views.Chart]:
    counted: dict[str, Counter[str]] = {}
    for unit in units:
        if unit["detector"]:
            counted.setdefault(unit["category"], Counter())[unit["concept"]] += 1
    most = max((count for counts in counted.values() for count in counts.values()), default=1)
    return [
        concept_bars(category, sorted(counts.items(), key=lambda item: (-item[1], item[0])), most)
        for category, counts in sorted(counted.items())
    ]
