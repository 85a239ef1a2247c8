"""Pages of an explanatory graph: its worth, the graph over pictures, its strongest nodes, a picture looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from microtome.disentangle.graph_keys import Measure, Of
from microtome.disentangle.pattern_graph import Node, PatternGraph, Place
from microtome.quantify.novelty import Novelty
from microtome.report import views
from microtome.report.charts import lines
from microtome.report.likeness import likeness
from microtome.report.words import worded

SHOWN_PATCHES = 5
SHOWN_IMAGES, DRAWN = 3, 12
LISTED = 8  # nodes of each layer, where a picture is looked up
PARENTS = 2  # of a node, that are drawn
Figures = Mapping[tuple[str, Measure, Of], "LayerFigure"]


@dataclass(frozen=True)
class LayerFigure:
    """A row of the table `graph_metrics`."""

    layer: str
    metric: Measure
    of: Of
    round: int | None
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def interval(self) -> str:
        """With its interval, in words."""
        return f"{self.value:.3f} [{worded(self.low, '.3f')}, {worded(self.high, '.3f')}]"


@dataclass(frozen=True)
class OverPicture:
    """A picture that the graph is drawn over.

    Args:
        path: of the picture.
        file: its name.
        here: where the graph's nodes are in it.
    """

    path: str
    file: str
    here: Sequence[Place]


@dataclass(frozen=True)
class Patch:
    """A picture in which a node is strong: path of the thumbnail, name, and where the node is."""

    thumb: str
    file: str
    place: Place


@dataclass(frozen=True)
class UnitLabel:
    """What the dissection says of a filter: the number of its layer's page, its concept if it is a detector."""

    page: int
    concept: str | None


@dataclass(frozen=True)
class GraphFindings:
    """What was found of a graph.

    Args:
        graph: nodes and edges.
        figures: of its layers.
        images: pictures that it was looked up in.
        training: those of them that it was learned from.
        over: pictures that it is drawn over.
        patches: of the nodes that have a card, by number.
        units: (layer, filter) -> what the dissection says of it; empty without a dissection.
        size: (height, width) of the network's input.
    """

    graph: PatternGraph
    figures: Sequence[LayerFigure]
    images: int
    training: int
    over: Sequence[OverPicture]
    patches: Mapping[int, Sequence[Patch]]
    units: Mapping[tuple[str, int], UnitLabel]
    size: tuple[int, int]


def page(found: GraphFindings) -> views.Page:
    """The graph."""
    over = Over(found.graph, found.size)
    return views.Page(
        name="explanatory graph",
        subject="the explanatory graph",
        page="graph.html",
        headline=_headline(found),
        figures=views.Figures(
            [
                ("nodes", f"{len(found.graph.nodes):,}", f"{len(found.graph.layers)} layers"),
                ("edges", f"{found.graph.edges:,}", "child to parent"),
                ("pictures", str(found.images), f"{found.training} to learn from"),
            ]
        ),
        sections=[
            views.Section("Are nodes steadier than filters?", [_steadiness(found), _steady_note()]),
            *_follow(found),
            views.Section("Learning", [_learning(found.figures)]),
            *(views.Section(f"The graph over {picture.file}", over.parts(picture)) for picture in found.over),
            _cards(found),
        ],
        queries=[
            ("Graph metrics", "select * from graph_metrics where round is null"),
            ("Nodes", "select * from graph_nodes order by score desc limit 20"),
            ("Parents of a node", "select * from graph_edges where child = 0"),
        ],
    )


def _headline(found: GraphFindings) -> str:
    nodes, layers = len(found.graph.nodes), len(found.graph.layers)
    text = f"{nodes:,} part patterns in {layers} layers share out what the filters answer to"
    slopes = [row for row in found.figures if row.metric is Measure.SLOPE and row.of is Of.NODES]
    if slopes:
        text += f". When what held-out pictures show is moved, the shown nodes go along by {_shares(slopes)}"
    apart = [row for row in found.figures if row.of is Of.DIFFERENCE]
    if apart:
        still = [row for row in found.figures if row.of is Of.OWN_FROZEN]
        text += (
            f". Their distance to landmarks varies less than that of the raw filters in {_sure(apart)} of {len(apart)} "
            f"layers, and less than if they stood at their own mean places in {_sure(still)}, by intervals that "
            "exclude zero"
        )
    return text + "."


def _sure(rows: Sequence[LayerFigure]) -> int:
    """In how many the whole interval lies below zero."""
    return sum(row.high is not None and row.high < 0 for row in rows)


def _shares(rows: Sequence[LayerFigure]) -> str:
    return ", ".join(f"{row.value:.0%} of it in {row.layer}" for row in rows)


def _steadiness(found: GraphFindings) -> views.Part:
    rows = {(row.layer, row.metric, row.of): row for row in found.figures if row.round is None}
    if not rows:
        return views.Text("The data set has no landmarks: nothing to be steady against.", "quiet")
    names = (
        "nodes", "filters", "nodes - filters", "nodes - themselves frozen", "random, best constant",
        "track: nodes, filters", "spread: nodes, filters",
    )  # fmt: skip
    table = [_steady_row(layer, rows) for layer in found.graph.layers]
    return views.Table([("layer", False), *((name, True) for name in names)], table)


def _steady_row(layer: str, rows: Figures) -> list[str]:
    whose = (Of.NODES, Of.FILTERS, Of.DIFFERENCE, Of.OWN_FROZEN)
    compared = [rows.get((layer, Measure.INSTABILITY, of)) for of in whose]
    frozen = [rows[layer, Measure.INSTABILITY, of] for of in (Of.RANDOM, Of.CONSTANT)]
    good, spread = (
        [rows[layer, measure, of] for of in (Of.NODES, Of.FILTERS)] for measure in (Measure.TRACKS, Measure.SPREAD)
    )
    return [
        layer,
        *("–" if row is None else row.interval for row in compared),
        ", ".join(worded(row.value, ".3f") for row in frozen),
        ", ".join(f"{row.value:.0%}" for row in good),
        ", ".join(f"{row.value:.2f}" for row in spread),
    ]


def _steady_note() -> views.Text:
    return views.Text(
        "Only pictures that the graph was not learned from. Location instability of the nodes that are shown below, "
        "and of the filters, in the 20 pictures where each is highest; 95 % intervals over pictures, paired. A place "
        "that never moves is steady, too: nodes stand beside themselves frozen at their own mean places. They track "
        "if their places vary with a landmark's (q at most 0.05). Spread: how much the position itself moves, by the "
        "diagonal.",
        "quiet",
    )


def _follow(found: GraphFindings) -> list[views.Section]:
    """The shift test; nothing where there was none."""
    rows = {(row.layer, row.metric, row.of): row for row in found.figures if row.round is None}
    names = ("slope", "surely follow", "instability", "frozen at its own mean", "of those that follow")
    lines = []
    for layer in found.graph.layers:
        for of in (Of.NODES, Of.FILTERS):
            if (layer, Measure.SLOPE, of) in rows:
                each = [
                    rows.get((layer, measure, of))
                    for measure in (Measure.INSTABILITY, Measure.FROZEN, Measure.FOLLOWING)
                ]
                lines.append(
                    [
                        f"{layer}, {of.value}",
                        rows[layer, Measure.SLOPE, of].interval,
                        f"{rows[layer, Measure.FOLLOWS, of].value:.0%}",
                        *("–" if row is None else f"{row.value:.3f}" for row in each),
                    ]
                )
    if not lines:
        return []
    note = views.Text(
        "Each picture is looked up again with what it shows moved by a known random offset. Slope: of a node's, or a "
        "filter's, displacement on that offset, mean over the same ones and held-out pictures as above: 1 follows, 0 "
        "is frozen. "
        "Surely follow: the 95 % interval of its own slope lies above 0.5. Frozen: instability if each stood at its "
        "own mean place: steadiness that is no better needs no part to be followed.",
        "quiet",
    )
    table = views.Table([("layer", False), *((name, True) for name in names)], lines)
    return [views.Section("Do they follow what is shown?", [table, note])]


def _learning(figures: Sequence[LayerFigure]) -> views.Charts:
    rows = [
        {"x": row.round, "y": row.value, "line": row.layer} for row in figures if row.metric is Measure.LOG_LIKELIHOOD
    ]
    return views.Charts([lines("Log-likelihood per unit of activation, by round", rows, "round")])


@dataclass(frozen=True)
class Over:
    """A graph, drawn over pictures.

    Args:
        graph: what is drawn.
        size: (height, width) of the drawing's coordinates.
    """

    graph: PatternGraph
    size: tuple[int, int]

    def parts(self, picture: OverPicture) -> list[views.Part]:
        """Nodes at their places, edges to their parents, and the same as text."""
        shown = self.graph.strongest(picture.here, DRAWN)
        below = [self._branch(layer, shown) for layer in self.graph.layers]
        outline = views.Branch("The same as text", "", "", below)
        drawing = views.Drawing(picture.path, picture.file, self.size, self._levels(picture.here, shown))
        return [drawing, views.Outline(outline, False)]

    def _levels(self, here: Sequence[Place], shown: Sequence[Place]) -> list[views.Level]:
        height, width = self.size
        at = {place.node: (round(place.x * width, 1), round(place.y * height, 1)) for place in here}
        children = [place.node for place in shown]
        drawn = sorted({*children, *(parent for child in children for parent in self._parents(child))})
        levels = []
        for number, layer in enumerate(self.graph.layers):
            dots = [(*at[node], f"node {node}") for node in drawn if self._layer(node) == layer]
            own = [child for child in children if self._layer(child) == layer]
            links = [(*at[child], *at[parent]) for child in own for parent in self._parents(child)]
            levels.append(views.Level(layer, number, dots, links))
        return levels

    def _layer(self, node: int) -> str:
        return self.graph.named[node].layer

    def _parents(self, node: int) -> Sequence[int]:
        return self.graph.parents.get(node, ())[:PARENTS]

    def _branch(self, layer: str, shown: Sequence[Place]) -> views.Branch:
        own = [place for place in shown if self._layer(place.node) == layer]
        return views.Branch(layer, f"{len(own)} nodes drawn", "", [self._leaf(place) for place in own])

    def _leaf(self, place: Place) -> views.Branch:
        parents = ", ".join(str(parent) for parent in self._parents(place.node))
        under = f", under {parents}" if parents else ""
        where = f"filter {self.graph.named[place.node].filter} at {place.x:.2f}, {place.y:.2f}{under}"
        return views.Branch(f"node {place.node}", where, "", ())


def _cards(found: GraphFindings) -> views.Section:
    """The chosen nodes with their best patches."""
    nodes = found.graph.chosen
    cards = [_card(found, node, {node.node for node in nodes}) for node in nodes]
    text = (
        "Of the strongest nodes of each layer those that follow best what training pictures show when it is moved, in "
        "the held-out pictures in which they are strongest. Circle: where the node is."
    )
    return views.Section("Nodes", [views.Text(text, "quiet"), views.Gallery(cards, True)])


def _card(found: GraphFindings, node: Node, others: set[int]) -> views.Card:
    parents = found.graph.parents.get(node.node, ())
    facts = [
        ("deviation", f"{node.sigma:.3f}", "sigma, by the side of the picture"),
        ("parents", ", ".join(str(parent) for parent in parents[:3]) or "–", "nodes of the layer above"),
        ("purity", worded(node.purity, ".0%"), "share of its top held-out pictures in which it is on one part"),
    ]
    unit = found.units.get((node.layer, node.filter))
    links = [_unit_link(node, unit)] if unit else []
    links += [(f"parent {parent}", f"#node/{parent}") for parent in parents if parent in others]
    note = f"{node.layer} filter {node.filter}" + (f": {node.concept}" if node.purity else "")
    spots = [_spot(patch, found.size) for patch in found.patches.get(node.node, ())]
    return views.Card(f"node {node.node}", f"node/{node.node}", note, spots, facts, links)


def _unit_link(node: Node, unit: UnitLabel) -> tuple[str, str]:
    """The filter and its concept, and where the report's dissection shows it."""
    place = quote(views.UnitKey(node.layer, node.filter).page)
    return f"filter {node.filter}: {unit.concept or 'no concept'}", place


def _spot(patch: Patch, size: tuple[int, int]) -> views.Spot:
    height, width = size
    circle = (round(patch.place.x * width, 1), round(patch.place.y * height, 1), round(height / 9, 1))
    return views.Spot(patch.thumb, patch.file, size, [circle], ())


@dataclass(frozen=True)
class LookedUp:
    """A picture that was looked up in a graph.

    Args:
        graph: the graph.
        category: that it is about.
        name: of the page, without what comes before and after.
        picture: the picture.
        size: (height, width) of the network's input.
        novelty: how far a new picture is from those that the graph has seen; None for one of those.
    """

    graph: PatternGraph
    category: str
    name: str
    picture: OverPicture
    size: tuple[int, int]
    novelty: Novelty | None = None


def lookup_page(found: LookedUp) -> views.Page:
    """What a picture shows of the graph."""
    file = found.picture.file
    return views.Page(
        name="patterns",
        page=f"graph-{found.name}.html",
        headline=" ".join([f"What {file} shows of the graph of {found.category}.", *likeness(found.novelty)]),
        figures=views.Figures([]),
        sections=[views.Section(file, Over(found.graph, found.size).parts(found.picture))],
    )


def lookup_rows(found: LookedUp) -> list[list[str]]:
    """The same as text: layer, node, filter, x, y, score and concept of the strongest nodes."""
    return [_row(found.graph.named[place.node], place) for place in found.graph.strongest(found.picture.here, LISTED)]


def _row(node: Node, place: Place) -> list[str]:
    concept = f"{node.concept} ({node.purity:.0%})" if node.concept and node.purity else ""
    return [
        node.layer, str(node.node), str(node.filter), f"{place.x:.3f}", f"{place.y:.3f}", f"{place.score:.3g}", concept
    ]  # fmt: skip


def of_units(found: GraphFindings) -> views.Told:
    """The nodes that share out what each filter answers to."""
    cards = {node.node for node in found.graph.chosen}
    by_unit: dict[views.UnitKey, list[Node]] = {}
    for node in found.graph.nodes:
        by_unit.setdefault(views.UnitKey(node.layer, node.filter), []).append(node)
    return {key: [_of_unit(nodes, found.graph, cards)] for key, nodes in by_unit.items()}


def _of_unit(nodes: Sequence[Node], graph: PatternGraph, cards: set[int]) -> views.Section:
    columns = [
        ("node", False),
        ("part", False),
        ("on it", True),
        ("deviation", True),
        ("score", True),
        ("under", False),
    ]
    lines = [
        [
            f"node {node.node}",
            node.concept or "–",
            worded(node.purity, ".0%"),
            f"{node.sigma:.3f}",
            f"{node.score:.3g}",
            ", ".join(f"node {parent}" for parent in graph.parents.get(node.node, ())[:PARENTS]) or "–",
        ]
        for node in sorted(nodes, key=lambda node: -node.score)[:LISTED]
    ]
    note = (
        "The graph shares out what a filter answers to among nodes, each a pattern that keeps its place beside others. "
        "On it: share of its strongest pictures in which it lies on that part. Deviation: how far it strays, by the "
        "side of the picture. Under: the nodes of the layer above that it goes with."
    )
    links = [(f"node {node.node}", f"graph.html#node/{node.node}") for node in nodes if node.node in cards]
    parts: list[views.Part] = [
        views.Table(columns, lines, note),
        views.Links([*links, ("The page of the graph", "graph.html")]),
    ]
    return views.Section("Its place in the explanatory graph", parts)
