"""The page of a decision tree, from findings made by hand: no workspace, no stage."""

from dataclasses import replace

import pytest

from microtome.disentangle.parse_paths import FilterShare, PartShare, PathStep
from microtome.quantify.novelty import Novelty
from microtome.report import views
from microtome.report.render import render
from microtome.report.single import alone
from microtome.report.tree import (
    FilterRole,
    ParsePath,
    ShownNode,
    SpottedPicture,
    TreeFindings,
    TreeNode,
    outline,
    page,
    path_page,
    words,
)


def row(metric, depth, value, model="tree", *, against=None, images=40):
    about = {"metric": metric, "depth": depth, "model": model, "against": against, "images": images}
    return {**about, "value": value, "low": value - 0.05, "high": value + 0.05}


NODES = [
    TreeNode(0, 1, 3, 0, (), "birds/a.png"),
    TreeNode(1, 1, 4, 2, (), "birds/b.png"),
    TreeNode(2, 1, 5, 1),
    TreeNode(3, 2, 6, 7, (0, 1)),
]
METRICS = [
    row("accuracy", 2, 0.9),
    row("fidelity", 2, 0.875),
    row("fidelity", 3, 0.75),
    row("fitness", 2, 0.6),
    row("merged", 2, 0.25),
    row("fitness gained down the path", None, 0.1),
    row("accuracy", None, 0.95, "network"),
    row("fidelity", None, 1.0, "network"),
    row("accuracy", None, 0.85, "logistic regression"),
    row("fidelity", None, 0.9, "logistic regression"),
    row("fidelity", 2, -0.025, against="logistic regression"),
    row("deletion", 2, 0.5),
    row("deletion", 2, 0.125, "random filters"),
    row("deletion", 2, 0.375, against="random filters"),
]
SPOTTED = SpottedPicture("assets/tree/000004.webp", "birds/<c>.png", (90, 96), [(10.5, 20.0, 12.9)])
FILTERS = [FilterShare(7, "head", 3.0, 2.0), FilterShare(2, None, -1.25, 0.5)] + [
    FilterShare(20 + n, "wing", 0.5, 0.25) for n in range(8)
]
PATH = ParsePath(
    name="000004",
    spotted=SPOTTED,
    category="bird",
    standing="the picture is of the category, held out",
    decision=2.125,
    steps=[(PathStep(3, 0.956, 1.75), FILTERS), (PathStep(1, 0.9, -0.5), FILTERS[:1])],
    nodes=[NODES[3], NODES[1]],
    parts=[PartShare("head", 3.0, 2.0), PartShare("no part", -1.25, 0.5)],
)
TOLD = TreeFindings(
    category="bird",
    parts_source="nearest landmark",
    nodes=NODES,
    top=[2, 3],
    filters=8,
    metrics=METRICS,
    shown=[ShownNode(3, [PartShare("head", 3, 2), PartShare("wing", 1, 1), PartShare("tail", 0.5, 1)], [SPOTTED])],
    paths=[PATH],
    fitted=False,
)


def section(made: views.Page, heading: str) -> list:
    return next(found.parts for found in made.sections if found.heading == heading)


def test_the_headline_can_be_read_aloud():
    assert page(TOLD).headline == (
        "Asked whether a picture shows bird, the network decides in 2 ways; 7 of 8 held-out pictures of bird take the "
        "same one, node 3, and 1 the other."
    )


def test_nodes_that_nobody_visits_are_no_way_to_decide():
    empty = replace(TOLD, nodes=[*NODES[:2], replace(NODES[2], visits=0), NODES[3]])
    assert page(empty).headline == (
        "Asked whether a picture shows bird, the network decides in one way: a single rule holds for every picture."
    )
    others = replace(TOLD, nodes=[*NODES[:2], replace(NODES[2], visits=0, others=3), NODES[3]])
    assert others.ways == 2  # a way to say no
    assert (
        "decides in 2 ways; 7 of 7 held-out pictures of bird take the same one, node 3, and none the other."
        in page(others).headline
    )


def test_a_tree_of_one_rule_says_so_and_draws_nothing():
    """As of a network with a linear head."""
    nodes = [TreeNode(0, 30, 4, 9, (), None, 8)]
    one = replace(TOLD, nodes=nodes, top=[0], shown=[ShownNode(0, [], [SPOTTED])], paths=[])
    made = page(one)
    (text,) = section(made, "A tree of one rule")
    assert text.text.startswith("All 30 pictures that the tree grew from come to one node")
    assert not [part for found in made.sections for part in found.parts if part.kind == "outline"]
    assert section(made, "Ways to decide")[1].cards[0].title == "node 0"


def test_without_imitators_the_tree_stands_alone():
    """Where the network decides all one way there is nothing to imitate."""
    alone_in_it = replace(TOLD, metrics=METRICS[:8])
    assert page(alone_in_it).figures.items[0][2] == "95 %: 82% to 92%, of 40 pictures that it did not grow from"
    table, _ = section(page(alone_in_it), "How far it speaks for the network")
    assert table.rows[1:] == [["network", "0.95 [0.90, 1.00]", "1.00 [0.95, 1.05]", *["–"] * 4]]


def test_the_best_linear_rival_is_named():
    more = [*METRICS, row("fidelity", None, 0.96, "ridge"), row("fidelity", None, 1.0, "scikit-learn tree")]
    more += [row("fitness", None, 0.5, "ridge"), row("fitness", None, 0.55, "logistic regression")]
    notes = {name: note for name, _, note in page(replace(TOLD, metrics=more)).figures.items}
    assert notes["answers as the network"].endswith("; a ridge regression: 96%")
    assert "regression" not in notes["reasons as the network"]  # which, unlike the tree, is not told any reasons


@pytest.mark.parametrize(("right", "little"), [(0.58, True), (0.64, True), (0.66, False)])
def test_a_network_that_guesses_is_said_to(right, little):
    told = [r for r in METRICS if r["model"] != "network"]
    told += [row("accuracy", None, right, "network"), row("accuracy", None, 0.4, "always yes")]
    said = page(replace(TOLD, metrics=told)).headline
    assert ("the same answer to all is right in 60%. The two cannot be told apart, so no tree" in said) is little


def test_a_linear_network_has_one_reason_and_no_tree():
    same = [*METRICS, row("alike", None, 1 - 1e-9, "network")]
    made = page(replace(TOLD, metrics=same))
    assert made.headline.startswith("Every decision about bird has the same reason")
    assert [found.heading for found in made.sections] == ["The rule", "What decides about birds/<c>.png"]
    assert made.figures.items[0] == ("filters", "6 of 8", "filters that the node's rule uses")
    assert made.figures.items[1] == ("right", "95%", "of held-out decisions of the network, 95 %: 90% to 100%")
    assert "ways to decide" not in [name for name, *_ in made.figures.items]
    _, bars, parts, _ = made.sections[1].parts
    assert [bar.text for bar in bars.bars[:2]] == ["+2.00", "+0.50"]  # the network's own, not an estimate
    assert parts.bars[0].name == "head"
    differ = [*METRICS, row("alike", None, 0.99, "network")]
    assert page(replace(TOLD, metrics=differ)).headline == page(TOLD).headline


def test_differences_stand_beside_each_rival():
    table, apart, _ = section(page(TOLD), "How far it speaks for the network")
    assert [line[0] for line in table.rows] == ["tree: the ways to decide", "network", "logistic regression"]
    assert table.rows[0][1:] == ["0.90 [0.85, 0.95]", "0.88 [0.82, 0.93]", *["–"] * 3, "0.60 [0.55, 0.65]"]
    assert apart.rows == [["logistic regression", "-0.03 [-0.08, 0.03]", *["–"] * 4]]


def test_how_rules_are_made_is_told():
    fitted = section(page(replace(TOLD, fitted=True, features="cells")), "How far it speaks for the network")[-1].text
    assert "Rules weigh each cell of each filter, are fitted to all pictures that visit them" in fitted


def test_figures_are_of_the_second_layer():
    assert list(page(TOLD).figures.items) == [
        (
            "answers as the network",
            "88%",
            "95 %: 82% to 92%, of 40 pictures that it did not grow from; a logistic regression: 90%",
        ),
        (
            "reasons as the network",
            "60%",
            "95 %: 55% to 65%; overlap of what it says filters add with what they add",
        ),
        (
            "the score moves by",
            "50%",
            "of the network's score, by removing 8 filters that nodes name; by 8 others as active 12% (difference "
            "+38%, 95 %: +32% to +42%)",
        ),
    ]
    auc = page(replace(TOLD, metrics=[*METRICS, row("auc", 2, 0.9)])).figures.items[1]
    assert auc == ("AUC", "0.90", "95 %: 0.85 to 0.95; 1 ranks pictures as the network")


def test_a_depth_that_was_not_measured_is_a_dash():
    decisions, reasons = section(page(TOLD), "Depth by depth")
    assert [name for name, _ in decisions.columns] == [
        "depth", "right", "as the network", "of the category", "of the others", "AUC", "error",
    ]  # fmt: skip
    assert decisions.rows == [
        ["2, the ways to decide", "0.90 [0.85, 0.95]", "0.88 [0.82, 0.93]", *["–"] * 4],
        ["3, leaves", "–", "0.75 [0.70, 0.80]", *["–"] * 4],
    ]
    assert [name for name, _ in reasons.columns] == ["depth", "fitness", "part error", "not yet at a leaf"]
    assert reasons.rows == [
        ["2, the ways to decide", "0.60 [0.55, 0.65]", "–", "0.25 [0.20, 0.30]"],
        ["3, leaves", "–", "–", "–"],
    ]


def test_the_outline_begins_with_what_is_visited_most():
    root = outline(TOLD)
    assert (root.label, root.note, root.open) == ("bird", "3 pictures", True)
    merged, leaf = root.below
    assert (merged.label, merged.note, merged.anchor, merged.open) == (
        "node 3", "7 of bird, 0 others; grew from 2", "node/3", True,
    )  # fmt: skip
    assert [(b.label, b.note, b.anchor) for b in merged.below] == [("b.png", "2 of bird", ""), ("a.png", "", "")]
    assert (leaf.label, leaf.note, leaf.open) == ("leaf 2", "1 of bird", False)


def test_a_node_without_a_card_is_no_link():
    assert outline(replace(TOLD, shown=[])).below[0].anchor == ""


def test_a_card_tells_the_two_strongest_parts():
    (card,) = section(page(TOLD), "Ways to decide")[1].cards
    assert (card.title, card.anchor, card.label, card.note) == ("node 3", "node/3", "head, wing", "")
    assert [(name, value) for name, value, _ in card.facts] == [
        ("visits", "7 of bird, 0 others"),
        ("grew from", "2 pictures"),
        ("filters", "6 of 8"),
    ]
    assert card.spots[0].circles == [(10.5, 20.0, 12.9)]
    (bare,) = section(page(replace(TOLD, shown=[ShownNode(3, [], [])])), "Ways to decide")[1].cards
    assert (bare.label, bare.spots) == ("", [])


def test_ways_stand_before_the_nodes_below_them_and_those_of_others_say_so():
    parts = [PartShare("head", 3, 2)]
    nodes = [*NODES[:3], replace(NODES[3], others=9)]
    made = page(replace(TOLD, nodes=nodes, shown=[ShownNode(3, parts, []), ShownNode(1, parts, [])]))
    (way,), (below,) = section(made, "Ways to decide")[1].cards, section(made, "Nodes below the ways")[0].cards
    assert (way.title, way.label) == ("node 3", "mostly others")
    assert (below.title, below.note, below.label) == ("leaf 1", "below node 3", "head")
    assert [found.folded for found in made.sections if found.heading == "Nodes below the ways"] == [True]


def test_a_path_as_a_section():
    gallery, filters, parts, table, note = section(page(TOLD), "Why bird? birds/<c>.png")
    assert gallery.cards[0].spots[0].caption == "network +2.12"
    assert table.rows == [["node 3", "0.96", "+1.75", "2"], ["leaf 1", "0.90", "-0.50", "1"]]
    assert (filters.title, len(filters.bars)) == ("What filters add, by node 3", 8)
    assert [bar.name for bar in filters.bars][:2] == ["filter 7 (head)", "filter 2"]
    assert [bar.text for bar in filters.bars][:2] == ["+3.00 (+2.00)", "-1.25 (+0.50)"]
    assert [bar.name for bar in parts.bars] == ["head", "no part"]
    assert "its parse path" in note.text
    assert {bar.unit for bar in filters.bars} == {None}  # of a fine-tuned network


def test_a_paths_filters_lead_to_their_units_and_words_stand_once():
    unit = views.UnitKey("conv", 7)
    made = page(replace(TOLD, paths=[PATH, PATH], roles={unit: FilterRole("head", 1.0, 1, 8, [])}))
    first, second = (found.parts for found in made.sections if found.heading.startswith("Why bird?"))
    assert [bar.unit for bar in first[1].bars[:2]] == [unit, None]
    assert [part.kind for part in first[3:]] == ["table", "text"]
    assert [part.kind for part in second[3:]] == ["table"]


def test_a_path_in_words():
    assert words(PATH) == [
        "birds/<c>.png: the network sees bird (+2.12); the picture is of the category, held out",
        "  node 3: cosine 0.96, estimate +1.75; filter 7 (head) +3.00, filter 2 -1.25, filter 20 (wing) +0.50, "
        "filter 21 (wing) +0.50",
        "    leaf 1: cosine 0.90, estimate -0.50; filter 7 (head) +3.00",
        "  parts at node 3: head +3.00, no part -1.25",
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decision": -0.5}, "the network does not see bird (-0.50); the picture is of the category, held out"),
        ({"standing": "the tree has never seen the picture"}, "sees bird (+2.12); the tree has never seen the picture"),
    ],
)
def test_what_the_first_line_says(changed, said):
    assert words(replace(PATH, **changed))[0].endswith(said)


def test_a_new_picture_is_told_from_those_that_the_tree_has_seen():
    new = replace(PATH, standing="the tree has never seen the picture", novelty=Novelty(1, 200))
    assert words(new)[1].startswith("  It is unlike")
    assert words(new)[3].startswith("  node 3: cosine")
    assert "It is unlike the pictures that the audit looked at" in path_page(new).headline
    assert "unlike" not in path_page(PATH).headline


def test_without_parts_there_is_no_word_of_them():
    bare = replace(PATH, parts=[])
    assert not any("parts" in line for line in words(bare))
    assert len(section(page(replace(TOLD, paths=[bare])), "Why bird? birds/<c>.png")) == 4


def test_pages_hold_names_that_look_like_markup():
    content = alone(path_page(PATH), "birds/<c>.png", network="net", audit="audit", run="20260101-000000-abcdef")
    assert "birds/&lt;c&gt;.png: the network sees bird" in content
    assert "<c>" not in content
    report = views.Report("t", "n", "d", layers=(), pages=(page(TOLD),), footer="")
    made = render(report)["tree.html"].decode()
    assert "Why bird? birds/&lt;c&gt;.png" in made
    assert 'src="assets/tree/000004.webp"' in made
