"""Explanatory graph, parts, and attacks on both, from the audit file to the page, on planted animals."""

import json
import re
from pathlib import Path

import networkx
import numpy as np
import pytest
from PIL import Image

from microtome.errors import InputError
from tests.commands import left
from tests.conftest import opened, write_audit
from tests.faults import faults
from tests.test_pipeline import run
from tests.test_tree_pipeline import NETWORK


def content(**stages):
    return {
        "name": "patterns",
        "network": {**NETWORK, "layers": ["features.9", "features.12"]},
        "dataset": {"format": "creatures", "count": 150, "seed": 3, "categories": ["bird"]},
        "stages": stages,
        "execution": {"threads": 1},  # as `run` has it
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small graph and mined parts, and their report."""
    stages = {
        "graph": {"filters": 6, "rounds": 4, "permutations": 20},
        "parts": {"filters": 12, "boxes": [3, 6], "draws": 2},
    }
    file = write_audit(tmp_path_factory.mktemp("graph") / "audit.yaml", content(**stages))
    return file, run(file)


def test_tables_agree_with_each_other(done):
    made = done[1]["graph"][0]
    nodes, edges = (made.table(f"graph_{name}").to_pandas() for name in ("nodes", "edges"))
    assert nodes["node"].tolist() == list(range(len(nodes)))
    assert nodes["layer"].iloc[0] == "features.12"  # the top layer first
    layer = dict(zip(nodes["node"], nodes["layer"], strict=True))
    assert {layer[child] for child in edges["child"]} == {"features.9"}
    assert {layer[parent] for parent in edges["parent"]} == {"features.12"}
    np.testing.assert_allclose(edges.groupby("child")["weight"].sum(), 1, rtol=1e-5)
    place = nodes.set_index("node")[["x", "y"]]
    apart = place.loc[edges["child"]].to_numpy() - place.loc[edges["parent"]].to_numpy()
    np.testing.assert_allclose(apart, edges[["dx", "dy"]], atol=1e-6)
    found, images = (made.table(f"graph_{name}").to_pandas() for name in ("inferences", "images"))
    assert len(found) == len(nodes) * len(images)
    assert set(images["split"]) == {"train", "val"}
    means = found[found["image"].isin(images[images["split"] == "train"]["image"])].groupby("node")[["x", "y"]].mean()
    np.testing.assert_allclose(means, nodes[["home_x", "home_y"]], atol=0.05)  # homes are of moved copies, too
    assert nodes.groupby("layer")["chosen"].sum().tolist() == [12, 12]
    assert len(made.table("graph_anchors")) == 30


def test_metrics_hold_nodes_and_filters_under_one_rule_beside_baselines(done):
    rows = done[1]["graph"][0].table("graph_metrics").to_pylist()
    for layer in ("features.9", "features.12"):
        of = {row["of"] for row in rows if row["layer"] == layer and row["metric"] == "instability"}
        assert of == {
            "nodes", "filters", "filters chosen alike", "nodes minus filters", "nodes minus filters chosen alike",
            "nodes minus themselves frozen", "random", "centre", "best constant",
        }  # fmt: skip
        value = {row["of"]: row["value"] for row in rows if row["layer"] == layer and row["metric"] == "instability"}
        assert value["nodes minus filters"] == pytest.approx(value["nodes"] - value["filters"])
        assert value["nodes minus filters chosen alike"] == pytest.approx(
            value["nodes"] - value["filters chosen alike"]
        )
        curve = [row["value"] for row in rows if row["layer"] == layer and row["metric"] == "log-likelihood"]
        assert len(curve) == 5
        assert curve[-1] > 0.98 * curve[0]  # parents are chosen anew in every round: it need not rise


def test_purity_names_planted_parts(done):
    nodes = done[1]["graph"][0].table("graph_nodes").to_pandas()
    assert nodes["purity"].between(0, 1).all()
    assert nodes["purity"].max() > 0.3
    concepts = done[1]["index"][0].table("concepts").to_pylist()
    assert set(nodes["concept"]) <= {row["concept"] for row in concepts if row["category"] == "part"}


def test_exports_are_the_same_graph(done):
    made = done[1]["graph"][0]
    graph = networkx.node_link_graph(json.loads(made.read("graph.json")), edges="edges")
    other = networkx.parse_graphml(made.read("graph.graphml").decode(), node_type=int)
    assert len(graph) == len(other) == len(made.table("graph_nodes"))
    assert set(graph.edges) == set(other.edges)
    assert len(graph.edges) == len(made.table("graph_edges"))


def test_parts_are_located_in_pictures_that_were_not_annotated(done):
    made = done[1]["parts"][0]
    errors, summary = (made.table(name).to_pandas() for name in ("part_errors", "part_summary"))
    methods = ["blend", "exemplar", "patterns", "graph nodes", "mean position", "best filter", "top filters"]
    assert set(errors["method"]) == set(methods)
    marks = done[1]["landmarks"][0].table("landmarks").to_pandas()
    shown = marks[marks["landmark"] == "head"]["image"].nunique()
    one = errors[(errors["part"] == "head") & (errors["draw"] == 0) & (errors["method"] == "blend")]
    assert {boxes: len(rows) for boxes, rows in one.groupby("boxes")} == {3: shown - 3, 6: shown - 6}
    best = summary.pivot_table(index=["part", "boxes"], columns="method", values="error")
    assert (best["blend"] < best["mean position"]).all()
    assert (best["patterns"] < best["mean position"]).mean() > 0.5
    assert set(made.table("parts").column("layer").to_pylist()) <= {"features.9", "features.12"}


def test_what_is_said_of_parts_follows_from_their_errors(done):
    made = done[1]["parts"][0]
    names = ("part_errors", "part_summary", "part_comparisons", "part_choices")
    errors, summary, against, choices = (made.table(name).to_pandas() for name in names)
    by_picture = errors.groupby(["part", "boxes", "method", "image"])["error"].mean()
    means = by_picture.groupby(["part", "boxes", "method"]).mean()
    np.testing.assert_allclose(summary.set_index(["part", "boxes", "method"])["error"].loc[means.index], means)
    blend = means.xs("blend", level="method")
    for rival, rows in against.groupby("rival"):
        each = rows.dropna(subset=["part"]).set_index(["part", "boxes"])["difference"]
        wanted = blend - means.xs(rival, level="method")
        np.testing.assert_allclose(each.loc[wanted.index], wanted, atol=1e-12)
        np.testing.assert_allclose(rows[rows["part"].isna()]["difference"], wanted.mean())
    assert len(choices) == len(blend) * 2
    moved = made.table("part_shift").to_pandas().set_index("method")
    assert set(moved.index) == {"blend", "exemplar", "mean position", "best filter", "top filters"}
    assert (moved.loc["mean position", ["slope", "low", "high", "r2"]] == 0).all(axis=None)
    assert moved.loc["blend", "slope"].mean() > 0.3
    assert "What was chosen" in done[1]["report"][0].read("parts.html").decode()


def test_categories_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"graph\.category: must be one of bird, got 'fish'"):
        run(write_audit(tmp_path / "audit.yaml", content(graph={"category": "fish"})))


def test_attacks_are_looked_at_through_tree_and_graph(tmp_path):
    audit = content(
        tree={"category": "bird", "images": 20},
        graph={"category": "bird", "filters": 4, "rounds": 2},
        adversarial={"images": 12, "eps": [4], "steps": 3},
        dissection={"bootstrap": 0, "permutations": 0},
    )
    audit["network"] = NETWORK
    audit["dataset"] = {"format": "creatures", "count": 110, "seed": 3}
    made = run(write_audit(tmp_path / "audit.yaml", audit))
    report = made["report"][0]
    links = re.findall(r'href="(unit/[^"]+)"', report.read("graph.html").decode())
    assert links
    assert all("graph.html#node/" in report.read(place).decode() for place in links)
    rows = made["adversarial"][0].table("adversarial").to_pylist()
    found = {(row["attack"], row["measure"]): row for row in rows}
    for measure in (
        "tree of bird: second-layer node kept",
        "tree of bird: share of the path kept",
        "graph: strongest nodes kept",
    ):
        attacked, control = found["pgd", measure], found["noise like pgd", measure]
        assert 0 <= attacked["value"] <= control["value"] <= 1
        assert attacked["n"] == control["n"] < 12
    shift = "graph: shift of strongest nodes, by the side"
    assert found["pgd", shift]["value"] >= found["noise like pgd", shift]["value"] >= 0


def test_lookup_of_a_known_picture_and_of_the_same_as_a_new_file_agree(done, command, tmp_path):
    assert left("audit", done[0]).stderr.count("cached") == len(done[1])
    call = ("lookup", "patterns", "--workspace", done[0].parent / ".microtome")
    row = done[1]["graph"][0].table("graph_images").to_pylist()[2]
    known = left(*call, row["file"])
    assert known.returncode == 0, known.stderr
    from microtome.datasets.creatures import Creatures

    data = Creatures(count=150, seed=3)
    index = next(n for n, record in enumerate(data.records) if record.file == row["file"])
    Image.Image.save(data.picture(index).resize((96, 96)), tmp_path / "new.png")
    new = command(*call, tmp_path / "new.png")
    assert new.returncode == 0, new.stderr
    same = set(known.stdout.splitlines()[2:]) & set(new.stdout.splitlines()[2:-1])
    assert len(same) > 5
    page = Path(new.stdout.splitlines()[-1].removeprefix("page    ")).read_text()
    assert "It is like the pictures that the audit looked at" in page
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "noise.png")
    noise = left(*call, tmp_path / "noise.png")
    assert "It is unlike the pictures" in noise.stdout
    assert left(*call, "nobody.png").returncode == 2


@pytest.mark.browser
def test_layers_of_the_drawn_graph_switch_off(browser, done, tmp_path):
    from playwright.sync_api import expect

    made = done[1]["report"][0]
    for name in made.names():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(made.read(name))
    for page in ("index.html", "graph.html", "parts.html"):
        assert [fault for width in (1440, 390) for fault in faults(browser, tmp_path / page, width)] == []
    tab, _ = opened(browser, tmp_path / "graph.html")
    first = tab.locator(".drawing g").first
    expect(first).to_be_visible()
    tab.locator(".drawing input").first.focus()
    tab.keyboard.press("Space")
    expect(first).to_be_hidden()
