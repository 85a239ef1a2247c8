"""Page of a decision tree: how well it speaks for the network, the tree itself, its nodes, some parse paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from microtome.disentangle.parse_paths import FilterShare, PartShare, PathStep
from microtome.disentangle.tree_metrics import LevelMeasure, TreeMeasure, TreeModel
from microtome.report import views
from microtome.report.charts import signed_bars

SHOWN_FILTERS, TOLD_FILTERS, NOTED_PARTS = 8, 4, 2
SAME = 1e-6  # how far from 1 the mean cosine of equal rationales may be
MEASURES: Mapping[LevelMeasure, str] = {
    "accuracy": "right",
    "fidelity": "as the network",
    "fidelity on positives": "of the category",
    "fidelity on others": "of the others",
    "auc": "AUC",
    "error": "error",
    "fitness": "fitness",
    "part error": "part error",
    "merged": "at inner nodes",
}
LINEAR: tuple[TreeModel, ...] = ("ridge", "ridge per cell", "logistic regression")
WEIGHED = {
    "cells": "each cell of each filter",
    "weighted": "filters as a whole",
    "uniform": "filters as a whole, gradients averaged plainly",
}


@dataclass(frozen=True)
class TreeNode:
    """A node of a tree.

    Args:
        number: its own.
        pictures: that the tree grew from, in it.
        filters: that its rule uses, or rests on.
        visits: held-out pictures of the category whose path leads through it.
        below: its children; none for a leaf.
        file: of a leaf of a single picture, its name where that is known.
        others: held-out pictures that are not of the category, whose path leads through it.
    """

    number: int
    pictures: int
    filters: int
    visits: int
    below: Sequence[int] = ()
    file: str | None = None
    others: int = 0

    @property
    def single(self) -> bool:
        """Whether it is a picture's own leaf."""
        return not self.below and self.pictures == 1

    @property
    def visited(self) -> bool:
        """Whether any held-out picture's path leads through it."""
        return self.visits + self.others > 0

    @property
    def name(self) -> str:
        """In words."""
        return f"leaf {self.number}" if self.single else f"node {self.number}"


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
    against: TreeModel | None


@dataclass(frozen=True)
class FilterRole:
    """What a filter does in decisions for the category.

    Args:
        part: that it stands for, if known.
        adds: to the network's own decision, in logits: mean over held-out pictures of the category.
        rank: from one, by the size of that, among `of` filters.
        nodes: shown ones in whose nearest picture it is among the strongest.
    """

    part: str | None
    adds: float
    rank: int
    of: int
    nodes: Sequence[int]


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
        fitted: whether nodes are fitted to their visitors; else they are merged from pictures, as in the paper.
        features: that the rules weigh: cells, weighted or uniform.
        roles: of the units of the audit's network; empty where the tree is of a fine-tuned one.
    """

    category: str
    parts_source: str
    nodes: Sequence[TreeNode]
    top: Sequence[int]
    filters: int
    metrics: Sequence[TreeMetricRow]
    shown: Sequence[ShownNode]
    paths: Sequence[ParsePath]
    fitted: bool = True
    features: str = "weighted"
    roles: Mapping[views.UnitKey, FilterRole] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        """How many the tree grew from."""
        return sum(self.nodes[number].pictures for number in self.top)

    @property
    def ways(self) -> int:
        """Nodes of the second layer that held-out pictures visit."""
        return sum(self.nodes[number].visited for number in self.top)

    def metric(
        self, name: TreeMeasure, model: TreeModel = "tree", against: TreeModel | None = None
    ) -> TreeMetricRow | None:
        """Of the second layer, or of a model without depth; None where it was not measured."""
        wanted = (name, model, against)
        own = (row for row in self.metrics if (row["metric"], row["model"], row["against"]) == wanted)
        return next((row for row in own if row["depth"] in (2, None)), None)

    @property
    def linear(self) -> bool:
        """Whether all pictures have the same rationale, as where what follows the layer is linear."""
        alike = self.metric("alike", "network")
        return alike is not None and alike["value"] > 1 - SAME

    @property
    def rival(self) -> TreeMetricRow | None:
        """Fidelity of the linear model that decides most nearly as the network; None where there is none."""
        found = [row for model in LINEAR if (row := self.metric("fidelity", model))]
        return max(found, key=lambda row: row["value"], default=None)


def page(told: TreeFindings) -> views.Page:
    """The page."""
    if said := _nothing_to_explain(told):
        return _withheld(told, said)
    if told.linear:
        return _one_reason(told)
    sections = [
        views.Section(
            "How far it speaks for the network",
            [
                _levels(told, DECISIONS, _DECISIONS_NOTE),
                _levels(told, REASONS, _REASONS_NOTE),
                *_others(told),
                _how(told),
            ],
        ),
        views.Section("The tree", [views.Text(_legend(told), "quiet"), views.Outline(outline(told))]),
        views.Section("Nodes", [views.Text(_NODE_LEGEND, "quiet"), views.Gallery(_cards(told), True)]),
    ]
    sections += [views.Section(f"Parse path of {path.spotted.file}", explanation(path)) for path in told.paths]
    return views.Page(
        name="decision tree",
        subject="the decision tree",
        page="tree.html",
        headline=_headline(told),
        figures=_figures(told),
        sections=sections,
        queries=_QUERIES,
    )


def _one_reason(told: TreeFindings) -> views.Page:
    """Of a network that is linear above the layer: its own weights are the rule, so nothing is said of a tree."""
    rule = told.shown[0] if told.shown else None
    filters = told.nodes[rule.number].filters if rule else told.filters
    text = (
        "What follows the layer is linear: it adds filters up, with the same weights in every picture, so that one "
        "rule is the network itself. That the rule decides as the network does is no finding, and there are no ways to "
        "decide that a tree could tell apart. Pictures differ only in how active the filters are; below is what these "
        "add in some of them. A network with hidden layers above the layer, such as a fine-tuned one with “head: "
        "small”, can have several ways."
    )
    sections = [views.Section("The rule", [views.Text(text), *(_rule_parts(told, rule) if rule else [])])]
    sections += [views.Section(f"What decides about {path.spotted.file}", summands(path)) for path in told.paths]
    items = [("filters", f"{filters} of {told.filters}", _rests(told))]
    if right := told.metric("accuracy", "network"):
        span = f"{right['low']:.0%} to {right['high']:.0%}"
        items.append(("right", f"{right['value']:.0%}", f"of held-out decisions of the network, 95 %: {span}"))
    return views.Page(
        name="decision tree",
        subject="the decision tree",
        page="tree.html",
        headline=(
            f"Every decision about {told.category} has the same reason: what follows the layer adds its filters up, "
            "with weights that are the same for every picture. There is one rule, by construction, and no tree."
        ),
        figures=views.Figures([*items, *_deleted(told)]),
        sections=sections,
        queries=_QUERIES,
    )


def _rule_parts(told: TreeFindings, rule: ShownNode) -> list[views.Part]:
    """Pictures of the one rule, with its strongest filters."""
    note = ", ".join(share.name for share in rule.parts[:NOTED_PARTS])
    card = views.Card("the rule", _anchor(rule.number), note, [_spot(item) for item in rule.pictures])
    return [views.Text(_RULE_LEGEND, "quiet"), views.Gallery([card], True)]


_RULE_LEGEND = "Pictures of the category. Circles: where the three filters that add most are highest."


def summands(path: ParsePath) -> list[views.Part]:
    """What filters and parts add to a picture's decision, by the network's only rule."""
    own = f"{path.decision:+.2f}"
    spot = _spot(path.spotted, f"network {own}")
    _, filters = path.steps[0]
    bars = [(_filter(share), share.own, None) for share in filters[:SHOWN_FILTERS]]
    parts: list[views.Part] = [
        views.Gallery([views.Card(f"picture {path.place}", f"path/{path.place}", "", [spot])]),
        signed_bars("Filters", bars, f"The strongest. All of them and a constant make {own}."),
    ]
    if path.parts:
        parts.append(signed_bars("Parts", [(share.name, share.own, None) for share in path.parts]))
    return parts


_QUERIES = [
    ("Tree metrics", "select * from tree_metrics order by model, metric, depth"),
    ("Merge log", "select * from tree_merges order by step"),
    ("Parse paths", "select * from tree_paths join tree_images using (dataset, image) order by image, depth"),
]


def _withheld(told: TreeFindings, said: str) -> views.Page:
    """Of a network whose decisions are not worth a tree: the sentence, and no figures."""
    advice = (
        "A tree of such decisions would be a tree of chance, so none is shown. Look at how the network was trained and "
        f"whether `output` is the one that stands for {told.category}."
    )
    return views.Page(
        name="decision tree",
        page="tree.html",
        headline=said,
        figures=views.Figures([]),
        sections=[views.Section("Nothing to explain", [views.Text(advice, style="advice")])],
        queries=_QUERIES,
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
    """What can be read aloud: how many ways, how far they speak for the network, and what does without them."""
    text = f"The network decides about {told.category} in " + ("one way" if told.ways == 1 else f"{told.ways} ways")
    mostly = sum(node.visits > node.others for node in map(told.nodes.__getitem__, told.top))
    if mostly < told.ways:
        text += f", {mostly or 'none'} of them taken mostly by pictures of it"
    if fidelity := told.metric("fidelity"):
        rules = "its rule gives the network's" if told.ways == 1 else "their rules give its"
        text += (
            f"; {rules} own decision in {fidelity['value']:.0%} [{fidelity['low']:.0%}, "
            f"{fidelity['high']:.0%}] of {fidelity['images']} pictures that the tree did not grow from"
        )
    if other := told.rival:
        text += f"; a single linear model ({other['model']}) gives it in {other['value']:.0%}"
    return text + "."


def _nothing_to_explain(told: TreeFindings) -> str:
    """A sentence where the network is not right more often than who always names the larger side."""
    right, yes = told.metric("accuracy", "network"), told.metric("accuracy", "always yes")
    if not right or not yes or right["low"] > max(yes["value"], 1 - yes["value"]):
        return ""
    share = max(yes["value"], 1 - yes["value"])
    return (
        f"The network itself is right about {told.category} in {right['value']:.0%} [{right['low']:.0%}, "
        f"{right['high']:.0%}] of {right['images']} held-out pictures, and who always gives the same answer in "
        f"{share:.0%}: there is nothing to explain."
    )


def _figures(told: TreeFindings) -> views.Figures:
    items = [("ways to decide", str(told.ways), f"visited nodes of the second layer, of {len(told.top)}")]
    names: dict[TreeMeasure, str] = {"fidelity": "as the network", "auc": "AUC", "fitness": "fitness"}
    for name, label in names.items():
        if row := told.metric(name):
            shown = f"{row['value']:.2f}" if name == "auc" else f"{row['value']:.0%}"
            items.append((label, shown, f"second layer, 95 %: {row['low']:.0%} to {row['high']:.0%}"))
    return views.Figures([*items, *_deleted(told)])


def _deleted(told: TreeFindings) -> list[tuple[str, str, str]]:
    """What deleting filters does, beyond others as active."""
    row = told.metric("deletion", against="random filters")
    if not row:
        return []
    note = f"of a decision, 95 %: {row['low']:+.0%} to {row['high']:+.0%}; without the eight filters that are named"
    return [("beyond others deleted", f"{row['value']:+.0%}", note)]


def _cell(row: TreeMetricRow | None) -> str:
    return "–" if row is None else f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


DECISIONS: tuple[LevelMeasure, ...] = (
    "accuracy", "fidelity", "fidelity on positives", "fidelity on others", "auc", "error",
)  # fmt: skip
REASONS: tuple[LevelMeasure, ...] = ("fitness", "part error", "merged")
COMPARED: tuple[LevelMeasure, ...] = ("fidelity", "fidelity on positives", "fidelity on others", "auc", "fitness")


def _levels(told: TreeFindings, measures: Sequence[LevelMeasure], note: str) -> views.Table:
    """Measures of the tree at each depth."""
    own = {
        (r["metric"], depth): r
        for r in told.metrics
        if r["model"] == "tree" and r["against"] is None and (depth := r["depth"]) is not None
    }
    first, deepest = min(depth for _, depth in own), max(depth for _, depth in own)
    names = {1: "1, one rule for all", 2: "2, below the root", deepest: f"{deepest}, leaves"}
    lines = [
        [names.get(depth, str(depth)), *(_cell(own.get((measure, depth))) for measure in measures)]
        for depth in range(first, deepest + 1)
    ]
    return views.Table(_columns("depth", measures), lines, note)


def _columns(first: str, measures: Sequence[LevelMeasure]) -> list[tuple[str, bool]]:
    return [(first, False), *((MEASURES[measure], True) for measure in measures)]


_DECISIONS_NOTE = (
    "Decisions on held-out pictures, with 95 % intervals (of shares Wilson's, else bootstrap). As the network: over "
    "all pictures, those of the category, the others; AUC: how the estimate ranks the network's decisions; error: "
    "of the decision, by its range."
)
_REASONS_NOTE = (
    "Reasons, over held-out pictures of the category. Fitness: overlap (Jaccard) of the node's filter contributions "
    "with the network's own; part error: of what parts add, by the mean decision; at inner nodes: share of parse paths "
    "that are."
)
_OTHERS_NOTE = (
    "Fitted to the network's own decisions on the same pictures. Calibrated: the tree's own estimate behind one "
    "threshold, fitted on the pictures that it grew from. The tree is told each picture's own rationale, by which it "
    "picks the rule; the others are not."
)


def _others(told: TreeFindings) -> list[views.Part]:
    """What stands beside the tree, and the tree's second layer minus each of it."""
    found = dict.fromkeys(row["model"] for row in told.metrics if row["model"] not in ("tree", "random filters"))
    models: list[TreeModel] = list(found)
    shown: tuple[LevelMeasure, ...] = (*DECISIONS[:-1], "fitness")
    lines = [[model, *(_cell(told.metric(measure, model)) for measure in shown)] for model in models]
    apart = [
        [model, *(_cell(told.metric(measure, against=model)) for measure in COMPARED)]
        for model in models
        if told.metric("fidelity", against=model)
    ]
    parts: list[views.Part] = [views.Table(_columns("beside it", shown), lines, _OTHERS_NOTE)]
    if apart:
        note = "Paired differences, picture by picture, with 95 % bootstrap intervals: what the second layer adds."
        parts.append(views.Table(_columns("second layer minus", COMPARED), apart, note))
    return parts


def _how(told: TreeFindings) -> views.Text:
    text = (
        "A node is a rule: these filters, so much each. A picture takes, from the root on, the child that points most "
        "nearly where its own rationale points. If the tree agrees with the network much less often than a linear "
        "model does, its rules describe typical reasons, not this network's boundary."
    )
    if told.fitted:
        text += (
            f" Rules weigh {WEIGHED[told.features]}, are fitted to all pictures that visit them, and held to the rule "
            "above."
        )
    one, other = told.metric("deletion"), told.metric("deletion", "random filters")
    if one and other:
        text += (
            f" Without the eight filters that a node names the network's decision moves by {one['value']:.0%} of its "
            f"size, without eight others as active by {other['value']:.0%}."
        )
    return views.Text(text, "quiet")


def _legend(told: TreeFindings) -> str:
    leaves = "" if told.fitted else " Leaves are single pictures."
    return (
        f"Unfold a node in the outline, or click it in the drawing; Tab and Enter do it from the keyboard.{leaves} "
        "“Visits” are parse paths of held-out pictures of the category. A node that nobody visits explains nothing, "
        f"and is no way to decide. Parts of filters: {told.parts_source}."
    )


_NODE_LEGEND = (
    "The nodes that most held-out pictures visit, with the pictures nearest to them. Circles: where the three "
    "filters that contribute most are highest."
)


def outline(told: TreeFindings) -> views.Branch:
    """The tree as nested text, the most visited first; the first branch is unfolded."""
    carded = {node.number for node in told.shown}

    def branches(numbers: Sequence[int]) -> list[views.Branch]:
        found = sorted(
            (told.nodes[number] for number in numbers), key=lambda node: (-node.visits, -node.others, node.number)
        )
        return [_branch(node, branches, anchored=node.number in carded) for node in found]

    first, *others = branches(told.top)
    note = f"{told.pictures} pictures"
    return views.Branch(told.category, note, "", [replace(first, open=bool(first.below)), *others], open=True)


def _branch(node: TreeNode, branches: Callable[[Sequence[int]], list[views.Branch]], *, anchored: bool) -> views.Branch:
    if node.single:
        visits = f"{node.visits} visits" if node.visits else ""
        return views.Branch((node.file or node.name).rpartition("/")[2], visits, "", ())
    note = f"{node.pictures} pictures, {node.filters} filters, {node.visits} visits"
    note += f" and {node.others} of others" if node.others else ""
    return views.Branch(node.name, note, _anchor(node.number) if anchored else "", branches(node.below))


def _anchor(node: int) -> str:
    return f"node/{node}"


def _cards(told: TreeFindings) -> list[views.Card]:
    return [_card(told, shown) for shown in told.shown]


def _card(told: TreeFindings, shown: ShownNode) -> views.Card:
    node = told.nodes[shown.number]
    facts = [
        ("pictures", str(node.pictures), "that the tree grew from, in the node"),
        ("visits", str(node.visits), "held-out pictures of the category whose path leads here"),
        ("filters", f"{node.filters} of {told.filters}", _rests(told)),
    ]
    note = ", ".join(share.name for share in shown.parts[:NOTED_PARTS])
    return views.Card(node.name, _anchor(node.number), note, [_spot(item) for item in shown.pictures], facts)


def _rests(told: TreeFindings) -> str:
    return "make up nine tenths of what the rule adds" if told.fitted else "filters that the node's rule uses"


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


def of_units(told: TreeFindings) -> views.Told:
    """What each filter does in decisions for the category."""
    return {key: [_of_unit(told, role)] for key, role in told.roles.items()}


def _of_unit(told: TreeFindings, role: FilterRole) -> views.Section:
    text = (
        f"In held-out pictures of {told.category} it adds {role.adds:+.2f} on average to the network's score for it "
        f"(before softmax), by size number {role.rank} of {role.of} filters."
    )
    if role.part:
        text += f" It stands for {role.part}."
    links = [(told.nodes[node].name, f"tree.html#{_anchor(node)}") for node in role.nodes]
    where = [views.Text("Among the strongest in these ways to decide:", "quiet")] if links else []
    parts: list[views.Part] = [
        views.Text(text),
        *where,
        views.Links([*links, ("The page of the decision tree", "tree.html")]),
    ]
    return views.Section("Its place in the decision tree", parts)
