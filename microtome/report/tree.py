"""Page of a decision tree: how well it speaks for the network, the tree itself, its nodes, some parse paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypedDict

from microtome.disentangle.parse_paths import FilterShare, PartShare, PathStep
from microtome.disentangle.tree_metrics import LevelMeasure, TreeMeasure, TreeModel
from microtome.quantify.novelty import Novelty
from microtome.report import views
from microtome.report.charts import signed_bars
from microtome.report.likeness import likeness

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
    "merged": "not yet at a leaf",
}
LINEAR: tuple[TreeModel, ...] = ("ridge", "ridge per cell", "logistic regression")
RIVALS: Mapping[TreeModel, str] = {
    "ridge": "a ridge regression",
    "ridge per cell": "a ridge regression on every cell",
    "logistic regression": "a logistic regression",
}
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
        name: of the page and the card, without what comes before and after.
        spotted: the picture, and its circles for the first node.
        category: that the decision is about.
        standing: what the picture is to the tree, in words: of the category or not, held out or not, or new to it.
        decision: the network's own, in logits.
        steps: the path, and of each step its filters by what they add.
        nodes: the steps' nodes.
        parts: by what they add at the first step; none where no filter has one.
        novelty: how far a new picture is from those that the tree has seen; None for one of those.
    """

    name: str
    spotted: SpottedPicture
    category: str
    standing: str
    decision: float
    steps: Sequence[tuple[PathStep, Sequence[FilterShare]]]
    nodes: Sequence[TreeNode]
    parts: Sequence[PartShare]
    novelty: Novelty | None = None


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

    def single(self, measure: LevelMeasure) -> TreeMetricRow | None:
        """The root's: one rule for all; None where it was not measured."""
        own = (r for r in self.metrics if (r["metric"], r["model"], r["against"]) == (measure, "tree", None))
        return next((row for row in own if row["depth"] == 1), None)

    def rival(self, measure: LevelMeasure) -> TreeMetricRow | None:
        """The linear model that does best by a measure; None where there is none."""
        found = [row for model in LINEAR if (row := self.metric(measure, model))]
        return max(found, key=lambda row: row["value"], default=None)


def page(told: TreeFindings) -> views.Page:
    """The page."""
    if said := _nothing_to_explain(told):
        return _withheld(told, said)
    if told.linear:
        return _one_reason(told)
    units = {key.number: key for key in told.roles}
    paths = [
        views.Section(f"Why {told.category}? {path.spotted.file}", explanation(path, units, explained=not place))
        for place, path in enumerate(told.paths)
    ]
    sections = [
        _tree(told),
        *_nodes(told),
        *paths,
        views.Section("How far it speaks for the network", [*_others(told), _how(told)]),
        views.Section("Depth by depth", [*_levels(told)], folded=True),
    ]
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
    units = {key.number: key for key in told.roles}
    sections += [views.Section(f"What decides about {path.spotted.file}", summands(path, units)) for path in told.paths]
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


def summands(path: ParsePath, units: Mapping[int, views.UnitKey]) -> list[views.Part]:
    """What filters and parts add to a picture's decision, by the network's only rule.

    Args:
        path: through the tree.
        units: that the filters are, by number; none of another network than the audit's own.
    """
    own = f"{path.decision:+.2f}"
    spot = _spot(path.spotted, f"network {own}")
    filters = path.steps[0][1][:SHOWN_FILTERS]
    bars = [(_filter(share), share.own, None) for share in filters]
    parts: list[views.Part] = [
        views.Gallery([views.Card("decision", f"path/{path.name}", own, [spot])]),
        signed_bars("What filters add, the strongest", bars, [units.get(share.number) for share in filters]),
    ]
    if path.parts:
        parts.append(signed_bars("What parts add", [(share.name, share.own, None) for share in path.parts]))
    return [*parts, views.Text(f"All filters and a constant make {own}.", "quiet")]


_QUERIES = [
    ("Tree metrics", "select * from tree_metrics order by model, metric, depth"),
    ("Merge log", "select * from tree_merges order by step"),
    ("Parse paths", "select * from tree_paths join tree_images using (dataset, image) order by image, depth"),
]


def _withheld(told: TreeFindings, said: str) -> views.Page:
    """Of a network whose decisions are not worth a tree: the sentence, and no figures."""
    advice = (
        "A tree of such decisions would be one of chance. More pictures might tell them apart; otherwise look at how "
        "the network was trained and whether the output that the audit file names is the one that stands for "
        f"{told.category}."
    )
    return views.Page(
        name="decision tree",
        subject="the decision tree",
        page="tree.html",
        headline=said,
        figures=views.Figures([]),
        sections=[views.Section("Why there is none", [views.Text(advice, style="advice")])],
        queries=_QUERIES,
    )


def path_page(path: ParsePath) -> views.Page:
    """One picture's path, as a page for itself."""
    return views.Page(
        name=f"why {path.category}?",
        page=f"tree-{path.name}.html",
        headline=" ".join([words(path)[0] + ".", *likeness(path.novelty)]),
        figures=views.Figures([]),
        sections=[views.Section("Its path through the tree", explanation(path))],
    )


def _headline(told: TreeFindings) -> str:
    """What can be read aloud; how far it speaks for the network say the figures below it."""
    return f"Asked whether a picture shows {told.category}, the network decides in {_ways(told)}{_no_better(told)}"


def _no_better(told: TreeFindings) -> str:
    """That one rule for all pictures does as well, where it does: then the ways are of its reasons alone."""
    own, one = told.metric("fidelity"), told.single("fidelity")
    if told.ways == 1 or not own or not one or one["value"] < own["value"]:
        return ""
    return (
        " One rule for all pictures answers as the network no less often: the ways tell its reasons apart, not its "
        "answers."
    )


def _ways(told: TreeFindings) -> str:
    """How many, and how many pictures of the category take the first of them."""
    if told.ways == 1:
        return "one way: a single rule holds for every picture."
    visits = [told.nodes[number].visits for number in told.top]
    if not sum(visits):
        return f"{told.ways} ways, none of which a held-out picture of {told.category} takes."
    first = max(told.top, key=lambda number: told.nodes[number].visits)
    rest, others = sum(visits) - max(visits), told.ways - 1
    other = "the other" if others == 1 else f"the other {others}"
    return (
        f"{told.ways} ways; {max(visits)} of {sum(visits)} held-out pictures of {told.category} take the same one, "
        f"{told.nodes[first].name}, and {rest or 'none'} {other}."
    )


def _nothing_to_explain(told: TreeFindings) -> str:
    """A sentence where the network is not right more often than who always names the larger side."""
    right, yes = told.metric("accuracy", "network"), told.metric("accuracy", "always yes")
    if not right or not yes or right["low"] > max(yes["value"], 1 - yes["value"]):
        return ""
    share = max(yes["value"], 1 - yes["value"])
    return (
        f"The network itself is right about {told.category} in {right['value']:.0%} [{right['low']:.0%}, "
        f"{right['high']:.0%}] of {right['images']} held-out pictures, where the same answer to all is right in "
        f"{share:.0%}. The two cannot be told apart, so no tree is shown."
    )


def _figures(told: TreeFindings) -> views.Figures:
    """How far the ways to decide speak for the network, each figure beside one rule's and the best linear model's."""
    items = []
    if row := told.metric("fidelity"):
        note = f"95 %: {row['low']:.0%} to {row['high']:.0%}, of {row['images']} pictures that it did not grow from"
        items.append(("answers as the network", f"{row['value']:.0%}", note + _rival(told, "fidelity", ".0%")))
    if row := told.metric("auc"):
        note = f"95 %: {_between(row)}; 1 ranks pictures as the network" + _rival(told, "auc", ".2f")
        items.append(("AUC", f"{row['value']:.2f}", note))
    if row := told.metric("fitness"):
        note = f"95 %: {row['low']:.0%} to {row['high']:.0%}; overlap of what it says filters add with what they add"
        items.append(("reasons as the network", f"{row['value']:.0%}", note + _rival(told, "fitness", ".0%")))
    return views.Figures([*items, *_deleted(told)])


def _rival(told: TreeFindings, measure: LevelMeasure, form: str) -> str:
    """How one rule for all pictures does by a measure, and the best linear model; nothing of what there is not."""
    one, best = told.single(measure), told.rival(measure) if measure != "fitness" else None  # not told its reasons
    alone = f"; one rule for all: {one['value']:{form}}" if one and told.ways > 1 else ""
    return alone + (f"; {RIVALS[best['model']]}: {best['value']:{form}}" if best else "")


def _deleted(told: TreeFindings) -> list[tuple[str, str, str]]:
    """What deleting filters does, beyond others as active."""
    apart, own = told.metric("deletion", against="random filters"), told.metric("deletion")
    other = told.metric("deletion", "random filters")
    if not apart or not own or not other:
        return []
    ends = f"{apart['low']:+.0%} to {apart['high']:+.0%}"
    note = (
        f"of the network's score, by removing 8 filters that nodes name; by 8 others as active {other['value']:.0%} "
        f"(difference {apart['value']:+.0%}, 95 %: {ends})"
    )
    return [("the score moves by", f"{own['value']:.0%}", note)]


def _between(row: TreeMetricRow) -> str:
    return f"{row['low']:.2f} to {row['high']:.2f}"


def _cell(row: TreeMetricRow | None) -> str:
    """A figure with its interval; of a difference that is zero in every picture, which has none, that it is."""
    if row is None:
        return "–"
    if row["against"] and row["value"] == row["low"] == row["high"] == 0:
        return "the same"
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


DECISIONS: tuple[LevelMeasure, ...] = (
    "accuracy", "fidelity", "fidelity on positives", "fidelity on others", "auc", "error",
)  # fmt: skip
REASONS: tuple[LevelMeasure, ...] = ("fitness", "part error", "merged")
COMPARED: tuple[LevelMeasure, ...] = ("fidelity", "fidelity on positives", "fidelity on others", "auc", "fitness")


def _levels(told: TreeFindings) -> list[views.Part]:
    """The tree at each depth: its decisions, then its reasons."""
    return [_level(told, DECISIONS, _DECISIONS_NOTE), _level(told, REASONS, _REASONS_NOTE)]


def _level(told: TreeFindings, measures: Sequence[LevelMeasure], note: str) -> views.Table:
    own = {
        (r["metric"], depth): r
        for r in told.metrics
        if r["model"] == "tree" and r["against"] is None and (depth := r["depth"]) is not None
    }
    first, deepest = min(depth for _, depth in own), max(depth for _, depth in own)
    names = {1: _ROOT, 2: _SECOND, deepest: f"{deepest}, leaves"}
    lines = [
        [names.get(depth, str(depth)), *(_cell(own.get((measure, depth))) for measure in measures)]
        for depth in range(first, deepest + 1)
    ]
    return views.Table(_columns("depth", measures), lines, note)


def _columns(first: str, measures: Sequence[LevelMeasure]) -> list[tuple[str, bool]]:
    return [(first, False), *((MEASURES[measure], True) for measure in measures)]


_ROOT, _SECOND = "1, the root: one rule for all", "2, the ways to decide"
_DECISIONS_NOTE = (
    "On pictures that the tree did not grow from, with 95 % intervals (of shares Wilson's, else bootstrap). Right: "
    "about the picture. As the network: share of its decisions that are given, over all pictures, those of the "
    "category, the others. AUC: how nearly the estimates rank pictures as the network's decisions do, 1 at best. "
    "Error: distance of the estimate from the decision, by the range of decisions."
)
_REASONS_NOTE = (
    "Over such pictures of the category. Fitness: overlap (Jaccard, 1 at most) of what the node's rule says each "
    "filter adds with what it adds in the network. Part error: the same of parts, as a share of the mean decision. "
    "Not yet at a leaf: share of pictures whose way goes on below."
)
_OTHERS_NOTE = (
    "On pictures that the tree did not grow from, with 95 % intervals. Right: about the picture; as the network: "
    "share of its decisions that are given, over all pictures, those of the category, the others; AUC: how nearly "
    "pictures are ranked as by the network, 1 at best; fitness: overlap of what each filter is said to add with what "
    "it adds. All models are fitted to the network's own decisions on the same pictures: ridge, to its score by the "
    "filters; logistic regression, to its yes or no; scikit-learn tree, a common tree on the filters. Calibrated: "
    "the tree's estimate behind one threshold. The tree is told each picture's own reasons, by which it picks the "
    "rule; the others are not."
)


def _others(told: TreeFindings) -> list[views.Part]:
    """The tree and what stands beside it, and the tree's second layer minus each of it."""
    shown: tuple[LevelMeasure, ...] = (*DECISIONS[:-1], "fitness")
    own = {
        (row["metric"], row["depth"]): row for row in told.metrics if (row["model"], row["against"]) == ("tree", None)
    }
    tree = [
        [name, *(_cell(own.get((measure, depth))) for measure in shown)]
        for depth, name in ((2, "tree: the ways to decide"), (1, "tree: one rule for all"))
        if any(known == depth for _, known in own)
    ]
    models = list(dict.fromkeys(row["model"] for row in told.metrics if row["model"] not in ("tree", "random filters")))
    lines = [[model, *(_cell(told.metric(measure, model)) for measure in shown)] for model in models]
    apart = [
        [model, *(_cell(told.metric(measure, against=model)) for measure in COMPARED)]
        for model in models
        if told.metric("fidelity", against=model)
    ]
    parts: list[views.Part] = [views.Table(_columns("model", shown), [*tree, *lines], _OTHERS_NOTE)]
    if apart:
        note = (
            "Differences picture by picture, with 95 % bootstrap intervals: above zero, the ways to decide are ahead."
        )
        parts.append(views.Table(_columns("the ways to decide minus", COMPARED), apart, note))
    return parts


def _how(told: TreeFindings) -> views.Text:
    text = (
        "A node is a rule: these filters, so much each. From the root on a picture goes to the child whose typical "
        "reasons point most nearly the way its own do: its rationale, what each filter adds to the network's score. "
        "If the tree agrees with the network much less often than a linear model does, its rules describe typical "
        "reasons, not this network's boundary."
    )
    if told.fitted:
        text += (
            f" Rules weigh {WEIGHED[told.features]}, are fitted to all pictures that visit them, and held to the rule "
            "above."
        )
    return views.Text(text, "quiet")


def _tree(told: TreeFindings) -> views.Section:
    """The tree; in words, where it is one rule."""
    if len(told.top) == 1 and not told.nodes[told.top[0]].below:
        text = (
            f"All {told.pictures} pictures that the tree grew from come to one node: the reasons of their decisions "
            "are alike. So there is nothing to branch on, and the whole tree is the rule below."
        )
        return views.Section("A tree of one rule", [views.Text(text)])
    return views.Section("The tree", [views.Text(_legend(told), "quiet"), views.Outline(outline(told))])


def _visits(node: TreeNode, category: str) -> str:
    """How many held-out pictures come to a node."""
    return f"{node.visits} of {category}, {node.others} other{'' if node.others == 1 else 's'}"


def _legend(told: TreeFindings) -> str:
    leaves = "" if told.fitted else " Leaves are single pictures."
    return (
        "Every node is a rule for the pictures that come to it. The nodes below the root are the ways to decide; those "
        f"below them tell their pictures further apart.{leaves} Beside each stands how many pictures visit it on their "
        f"way from the root to a leaf, of those that the tree did not grow from: of {told.category}, and others; then "
        "how many it grew from. A node that nobody visits explains nothing, and is no way to decide. Unfold a node in "
        "the outline, or click it in the drawing; Tab and Enter do it from the keyboard."
    )


def _nodes(told: TreeFindings) -> list[views.Section]:
    """The ways to decide, and the nodes below them."""
    text = (
        f"With the pictures nearest to each: of {told.category} where these visit it most, else of others. Circles: "
        "where the three filters that add most are highest. The words: the parts that add most. Which part a filter "
        f"stands for: {told.parts_source}."
    )
    ways, below = ([shown for shown in told.shown if (shown.number in told.top) is wanted] for wanted in (True, False))
    first = views.Section("Ways to decide", [views.Text(text, "quiet"), views.Gallery(_cards(told, ways), True)])
    title = "Nodes below the ways" if ways else "Nodes"
    rest = views.Section(title, [views.Gallery(_cards(told, below), True)], folded=bool(ways))
    return [section for section, some in ((first, ways), (rest, below)) if some]


def outline(told: TreeFindings) -> views.Branch:
    """The tree as nested text, the most visited first; the first branch is unfolded."""
    carded = {node.number for node in told.shown}

    def branches(numbers: Sequence[int]) -> list[views.Branch]:
        found = sorted(
            (told.nodes[number] for number in numbers), key=lambda node: (-node.visits, -node.others, node.number)
        )
        return [_branch(node, branches, told.category, anchored=node.number in carded) for node in found]

    first, *others = branches(told.top)
    note = f"{told.pictures} pictures"
    return views.Branch(told.category, note, "", [replace(first, open=bool(first.below)), *others], open=True)


def _branch(
    node: TreeNode, branches: Callable[[Sequence[int]], list[views.Branch]], category: str, *, anchored: bool
) -> views.Branch:
    if node.single:
        visits = f"{node.visits} of {category}" if node.visits else ""
        return views.Branch((node.file or node.name).rpartition("/")[2], visits, "", ())
    note = f"{_visits(node, category)}; grew from {node.pictures}"
    anchor = _anchor(node.number) if anchored else ""
    return views.Branch(node.name, note, anchor, branches(node.below))


def _counted(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def _anchor(node: int) -> str:
    return f"node/{node}"


def _cards(told: TreeFindings, shown: Sequence[ShownNode]) -> list[views.Card]:
    above = {child: node.number for node in told.nodes for child in node.below}
    return [_card(told, item, above.get(item.number)) for item in shown]


def _card(told: TreeFindings, shown: ShownNode, above: int | None) -> views.Card:
    node = told.nodes[shown.number]
    facts = [
        (
            "visits",
            _visits(node, told.category),
            "pictures that the tree did not grow from",
        ),
        ("grew from", _counted(node.pictures), ""),
        ("filters", f"{node.filters} of {told.filters}", _rests(told)),
    ]
    parts = ", ".join(share.name for share in shown.parts[:NOTED_PARTS])
    label = "mostly others" if node.others > node.visits else parts
    place = "" if shown.number in told.top or above is None else f"below node {above}"
    spots = [_spot(item) for item in shown.pictures]
    return views.Card(node.name, _anchor(node.number), place, spots, facts, label=label)


def _rests(told: TreeFindings) -> str:
    return "make up nine tenths of what the rule adds" if told.fitted else "filters that the node's rule uses"


def _spot(item: SpottedPicture, caption: str = "") -> views.Spot:
    return views.Spot(item.thumb, item.file, item.size, item.circles, (), caption)


def explanation(
    path: ParsePath, units: Mapping[int, views.UnitKey] = MappingProxyType({}), *, explained: bool = True
) -> list[views.Part]:
    """A picture's path: what filters and parts add at its first node, and what each node estimates.

    Args:
        path: through the tree.
        units: that the filters are, by number; none of another network than the audit's own.
        explained: whether the words are.
    """
    lines = [
        [node.name, f"{step.cosine:.2f}", f"{step.estimate:+.2f}", str(node.pictures)]
        for node, (step, _) in zip(path.nodes, path.steps, strict=True)
    ]
    columns = [("node", False), ("cosine", True), ("estimate", True), ("grew from", True)]
    filters = path.steps[0][1]
    own = f"{path.decision:+.2f}"
    note = (
        "The table is the picture's way through the tree, its parse path. Estimate: what the node's rule makes of the "
        f"network's own score ({own}), which is that for {path.category} less the highest other one, before softmax. "
        "Cosine: how nearly the node's reasons point the way the picture's do, 1 at most. Beside the bars, in brackets "
        "and as a line, stands what a filter or a part adds in the network itself. A part stands for the filters whose "
        "nearest landmark it is: what one near the wing answers to need not be the wing."
    )
    bars = [(_filter(share), share.here, share.own) for share in filters[:SHOWN_FILTERS]]
    linked = [units.get(share.number) for share in filters[:SHOWN_FILTERS]]
    spot = _spot(path.spotted, f"network {own}")
    parts: list[views.Part] = [
        views.Gallery([views.Card(path.nodes[0].name, f"path/{path.name}", _taken(path), [spot])]),
        signed_bars(f"What filters add, by {path.nodes[0].name}", bars, linked),
    ]
    if path.parts:
        rows = [(share.name, share.here, share.own) for share in path.parts]
        parts.append(signed_bars(f"What parts add, by {path.nodes[0].name}", rows))
    return [*parts, views.Table(columns, lines), *([views.Text(note, "quiet")] if explained else [])]


def _taken(path: ParsePath) -> str:
    """How many held-out pictures of the category take its way to decide."""
    visits = path.nodes[0].visits
    return f"the way of {visits} of {path.category}" if visits else "its way to decide"


def words(path: ParsePath) -> list[str]:
    """The same as lines of text."""
    sees = "sees" if path.decision > 0 else "does not see"
    lines = [f"{path.spotted.file}: the network {sees} {path.category} ({path.decision:+.2f}); {path.standing}"]
    lines += [f"  {sentence}" for sentence in likeness(path.novelty)]
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
    """What each filter does in decisions for the category; nothing where these are not worth a tree."""
    if _nothing_to_explain(told):
        return {}
    return {key: [_of_unit(told, role)] for key, role in told.roles.items()}


def _of_unit(told: TreeFindings, role: FilterRole) -> views.Section:
    text = (
        f"In held-out pictures of {told.category} it adds {role.adds:+.2f} on average to the network's score for it "
        f"(before softmax), by size number {role.rank} of {role.of} filters."
    )
    if role.part:
        text += f" Of the parts, {role.part} is the landmark nearest to where it is high."
    links = [(told.nodes[node].name, f"tree.html#{_anchor(node)}") for node in role.nodes]
    where = [views.Text("Among the strongest in these ways to decide:", "quiet")] if links else []
    parts: list[views.Part] = [
        views.Text(text),
        *where,
        views.Links([*links, ("The page of the decision tree", "tree.html")]),
    ]
    return views.Section("Its place in the decision tree", parts)
