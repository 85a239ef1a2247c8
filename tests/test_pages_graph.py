"""The pages of an explanatory graph and of mined parts, from findings made by hand: no workspace, no stage."""

from dataclasses import replace

import pytest

from microtome.disentangle.graph_keys import Locator, Measure, Of
from microtome.disentangle.part_errors import PartComparison, PartShift, PartSummary
from microtome.disentangle.pattern_graph import Node, PatternGraph, Place
from microtome.report import views
from microtome.report.graph import (
    DRAWN,
    GraphFindings,
    LayerFigure,
    LookedUp,
    Over,
    OverPicture,
    Patch,
    _at_the_sides,
    lookup_page,
    lookup_rows,
    page,
)
from microtome.report.parts import Choice, LocatedIn, LocatedPart, PartsFindings
from microtome.report.parts import page as parts_page
from microtome.report.single import alone

SIZE = (40, 100)  # height, width


def node(number, layer, score, **more):
    fields = {"purity": None, "concept": None, "chosen": True, "filter": number % 3, **more}
    return Node(layer=layer, node=number, x=0.5, y=0.5, sigma=0.0314, score=score, home_x=0.5, home_y=0.5, **fields)


GRAPH = PatternGraph(
    [
        node(0, "top", 2.0, purity=0.25, concept="wing"),
        node(1, "top", 5.0, purity=0.0, concept="tail"),
        node(2, "low", 9.0),
        node(3, "low", 9.0),
    ],
    {2: [1, 0], 3: [0]},
)
HERE = [Place(0, 0.1, 0.2, 1.0), Place(1, 0.3, 0.4, 3.0), Place(2, 0.5, 0.6, 3.0), Place(3, 0.777, 0.888, 7.0)]


def steady(layer, difference=(-0.02, -0.03, -0.01)):
    rows = [
        LayerFigure(layer, Measure.INSTABILITY, of, None, value, low, high, 9)
        for of, (value, low, high) in {
            Of.NODES: (0.05, 0.04, 0.06),
            Of.FILTERS: (0.07, 0.06, 0.08),
            Of.ALIKE: (0.06, 0.05, 0.07),
            Of.DIFFERENCE: (-0.04, -0.05, -0.03),
            Of.ALIKE_DIFFERENCE: difference,
            Of.OWN_FROZEN: (-0.03, -0.04, -0.02),
        }.items()
    ]
    rows += [LayerFigure(layer, Measure.INSTABILITY, of, None, 0.2) for of in (Of.RANDOM, Of.CENTRE, Of.CONSTANT)]
    rows += [
        LayerFigure(layer, measure, of, None, value)
        for of, share, spread in ((Of.NODES, 0.5, 0.111), (Of.ALIKE, 0.75, 0.333), (Of.FILTERS, 0.25, 0.222))
        for measure, value in ((Measure.TRACKS, share), (Measure.SPREAD, spread))
    ]
    return rows


CURVE = [
    LayerFigure(layer, Measure.LOG_LIKELIHOOD, Of.TRAINING, n, float(n)) for layer in ("top", "low") for n in (1, 2)
]
FOUND = GraphFindings(
    graph=GRAPH,
    figures=[*CURVE, *steady("top"), *steady("low", (-0.01, -0.03, 0.01))],
    images=12,
    training=9,
    over=[OverPicture("assets/graph/000007.webp", "bird.png", HERE)],
    patches={2: [Patch("assets/x/000001.webp", "one.png", Place(2, 0.25, 0.75, 4.0))]},
    units={views.UnitKey("low", 2): "wing", views.UnitKey("low", 0): "no concept"},
    size=SIZE,
    category="bird",
)


def part_of(made, heading, kind):
    section = next(section for section in made.sections if section.heading == heading)
    return next(part for part in section.parts if part.kind == kind)


def test_headline_counts_layers_whose_interval_excludes_zero():
    made = page(FOUND)
    assert made.headline == (
        "In 9 pictures of bird, what the filters of 2 layers answer to is shared out among 4 nodes, patterns that keep "
        "their place beside each other. Of the 4 nodes shown here 0 lie on one part in most pictures. They keep their "
        "distance to the parts more steadily than as many raw filters, chosen as they were, in 1 of 2 layers, and than "
        "they would frozen at their own mean places in both layers (95 % intervals). They are surely steadier than the "
        "best place held for all pictures (0.200 and 0.200)."
    )
    assert made.figures.items == [
        ("nodes", "4", "part patterns of 2 layers"),
        ("edges", "3", "from a node to one of the layer above"),
        ("pictures", "12", "9 of them to learn from"),
    ]


def test_steadiness_is_told_of_nodes_filters_and_places_that_look_at_nothing():
    table = part_of(page(FOUND), "Are nodes steadier than filters?", "table")
    assert [row[0] for row in table.rows] == [
        f"{layer}, {what}"
        for layer in ("top", "low")
        for what in (
            "nodes", "the same nodes frozen", "filters chosen alike", "all filters", "best place held for all pictures",
            "random places",
        )
    ]  # fmt: skip
    assert [row[1:] for row in table.rows[:5]] == [
        ["0.050 [0.040, 0.060]", "", "50%", "0.11"],
        ["0.080", "-0.030 [-0.040, -0.020]", "", ""],
        ["0.060 [0.050, 0.070]", "-0.020 [-0.030, -0.010]", "75%", "0.33"],
        ["0.070 [0.060, 0.080]", "-0.040 [-0.050, -0.030]", "25%", "0.22"],
        ["0.200", "", "", ""],
    ]
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_shift_test_is_said_of_nodes_and_filters():
    assert not [section for section in page(FOUND).sections if section.heading == "Do they follow what is shown?"]
    tested = [
        LayerFigure("low", measure, of, None, value, low, high, 9)
        for of, scale in ((Of.NODES, 1.0), (Of.FILTERS, 0.5))
        for measure, value, low, high in (
            (Measure.SLOPE, 0.8 * scale, 0.7, 0.9),
            (Measure.FOLLOWS, 0.9 * scale, None, None),
            (Measure.FROZEN, 0.06, None, None),
        )
    ]
    tested.append(LayerFigure("low", Measure.FOLLOWING, Of.NODES, None, 0.04, n=8))
    made = page(replace(FOUND, figures=[*FOUND.figures, *tested]))
    assert "The 4 nodes that follow best there are judged in 3 others: when what these show is moved, the nodes" in (
        made.headline
    )
    assert "move with it, by 80% [70%, 90%] of the way in low." in made.headline
    table = part_of(made, "Do they follow what is shown?", "table")
    assert table.rows == [
        ["low, nodes", "0.800 [0.700, 0.900]", "90%", "0.050", "0.060", "0.040"],
        ["low, all filters", "0.400 [0.700, 0.900]", "45%", "0.070", "0.060", "–"],
    ]
    assert len(table.columns) == len(table.rows[0])


def test_nodes_are_held_against_the_best_place_held_for_all_pictures():
    def said(top, low):
        held = {"top": top, "low": low}
        figures = [replace(row, value=held[row.layer]) if row.of is Of.CONSTANT else row for row in FOUND.figures]
        return page(replace(FOUND, figures=figures)).headline.rpartition(". ")[2]

    place = "the best place held for all pictures"
    assert said(0.07, 0.05) == f"They are surely steadier than {place} (0.070 and 0.050), in top alone."
    assert said(0.05, 0.05) == f"They are not surely steadier than {place} (0.050 and 0.050)."


def test_without_landmarks_nothing_is_said_of_steadiness():
    made = page(replace(FOUND, figures=CURVE))
    assert "more steadily" not in made.headline
    assert "no landmarks" in part_of(made, "Are nodes steadier than filters?", "text").text


def test_a_figure_without_interval_has_dashes():
    assert LayerFigure("top", Measure.INSTABILITY, Of.NODES, None, 0.5).interval == "0.500 [–, –]"


def test_strongest_nodes_are_of_each_layer_and_ties_go_to_the_first_number():
    assert [place.node for place in GRAPH.strongest(HERE, 1)] == [3, 1]
    assert [place.node for place in GRAPH.strongest(HERE, 9)] == [3, 1, 2, 0]
    assert [found.node for found in GRAPH.chosen] == [1, 0, 2, 3]
    assert GRAPH.layers == ["top", "low"]


def test_the_drawing_joins_children_to_their_parents_at_their_places():
    (drawing,) = Over(GRAPH, SIZE).parts(FOUND.over[0])
    assert isinstance(drawing, views.Drawing)
    assert [level.name for level in drawing.levels] == ["top", "low"]
    assert drawing.levels[0].dots == [(10.0, 8.0, "node 0"), (30.0, 16.0, "node 1")]
    assert drawing.levels[0].links == []
    assert drawing.levels[1].dots == [(50.0, 24.0, "node 2"), (77.7, 35.5, "node 3")]
    assert drawing.levels[1].links == [
        (77.7, 35.5, 10.0, 8.0, "node 3 under node 0"),
        (50.0, 24.0, 30.0, 16.0, "node 2 under node 1"),
        (50.0, 24.0, 10.0, 8.0, "node 2 under node 0"),
    ]
    assert drawing.words == []
    assert [(branch.label, branch.note) for branch in drawing.outline.below] == [
        ("top", "2 nodes drawn"), ("low", "2 nodes drawn")
    ]  # fmt: skip
    assert drawing.outline.below[1].below[1].note == "filter 2 at 0.50, 0.60, under node 1, node 0"
    assert drawing.outline.below[0].below[0].note == "filter 1 at 0.30, 0.40"


def test_where_nodes_lie_on_parts_only_these_are_drawn_and_named():
    graph = PatternGraph(
        [
            node(0, "top", 2.0, purity=0.5, concept="wing"),
            node(1, "top", 5.0, purity=0.45, concept="tail"),
            node(2, "low", 9.0, purity=0.9, concept="wing"),
            node(3, "low", 9.0, purity=1.0, concept="tail (long)"),
        ],
        {2: [1, 0], 3: [1]},
    )
    (drawing,) = Over(graph, SIZE).parts(FOUND.over[0])
    assert drawing.levels[0].dots == [(10.0, 8.0, "node 0 (wing)")]
    assert drawing.levels[1].links == [(50.0, 24.0, 10.0, 8.0, "node 2 (wing) under node 0 (wing)")]
    wing, tail = drawing.words  # of nodes surely on them
    assert wing == views.Word(2.0, 24.0, "wing", (50.0, 24.0), True)
    assert tail == views.Word(2.0, 35.5, "tail (long)", (77.7, 35.5), True)  # the side beyond is too near to it
    made = page(replace(FOUND, graph=graph))
    on, off = (section for section in made.sections if "part" in section.heading and section.parts[1].kind == "gallery")
    assert [(card.title, card.label) for card in on.parts[1].cards] == [
        ("node 3", "tail (long)"), ("node 2", "wing"), ("node 0", "wing")
    ]  # fmt: skip
    assert (off.heading, off.folded) == ("1 nodes that lie on no one part", True)
    (other,) = off.parts[1].cards
    assert (other.title, other.label, other.facts) == ("node 1", "", [("on tail", "45%", "")])
    assert "Of the 4 nodes shown here 3 lie on one part" in made.headline


def test_a_parent_that_is_not_among_the_strongest_is_drawn_where_it_is():
    many = PatternGraph([*(node(n, "top", 1.0) for n in range(DRAWN + 1)), node(99, "low", 1.0)], {99: [DRAWN, 0, 1]})
    here = [*(Place(n, n / 100, 0.0, 100.0 - n) for n in range(DRAWN + 1)), Place(99, 0.9, 0.0, 1.0)]
    (drawing,) = Over(many, SIZE).parts(OverPicture("p", "f", here))
    assert isinstance(drawing, views.Drawing)
    assert (12.0, 0.0, f"node {DRAWN}") in drawing.levels[0].dots
    assert [link.name for link in drawing.levels[1].links] == [
        f"node 99 under node {parent}" for parent in (DRAWN, 0)
    ]  # two parents, not three


def test_cards_link_to_units_and_to_parents_that_have_cards():
    gallery = part_of(page(FOUND), "Nodes", "gallery")
    assert [card.title for card in gallery.cards] == ["node 1", "node 0", "node 2", "node 3"]
    one, zero, two, three = gallery.cards
    assert two.links == [
        ("low filter 2: wing", "unit/low/2.html"), ("under node 1", "#node/1"), ("under node 0", "#node/0")
    ]  # fmt: skip
    assert three.links[0] == ("low filter 0: no concept", "unit/low/0.html")
    assert (two.facts, zero.facts) == ([], [("on wing", "25%", "")])
    assert two.spots == [views.Spot("assets/x/000001.webp", "one.png", SIZE, [(25.0, 30.0, 4.4)], ())]
    assert (one.note, zero.note, zero.label) == ("", "", "")  # on no part: not named
    assert (one.links, three.spots) == ([("top filter 1", "unit/top/1.html")], [])


def test_a_parent_without_a_card_is_named_and_not_linked():
    graph = PatternGraph([node(1, "top", 1.0, chosen=False), node(2, "low", 1.0)], {2: [1]})
    (card,) = part_of(page(replace(FOUND, graph=graph, over=[])), "Nodes", "gallery").cards
    assert card.links[1] == ("under node 1", "")


def test_words_stand_at_the_sides_apart_from_each_other_and_from_what_they_name():
    parts = {"a": (10.0, 20.0), "b": (90.0, 20.5), "c": (60.0, 20.2), "d": (40.0, 119.0)}
    words = {word.text: word for word in _at_the_sides(parts, (120, 100))}
    assert [words[name].rightwards for name in "abcd"] == [False, True, False, True]
    assert all(abs(word.x - parts[name][0]) >= 23 for name, word in words.items())
    assert (words["a"].y, words["c"].y) == (20.0, 30.0)  # a line below
    assert words["d"].y == 117.5  # in the picture


def test_only_chosen_nodes_have_cards():
    graph = PatternGraph([node(n, "top", 1.0, chosen=n == 3) for n in range(5)], {})
    assert [card.title for card in part_of(page(replace(FOUND, graph=graph)), "Nodes", "gallery").cards] == ["node 3"]


def test_the_page_renders():
    text = alone(page(FOUND), "birds", network="net", audit="audit", run="run")
    assert "The graph over pictures that it was not learned from" in text
    assert "<title>node 2 under node 1</title>" in text
    assert 'id="node/2"' in text


def test_a_picture_that_is_looked_up():
    looked = LookedUp(GRAPH, "bird", "mine", OverPicture("assets/mine.webp", "mine.png", HERE), SIZE)
    assert lookup_rows(looked) == [
        ["low", "3", "0", "0.777", "0.888", "7", ""],
        ["top", "1", "1", "0.300", "0.400", "3", ""],
        ["low", "2", "2", "0.500", "0.600", "3", ""],
        ["top", "0", "0", "0.100", "0.200", "1", "wing (25%)"],
    ]
    made = lookup_page(looked)
    assert (made.page, made.headline) == ("graph-mine.html", "What mine.png shows of the graph of bird.")


def located(part, boxes, errors):
    return [
        PartSummary(part, boxes, method, error, error - 0.01, error + 0.01, 0.5, 0.4, 0.6, 30)
        for method, error in errors.items()
    ]


PARTS = PartsFindings(
    [
        *located("head", 3, {Locator.BLEND: 0.1, Locator.MEAN_POSITION: 0.2, Locator.EXEMPLAR: 0.15}),
        *located("head", 6, {Locator.BLEND: 0.2, Locator.MEAN_POSITION: 0.2, Locator.EXEMPLAR: 0.15}),
        *located("tail", 3, {Locator.BLEND: 0.15, Locator.MEAN_POSITION: 0.2, Locator.EXEMPLAR: 0.15}),
    ],
    [
        PartComparison(None, None, Locator.EXEMPLAR, -0.01, -0.02, 0.03, 0.6),
        PartComparison("head", 3, Locator.EXEMPLAR, -0.05, -0.07, -0.03, 0.001, 0.002),
        PartComparison("head", 6, Locator.EXEMPLAR, 0.05, 0.02, 0.08, 0.01, 0.02),
        PartComparison("tail", 3, Locator.EXEMPLAR, 0.0, -0.01, 0.01, 1.0, 1.0),
        PartComparison(None, None, Locator.MEAN_POSITION, -0.08, -0.09, -0.07, 0.0),
        PartComparison("head", 3, Locator.MEAN_POSITION, -0.1, -0.12, -0.08, 0.0, 0.0),
    ],
    [Choice("head", 3, 60, 1.5), Choice("head", 3, 40, 1.5), Choice("tail", 3, 10, 4.0)],
    [LocatedPart("head", 3, [LocatedIn("assets/a.webp", "a.png", (10.04, 20.06), (1.11, 2.22), 0.1234)])],
    SIZE,
)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.02, 0.03, "not surely nearer than"), (-0.02, -0.01, "nearer than"), (0.01, 0.02, "farther than")],
)
def test_the_blend_is_judged_against_its_best_rival(low, high, said):
    best, *others = PARTS.against
    made = parts_page(replace(PARTS, against=[replace(best, low=low, high=high), *others]))
    assert made.headline == (
        "Shown a part in 6 boxes, the blend of how it looks and where it sits then finds it in new pictures at 0.200 "
        f"(head) of the diagonal from its annotated centre. Over all parts and numbers of boxes that is {said} the "
        f"best of 2 simpler ways, exemplar (difference -0.010 [{low:+.3f}, {high:+.3f}])."
    )
    assert made.figures.items == [("head, 6 boxes", "0.200", "95 %: 0.190 to 0.210")]
    few = replace(PARTS, figures=[row for row in PARTS.figures if row.boxes == 3])
    assert " at 0.100 (head) to 0.150 (tail) of the diagonal" in parts_page(few).headline


def test_parts_say_how_often_the_blend_is_surely_nearer_or_farther_and_what_it_chose():
    made = parts_page(PARTS)
    rivals = part_of(made, "Beside simpler ways", "table").rows
    assert rivals[0] == ["exemplar", "-0.010 [-0.020, +0.030]", "1", "1", "head, 6 boxes: +0.050 [+0.020, +0.080]"]
    assert rivals[1][:4] == ["mean position", "-0.080 [-0.090, -0.070]", "1", "0"]
    assert part_of(made, "What was chosen", "table").rows == [
        ["head", "3", "40, 60", "1.5 × 2"],
        ["tail", "3", "10", "4"],
    ]
    assert "Do they follow what is shown?" not in [section.heading for section in made.sections]
    moved = replace(PARTS, follow=[PartShift("head", 3, Locator.BLEND, 0.7, 0.6, 0.8, 0.5, 30)])
    follow = part_of(parts_page(moved), "Do they follow what is shown?", "table")
    assert follow.rows == [["head", "0.70 [0.60, 0.80]"]]
    assert [name for name, _ in follow.columns] == ["slope, 3 boxes", "blend"]
    every = next(section.parts for section in parts_page(moved).sections if section.heading == "Every figure")
    assert every[-1].rows == [["head", "blend", "0.70 [0.60, 0.80]"]]
    errors, near = next(section.parts for section in made.sections if section.heading == "Every figure")
    assert [name for name, _ in errors.columns] == ["part", "way", "error, 3 boxes", "error, 6 boxes"]
    assert errors.rows[0] == ["head", "blend", "0.100 [0.090, 0.110]", "0.200 [0.190, 0.210]"]
    assert errors.rows[3] == ["tail", "blend", "0.150 [0.140, 0.160]", "–"]
    assert near.rows[0] == ["head", "blend", "50% [40%, 60%]", "50% [40%, 60%]"]
    assert len(errors.rows) == len(near.rows) == 6


@pytest.mark.parametrize("kind", ["gallery", "charts"])
def test_parts_have_charts_and_pictures(kind):
    made = parts_page(PARTS)
    if kind == "charts":
        charts = part_of(made, "Error over the number of boxes", kind).charts
        assert [title for title, _, _ in charts] == ["head", "tail"]
        broad = 'stroke-width="4"'  # the blend's line is broader than the others
        assert broad in charts[0][1]
        assert broad not in part_of(page(FOUND), "Learning", "charts").charts[0][1]
    else:
        (card,) = part_of(made, "Where they were found", kind).cards
        assert (card.anchor, card.title, card.label) == ("part/head", "from 3 boxes", "head")
        spot = views.Spot("assets/a.webp", "a.png", SIZE, [(10.0, 20.1, 3.3)], [(1.1, 2.2)], "0.12")
        assert list(card.spots) == [spot]
    assert "What was chosen" in alone(made, "birds", network="net", audit="audit", run="run")
