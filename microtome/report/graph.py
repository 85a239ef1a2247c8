"""Pages of an explanatory graph: its worth, the graph over pictures, its strongest nodes, a picture looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
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
FIRST = 6  # cards that are not folded
SURELY = 0.8  # purity from which a node's part is written over a picture
ON_PART = 0.5  # purity from which a node is said to show its part
Figures = Mapping[tuple[str, Measure, Of], "LayerFigure"]
Places = Mapping[int, tuple[float, float]]  # of nodes, by number


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
class GraphFindings:
    """What was found of a graph.

    Args:
        graph: nodes and edges.
        figures: of its layers.
        images: pictures that it was looked up in.
        training: those of them that it was learned from.
        over: pictures that it is drawn over.
        patches: of the nodes that have a card, by number.
        units: what the dissection calls each filter; empty without a dissection.
        size: (height, width) of the network's input.
        category: of the pictures, or `all`.
    """

    graph: PatternGraph
    figures: Sequence[LayerFigure]
    images: int
    training: int
    over: Sequence[OverPicture]
    patches: Mapping[int, Sequence[Patch]]
    units: Mapping[views.UnitKey, str]
    size: tuple[int, int]
    category: str = "all"


def page(found: GraphFindings) -> views.Page:
    """The graph."""
    return views.Page(
        name="explanatory graph",
        subject="the explanatory graph",
        page="graph.html",
        headline=_headline(found),
        covered="Rings: the strongest nodes of each layer, in a picture that the graph was not learned from.",
        figures=views.Figures(
            [
                ("nodes", f"{len(found.graph.nodes):,}", f"part patterns of {_layers(len(found.graph.layers))}"),
                ("edges", f"{found.graph.edges:,}", "from a node to one of the layer above"),
                ("pictures", str(found.images), f"{found.training} of them to learn from"),
            ]
        ),
        sections=[
            views.Section("The graph over pictures that it was not learned from", _drawings(found)),
            views.Section("Are nodes steadier than filters?", _steadiness(found)),
            *_follow(found),
            *_cards(found),
            views.Section("Learning", [views.Text(_LEARNING, "quiet"), _learning(found.figures)], folded=True),
        ],
        queries=[
            ("Graph metrics", "select * from graph_metrics where round is null"),
            ("Nodes", "select * from graph_nodes order by score desc limit 20"),
            ("Parents of a node", "select * from graph_edges where child = 0"),
        ],
    )


def on_part(node: Node) -> bool:
    """Whether a node lies on one annotated part in most of the held-out pictures in which it is strongest."""
    return node.purity is not None and node.purity >= ON_PART


def named(node: Node) -> str:
    """A node in words, with the part that it shows."""
    return f"node {node.node}" + (f" ({node.concept})" if on_part(node) else "")


def _headline(found: GraphFindings) -> str:
    nodes, layers = len(found.graph.nodes), len(found.graph.layers)
    pictures = "pictures" if found.category == "all" else f"pictures of {found.category}"
    text = (
        f"In {found.training} {pictures}, what the filters of {_layers(layers)} answer to is shared out among "
        f"{nodes:,} nodes, patterns that keep their place beside each other"
    )
    return ". ".join([text, *_judged(found)]) + "."


def _judged(found: GraphFindings) -> Iterator[str]:
    """What the shown nodes are worth, in the other pictures."""
    shown = found.graph.chosen
    if any(node.purity is not None for node in shown):
        yield f"Of the {len(shown)} nodes shown here {sum(map(on_part, shown))} lie on one part in most pictures"
    slopes = [row for row in found.figures if row.metric is Measure.SLOPE and row.of is Of.NODES]
    if slopes:
        others = found.images - found.training
        yield (
            f"The {len(shown)} nodes that follow best there are judged in {others} others: when what these show is "
            f"moved, the nodes move with it, by {_shares(slopes)}"
        )
    apart = [row for row in found.figures if row.of is Of.ALIKE_DIFFERENCE]
    if apart:
        still = [row for row in found.figures if row.of is Of.OWN_FROZEN]
        yield (
            "They keep their distance to the parts more steadily than as many raw filters, chosen as they were, in "
            f"{_of(apart)}, and than they would frozen at their own mean places in {_of(still)} (95 % intervals)"
        )
    if held := _held(found.figures):
        yield held


def _held(figures: Sequence[LayerFigure]) -> str:
    """Whether nodes are surely steadier than one place that is held for all pictures."""
    steady = [row for row in figures if row.metric is Measure.INSTABILITY and row.round is None]
    places = {row.layer: row.value for row in steady if row.of is Of.CONSTANT}
    nodes = [row for row in steady if row.of is Of.NODES and row.layer in places and row.high is not None]
    if not nodes:
        return ""
    sure = [row.layer for row in nodes if row.high is not None and row.high < places[row.layer]]
    values = " and ".join(f"{places[row.layer]:.3f}" for row in nodes)
    place = f"the best place held for all pictures ({values})"
    if not sure:
        return f"They are not surely steadier than {place}"
    where = f", in {' and '.join(sure)} alone" if len(sure) < len(nodes) else ""
    return f"They are surely steadier than {place}{where}"


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def _of(rows: Sequence[LayerFigure]) -> str:
    """In how many layers the whole interval lies below zero."""
    sure = sum(row.high is not None and row.high < 0 for row in rows)
    if sure == len(rows) > 1:
        return "both layers" if sure == 2 else f"all {sure} layers"
    return f"{sure} of {_layers(len(rows))}" if sure else "no layer"


def _shares(rows: Sequence[LayerFigure]) -> str:
    return " and ".join(f"{row.value:.0%}{_ends(row)} of the way in {row.layer}" for row in rows)


def _ends(row: LayerFigure) -> str:
    return "" if row.low is None or row.high is None else f" [{row.low:.0%}, {row.high:.0%}]"


_WHOSE = {Of.NODES: "nodes", Of.ALIKE: "filters chosen alike", Of.FILTERS: "all filters"}
_PLACES = (("best place held for all pictures", Of.CONSTANT), ("random places", Of.RANDOM))
_STEADY_NOTE = (
    "Over pictures that the graph was not learned from. Instability: how much the distance from a node, or a filter, "
    "to a landmark varies over the 20 pictures in which it is highest, by the picture's diagonal; lower is steadier; "
    "in brackets 95 % intervals over pictures, paired where two are subtracted. What never moves is steady, too, so "
    "nodes stand beside themselves frozen at their own mean places. Nodes are those that the page shows: of the "
    "strongest those that follow best, in the pictures that the graph was learned from. Filters chosen alike are as "
    "many, chosen by the same rule in the same pictures; beside all filters the nodes would owe something to their "
    "choice. Track a landmark: share whose places vary with one (q, the share of false discoveries, at most 0.05). "
    "Own movement: how much the position itself varies."
)


def _steadiness(found: GraphFindings) -> list[views.Part]:
    rows = {(row.layer, row.metric, row.of): row for row in found.figures if row.round is None}
    if not rows:
        return [views.Text("The data set has no landmarks: nothing to be steady against.", "quiet")]
    names = ("instability", "nodes minus these", "track a landmark", "own movement")
    lines = [line for layer in found.graph.layers for line in _steady_rows(layer, rows)]
    return [views.Table([("layer", False), *((name, True) for name in names)], lines, _STEADY_NOTE)]


def _steady_rows(layer: str, rows: Figures) -> list[list[str]]:
    """Nodes, what they are compared with, and two kinds of places that look at nothing."""
    lines = []
    for of, apart in zip(_WHOSE, (None, Of.ALIKE_DIFFERENCE, Of.DIFFERENCE), strict=True):
        if (layer, Measure.TRACKS, of) in rows:
            own = rows.get((layer, Measure.INSTABILITY, of))
            less = rows.get((layer, Measure.INSTABILITY, apart)) if apart else None
            shares = [f"{rows[layer, Measure.TRACKS, of].value:.0%}", f"{rows[layer, Measure.SPREAD, of].value:.2f}"]
            said = ["–" if own is None else own.interval, "" if less is None else less.interval]
            lines.append([f"{layer}, {_WHOSE[of]}", *said, *shares])
    nodes, still = (rows.get((layer, Measure.INSTABILITY, of)) for of in (Of.NODES, Of.OWN_FROZEN))
    if nodes and still:
        frozen = f"{nodes.value - still.value:.3f}"
        lines.insert(1, [f"{layer}, the same nodes frozen", frozen, still.interval, "", ""])
    places = [
        [f"{layer}, {name}", f"{rows[layer, Measure.INSTABILITY, of].value:.3f}", "", "", ""] for name, of in _PLACES
    ]
    return [*lines, *places]


def _follow(found: GraphFindings) -> list[views.Section]:
    """The shift test; nothing where there was none."""
    rows = {(row.layer, row.metric, row.of): row for row in found.figures if row.round is None}
    names = ("slope", "follow", "instability", "if frozen", "of those that follow")
    lines = []
    for layer in found.graph.layers:
        for of in _WHOSE:
            if (layer, Measure.SLOPE, of) in rows:
                each = [
                    rows.get((layer, measure, of))
                    for measure in (Measure.INSTABILITY, Measure.FROZEN, Measure.FOLLOWING)
                ]
                lines.append(
                    [
                        f"{layer}, {_WHOSE[of]}",
                        rows[layer, Measure.SLOPE, of].interval,
                        f"{rows[layer, Measure.FOLLOWS, of].value:.0%}",
                        *("–" if row is None else f"{row.value:.3f}" for row in each),
                    ]
                )
    if not lines:
        return []
    note = (
        "Each picture is looked up again with what it shows moved by a known random offset. Slope: how far a node, or "
        "a filter, moves with it, mean over the same ones and pictures as above: 1 follows all the way, 0 stays where "
        "it was. Follow: share whose own slope has a 95 % interval above 0.5, each taken alone. If frozen: "
        "instability if each stood at its own mean place; where it is no higher, no part need be followed to be as "
        "steady. Of those that follow: the instability of these alone."
    )
    table = views.Table([("layer", False), *((name, True) for name in names)], lines, note)
    return [views.Section("Do they follow what is shown?", [table])]


_LEARNING = (
    "How well the nodes explain where the filters are high, round by round: the higher, the better; level where "
    "further rounds change nothing."
)


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
        """Nodes at their places, edges to their parents, and the same as text; of nodes on parts, where any are."""
        here = [place for place in picture.here if self._shown(place.node)]
        shown = self.graph.strongest(here, DRAWN)
        children = [place.node for place in shown]
        drawn = sorted({*children, *(parent for child in children for parent in self._parents(child))})
        height, width = self.size
        at = {place.node: (round(place.x * width, 1), round(place.y * height, 1)) for place in here}
        levels = [
            views.Level(layer, number, self._dots(layer, drawn, at), self._links(layer, children, at))
            for number, layer in enumerate(self.graph.layers)
        ]
        below = [self._branch(layer, shown) for layer in self.graph.layers]
        outline = views.Branch("The same as text", "", "", below)
        return [views.Drawing(picture.path, picture.file, self.size, levels, self._words(drawn, at), outline)]

    @cached_property
    def any_part(self) -> bool:
        """Whether any node lies on one."""
        return any(map(on_part, self.graph.nodes))

    def _shown(self, node: int) -> bool:
        return not self.any_part or on_part(self.graph.named[node])

    def _dots(self, layer: str, drawn: Sequence[int], at: Places) -> list[tuple[float, float, str]]:
        return [(*at[node], named(self._named(node))) for node in drawn if self._named(node).layer == layer]

    def _links(self, layer: str, children: Sequence[int], at: Places) -> list[views.Joined]:
        """From a layer's nodes to their parents."""
        return [
            views.Joined(*at[child], *at[parent], f"{named(self._named(child))} under {named(self._named(parent))}")
            for child in children
            if self._named(child).layer == layer
            for parent in self._parents(child)
        ]

    def _words(self, drawn: Sequence[int], at: Places) -> list[views.Word]:
        """Each part that nodes lie on in nearly all pictures, at the side, with a line to the middle of its nodes."""
        by_part: dict[str, list[tuple[float, float]]] = {}
        for node in map(self._named, drawn):
            if on_part(node) and (node.purity or 0.0) >= SURELY:
                by_part.setdefault(node.concept or "", []).append(at[node.node])
        return _at_the_sides({part: _middle(places) for part, places in by_part.items()}, self.size)

    def _named(self, node: int) -> Node:
        return self.graph.named[node]

    def _parents(self, node: int) -> Sequence[int]:
        return [parent for parent in self.graph.parents.get(node, ()) if self._shown(parent)][:PARENTS]

    def _branch(self, layer: str, shown: Sequence[Place]) -> views.Branch:
        own = [place for place in shown if self._named(place.node).layer == layer]
        return views.Branch(layer, f"{len(own)} nodes drawn", "", [self._leaf(place) for place in own])

    def _leaf(self, place: Place) -> views.Branch:
        parents = ", ".join(named(self._named(parent)) for parent in self._parents(place.node))
        under = f", under {parents}" if parents else ""
        where = f"filter {self._named(place.node).filter} at {place.x:.2f}, {place.y:.2f}{under}"
        return views.Branch(named(self._named(place.node)), where, "", ())


def _middle(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return round(mean(x for x, _ in places), 1), round(mean(y for _, y in places), 1)


def _at_the_sides(parts: Mapping[str, tuple[float, float]], size: tuple[int, int]) -> list[views.Word]:
    """Words at the left and right side of a picture, apart from what they name and from each other.

    Args:
        parts: where each is, in the middle of its nodes.
        size: (height, width) of the picture.
    """
    height, width = size
    line, taken, words = height / 12, {True: 0.0, False: 0.0}, []
    for part, (x, y) in sorted(parts.items(), key=lambda item: item[1][1]):
        left = x > width / 2 if min(x, width - x) < width / 4 else x <= width / 2  # the near side, with room between
        row = min(max(y, taken[left] + line), height - line / 4)
        taken[left] = row
        words.append(views.Word(width / 50 if left else width - width / 50, round(row, 1), part, (x, y), left))
    return words


def _drawings(found: GraphFindings) -> list[views.Part]:
    over = Over(found.graph, found.size)
    which = f"{DRAWN} strongest nodes" + (" that lie on a part" if over.any_part else "")
    text = (
        f"Of each layer the {which}, each joined to up to {PARENTS} nodes of the layer above beside which it keeps "
        "its place. A dot and a line say what they are when pointed at."
    )
    drawn = [part for picture in found.over for part in over.parts(picture)]
    if any(isinstance(part, views.Drawing) and part.words for part in drawn):
        text += (
            " A word at the side, and the dashed line from it, lead to the middle of the nodes that lie on that part "
            f"in at least {SURELY:.0%} of other pictures; in this one they may lie elsewhere."
        )
    return [views.Text(text, "quiet"), *drawn]


_CARDS = (
    "Of the strongest nodes of each layer those that follow best what training pictures show when it is moved, in "
    "the held-out pictures in which each is strongest. Circle: where the node is. “Under” names the nodes of the "
    "layer above beside which it keeps its place."
)
_PURE = " The share is of the 20 held-out pictures in which the node is strongest: in so many it lies on that part."


def _cards(found: GraphFindings) -> list[views.Section]:
    """The chosen nodes with their best patches: those that show a part first."""
    nodes = sorted(found.graph.chosen, key=lambda node: -(node.purity or 0.0) if on_part(node) else 0.0)
    carded = {node.node for node in nodes}
    on, off = ([node for node in nodes if on_part(node) is wanted] for wanted in (True, False))
    cards, others = ([_card(found, node, carded) for node in some] for some in (on, off))
    told = views.Text(_CARDS + _PURE * any(node.purity is not None for node in nodes), "quiet")
    if not on:
        return _some("Nodes", told, others)
    shown = _some("Nodes that lie on a part", told, cards)
    text = (
        "They follow what is shown, too, at places beside the annotated parts, or now on one part and now on another."
    )
    rest = views.Section(
        f"{len(off)} nodes that lie on no one part", [views.Text(text, "quiet"), views.Gallery(others, True)], True
    )
    return [*shown, rest] if off else shown


def _some(heading: str, told: views.Text, cards: Sequence[views.Card]) -> list[views.Section]:
    """The first cards, and the others folded: nodes of one part look alike."""
    first = views.Section(heading, [told, views.Gallery(cards[:FIRST], True)])
    rest = views.Section(f"{len(cards) - FIRST} more of them", [views.Gallery(cards[FIRST:], True)], folded=True)
    return [first, rest] if len(cards) > FIRST else [first]


def _card(found: GraphFindings, node: Node, carded: set[int]) -> views.Card:
    unit = views.UnitKey(node.layer, node.filter)
    label = f": {found.units[unit]}" if unit in found.units else ""
    links = [(f"{node.layer} filter {node.filter}{label}", quote(unit.page))]
    for parent in found.graph.parents.get(node.node, ())[:3]:
        links.append((f"under {named(found.graph.named[parent])}", f"#node/{parent}" if parent in carded else ""))
    on = f"on {node.concept or 'a part'}"
    facts = [] if node.purity is None else [(on, f"{node.purity:.0%}", "")]
    spots = [_spot(patch, found.size) for patch in found.patches.get(node.node, ())]
    part = (node.concept or "") if on_part(node) else ""
    return views.Card(f"node {node.node}", f"node/{node.node}", "", spots, facts, links, label=part)


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
        ("under", False),
    ]
    lines = [
        [
            f"node {node.node}",
            node.concept or "–",
            worded(node.purity, ".0%"),
            f"{node.sigma:.3f}",
            ", ".join(named(graph.named[parent]) for parent in graph.parents.get(node.node, ())[:PARENTS]) or "–",
        ]
        for node in sorted(nodes, key=lambda node: -node.score)[:LISTED]
    ]
    told = [place for place in range(len(columns)) if any(line[place] != "–" for line in lines)]
    words = {
        "on it": " On it: share of its strongest pictures in which it lies on that part.",
        "under": " Under: the nodes of the layer above beside which it keeps its place, with their parts.",
    }
    note = (
        "The graph shares out what a filter answers to among nodes, each a pattern that keeps its place beside others; "
        "the strongest stand first. Deviation: how far it strays, as a share of the picture's side."
        + "".join(words.get(columns[place][0], "") for place in told)
    )
    links = [(f"node {node.node}", f"graph.html#node/{node.node}") for node in nodes if node.node in cards]
    parts: list[views.Part] = [
        views.Table([columns[place] for place in told], [[line[place] for place in told] for line in lines], note),
        views.Links([*links, ("The page of the graph", "graph.html")]),
    ]
    return views.Section("Its place in the explanatory graph", parts)
