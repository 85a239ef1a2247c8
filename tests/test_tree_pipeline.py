"""The decision tree from the audit file to the page, on planted animals."""

import io
import json
from functools import partial
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load

from flows.plan import Plan, Request
from microtome.datasets import Frame
from microtome.datasets.creatures import Creatures
from microtome.datasets.source import Source
from microtome.disentangle.decision_tree import Merge, RationaleExamples, replay
from microtome.disentangle.rationales import LayersAbove
from microtome.errors import InputError
from tasks.execution import outside_of
from tasks.index.result import Index
from tasks.stage import Job
from tasks.tree.result import GrownTree
from tests.commands import left
from tests.conftest import CREATURE_NET, opened, write_audit
from tests.faults import faults
from tests.test_pipeline import run

NETWORK = CREATURE_NET
CREATURES = {"format": "creatures", "count": 240, "seed": 3}
PLANTED = Creatures(count=240, seed=3)


def content(**tree):
    return {
        "name": "rationales",
        "network": NETWORK,
        "dataset": CREATURES,
        "stages": {"tree": {"category": "bird", "images": 40, **tree}},
        "execution": {"threads": 1},  # as `run` has it
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small tree, and its report."""
    file = write_audit(tmp_path_factory.mktemp("tree") / "audit.yaml", content())
    return file, run(file)


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The same by the paper's procedure."""
    return run(write_audit(tmp_path_factory.mktemp("paper") / "audit.yaml", content(rule="paper")))["tree"][0]


def test_tables_of_a_fitted_tree_agree_with_each_other(done):
    made = done[1]["tree"][0]
    nodes, pictures = made.table("tree_nodes").to_pylist(), made.table("tree_images").to_pylist()
    root = nodes[-1]
    assert root["filters"] >= 1
    assert root["images"] == root["visitors"] + root["other_visitors"] == sum(p["split"] == "train" for p in pictures)
    assert root["held_out"] + root["other_held_out"] == sum(p["split"] == "val" for p in pictures)
    assert all(row["images"] == row["visitors"] + row["other_visitors"] >= 2 for row in nodes)
    assert len(made.table("tree_merges")) == 0
    assert all(picture["leaf"] is None for picture in pictures)
    second = [row for row in nodes if row["depth"] == 2]
    assert len(second) >= 2
    assert all(row["held_out"] + row["other_held_out"] for row in second)


def test_what_a_fitted_tree_wrote_reads_as_it_was(done):
    grown = GrownTree(done[1]["tree"][0], {})
    assert grown.read.paths == grown.routes.paths(grown.data.g)
    np.testing.assert_allclose(grown.read.own.sum(1), grown.data.y * grown.data.norm, rtol=0.1)
    bias = np.array([row["bias"] for row in grown.nodes])
    nodes = np.array([node for path in grown.read.paths for node in path])
    np.testing.assert_allclose(grown.read.rho.sum(1) + bias[nodes], grown.read.estimate, atol=1e-3)


def test_deleting_what_nodes_name_moves_more_than_others(done):
    rows = [row for row in done[1]["tree"][0].table("tree_metrics").to_pylist() if row["metric"] == "deletion"]
    (apart,) = [row for row in rows if row["against"] == "random filters"]
    assert apart["low"] > 0


def test_tables_agree_with_each_other(paper):
    made = paper
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


def test_the_written_tree_is_the_one_that_its_log_gives(paper):
    made = paper
    grown = GrownTree(made, {})
    train = np.array([row["split"] == "train" for row in grown.pictures])
    positive = np.array([row["positive"] for row in grown.pictures])
    examples = RationaleExamples(
        grown.data.of(np.flatnonzero(train & positive)), grown.data.of(np.flatnonzero(train & ~positive))
    )
    merges = [Merge(**row) for row in made.table("tree_merges").to_pylist()]
    arrays = load(made.read("arrays.safetensors"))
    again = replay(examples, merges)
    np.testing.assert_array_equal(again.w, arrays["w"])
    np.testing.assert_array_equal(again.b, arrays["b"])


def test_a_frozen_tree_takes_its_own_pictures_the_same_way(done):
    """What an attack begins from: raw rationales of the audit's pictures, scaled and walked, give the written paths."""
    made = done[1]["tree"][0]
    grown, frozen = GrownTree(made, {}), GrownTree(made, {}).frozen
    assert (frozen.category, frozen.layer) == ("bird", "features.12")
    plan = Plan(Request(done[0]))
    job = plan.job("tree")
    pixels = job.reads["network"].pixels("cpu")
    source = Index(done[1]["index"][0], outside_of(job.reads["index"])).source
    some = [place for place, row in enumerate(grown.pictures) if row["positive"]][:6]
    pictures = source.batch([grown.pictures[place]["image"] for place in some])
    raw = LayersAbove(pixels, f"network.{frozen.layer}", frozen.output).rationales(pictures)
    data, kept = frozen.scale.apply(raw)
    assert kept.tolist() == list(range(6))
    np.testing.assert_allclose(data.y * data.norm, [grown.pictures[place]["y"] for place in some], rtol=1e-4)
    walked = {(row["image"], row["depth"]): row["node"] for row in made.table("tree_paths").to_pylist()}
    for place, path in zip(some, frozen.tree.paths(data.g), strict=True):
        image = grown.pictures[place]["image"]
        assert path == [walked[image, depth] for depth in range(2, 2 + len(path))]
        assert (image, 2 + len(path)) not in walked


def test_thumbnails_stand_beside_the_pictures(done):
    made = GrownTree(done[1]["tree"][0], {})
    assert len(made.thumbnails) == len(made.pictures)
    index = Index(done[1]["index"][0], outside_of(Plan(Request(done[0])).job("index")))
    place = 7
    assert made.thumbnails[place] == index.source.thumbnail(made.pictures[place]["image"], 160)
    assert Image.open(io.BytesIO(made.thumbnails[place])).size == (160, 160)


def test_the_plan_gives_the_tree_what_the_audit_has(tmp_path):
    def reads(stages, **more):
        file = write_audit(tmp_path / "audit.yaml", {**content(), "stages": stages, **more})
        job = Plan(Request(file)).job("tree")
        return {name: read.name if isinstance(read, Job) else "outside" for name, read in job.reads.items()}, job

    assert reads({"tree": {}})[0] == {"index": "index", "network": "outside"}
    both = {"dissection": {}, "tree": {}}
    assert reads(both)[0] == {"index": "index", "network": "outside", "dissection": "dissection"}
    sets = {"dataset": None, "datasets": {"one": CREATURES, "two": {**CREATURES, "seed": 4}}}
    tuned = {"dissection": {"dataset": "one"}, "finetuning": {"dataset": "one", "negatives": "two"}}
    found, job = reads({**tuned, "tree": {}}, **sets)
    assert found == {"index": "index:one", "negatives": "index:two", "finetuned": "finetuning"}
    assert job.options.layer == "extra_mask"
    with pytest.raises(InputError, match=r"stages\.tree\.dataset, negatives: are those of finetuning"):
        reads({**tuned, "tree": {"dataset": "two"}}, **sets)


def test_cells_are_not_for_the_papers_rule(tmp_path):
    with pytest.raises(InputError, match=r"stages\.tree\.positions: must be weighted or uniform with the paper's rule"):
        Plan(Request(write_audit(tmp_path / "audit.yaml", content(rule="paper", positions="cells")))).job("tree")


def test_names_of_data_sets_do_not_name_a_tree(tmp_path):
    """The same pictures under another name are the same tree."""
    one = Plan(Request(write_audit(tmp_path / "audit.yaml", content()))).job("tree")
    named = {**content(dataset="mine"), "dataset": None, "datasets": {"mine": content()["dataset"]}}
    other = Plan(Request(write_audit(tmp_path / "other.yaml", named))).job("tree")
    assert one.reads["index"].name != other.reads["index"].name
    assert one.key.digest == other.key.digest


def test_metrics_stand_beside_baselines_and_hold_their_intervals(done):
    rows = done[1]["tree"][0].table("tree_metrics").to_pylist()
    models = {"tree", "tree, calibrated", "network", "always yes", "ridge", "scikit-learn tree", "logistic regression"}
    assert {row["model"] for row in rows} - {"ridge per cell"} == {*models, "random filters"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    found = {(row["model"], row["metric"], row["depth"]): row["value"] for row in rows if row["against"] is None}
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
    found = {
        (r["metric"], r["model"], r["depth"]): r["value"] for r in made["tree"][0].table("tree_metrics").to_pylist()
    }
    assert found["alike", "network", None] == pytest.approx(1, abs=1e-9)  # a linear head: one rule, the network itself
    assert found["fidelity", "tree", 1] == 1
    assert len(made["tree"][0].table("tree_nodes")) == 2  # the rule, and the root


def test_categories_and_layers_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"stages.tree.category: must be one of .*'fish'"):
        run(write_audit(tmp_path / "audit.yaml", content(category="fish")))
    two = content()
    two["network"] = {**NETWORK, "layers": ["features.9", "features.12"]}
    with pytest.raises(InputError, match=r"stages\.tree\.layer: must name one layer"):
        run(write_audit(tmp_path / "audit.yaml", two))


@pytest.fixture(scope="module")
def recorded(done):
    """What the run of that audit, which is recorded, explains of a picture."""
    assert left("audit", done[0]).stderr.count("cached") == len(done[1])
    return partial(left, "explain", "rationales", "--workspace", done[0].parent / ".microtome")


def test_explain_tells_a_picture_by_name_or_number(done, recorded):
    row = next(r for r in done[1]["tree"][0].table("tree_images").to_pylist() if r["positive"])
    named = recorded(row["file"])
    assert named.returncode == 0, named.stderr
    assert named.stdout.startswith(f"{row['file']}: the network")
    assert "cosine" in named.stdout
    assert recorded(row["image"]).stdout == named.stdout
    wrong = recorded("nobody.png")
    assert wrong.returncode == 2
    assert "must mean one picture" in wrong.stderr


def test_explain_takes_a_picture_that_the_tree_has_never_seen(done, recorded, command, tmp_path):
    """A picture of the tree, as a file: it goes the same way. Noise: it is said to be unlike the others."""
    row = next(r for r in done[1]["tree"][0].table("tree_images").to_pylist() if r["positive"])
    known = recorded(row["file"]).stdout.splitlines()
    PLANTED.picture(row["image"]).save(tmp_path / "again.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "noise.png")
    again = command(*recorded.args, tmp_path / "again.png")
    noise = recorded(tmp_path / "noise.png")
    assert (again.returncode, noise.returncode) == (0, 0), again.stderr + noise.stderr
    told = again.stdout.splitlines()
    assert told[0].startswith("again.png: the network sees bird")
    assert "It is like the pictures" in told[1]
    assert [line.split(";")[0] for line in told[2:-1]] == [line.split(";")[0] for line in known[1:-1]]
    assert "It is unlike the pictures" in noise.stdout
    page = Path(noise.stdout.splitlines()[-1].removeprefix("page    ")).read_text()
    assert "It is unlike the pictures" in page


@pytest.mark.parametrize("which", ["done", "paper"])
def test_a_tree_says_of_a_new_file_what_it_wrote_of_the_same_picture(which, request):
    made = request.getfixturevalue(which)
    made = made[1]["tree"][0] if which == "done" else made
    grown, job = GrownTree(made, {}), Plan(Request(request.getfixturevalue("done")[0])).job("tree")
    frozen, some = grown.frozen, [2, 40, 77]
    network = job.reads["network"]
    source = Source(PLANTED, Frame((96, 96)), network.scale, range(240))
    pictures = torch.from_numpy(np.stack([source.normalised(grown.pictures[place]["image"]) for place in some]))
    raw, x, g = LayersAbove(network.load(), frozen.layer, frozen.output).whole(pictures)
    new, written = grown.reading(raw, (x.flatten(2).numpy(), g.flatten(2).numpy())), grown.read.of(np.array(some))
    assert list(map(list, new.paths)) == list(map(list, written.paths))
    for name in ("cosine", "estimate", "rho", "y", "own"):
        got, wanted = getattr(new, name), getattr(written, name)
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.browser
def test_the_tree_unfolds_from_the_keyboard(browser, done, tmp_path):
    made = done[1]["report"][0]
    for name in made.names():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(made.read(name))
    assert [fault for width in (1440, 390) for fault in faults(browser, tmp_path / "tree.html", width)] == []
    tab, _ = opened(browser, tmp_path / "tree.html", 390)
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
