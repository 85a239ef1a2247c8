"""Pages of what units look at: synthetic pictures beside natural ones, receptive fields, minimal images, attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.torch import load

from microtome.report import views
from storage import Artifact
from tasks.pictures import file_of
from tasks.report.common import about, files_of, rows_of, thumb, thumbnails, worded
from tasks.stage import Work

SHOWN_NATURAL = 4
EXPLANATIONS = ("tree of ", "graph: ")


def features(work: Work) -> views.Page:
    """Feature visualisation."""
    looked_at = about(work, "features")
    made, top = looked_at.inputs["features"], looked_at.inputs["thresholds"].table("top_images").to_pylist()
    rows = rows_of(made, "features")
    natural = {(row["layer"], row["unit"], row["rank"]): row["image"] for row in top if row["rank"] < SHOWN_NATURAL}
    thumbnails(looked_at, {natural[r["layer"], r["unit"], k] for r in rows for k in range(SHOWN_NATURAL)
                           if (r["layer"], r["unit"], k) in natural})  # fmt: skip
    crops = made.table("unit_crops").to_pylist()
    cards = [_feature_card(looked_at, row, natural, crops) for row in rows]
    beyond = [row for row in rows if (row["ratio"] or 0) > 1]
    return views.Page(
        name="features",
        page="features.html",
        headline=f"{len(beyond)} of {len(rows)} synthetic pictures drive their unit beyond its highest natural "
        f"activation; {sum(row['dead'] for row in rows)} units are dead.",
        figures=views.Figures(
            [
                ("units", str(len(rows)), "a sample, drawn by the audit's seed"),
                ("beyond nature", f"{len(beyond) / len(rows):.0%}", "synthetic peak above the highest natural one"),
                ("median ratio", worded(_median([r["ratio"] for r in rows]), ".1f"), "synthetic over natural peak"),
            ]
        ),
        sections=[
            views.Section(
                "Units",
                [
                    views.Text(
                        "First the synthetic picture, then the natural ones in which the unit is highest, then crops "
                        "about its highest cell and what deconvolution hands down there. People predict units better "
                        "from natural pictures (92 % against 82 %, arXiv 2010.12606): the synthetic one shows what the "
                        "unit can answer to, not what it usually sees.",
                        "quiet",
                    ),
                    views.Gallery(cards, True),
                ],
            )
        ],
        queries=[("Synthetic pictures", "select * from features order by ratio desc")],
    )


def _feature_card(
    work: Work, row: Mapping[str, Any], natural: Mapping[tuple[str, int, int], int], crops: Sequence[Mapping[str, Any]]
) -> views.Card:
    size, files = work.job.reach["frame"].size, files_of(work.inputs["index"])
    made = work.inputs["features"]
    spots = [
        views.Spot(_copied(work, made, row["file"]), f"synthetic picture of unit {row['unit']}", size, (), (), "made")
    ]
    for rank in range(SHOWN_NATURAL):
        image = natural.get((row["layer"], row["unit"], rank))
        if image is not None:
            spots.append(views.Spot(thumb(work, image), files[image], size, (), (), "natural"))
    mine = [crop for crop in crops if crop["layer"] == row["layer"] and crop["unit"] == row["unit"]]
    for crop in mine[:4]:
        box = (crop["y1"] - crop["y0"], crop["x1"] - crop["x0"])
        spots.append(
            views.Spot(
                _copied(work, made, crop["file"]), f"{crop['kind']} crop of {files[crop['image']]}", box, (), (),
                "crop" if crop["kind"] == "natural" else "deconv.",
            )
        )  # fmt: skip
    facts = [
        ("ratio", worded(row["ratio"], ".2f"), "peak in the synthetic picture over the highest natural one"),
        ("fine detail", f"{row['high_frequency']:.0%}", "energy above a quarter cycle per pixel"),
        ("natural peak", f"{row['natural_max']:.3g}", "highest activation over the data set"),
    ]
    note = "dead: no gradient reaches it" if row["dead"] else ""
    return views.Card(
        f"{row['layer']} unit {row['unit']}", f"features/{row['layer']}/{row['unit']}", note, spots, facts
    )


def occlusion(work: Work) -> views.Page:
    """Empirical receptive fields and minimal images."""
    looked_at = about(work, "occlusion")
    made = looked_at.inputs["occlusion"]
    rows = rows_of(made, "occlusion")
    lines: list[list[str | views.Strip]] = [
        [
            f"{r['layer']} unit {r['unit']}",
            f"{r['size_x']} × {r['size_y']} px",
            f"{r['theoretical']:g} px",
            str(r["images"]),
        ]
        for r in rows
    ]
    columns = [("unit", False), ("field, measured", True), ("theoretical", True), ("pictures", True)]
    cards = [_field_card(looked_at, row) for row in rows]
    sections = [
        views.Section(
            "Receptive fields",
            [
                views.Table(
                    columns, lines, "The occluder's own width is taken off. A unit at the edge shows part of its field."
                ),
                views.Gallery(cards),
            ],
        )
    ]
    if made.has("minimal_images.parquet"):
        sections.append(_minimal(looked_at))
    measured = _median([(r["size_x"] + r["size_y"]) / 2 for r in rows])
    return views.Page(
        name="fields",
        page="fields.html",
        headline=f"Measured by covering pictures up, a unit looks at {worded(measured, '.0f')} pixels (median), of the "
        f"{max(r['theoretical'] for r in rows):g} that its layer could see.",
        figures=views.Figures(
            [("units measured", str(len(rows)), ""), ("median field", worded(measured, ".0f"), "pixels")]
        ),
        sections=sections,
        queries=[("Receptive fields", "select * from occlusion"), ("Minimal images", "select * from minimal_images")],
    )


def _field_card(work: Work, row: Mapping[str, Any]) -> views.Card:
    whole = load(work.inputs["occlusion"].read(row["file"]))["heat"].numpy()
    reach = int(0.75 * row["theoretical"])  # what lies farther out cannot matter
    middle = [side // 2 for side in whole.shape]
    heat = whole[tuple(slice(max(0, at - reach), at + reach + 1) for at in middle)]
    scale = float(np.abs(heat).max()) or 1.0
    shade = (255 * (1 - np.clip(heat / scale, 0, 1))).astype(np.uint8)
    file = f"assets/{row['file'].removesuffix('.safetensors')}.webp"
    work.draft.write(file, file_of(np.repeat(shade[..., None], 3, 2)))
    half = row["theoretical"] / 2
    y, x = heat.shape[0] / 2, heat.shape[1] / 2
    spot = views.Spot(
        file, f"mean discrepancy of unit {row['unit']}", heat.shape, [(x, y, half)], (), "dark: it matters"
    )
    return views.Card(f"{row['layer']} unit {row['unit']}", f"field/{row['layer']}/{row['unit']}",
                      "circle: theoretical field", [spot])  # fmt: skip


def _minimal(work: Work) -> views.Section:
    rows = work.inputs["occlusion"].table("minimal_images").to_pylist()
    thumbnails(work, [row["image"] for row in rows])
    size, files = work.job.reach["frame"].size, files_of(work.inputs["index"])
    cards = [
        views.Card(
            files[row["image"]],
            f"minimal/{row['image']}",
            f"{row['kept']} of {row['segments']} segments",
            [
                views.Spot(thumb(work, row["image"]), files[row["image"]], size, (), (), "whole"),
                views.Spot(
                    _copied(work, work.inputs["occlusion"], row["file"]), "what is left", size, (), (), "minimal"
                ),
            ],
            [
                ("area left", f"{row['area']:.0%}", "share of the picture"),
                ("logit", f"{row['whole_score']:.2f} → {row['score']:.2f}", "of the predicted class"),
            ],
        )
        for row in rows
    ]
    text = "Segments are removed, the one that costs the prediction least first, until the next would flip it."
    return views.Section("Minimal images", [views.Text(text, "quiet"), views.Gallery(cards)])


def adversarial(work: Work) -> views.Page:
    """Attacks and what moves inside."""
    looked_at = about(work, "adversarial")
    made = looked_at.inputs["adversarial"]
    rows = rows_of(made, "adversarial")
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    kinds = list(dict.fromkeys((row["attack"], row["eps"]) for row in rows))
    cell = {(row["attack"], row["eps"], row["measure"]): row for row in rows}
    explained = [name for name in measures if name.startswith(EXPLANATIONS) or name.endswith("keep their label")]
    tables = [
        _moved(kinds, cell, [name for name in measures if name not in explained], "network"),
        _moved(kinds, cell, explained, "explanations"),
    ]
    note = (
        "Means over pictures with 95 % bootstrap intervals. “Noise like”: every pixel moved as far, in a random "
        "direction: what does not exceed it is no effect of the attack. Tree and graph speak of their own category."
    )
    strongest = max((r for r in rows if r["measure"] == "prediction flipped"), key=lambda r: (r["value"], -r["eps"]))
    control = cell[f"noise like {strongest['attack']}", strongest["eps"], "prediction flipped"]
    return views.Page(
        name="adversarial",
        page="adversarial.html",
        headline=f"{strongest['attack']} at {strongest['eps']:g}/255 flips {strongest['value']:.0%} of "
        f"{strongest['n']} predictions; noise of the same size {control['value']:.0%}.",
        figures=views.Figures(
            [
                (f"{a} {e:g}/255", f"{cell[a, e, 'prediction flipped']['value']:.0%}", "predictions flipped")
                for a, e in kinds
                if not a.startswith("noise")
            ]
        ),
        sections=[
            views.Section(
                "What moves",
                [*(table for table in tables if len(table.columns) > 1), views.Text(note, "quiet")],
            ),
            _attacked(looked_at, made),
        ],
        queries=[("Attacks", "select * from adversarial order by eps, attack")],
    )  # fmt: skip


def _moved(
    kinds: Sequence[tuple[str, float]],
    cell: Mapping[tuple[str, float, str], Mapping[str, Any]],
    measures: Sequence[str],
    what: str,
) -> views.Table:
    """A row per attack, a column per measure."""
    lines = []
    for attack, eps in kinds:
        found = [cell.get((attack, eps, measure)) for measure in measures]
        worded_cells = [f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" if r else "–" for r in found]
        lines.append([f"{attack}, {eps:g}/255", *worded_cells])
    return views.Table([(what, False), *((measure, True) for measure in measures)], lines)


def _attacked(work: Work, made: Artifact) -> views.Section:
    rows = made.table("attacked_images").to_pylist()
    thumbnails(work, [row["image"] for row in rows])
    size, files = work.job.reach["frame"].size, files_of(work.inputs["index"])
    cards = [
        views.Card(
            f"{row['attack']} {row['eps']:g}/255",
            f"attacked/{row['attack']}-{row['eps']:g}/{row['image']}".replace(" ", "-"),
            "held" if row["before"] == row["after"] else f"class {row['before']} → {row['after']}",
            [
                views.Spot(thumb(work, row["image"]), files[row["image"]], size, (), (), "before"),
                views.Spot(
                    _copied(work, made, f"{row['file']}-changed.webp"), "attacked picture", size, (), (), "after"
                ),
                views.Spot(
                    _copied(work, made, f"{row['file']}-difference.webp"), "difference", size, (), (), "difference"
                ),
            ],
        )
        for row in rows
    ]
    text = "The difference is drawn at full contrast: grey is no change, the extremes are eps."
    return views.Section("Attacked pictures", [views.Text(text, "quiet"), views.Gallery(cards)])


def _copied(work: Work, made: Artifact, file: str) -> str:
    """A picture of a stage's, in the report."""
    place = f"assets/{file}"
    work.draft.write(place, made.read(file))
    return place


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
