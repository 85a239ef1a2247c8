"""Page of location stability: each layer beside its baselines, and the filters that follow a landmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtome.report import views
from tasks.report.common import about, files_of, rows_of, thumb, thumbnails, worded
from tasks.stage import Work

SHOWN_FILTERS, SHOWN_IMAGES = 12, 5
ADVISED = 0.05  # share of tied or silent inferences from which the report advises another layer

_COLUMNS = [
    ("category", False),
    ("D", True),
    ("95 %", True),
    ("", False),
    ("random", True),
    ("centre", True),
    ("best constant", True),
    ("steadier than it", True),
    ("tracking", True),
    ("NULL", True),
]


def page(work: Work) -> views.Page:
    """The page."""
    looked_at = about(work, "stability")
    rows = rows_of(looked_at.inputs["stability"], "stability_layers")
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    sections = [_layer(rows, name) for name in layers]
    sections += [_gallery(looked_at, name) for name in layers]
    rule = looked_at.parameters["category"]
    best = min((row for row in rows if _is_summary(row, rows, rule)), key=lambda row: row["deviation"] or 9)
    return views.Page(
        name="location stability",
        page="stability.html",
        headline=_headline(best),
        figures=_figures(best),
        sections=[*sections, _reading()],
        queries=[
            ("Stability of layers", "select * from stability_layers"),
            ("Stability of filters", "select * from stability order by r2 desc"),
            ("Inferred positions", "select * from inferences join landmarks using (image) where filter = 0"),
        ],
    )


def _is_summary(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], rule: str) -> bool:
    """The row that the audit's rule over all categories gives; the category itself where there is one."""
    return row["category"] == f"all: {rule}" or not any(other["category"].startswith("all: ") for other in rows)


def _headline(row: Mapping[str, Any]) -> str:
    steadier = "steadier than" if (row["deviation"] or 9) < row["best_constant"] else "less steady than"
    return (
        f"The filters of {row['layer']} deviate by {worded(row['deviation'], '.4f')} of the picture's diagonal, "
        f"{steadier} one position held for every picture ({row['best_constant']:.4f}); "
        f"{worded(row['tracking_share'], '.0%')} of them follow a landmark."
    )


def _figures(row: Mapping[str, Any]) -> views.Figures:
    between = "" if row["low"] is None else f"95 %: {row['low']:.4f} to {row['high']:.4f}"
    return views.Figures(
        [
            ("deviation D", worded(row["deviation"], ".4f"), between),
            ("random cells", f"{row['random']:.4f}", f"sd {row['random_sd']:.4f}"),
            ("best constant", f"{row['best_constant']:.4f}", f"centre of the picture {row['centre']:.4f}"),
            ("tracking", worded(row["tracking_share"], ".0%"), "of the filters, q ≤ 0.05"),
            ("own spread", f"{row['spread']:.3f}", f"of the diagonal; {row['entropy']:.2f} bits"),
        ]
    )


def _layer(rows: Sequence[Mapping[str, Any]], layer: str) -> views.Section:
    mine = [row for row in rows if row["layer"] == layer]
    return views.Section(layer, [table(mine), *_advice(mine)])


def table(rows: Sequence[Mapping[str, Any]]) -> views.Table:
    """Deviations beside baselines."""
    widest = max(value or 0 for row in rows for value in (row["high"], row["deviation"], row["random"])) * 1.05

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * value / widest, 2)

    lines = []
    for row in rows:
        between = "" if row["low"] is None else f"{row['low']:.4f}–{row['high']:.4f}"
        marks = [
            (place(row["random"]) or 0.0, "chance", f"random cells {row['random']:.4f}"),
            (place(row["best_constant"]) or 0.0, "aim", f"best constant {row['best_constant']:.4f}"),
        ]
        text = f"D {worded(row['deviation'], '.4f')}, 95 % {between}"
        lines.append(
            [
                row["category"],
                worded(row["deviation"], ".4f"),
                between,
                views.Strip(place(row["deviation"]), place(row["low"]), place(row["high"]), marks, text),
                f"{row['random']:.4f}",
                f"{row['centre']:.4f}",
                f"{row['best_constant']:.4f}",
                worded(row["beating_share"], ".0%"),
                worded(row["tracking_share"], ".0%"),
                str(row["null_filters"]),
            ]
        )
    note = "On each line: the bar is D with its 95 % interval; grey, random cells; green, the best constant position."
    return views.Table(_COLUMNS, lines, note)


def _advice(rows: Sequence[Mapping[str, Any]]) -> list[views.Text]:
    worst = max(rows, key=lambda row: row["tied_share"] + row["silent_share"])
    texts = []
    if worst["tied_share"] > ADVISED:
        texts.append(
            f"In {worst['tied_share']:.0%} of all (filter, picture) pairs of {worst['category']} several cells are "
            "equally high, and the first counts: look at the layer before the activation instead."
        )
    if worst["silent_share"] > ADVISED:
        texts.append(
            f"In {worst['silent_share']:.0%} of all pairs of {worst['category']} the filter is silent, and its first "
            "cell counts; `firing_only: true` leaves these pictures out, the layer before the activation has none."
        )
    return [views.Text(text, "advice") for text in texts]


def _gallery(work: Work, layer: str) -> views.Section:
    rows = [row for row in rows_of(work.inputs["stability"], "stability", layer=layer) if row["r2"] is not None]
    rows.sort(key=lambda row: (row["q_value"] is None or row["q_value"] > 0.05, -row["r2"], row["filter"]))
    chosen: list[Mapping[str, Any]] = []
    seen: set[int] = set()
    for row in rows:
        if row["filter"] not in seen and len(chosen) < SHOWN_FILTERS:
            seen.add(row["filter"])
            chosen.append(row)
    return views.Section(
        f"Filters of {layer} that follow a landmark best",
        [
            views.Text("Circle: where the filter is highest. Cross: the landmark.", "quiet"),
            views.Gallery(cards(work, layer, chosen)),
        ],
    )


def cards(work: Work, layer: str, rows: Sequence[Mapping[str, Any]], prefix: str = "") -> list[views.Card]:
    """A card per row of `stability`: the pictures in which the filter is highest.

    Args:
        work: of a stability job.
        layer: its name.
        rows: of the table `stability`.
        prefix: of the anchors.
    """
    size = work.job.reach["frame"].size
    inferences, marks = _by_filter(work, layer, {row["filter"] for row in rows}), _landmarks(work)
    files = files_of(work.inputs["index"])
    found, images = [], set()
    for row in rows:
        inside = [item for item in inferences[row["filter"]] if (item[1], row["category"], row["landmark"]) in marks]
        top = sorted(inside, key=lambda item: (-item[0], item[1]))[:SHOWN_IMAGES]
        spots = [
            views.Spot(
                thumb(work, image),
                f"{files[image]}: filter {row['filter']} and {row['landmark']}",
                size,
                [(round(x, 1), round(y, 1), round(size[0] / 9, 1))],
                [marks[image, row["category"], row["landmark"]]],
            )
            for _, image, x, y in top
        ]
        images |= {item[1] for item in top}
        found.append(
            views.Card(
                f"filter {row['filter']}",
                f"{prefix}{layer}/{row['filter']}",
                f"{row['landmark']} of {row['category']}",
                spots,
                [
                    ("D", worded(row["deviation"], ".3f"), "deviation of the distance to the landmark"),
                    ("R²", worded(row["r2"], ".2f"), "share of the filter's movement that the landmark explains"),
                    ("q", worded(row["q_value"], ".2g"), "false discovery rate over the layer's filters"),
                ],
            )
        )
    thumbnails(work, images)
    return found


def _by_filter(work: Work, layer: str, wanted: set[int]) -> Mapping[int, list[tuple[float, int, float, float]]]:
    """filter -> (score, image, x, y)."""
    table_ = work.inputs["stability"].table("inferences").to_pydict()
    mine = np.isin(table_["filter"], list(wanted)) & (np.array(table_["layer"]) == layer)
    found: dict[int, list[tuple[float, int, float, float]]] = defaultdict(list)
    for at in np.flatnonzero(mine):
        found[table_["filter"][at]].append((table_["score"][at], table_["image"][at], table_["x"][at], table_["y"][at]))
    return found


def _landmarks(work: Work) -> dict[tuple[int, str, str], tuple[float, float]]:
    rows = work.inputs["landmarks"].table("landmarks").to_pylist()
    return {(row["image"], row["category"], row["landmark"]): (round(row["x"], 1), round(row["y"], 1)) for row in rows}


def _reading() -> views.Section:
    return views.Section(
        "How to read this",
        [
            views.Text(
                "In every picture a filter is highest in one cell; D is the standard deviation, over the pictures in "
                "which it is highest, of the distance from that cell's receptive field to a landmark, in shares of the "
                "picture's diagonal. Low means steady. It does not mean that the filter looks at the part: a filter "
                "that always answers at the same place is steadier still. So two more figures stand beside it: whether "
                "D lies below that of the best constant position, and whether the filter moves with the landmark "
                "(tracking: R² of its position regressed on the landmark's, by permutation, false discovery rate 5 %)."
            ),
            views.Text(
                "Intervals are 95 % bootstrap intervals over pictures. With several categories, “all: lowest” judges "
                "each filter in the category in which it is steadiest, as the literature does; that flatters every "
                "filter, and the baselines in that row are flattered alike."
            ),
        ],
    )
