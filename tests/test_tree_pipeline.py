"""The decision tree from the audit file to the page, on planted animals."""

import json

import networkx
import numpy as np
import pytest
from safetensors.numpy import load

from microtome.disentangle.decision_tree import Merge, RationaleExamples, replay
from microtome.errors import InputError
from tasks.tree import Grown
from tests.conftest import opened, write_audit
from tests.test_finetuning import WEIGHTS
from tests.test_pipeline import run

NETWORK = {
    "load": "microtome.networks.small:creature_net",
    "weights": str(WEIGHTS),
    "layers": ["features.12"],
    "input": {"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3},
}


def content(**tree):
    return {
        "name": "rationales",
        "network": NETWORK,
        "dataset": {"format": "creatures", "count": 240, "seed": 3},
        "stages": {"tree": {"category": "bird", "images": 40, **tree}},
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small tree, and its report."""
    file = write_audit(tmp_path_factory.mktemp("tree") / "audit.yaml", content())
    return file, run(file)


def test_tables_agree_with_each_other(done):
    made = done[1]["tree"][0]
    nodes, merges = (made.table(f"tree_{name}").to_pylist() for name in ("nodes", "merges"))
    leaves = [row for row in nodes if row["node"] < len(nodes) - 1 - len(merges)]
    assert len(leaves) == sum(row["leaf"] is not None for row in made.table("tree_images").to_pylist())
    assert all(row["gain"] > 0 for row in merges)
    children = {row["node"]: [r for r in nodes if r["parent"] == row["node"]] for row in nodes}
    for row in nodes:
        if children[row["node"]]:
            assert row["images"] == sum(child["images"] for child in children[row["node"]])
            assert row["visitors"] == sum(child["visitors"] for child in children[row["node"]])
            assert {child["depth"] for child in children[row["node"]]} == {row["depth"] + 1}
    paths = made.table("tree_paths").to_pylist()
    by_image = {(row["dataset"], row["image"]): row for row in paths if row["depth"] == 2}
    assert len(by_image) == len(made.table("tree_images"))


def test_the_written_tree_is_the_one_that_its_log_gives(done):
    made = done[1]["tree"][0]
    grown = Grown.of(made)
    train = np.array([row["split"] == "train" for row in grown.rows])
    positive = np.array([row["positive"] for row in grown.rows])
    examples = RationaleExamples(
        grown.data.of(np.flatnonzero(train & positive)), grown.data.of(np.flatnonzero(train & ~positive))
    )
    merges = [Merge(**row) for row in made.table("tree_merges").to_pylist()]
    arrays = load(made.read("arrays.safetensors"))
    again = replay(examples, merges)
    np.testing.assert_array_equal(again.w, arrays["w"])
    np.testing.assert_array_equal(again.b, arrays["b"])


def test_metrics_stand_beside_baselines_and_hold_their_intervals(done):
    rows = done[1]["tree"][0].table("tree_metrics").to_pylist()
    assert {row["model"] for row in rows} == {"tree", "network", "scikit-learn tree", "logistic regression"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    found = {(row["model"], row["metric"], row["depth"]): row["value"] for row in rows}
    assert found["network", "fidelity", None] == 1
    assert found["tree", "fidelity", 2] > 0.8
    assert found["tree", "fitness", 2] > 0.5


def test_filters_of_planted_animals_are_given_to_planted_parts(done):
    rows = done[1]["tree"][0].table("tree_filters").to_pylist()
    parts = {row["part"] for row in rows if not row["dropped"]}
    assert {"head", "wing", "tail"} <= parts
    assert all(row["part"] == "no part" for row in rows if row["dropped"])


def test_exports_are_the_same_tree(done):
    made = done[1]["tree"][0]
    graph = networkx.node_link_graph(json.loads(made.read("tree.json")), edges="edges")
    other = networkx.parse_graphml(made.read("tree.graphml").decode(), node_type=int)
    assert set(graph.edges) == set(other.edges)
    assert networkx.is_arborescence(graph)
    assert len(graph) == len(made.table("tree_nodes"))


def test_a_tree_of_a_fine_tuned_network_uses_its_split(tmp_path):
    birds = {"format": "creatures", "count": 60, "seed": 5, "categories": ["bird"]}
    others = {"format": "creatures", "count": 24, "seed": 6, "categories": ["cat", "bear"]}
    made = run(
        write_audit(
            tmp_path / "audit.yaml",
            {
                "name": "tuned",
                "network": NETWORK,
                "datasets": {"birds": birds, "others": others},
                "stages": {
                    "finetuning": {
                        "dataset": "birds",
                        "negatives": "others",
                        "epochs": 20,
                        "rate": [0.05, 0.01],
                        "controls": [],
                    },
                    "tree": {},
                    "report": False,
                },
            },
        )
    )
    split = made["finetuning"][0].table("finetuning_images").to_pylist()
    held = {(row["dataset"], row["image"]) for row in split if row["split"] == "val"}
    rows = made["tree"][0].table("tree_images").to_pylist()
    assert {(row["dataset"], row["image"]) for row in rows if row["split"] == "val"} <= held
    assert {row["dataset"] for row in rows} == {"dataset", "negatives"}
    assert made["tree"][0].json("tree-about.json")["layer"] == "extra_mask"


def test_categories_and_layers_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"needs a category.*'fish'"):
        run(write_audit(tmp_path / "audit.yaml", content(category="fish")))
    two = content()
    two["network"] = {**NETWORK, "layers": ["features.9", "features.12"]}
    with pytest.raises(InputError, match=r"stages\.tree\.layer: must name one layer"):
        run(write_audit(tmp_path / "audit.yaml", two))


@pytest.mark.slow
def test_explain_tells_a_picture_by_name_or_number(done, command):
    workspace = done[0].parent / ".microtome"
    row = next(r for r in done[1]["tree"][0].table("tree_images").to_pylist() if r["positive"])
    command("audit", done[0])
    named = command("explain", "rationales", row["file"], "--workspace", workspace)
    assert named.returncode == 0, named.stderr
    assert named.stdout.startswith(f"{row['file']}: the network")
    assert "cosine" in named.stdout
    assert command("explain", "rationales", row["image"], "--workspace", workspace).stdout == named.stdout
    wrong = command("explain", "rationales", "nobody.png", "--workspace", workspace)
    assert wrong.returncode == 2
    assert "must mean one picture" in wrong.stderr


@pytest.mark.browser
def test_the_tree_unfolds_from_the_keyboard(browser, done, tmp_path):
    made = done[1]["report"][0]
    for name in made.names():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(made.read(name))
    for width in (1280, 390):
        tab, heard = opened(browser, tmp_path / "tree.html", width)
        assert heard == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    from playwright.sync_api import expect

    drawn = tab.locator(".drawn circle")
    before = drawn.count()
    tab.locator(".branches details:not([open]) > summary").first.focus()
    tab.keyboard.press("Enter")
    expect(drawn).not_to_have_count(before)
    tab.keyboard.press("Enter")
    expect(drawn).to_have_count(before)
    tab.locator(".drawn g.folded").first.click()
    expect(drawn).not_to_have_count(before)
