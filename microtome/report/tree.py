"""Page of a decision tree: how well it speaks for the network, the tree itself, its nodes, some parse paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from microtome.disentangle.parse_paths import FilterShare, PartShare, PathStep
from microtome.disentangle.tree_metrics import LevelMeasure, TreeMeasure, TreeModel
from microtome.report import views
from microtome.report.charts import signed_bars

SHOWN_FILTERS, TOLD_FILTERS, NOTED_PARTS = 8, 4, 2
MEASURES: Mapping[LevelMeasure, str] = {
    "accuracy": "right",
    "fidelity": "as the network",
    "error": "error",
    "fitness": "fitness",
    "part error": "part error",
    "merged": "at merged nodes",
}


@dataclass(frozen=True)
class TreeNode:
    """A node of a tree.

    Args:
        number: its own.
        pictures: leaves below it.
        filters: that its rule uses.
        visits: held-out pictures of the category whose path leads through it.
        below: its children; none for a leaf.
        file: of a leaf, the name of its picture where that is known.
    """

    number: int
    pictures: int
    filters: int
    visits: int
    below: Sequence[int] = ()
    file: str | None = None

    @property
    def name(self) -> str:
        """In words."""
        return f"node {self.number}" if self.below else f"leaf {self.number}"


@dataclass(frozen=True)
class SpottedPicture:
    """A picture with circles where the filters that contribute most are highest.

    Args:
        thumb: path of the thumbnail.
        file: its name.
        size: (height, width) of the coordinates.
        circles: x, y, radius.
    """

    thumb: str
    file: str
    size: tuple[int, int]
    circles: Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class ShownNode:
    """A node that many pictures visit.

    Args:
        number: of the node.
        parts: by what they add in the nearest picture; none where no filter has one.
        pictures: the nearest.
    """

    number: int
    parts: Sequence[PartShare]
    pictures: Sequence[SpottedPicture]


@dataclass(frozen=True)
class ParsePath:
    """A picture's path through a tree.

    Args:
        place: of the picture among those of the tree.
        spotted: the picture, and its circles for the first node.
        category: that the decision is about.
        positive: whether the picture is of it.
        held_out: whether the tree did not grow from it.
        decision: the network's own, in logits.
        steps: the path, and of each step its filters by what they add.
        nodes: the steps' nodes.
        parts: by what they add at the first step; none where no filter has one.
    """

    place: int
    spotted: SpottedPicture
    category: str
    positive: bool
    held_out: bool
    decision: float
    steps: Sequence[tuple[PathStep, Sequence[FilterShare]]]
    nodes: Sequence[TreeNode]
    parts: Sequence[PartShare]


class TreeMetricRow(TypedDict):
    """A row of the table `tree_metrics`."""

    depth: int | None
    metric: str
    value: float
    low: float
    high: float
    images: int
    model: TreeModel


@dataclass(frozen=True)
class TreeFindings:
    """What a decision tree says.

    Args:
        category: that the decision is about.
        parts_source: what the parts of filters rest on.
        nodes: all, by number, leaves first.
        top: numbers of the second layer's.
        filters: of the layer that are not silent.
        metrics: the rows of the table `tree_metrics`.
        shown: nodes that many pictures visit.
        paths: of some pictures.
    """

    category: str
    parts_source: str
    nodes: Sequence[TreeNode]
    top: Sequence[int]
    filters: int
    metrics: Sequence[TreeMetricRow]
    shown: Sequence[ShownNode]
    paths: Sequence[ParsePath]

    @property
    def leaves(self) -> int:
        """How many."""
        return sum(not node.below for node in self.nodes)

    def metric(self, name: TreeMeasure, model: TreeModel = "tree") -> TreeMetricRow | None:
        """Of the second layer, or of a model without depth; None where it was not measured."""
        return next(
            (r for r in self.metrics if r["metric"] == name and r["model"] == model and r["depth"] in (2, None)), None
        )


def page(told: TreeFindings) -> views.Page:
    """The page."""
    sections = [
        views.Section("How far it speaks for the network", [_levels(told), _others(told), _how()]),
        views.Section("The tree", [views.Text(_legend(told), "quiet"), views.Outline(outline(told))]),
        views.Section("Nodes", [views.Text(_NODE_LEGEND, "quiet"), views.Gallery(_cards(told), True)]),
    ]
    sections += [views.Section(f"Parse path of {path.spotted.file}", explanation(path)) for path in told.paths]
    return views.Page(
        name="decision tree",
        page="tree.html",
        headline=_headline(told),
        figures=_figures(told),
        sections=sections,
        queries=[
            ("Tree metrics", "select * from tree_metrics order by model, metric, depth"),
            ("Merge log", "select * from tree_merges order by step"),
            ("Parse paths", "select * from tree_paths join tree_images using (dataset, image) order by image, depth"),
        ],
    )


def path_page(path: ParsePath) -> views.Page:
    """One picture's path, as a page for itself."""
    return views.Page(
        name=f"why {path.category}?",
        page=f"tree-{path.place:06d}.html",
        headline=words(path)[0],
        figures=views.Figures([]),
        sections=[views.Section("Its path through the tree", explanation(path))],
    )


def _headline(told: TreeFindings) -> str:
    visited = sum(told.nodes[number].visits > 0 for number in told.top)
    text = (
        f"{told.leaves} pictures of {told.category} gather under {len(told.top)} ways to decide, of which pictures "
        f"that the tree did not grow from take {visited}"
    )
    if fidelity := told.metric("fidelity"):
        text += (
            f". There it decides as the network does in {fidelity['value']:.0%} "
            f"[{fidelity['low']:.0%}, {fidelity['high']:.0%}] of {fidelity['images']} pictures"
        )
    other = told.metric("fidelity", "logistic regression")
    return text + (f"; a logistic regression on the same sums does in {other['value']:.0%}." if other else ".")


def _figures(told: TreeFindings) -> views.Figures:
    items = [("second-layer nodes", str(len(told.top)), f"of {told.leaves} leaves")]
    notes: dict[LevelMeasure, str] = {
        "fidelity": "second layer",
        "fitness": "second layer",
        "merged": "of held-out positives",
    }
    for name, note in notes.items():
        if row := told.metric(name):
            between = f"{note}, 95 %: {row['low']:.0%} to {row['high']:.0%}"
            items.append((MEASURES[name], f"{row['value']:.0%}", between))
    return views.Figures(items)


def _cell(row: TreeMetricRow | None) -> str:
    return "–" if row is None else f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _levels(told: TreeFindings) -> views.Table:
    own = {(r["metric"], depth): r for r in told.metrics if r["model"] == "tree" and (depth := r["depth"]) is not None}
    deepest = max(depth for _, depth in own)
    lines = []
    for depth in range(2, deepest + 1):
        name = {2: "2, below the root", deepest: f"{deepest}, leaves"}.get(depth, str(depth))
        lines.append([name, *(_cell(own.get((measure, depth))) for measure in MEASURES)])
    note = (
        "On held-out pictures, with 95 % bootstrap intervals. Error: of the decision, by its range. Fitness: overlap "
        "(Jaccard) of the node's filter contributions with the network's own; part error: of what parts add, by the "
        "mean decision; at merged nodes: share of parse paths that are at an inner node. The last three over pictures "
        "of the category."
    )
    return views.Table([("depth", False), *((name, True) for name in MEASURES.values())], lines, note)


def _others(told: TreeFindings) -> views.Table:
    models: list[TreeModel] = list(dict.fromkeys(row["model"] for row in told.metrics if row["model"] != "tree"))
    lines = [[model, _cell(told.metric("accuracy", model)), _cell(told.metric("fidelity", model))] for model in models]
    note = "Fitted to the network's own decisions on the same x^(d). They say what is decided, not how."
    return views.Table([("beside it", False), ("right", True), ("as the network", True)], lines, note)


def _how() -> views.Text:
    return views.Text(
        "A node is a rule: these filters, so much each. A picture takes, from the root on, the child whose rule points "
        "most nearly where its own rationale points. If the tree agrees with the network much less often than the "
        "logistic regression does, its rules describe typical reasons, not this network's boundary.",
        "quiet",
    )


def _legend(told: TreeFindings) -> str:
    return (
        "Unfold a node in the outline, or click it in the drawing; Tab and Enter do it from the keyboard. Leaves are "
        "single pictures. “Visits” are parse paths of held-out pictures of the category. A node that nobody visits "
        f"explains nothing: merging such nodes costs no evidence. Parts of filters: {told.parts_source}."
    )


_NODE_LEGEND = (
    "The nodes that most held-out pictures visit, with the pictures nearest to them. Circles: where the three "
    "filters that contribute most are highest."
)


def outline(told: TreeFindings) -> views.Branch:
    """The tree as nested text, the most visited first; the first branch is unfolded."""
    carded = {node.number for node in told.shown}

    def branches(numbers: Sequence[int]) -> list[views.Branch]:
        found = sorted((told.nodes[number] for number in numbers), key=lambda node: (-node.visits, node.number))
        return [_branch(node, branches, anchored=node.number in carded) for node in found]

    first, *others = branches(told.top)
    note = f"{told.leaves} pictures"
    return views.Branch(told.category, note, "", [replace(first, open=bool(first.below)), *others], open=True)


def _branch(node: TreeNode, branches: Callable[[Sequence[int]], list[views.Branch]], *, anchored: bool) -> views.Branch:
    if not node.below:
        visits = f"{node.visits} visits" if node.visits else ""
        return views.Branch((node.file or node.name).rpartition("/")[2], visits, "", ())
    note = f"{node.pictures} pictures, {node.filters} filters, {node.visits} visits"
    return views.Branch(node.name, note, _anchor(node.number) if anchored else "", branches(node.below))


def _anchor(node: int) -> str:
    return f"node/{node}"


def _cards(told: TreeFindings) -> list[views.Card]:
    return [_card(told, shown) for shown in told.shown]


def _card(told: TreeFindings, shown: ShownNode) -> views.Card:
    node = told.nodes[shown.number]
    facts = [
        ("pictures", str(node.pictures), "leaves below the node"),
        ("visits", str(node.visits), "held-out pictures of the category whose path leads here"),
        ("filters", f"{node.filters} of {told.filters}", "filters that the node's rule uses"),
    ]
    note = ", ".join(share.name for share in shown.parts[:NOTED_PARTS])
    return views.Card(node.name, _anchor(node.number), note, [_spot(item) for item in shown.pictures], facts)


def _spot(item: SpottedPicture, caption: str = "") -> views.Spot:
    return views.Spot(item.thumb, item.file, item.size, item.circles, (), caption)


def explanation(path: ParsePath) -> list[views.Part]:
    """A picture's path: what each node estimates, and what filters and parts add at the first."""
    lines = [
        [node.name, f"{step.cosine:.2f}", f"{step.estimate:+.2f}", str(node.pictures)]
        for node, (step, _) in zip(path.nodes, path.steps, strict=True)
    ]
    columns = [("node", False), ("cosine", True), ("estimate", True), ("pictures", True)]
    first, filters = path.steps[0]
    own = f"{path.decision:+.2f}"
    bars = [(_filter(share), share.here, share.own) for share in filters[:SHOWN_FILTERS]]
    spot = _spot(path.spotted, f"network {own}")
    parts: list[views.Part] = [
        views.Gallery([views.Card(f"picture {path.place}", f"path/{path.place}", "", [spot])]),
        views.Table(columns, lines, f"The network's own decision: {own}."),
        signed_bars(f"Filters at node {first.node}", bars, "In brackets, and as a line: the network's own."),
    ]
    if path.parts:
        rows = [(share.name, share.here, share.own) for share in path.parts]
        parts.append(signed_bars(f"Parts at node {first.node}", rows))
    return parts


def words(path: ParsePath) -> list[str]:
    """The same as lines of text."""
    sees, belongs = ("sees" if path.decision > 0 else "does not see"), ("" if path.positive else "not ")
    lines = [
        f"{path.spotted.file}: the network {sees} {path.category} ({path.decision:+.2f}); the picture is {belongs}of "
        f"the category, {'held out' if path.held_out else 'the tree grew from it'}"
    ]
    for depth, (node, (step, filters)) in enumerate(zip(path.nodes, path.steps, strict=True), 1):
        strongest = ", ".join(f"{_filter(share)} {share.here:+.2f}" for share in filters[:TOLD_FILTERS])
        lines.append(f"{'  ' * depth}{node.name}: cosine {step.cosine:.2f}, estimate {step.estimate:+.2f}; {strongest}")
    if path.parts:
        said = ", ".join(f"{share.name} {share.here:+.2f}" for share in path.parts)
        lines.append(f"  parts at {path.nodes[0].name}: {said}")
    return lines


def _filter(share: FilterShare) -> str:
    return f"filter {share.number}" + (f" ({share.part})" if share.part else "")
