"""Page of the decision tree: how well it speaks for the network, the tree itself, its nodes, some parse paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from microtome.disentangle.tree_metrics import contributions
from microtome.quantify.stability import cell_centres
from microtome.report import views
from microtome.report.charts import signed_bars
from storage import Artifact
from tasks.pictures import read_thumbnails
from tasks.reading import geometry_from
from tasks.stage import Work
from tasks.tree import Grown

SHOWN_NODES, SHOWN_PICTURES, SHOWN_PATHS = 12, 5, 4
SHOWN_FILTERS, MARKED_FILTERS = 8, 3
METRICS = {
    "accuracy": "right",
    "fidelity": "as the network",
    "error": "error",
    "fitness": "fitness",
    "part error": "part error",
    "merged": "at merged nodes",
}
Write = Callable[[str, bytes], None]


def page(work: Work) -> views.Page:
    """The page."""
    artifact = work.inputs["tree"]
    told = Told(artifact, work.draft.write)
    rows = artifact.table("tree_metrics").to_pylist()
    sections = [
        views.Section("How far it speaks for the network", [_levels(rows), _others(rows), _how()]),
        views.Section("The tree", [views.Text(_legend(told), "quiet"), views.Outline(told.outline())]),
        views.Section("Nodes", [views.Text(_node_legend(), "quiet"), views.Gallery(told.cards(), True)]),
    ]
    for place in told.typical():
        sections.append(views.Section(f"Parse path of {told.grown.rows[place]['file']}", told.explanation(place)))
    return views.Page(
        name="decision tree",
        page="tree.html",
        headline=_headline(told, rows),
        figures=_figures(told, rows),
        sections=sections,
        queries=[
            ("Tree metrics", "select * from tree_metrics order by model, metric, depth"),
            ("Merge log", "select * from tree_merges order by step"),
            ("Parse paths", "select * from tree_paths join tree_images using (dataset, image) order by image, depth"),
        ],
    )


def _metric(rows: Sequence[Mapping[str, Any]], metric: str, model: str = "tree") -> Mapping[str, Any]:
    """Of the second layer, or of a model without depth."""
    return next(r for r in rows if r["metric"] == metric and r["model"] == model and r["depth"] in (2, None))


def _headline(told: Told, rows: Sequence[Mapping[str, Any]]) -> str:
    fidelity, top = _metric(rows, "fidelity"), told.grown.tree.second_layer
    visited = sum(told.visits[node] > 0 for node in top.tolist())
    text = (
        f"{told.leaves} pictures of {told.category} gather under {len(top)} ways to decide, of which pictures that the "
        f"tree did not grow from take {visited}. There it decides as the network does in {fidelity['value']:.0%} "
        f"[{fidelity['low']:.0%}, {fidelity['high']:.0%}] of {fidelity['images']} pictures"
    )
    other = [row for row in rows if row["model"] == "logistic regression" and row["metric"] == "fidelity"]
    return text + (f"; a logistic regression on the same sums does in {other[0]['value']:.0%}." if other else ".")


def _figures(told: Told, rows: Sequence[Mapping[str, Any]]) -> views.Figures:
    items = [("second-layer nodes", str(len(told.grown.tree.second_layer)), f"of {told.leaves} leaves")]
    for metric, note in (
        ("fidelity", "second layer"),
        ("fitness", "second layer"),
        ("merged", "of held-out positives"),
    ):
        row = _metric(rows, metric)
        items.append((METRICS[metric], f"{row['value']:.0%}", f"{note}, 95 %: {row['low']:.0%} to {row['high']:.0%}"))
    return views.Figures(items)


def _cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _levels(rows: Sequence[Mapping[str, Any]]) -> views.Table:
    own = [row for row in rows if row["model"] == "tree" and row["depth"] is not None]
    deepest = max(row["depth"] for row in own)
    shown = {name: {row["depth"]: row for row in own if row["metric"] == name} for name in METRICS}
    lines = []
    for depth in range(2, deepest + 1):
        name = {2: "2, below the root", deepest: f"{deepest}, leaves"}.get(depth, str(depth))
        lines.append([name, *(_cell(shown[metric].get(depth)) for metric in METRICS)])
    note = (
        "On held-out pictures, with 95 % bootstrap intervals. Error: of the decision, by its range. Fitness: overlap "
        "(Jaccard) of the node's filter contributions with the network's own; part error: of what parts add, by the "
        "mean decision; at merged nodes: share of parse paths that are at an inner node. The last three over pictures "
        "of the category."
    )
    return views.Table([("depth", False), *((name, True) for name in METRICS.values())], lines, note)


def _others(rows: Sequence[Mapping[str, Any]]) -> views.Table:
    models = list(dict.fromkeys(row["model"] for row in rows if row["model"] != "tree"))
    lines = [
        [model, _cell(_metric(rows, "accuracy", model)), _cell(_metric(rows, "fidelity", model))] for model in models
    ]
    note = "Fitted to the network's own decisions on the same x^(d). They say what is decided, not how."
    return views.Table([("beside it", False), ("right", True), ("as the network", True)], lines, note)


def _how() -> views.Text:
    return views.Text(
        "A node is a rule: these filters, so much each. A picture takes, from the root on, the child whose rule points "
        "most nearly where its own rationale points. If the tree agrees with the network much less often than the "
        "logistic regression does, its rules describe typical reasons, not this network's boundary.",
        "quiet",
    )


def _legend(told: Told) -> str:
    parts = told.grown.about["parts"]
    return (
        "Unfold a node in the outline, or click it in the drawing; Tab and Enter do it from the keyboard. Leaves are "
        "single pictures. “Visits” are parse paths of held-out pictures of the category. A node that nobody visits "
        f"explains nothing: merging such nodes costs no evidence. Parts of filters: {parts}."
    )


def _node_legend() -> str:
    return (
        "The nodes that most held-out pictures visit, with the pictures nearest to them. Circles: where the three "
        "filters that contribute most are highest."
    )


class Told:
    """A grown tree in pictures and words.

    Args:
        artifact: of the stage.
        write: where pictures go.
    """

    def __init__(self, artifact: Artifact, write: Write) -> None:
        self.grown, self._write = Grown.of(artifact), write
        self.category: str = self.grown.about["category"]
        self.leaves = len(self.grown.tree.b) - len(self.grown.tree.merges)
        self.paths = self.grown.tree.paths(self.grown.data.g)
        rows = artifact.table("tree_nodes").to_pylist()
        self.visits = {row["node"]: row["held_out"] for row in rows}
        self._geometry = geometry_from(self.grown.about["geometry"])
        self._centres = cell_centres(self._geometry)
        jump = self._geometry.jump
        self.size = (round(jump[0] * self._geometry.grid[0]), round(jump[1] * self._geometry.grid[1]))
        self._thumbnails = read_thumbnails(artifact)
        self._written: set[str] = set()

    def thumbnail(self, place: int) -> str:
        """Path of a picture, written once."""
        name = f"assets/tree/{place:06d}.webp"
        if name not in self._written:
            self._write(name, self._thumbnails[place])
            self._written.add(name)
        return name

    def typical(self) -> list[int]:
        """Held-out pictures of the category, one from each of the nodes most visited."""
        unseen = [n for n, row in enumerate(self.grown.rows) if row["positive"] and row["split"] != "train"]
        by_node: dict[int, int] = {}
        for place in unseen:
            by_node.setdefault(self.paths[place][0], place)
        return [by_node[node] for node in sorted(by_node, key=lambda n: (-self.visits[n], n))][:SHOWN_PATHS]

    def outline(self) -> views.Branch:
        """The tree as nested text."""
        tree = self.grown.tree
        leaf_files = {row["leaf"]: row["file"] for row in self.grown.rows if row["leaf"] is not None}
        carded = set(self._shown_nodes())

        def branch(node: int) -> views.Branch:
            if node < self.leaves:
                visits = f"{self.visits[node]} visits" if self.visits[node] else ""
                return views.Branch(leaf_files.get(node, f"leaf {node}").rpartition("/")[2], visits, "", ())
            note = (
                f"{len(tree.members[node])} pictures, {int(tree.kept[node].sum())} filters, {self.visits[node]} visits"
            )
            below = sorted(tree.children[node].tolist(), key=lambda n: (-self.visits[n], n))
            anchor = f"node/{node}" if node in carded else ""
            return views.Branch(f"node {node}", note, anchor, [branch(child) for child in below])

        top = sorted(tree.second_layer.tolist(), key=lambda n: (-self.visits[n], n))
        note = f"{self.leaves} pictures"
        first, *others = (branch(node) for node in top)
        return views.Branch(self.category, note, "", [replace(first, open=bool(first.below)), *others], open=True)

    def _shown_nodes(self) -> list[int]:
        inner = [node for node in range(self.leaves, len(self.grown.tree.b)) if self.visits[node]]
        return sorted(inner, key=lambda node: (-self.visits[node], node))[:SHOWN_NODES]

    def cards(self) -> list[views.Card]:
        """The nodes that most pictures visit."""
        tree, found = self.grown.tree, []
        for node in self._shown_nodes():
            there = [n for n, path in enumerate(self.paths) if node in path and self.grown.rows[n]["positive"]]
            near = tree.cosine(self.grown.data.g[there], np.array([node]))[:, 0]
            chosen = [there[n] for n in np.argsort(-near, kind="stable")[:SHOWN_PICTURES]]
            spots = [self._spot(place, node) for place in chosen]
            kept = int(tree.kept[node].sum())
            facts = [
                ("pictures", str(len(tree.members[node])), "leaves below the node"),
                ("visits", str(self.visits[node]), "held-out pictures of the category whose path leads here"),
                ("filters", f"{kept} of {tree.kept.shape[1]}", "filters that the node's rule uses"),
            ]
            note = ", ".join(name for name, *_ in self.part_rows(chosen[0], node)[:2]) if any(self.grown.parts) else ""
            found.append(views.Card(f"node {node}", f"node/{node}", note, spots, facts))
        return found

    def _spot(self, place: int, node: int, caption: str = "") -> views.Spot:
        strongest = [number for number, _, _ in self.filter_rows(place, node)[:MARKED_FILTERS]]
        reach = min(min(self._geometry.field) / 2, self.size[0] / 7)
        circles = []
        for number in strongest:
            cell = self.grown.peak[place][number]
            if cell >= 0:
                x, y = self._centres[cell]
                circles.append((round(float(x), 1), round(float(y), 1), round(reach, 1)))
        row = self.grown.rows[place]
        return views.Spot(self.thumbnail(place), row["file"], self.size, circles, (), caption)

    def filter_rows(self, place: int, node: int) -> list[tuple[int, float, float]]:
        """Filters by the size of what they add at a node: number, rho, the network's own contribution; in logits."""
        one = self.grown.data.of(np.array([place]))
        rho = self.grown.tree.contributions(one, np.array([node]))[0]
        own = contributions(one)[0]
        order = np.argsort(-np.abs(rho), kind="stable")
        return [(int(self.grown.filters[n]), float(rho[n]), float(own[n])) for n in order]

    def part_rows(self, place: int, node: int) -> list[tuple[str, float, float]]:
        """Parts by the size of what their filters add."""
        total: dict[str, list[float]] = {}
        for number, rho, own in self.filter_rows(place, node):
            sums = total.setdefault(self.grown.parts[number] or "no part", [0.0, 0.0])
            sums[0] += rho
            sums[1] += own
        rows = [(name, rho, own) for name, (rho, own) in total.items()]
        return sorted(rows, key=lambda row: (-abs(row[1]), row[0]))

    def steps(self, place: int) -> list[tuple[int, float, float]]:
        """The parse path: node, cosine, and what the node estimates, in logits."""
        path, one = self.paths[place], self.grown.data.of(np.array([place]))
        near = self.grown.tree.cosine(one.g, np.array(path))[0]
        return [
            (node, float(cosine), float(self.grown.tree.estimate(one, np.array([node]))[0]))
            for node, cosine in zip(path, near, strict=True)
        ]

    def decision(self, place: int) -> float:
        """The network's own, in logits."""
        return float(self.grown.data.y[place] * self.grown.data.norm[place])

    def explanation(self, place: int) -> list[views.Part]:
        """A picture's path: what each node estimates, and what filters and parts add at the first."""
        steps = self.steps(place)
        lines = [
            [self._named(node), f"{cosine:.2f}", f"{estimate:+.2f}", str(len(self.grown.tree.members[node]))]
            for node, cosine, estimate in steps
        ]
        columns = [("node", False), ("cosine", True), ("estimate", True), ("pictures", True)]
        first = steps[0][0]
        spot = self._spot(place, first, f"network {self.decision(place):+.2f}")
        filters = [
            (self._filter_name(number), rho, own) for number, rho, own in self.filter_rows(place, first)[:SHOWN_FILTERS]
        ]
        parts: list[views.Part] = [
            views.Gallery([views.Card(f"picture {place}", f"path/{place}", "", [spot])]),
            views.Table(columns, lines, f"The network's own decision: {self.decision(place):+.2f}."),
            signed_bars(f"Filters at node {first}", filters, "In brackets, and as a line: the network's own."),
        ]
        if any(self.grown.parts):
            parts.append(signed_bars(f"Parts at node {first}", self.part_rows(place, first)))
        return parts

    def words(self, place: int) -> list[str]:
        """The same as lines of text."""
        row = self.grown.rows[place]
        says = self.decision(place)
        lines = [
            f"{row['file']}: the network {'sees' if says > 0 else 'does not see'} {self.category} ({says:+.2f}); the "
            f"picture is {'' if row['positive'] else 'not '}of the category, "
            f"{'the tree grew from it' if row['split'] == 'train' else 'held out'}"
        ]
        for depth, (node, cosine, estimate) in enumerate(self.steps(place), 2):
            strongest = ", ".join(
                f"{self._filter_name(number)} {rho:+.2f}" for number, rho, _ in self.filter_rows(place, node)[:4]
            )
            lines.append(
                f"{'  ' * (depth - 1)}{self._named(node)}: cosine {cosine:.2f}, estimate {estimate:+.2f}; {strongest}"
            )
        if any(self.grown.parts):
            first = self.paths[place][0]
            said = ", ".join(f"{name} {rho:+.2f}" for name, rho, _ in self.part_rows(place, first))
            lines.append(f"  parts at {self._named(first)}: {said}")
        return lines

    def _named(self, node: int) -> str:
        return f"leaf {node}" if node < self.leaves else f"node {node}"

    def _filter_name(self, number: int) -> str:
        part = self.grown.parts[number]
        return f"filter {number}" + (f" ({part})" if part else "")
