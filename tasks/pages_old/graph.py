"""Pages of the explanatory graph and of mined parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from microtome.report import views
from microtome.report.charts import lines
from storage import Artifact
from tasks.graph_reading import landmarks_of
from tasks.pictures import read_thumbnails
from tasks.report.common import about, files_of, thumb, thumbnails, worded
from tasks.stage import Work

SHOWN_NODES, SHOWN_PATCHES = 16, 5
SHOWN_IMAGES, DRAWN = 3, 12


def page(work: Work) -> views.Page:
    """The graph."""
    looked_at = about(work, "graph")
    made = looked_at.inputs["graph"]
    over = Over(made, looked_at.job.reach["frame"].size)
    nodes, edges, layers = over.nodes, over.edges, over.layers
    found = made.table("graph_inferences").to_pandas()
    metrics = made.table("graph_metrics").to_pylist()
    images = made.table("graph_images").to_pandas()
    small = read_thumbnails(made)
    sections = [
        views.Section("Are nodes steadier than filters?", [_steadiness(metrics, layers), _steady_note()]),
        views.Section("Learning", [_learning(metrics)]),
    ]
    held = images[images["split"] != "train"].head(SHOWN_IMAGES)
    for row in held.itertuples():
        picture = f"assets/graph/{row.image:06d}.webp"
        work.draft.write(picture, small[row.Index])
        parts = over.parts(found[found["image"] == row.image], picture, row.file)
        sections.append(views.Section(f"The graph over {row.file}", parts))
    sections.append(_cards(work, looked_at, nodes, edges, found, layers))
    return views.Page(
        name="explanatory graph",
        page="graph.html",
        headline=_headline(metrics, nodes, layers),
        figures=views.Figures(
            [
                ("nodes", f"{len(nodes):,}", f"{len(layers)} layers"),
                ("edges", f"{len(edges):,}", "child to parent"),
                ("pictures", str(len(images)), f"{int((images['split'] == 'train').sum())} to learn from"),
            ]
        ),
        sections=sections,
        queries=[
            ("Graph metrics", "select * from graph_metrics where round is null"),
            ("Nodes", "select * from graph_nodes order by score desc limit 20"),
            ("Parents of a node", "select * from graph_edges where child = 0"),
        ],
    )


def _headline(metrics: Sequence[Mapping[str, Any]], nodes: Any, layers: Sequence[str]) -> str:
    text = f"{len(nodes):,} part patterns in {len(layers)} layers share out what the filters answer to"
    apart = [row for row in metrics if row["of"] == "nodes minus filters"]
    steadier = [row for row in apart if row["high"] < 0]
    if apart:
        text += (
            f". In {len(steadier)} of {len(apart)} layers the strongest nodes are steadier than the raw filters, by an "
            "interval that excludes zero"
        )
    return text + "."


def _steadiness(metrics: Sequence[Mapping[str, Any]], layers: Sequence[str]) -> views.Part:
    rows = {(r["layer"], r["metric"], r["of"]): r for r in metrics if r["round"] is None}
    if not rows:
        return views.Text("The data set has no landmarks: nothing to be steady against.", "quiet")
    table = []
    for layer in layers:
        cell = [_cell(rows.get((layer, "instability", name))) for name in ("nodes", "filters", "nodes minus filters")]
        base = [worded(rows[layer, "instability", name]["value"], ".3f") for name in ("random", "best constant")]
        share = [f"{rows[layer, 'either', name]['value']:.0%}" for name in ("nodes", "filters")]
        spread = [f"{rows[layer, 'own spread', name]['value']:.3f}" for name in ("nodes", "filters")]
        table.append([layer, *cell, *base, *share, *spread])
    names = (
        "nodes", "filters", "difference", "random", "best constant", "nodes that beat it or track",
        "filters that do", "spread, nodes", "spread, filters",
    )  # fmt: skip
    return views.Table([("layer", False), *((name, True) for name in names)], table)


def _cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _steady_note() -> views.Text:
    return views.Text(
        "Location instability of as many top nodes as there are filters, and of the filters, in the 20 pictures where "
        "each is highest; 95 % intervals over pictures, paired. A position that never moves is steady, too: "
        "count those that beat the best constant position on the same pictures, or that follow a landmark (q at most "
        "0.05). Spread: how much the position itself moves, by the diagonal.",
        "quiet",
    )


def _learning(metrics: Sequence[Mapping[str, Any]]) -> views.Charts:
    rows = [
        {"x": row["round"], "y": row["value"], "line": row["layer"]}
        for row in metrics
        if row["metric"] == "log-likelihood"
    ]
    return views.Charts([lines("Log-likelihood per unit of activation, by round", rows, "round")])


class Over:
    """A finished graph, drawn over pictures.

    Args:
        artifact: of the stage.
        size: (height, width) of the drawing's coordinates.
    """

    def __init__(self, artifact: Artifact, size: tuple[int, int]) -> None:
        self.nodes = artifact.table("graph_nodes").to_pandas()
        self.edges = artifact.table("graph_edges").to_pandas()
        self.layers = list(dict.fromkeys(self.nodes["layer"]))
        self._size = size
        ordered = self.edges.sort_values(["child", "weight"], ascending=[True, False])
        self._strongest = ordered.groupby("child").head(2)

    def strongest(self, here: Any, count: int) -> Any:
        """The strongest nodes of each layer in a picture.

        Args:
            here: a frame of node, x, y, score.
            count: of each layer.
        """
        found = here.merge(self.nodes[["node", "layer", "filter", "concept", "purity"]], on="node")
        return found.sort_values(["score", "node"], ascending=[False, True]).groupby("layer", sort=False).head(count)

    def parts(self, here: Any, picture: str, file: str) -> list[views.Part]:
        """Nodes at their places, edges to their parents, and the same as text.

        Args:
            here: as of `strongest`.
            picture: path of the picture.
            file: its name.
        """
        shown = self.strongest(here, DRAWN)
        height, width = self._size
        places = {row.node: (round(row.x * width, 1), round(row.y * height, 1)) for row in here.itertuples()}
        layer_of = dict(zip(self.nodes["node"], self.nodes["layer"], strict=True))
        parents: dict[int, list[int]] = defaultdict(list)
        for row in self._strongest[self._strongest["child"].isin(set(shown["node"]))].itertuples():
            parents[row.child].append(row.parent)
        drawn = set(shown["node"]) | {parent for both in parents.values() for parent in both}
        levels = []
        for number, layer in enumerate(self.layers):
            dots = [(*places[node], f"node {node}") for node in sorted(drawn) if layer_of[node] == layer]
            children = [node for node in shown["node"] if layer_of[node] == layer]
            links = [(*places[child], *places[parent]) for child in children for parent in parents[child]]
            levels.append(views.Level(layer, number, dots, links))
        below = [self._branch(layer, shown[shown["layer"] == layer], parents) for layer in self.layers]
        outline = views.Branch("The same as text", "", "", below)
        return [views.Drawing(picture, file, self._size, levels), views.Outline(outline, False)]

    def _branch(self, layer: str, rows: Any, parents: Mapping[int, Sequence[int]]) -> views.Branch:
        leaves = []
        for row in rows.itertuples():
            under = f", under {', '.join(str(parent) for parent in parents[row.node])}" if parents[row.node] else ""
            leaves.append(
                views.Branch(f"node {row.node}", f"filter {row.filter} at {row.x:.2f}, {row.y:.2f}{under}", "", ())
            )
        return views.Branch(layer, f"{len(rows)} nodes drawn", "", leaves)


def _cards(report: Work, work: Work, nodes: Any, edges: Any, found: Any, layers: Sequence[str]) -> views.Section:
    """The strongest nodes with their best patches."""
    size, files = work.job.reach["frame"].size, files_of(work.inputs["index"])
    each = max(1, SHOWN_NODES // len(layers))
    top = nodes.sort_values(["score", "node"], ascending=[False, True]).groupby("layer", sort=False).head(each)
    parents = edges.sort_values(["child", "weight"], ascending=[True, False]).groupby("child")["parent"].apply(list)
    units = _units(report)
    carded = set(top["node"])
    cards, images = [], set()
    for row in top.itertuples():
        mine = found[found["node"] == row.node].sort_values(["score", "image"], ascending=[False, True])
        spots = []
        for there in mine.head(SHOWN_PATCHES).itertuples():
            images.add(there.image)
            circle = (round(there.x * size[1], 1), round(there.y * size[0], 1), round(size[0] / 9, 1))
            spots.append(views.Spot(thumb(work, there.image), files[there.image], size, [circle], ()))
        unit = units.get((row.layer, row.filter))
        facts = [
            ("deviation", f"{row.sigma:.3f}", "sigma, by the side of the picture"),
            ("parents", ", ".join(str(p) for p in parents.get(row.node, [])[:3]) or "–", "nodes of the layer above"),
            ("purity", worded(_number(row.purity), ".0%"), "share of its top pictures in which it is on one part"),
        ]
        note = f"{row.layer} filter {row.filter}"
        note += f": {row.concept}" if row.purity is not None and _number(row.purity) else ""
        links = [unit] if unit else []
        links += [(f"parent {parent}", f"#node/{parent}") for parent in parents.get(row.node, []) if parent in carded]
        cards.append(views.Card(f"node {row.node}", f"node/{row.node}", note, spots, facts, links))
    thumbnails(work, images)
    text = "The strongest nodes of each layer, in the pictures in which they are strongest. Circle: where the node is."
    return views.Section("Nodes", [views.Text(text, "quiet"), views.Gallery(cards, True)])


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _units(report: Work) -> dict[tuple[str, int], tuple[str, str]]:
    """Filter and its concept, and where the report's dissection shows it; nothing where there is none."""
    if "dissection" not in report.inputs:
        return {}
    rows = report.inputs["dissection"].table("units").to_pylist()
    pages = {name: f"layer-{number:03d}.html" for number, name in enumerate(dict.fromkeys(r["layer"] for r in rows))}
    found = {}
    for row in rows:
        concept = row["concept"] if row["detector"] else "no concept"
        place = f"{pages[row['layer']]}#{row['layer']}/{row['unit']}"
        found[row["layer"], row["unit"]] = (f"filter {row['unit']}: {concept}", place)
    return found


def parts_page(work: Work) -> views.Page:
    """Mined parts: errors over the number of boxes, and where they were found."""
    looked_at = about(work, "parts")
    made = looked_at.inputs["parts"]
    rows = made.table("part_summary").to_pylist()
    names = list(dict.fromkeys(row["part"] for row in rows))
    charts = [
        lines(
            f"{name}: error of the centre, by the diagonal",
            [{"x": r["boxes"], "y": r["error"], "line": r["method"]} for r in rows if r["part"] == name],
            "boxes",
        )
        for name in names
    ]
    columns = [("part", False), ("boxes", True), ("method", False), ("error", True), ("nearer than 0.1", True)]
    table = [
        [
            row["part"],
            str(row["boxes"]),
            row["method"],
            f"{row['error']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['share']:.0%} [{row['share_low']:.0%}, {row['share_high']:.0%}]",
        ]
        for row in rows
    ]
    note = (
        "Mean distance to the annotated centre, in the pictures that were not annotated; 95 % bootstrap intervals over "
        "pictures, several draws of boxes averaged. Mean position: the mean annotated place, everywhere. Best filter: "
        "the one filter whose peak, moved by its mean displacement, is nearest in the annotated pictures."
    )
    return views.Page(
        name="parts",
        page="parts.html",
        headline=_parts_headline(rows, names),
        figures=views.Figures(
            [("parts", str(len(names)), ""), ("pictures", str(rows[0]["images"]), "to find them in")]
        ),
        sections=[
            views.Section("Error over the number of boxes", [views.Charts(charts)]),
            views.Section("Where they were found", [_located(looked_at, names)]),
            views.Section("Every figure", [views.Table(columns, table, note)]),
        ],
        queries=[
            ("Part errors", "select * from part_summary"),
            ("Patterns", "select * from parts order by score desc limit 20"),
        ],
    )


def _parts_headline(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    few = min(row["boxes"] for row in rows)
    better = 0
    for name in names:
        error = {row["method"]: row["error"] for row in rows if row["part"] == name and row["boxes"] == few}
        better += error["patterns"] < min(error["mean position"], error["best filter"])
    return (
        f"From {few} boxes, mined patterns find {better} of {len(names)} parts more nearly than both baselines do: the "
        "mean annotated position, and the best single filter."
    )


def _located(work: Work, names: Sequence[str]) -> views.Gallery:
    made, size = work.inputs["parts"], work.job.reach["frame"].size
    rows = made.table("part_errors").to_pylist()
    images = made.table("part_errors").column("image").to_numpy()
    marks = landmarks_of(work, np.arange(images.max() + 1))
    files = files_of(work.inputs["index"])
    cards, shown = [], set()
    for name in names:
        mine = [r for r in rows if r["part"] == name and r["method"] == "patterns" and r["draw"] == 0]
        few = min(row["boxes"] for row in mine)
        mine = sorted((row for row in mine if row["boxes"] == few), key=lambda row: row["error"])
        spots = []
        for row in mine[:: max(1, len(mine) // SHOWN_PATCHES)][:SHOWN_PATCHES]:
            cross = [tuple(round(float(value), 1) for value in marks[name][row["image"]])]
            circle = (round(row["x"], 1), round(row["y"], 1), round(size[0] / 12, 1))
            caption = f"{row['error']:.2f}"
            shown.add(row["image"])
            spots.append(
                views.Spot(thumb(work, row["image"]), files[row["image"]], size, [circle], cross, caption)  # type: ignore[arg-type]
            )
        note = f"from {few} boxes, from the best to the worst"
        cards.append(views.Card(name, f"part/{name}", note, spots))
    thumbnails(work, shown)
    return views.Gallery(cards, True)
