"""The stages stability and finetuning on planted animals: splits, kills, comparisons, report, known answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.plan import Plan, Request
from microtome.datasets import open_dataset
from microtome.disentangle.examples import Labelled, Side, examples
from microtome.disentangle.folds import split_by_file
from microtome.errors import InputError
from microtome.networks import NetworkSpec, load_network
from storage import StageStore
from tasks.landmarks.result import Landmarks
from tests.conftest import CREATURE_NET, WEIGHTS, clean_environment, soak, write_audit
from tests.test_known_answers import squeezenet
from tests.test_pipeline import run


def audit_of(folder: Path, **finetuning: object) -> Path:
    """Birds against other animals, on the shipped network."""
    content = {
        "name": "parts",
        "network": dict(CREATURE_NET),
        "datasets": {
            "birds": {"format": "creatures", "count": 240, "seed": 5, "categories": ["bird"]},
            "others": {"format": "creatures", "count": 60, "seed": 6, "categories": ["cat", "deer"]},
        },
        "stages": {
            "stability": {"dataset": "birds", "bootstrap": 50, "permutations": 99},
            "finetuning": {"dataset": "birds", "negatives": "others", "epochs": 3, **finetuning},
        },
    }
    return write_audit(folder / "audit.yaml", content)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The whole audit, carried out."""
    folder = tmp_path_factory.mktemp("parts")
    file = audit_of(folder)
    return file, run(file)


def artifact(done, name):
    return done[1][name][0]


def test_jobs_of_a_finetuning_audit(done):
    names = list(done[1])
    assert {"finetuning", "finetuning:twin", "stability", "stability:before", "stability:twin"} <= set(names)
    assert "stability:plain" not in names
    assert names.index("landmarks:birds") < names.index("activations:birds")
    assert all(cached for _, cached in run(done[0]).values())


def test_held_out_pictures_were_not_trained_on(done):
    rows = artifact(done, "finetuning").table("finetuning_images").to_pylist()
    held = {row["image"] for row in rows if row["split"] == "val" and row["dataset"] == "dataset"}
    shares = [row["split"] == "val" for row in rows]
    assert 0.15 < np.mean(shares) < 0.25
    judged = artifact(done, "stability:interpretable").table("inferences").column("image").to_pylist()
    assert set(judged) == held
    assert len(artifact(done, "stability").table("inferences").column("image").unique()) > len(held)


def test_folds_cover_everything_once_and_keep_pictures_together():
    files = [f"p{i // 2}" for i in range(40)]
    names = ["a" if i < 24 else "b" for i in range(40)]
    split = [split_by_file(files, names, folds=5, fold=fold, seed=0) for fold in range(5)]
    held = np.array([[s == "val" for s in one] for one in split])
    assert (held.sum(0) == 1).all()
    assert (held[:, ::2] == held[:, 1::2]).all()


def test_what_cannot_be_learned_is_not_interpreted(tmp_path):
    """Birds against other birds: every stage ends, its page says why it shows no figures, and blames no category."""
    file = audit_of(tmp_path, epochs=1)
    content = yaml.safe_load(file.read_text())
    content["datasets"]["birds"]["count"] = 150
    content["datasets"]["others"] |= {"count": 150, "categories": ["bird"]}
    content["stages"] |= {"tree": {}, "report": {}}
    done = run(write_audit(file, content))
    for name in ("finetuning", "finetuning:twin"):
        (row,) = done[name][0].table("finetuning_summary").to_pylist()
        assert not row["learned"]
        assert row["low"] <= row["majority"] < 0.6
    page = done["report"][0].read("finetuning.html").decode()
    assert "There is nothing to interpret." in page
    assert "one place held" not in page
    tree = done["report"][0].read("tree.html").decode()
    assert "so no tree is shown" in tree
    assert "Ways to decide" not in tree


def test_a_fine_tuning_says_what_could_be_learned(done):
    rows = [artifact(done, name).table("finetuning_summary").to_pylist() for name in ("finetuning", "finetuning:twin")]
    (own,), (twin,) = rows
    assert own["probe"] == twin["probe"] > own["majority"]
    assert own["rate"] == twin["rate"] > 0  # of the same range test
    answers = artifact(done, "finetuning").table("finetuning_images").to_pylist()
    held = [row for row in answers if row["split"] == "val"]
    assert own["accuracy"] == pytest.approx(np.mean([row["predicted"] == row["label"] for row in held]))
    assert own["images"] == len(held)
    last = artifact(done, "finetuning").table("training").to_pylist()[-1]
    assert last["accuracy"] == pytest.approx(own["accuracy"])


def labelled(*pictures: tuple[Side, str | None]) -> list[Labelled]:
    return [Labelled(side, number, f"p{number}", label) for number, (side, label) in enumerate(pictures)]


def test_classes_of_a_data_set_and_its_negatives():
    both = labelled(*[("dataset", "cat")] * 5, *[("dataset", "dog")] * 5, *[("negatives", "tree")] * 5)
    alone = examples(both, "dog", seed=0)
    assert list(alone.categories) == ["background", "dog"]
    assert list(alone.images) == list(range(5, 15))  # what is neither a dog nor a negative is left out
    assert list(alone.labels) == [1] * 5 + [0] * 5
    assert alone.background is None  # one output: the background is its zero
    every = examples(both, None, seed=0)
    assert list(every.categories) == ["cat", "dog", "background"]
    assert list(every.labels) == [0] * 5 + [1] * 5 + [2] * 5
    assert every.background == 2
    assert [len(every.split(name)) for name in ("train", "val")] == [12, 3]
    rest = examples(both[:10], "dog", seed=0)  # without negatives the rest of the data set is the background
    assert list(rest.labels) == [0] * 5 + [1] * 5
    two = examples(both[:10], None, seed=0)
    assert (list(two.categories), two.background) == (["cat", "dog"], None)


def test_classes_that_cannot_be_told_apart_are_refused():
    for pictures, category, got in (
        (labelled(("dataset", "cat"), ("dataset", "cat")), None, "got cat;"),
        (labelled(("dataset", "cat"), ("negatives", None)), "cow", "got no category for category 'cow'"),
        (labelled(("dataset", None), ("negatives", None)), None, "got p0 without a class"),
    ):
        with pytest.raises(InputError, match=f"needs a category and something to tell it from, {got}"):
            examples(pictures, category, seed=0)


def test_the_network_loads_through_the_ordinary_loader(done, tmp_path):
    made = artifact(done, "finetuning")
    about = made.json("network.json")
    (tmp_path / "network.safetensors").write_bytes(made.read("network.safetensors"))
    network = load_network(NetworkSpec(about["load"], about["arguments"], "network.safetensors", tmp_path))
    assert not network.training
    assert network.features[0].weight.equal(load_network(NetworkSpec(
        "microtome.networks.small:creature_net", {}, str(WEIGHTS), Path("/"))).features[0].weight)  # fmt: skip


def test_report_has_both_pages_and_names_every_network(done):
    report = artifact(done, "report")
    page = report.read("finetuning.html").decode()
    assert "twin (masks, no filter loss)" in page
    assert "before fine-tuning" in page
    assert "best held place" in report.read("stability.html").decode()
    index = report.read("index.html").decode()
    assert 'href="stability.html"' in index
    assert "creatures" in index


KILLED = """
import sys
from pathlib import Path
from flows.plan import Plan, Request
from tasks.execution import execute
from tasks.session import Session
from tests.test_pipeline import Silent
plan = Plan(Request(Path(sys.argv[1]), ("finetuning",)))
silent = Silent()
session = Session(plan.files, plan.settings, silent, silent.stop)
for job in plan.jobs:
    execute(job, session)
"""


@pytest.mark.soak
@pytest.mark.parametrize("checkpoint", ["index", "checkpoint-00002", "checkpoint-00001"][: soak(2, 3)])
def test_a_killed_training_ends_with_the_same_bits(done, tmp_path, checkpoint):
    """SIGKILL as soon as the workspace holds a file of that name; the rerun must reach the unbroken run's weights."""
    file = audit_of(tmp_path, controls=[])
    call = [sys.executable, "-c", KILLED, str(file)]
    process = subprocess.Popen(call, env=clean_environment(tmp_path), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if any(checkpoint in name for _, _, names in os.walk(tmp_path / ".microtome/stages") for name in names + [_]):
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    again = run(file)["finetuning"][0]
    assert again.read("network.safetensors") == artifact(done, "finetuning").read("network.safetensors")
    wanted = artifact(done, "finetuning").table("training").to_pylist()
    assert again.table("training").to_pylist() == wanted
    assert not [name for name in again.names() if name.startswith("checkpoint")]


def test_an_audit_that_cannot_be_fine_tuned_says_so(tmp_path):
    with pytest.raises(InputError, match=r"stages\.finetuning\.negatives: no data set 'nobody'"):
        _ = Plan(Request(audit_of(tmp_path, negatives="nobody"))).jobs
    with pytest.raises(InputError, match="fold must be below folds"):
        Plan(Request(audit_of(tmp_path, fold=7)))
    with pytest.raises(InputError, match="needs a category and something to tell it from"):
        run(audit_of(tmp_path, negatives=None))


def test_every_network_of_a_finetuning_is_a_result_of_its_own(tmp_path):
    """Without filter loss the network and its twin are the same but for their names, which their tables hold."""
    jobs = Plan(Request(audit_of(tmp_path, strength=0, mask=None, controls=["twin", "plain"]))).planner.jobs
    keys = {jobs[name].key.digest for name in ("finetuning", "finetuning:twin", "finetuning:plain")}
    assert len(keys) == 3
    more = Plan(Request(audit_of(tmp_path, strength=0, mask=None, controls=[]))).planner.jobs
    assert more["finetuning"].key == jobs["finetuning"].key  # which controls stand beside it does not matter
    assert "finetuning:twin" not in more


def data_of_ones_own(folder: Path, landmarks: str, **dataset: object) -> Path:
    """An audit of stability over creatures whose landmarks are as a line of Python says."""
    module = f"own_{folder.name}"  # a process imports a name once
    (folder / f"{module}.py").write_text(
        "from microtome.datasets import Landmark\n"
        "from microtome.datasets.creatures import Creatures\n"
        "class Own(Creatures):\n"
        "    def landmarks(self, index):\n"
        f"        return {landmarks}\n"
    )
    return write_audit(
        folder / "audit.yaml",
        {
            "name": "own",
            "network": {
                "load": "microtome.networks.small:creature_net",
                "layers": ["features.12"],
                "input": {"size": [96, 96]},
            },
            "dataset": {"format": f"{module}:Own", "count": 70, **dataset},
            "stages": {"stability": {"bootstrap": 0, "permutations": 0}, "report": False},
        },
    )


def test_landmarks_that_only_late_pictures_show_are_seen(tmp_path):
    late = "super().landmarks(index) if index >= 60 else ()"
    birds = [n for n, r in enumerate(open_dataset("creatures", None, {"count": 120}).records) if r.label == "bird"]
    wanted = [image for image, number in enumerate(birds) if number >= 60]
    assert 2 < len(wanted) < len(birds)
    done = run(data_of_ones_own(tmp_path, late, count=120, categories=["bird"]))
    assert done["landmarks"][0].table("landmarks").column("image").unique().to_pylist() == wanted
    assert done["stability"][0].table("inferences").column("image").unique().to_pylist() == wanted
    with pytest.raises(InputError, match="needs pictures with part landmarks, got none"):
        run(data_of_ones_own(tmp_path, late, count=120, categories=["bird"], limit=3))


def test_a_category_of_one_picture_is_refused_by_name(tmp_path):
    lonely = "super().landmarks(index) if index >= 60 or self.records[index].label == 'bird' else ()"
    with pytest.raises(InputError) as caught:
        run(data_of_ones_own(tmp_path, lonely, limit=61))
    assert len(caught.value.faults) == 1
    assert "needs a landmark that two pictures show, got none" in caught.value.faults[0]


def test_data_without_landmarks_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match=r"stages\.stability\.dataset: must have part landmarks, got 'main'"):
        _ = Plan(Request(data_of_ones_own(tmp_path, "()"))).jobs


def test_a_landmark_that_a_picture_shows_twice_counts_for_none(tmp_path):
    twice = "(Landmark('head', 5, 6), *([Landmark('head', 9, 9)] if index == 3 else []), Landmark('tail', index, 7))"
    file = data_of_ones_own(tmp_path, twice, limit=6)
    plan = Plan(Request(file))
    run(file, until="landmarks")
    job = plan.planner.jobs["landmarks"]
    marks = Landmarks(StageStore(plan.files).find(job.key), {})
    places = marks.places(np.array([2, 3, 5]))
    np.testing.assert_array_equal(places["head"], [[5, 6], [np.nan, np.nan], [5, 6]])
    np.testing.assert_array_equal(places["tail"], [[2, 7], [3, 7], [5, 7]])
    held = np.array([1, 3])
    found = {item.name: item for item in marks.by_category(held)}
    assert sorted(np.concatenate([item.images for item in found.values()]).tolist()) == [1, 3]
    assert all(len(item.landmarks["tail"]) == len(item.images) for item in found.values())
    assert marks.by_category(np.array([99])) == []


def test_landmarks_outside_their_picture_are_refused(tmp_path):
    file = data_of_ones_own(tmp_path, "(Landmark('head', 5, 5), Landmark('tail', 300, 5))", count=3)
    with pytest.raises(InputError) as caught:
        run(file)
    assert len(caught.value.faults) == 3
    assert "landmark tail must lie in the picture (96 x 96), got (300, 5)" in caught.value.faults[0]


@pytest.mark.real
@pytest.mark.slow
def test_known_answers_of_animal_parts(real_data, tmp_path):
    known = json.loads((real_data / "known-answers.json").read_text())["stability"]
    content = {
        "name": "parts",
        "network": squeezenet(real_data),
        "dataset": {"format": "animal-parts", "root": str(real_data / "animal-parts"), "crop": "object"},
        "stages": {"stability": {"bootstrap": 0, "permutations": 0, "shift": 0}, "report": False},
    }
    file = write_audit(tmp_path / "audit.yaml", content)
    for top in (100, 20):
        rows = run(file, f"stages.stability.top_images={top}")["stability"][0].table("stability_layers").to_pylist()
        by_name = {row["category"]: row for row in rows}
        answer = known[f"top_images_{top}"]
        for name, value in answer["layer_mean_D"].items():
            assert by_name[name]["deviation"] == pytest.approx(value, abs=5e-5)
            assert by_name[name]["centre"] == pytest.approx(known["categories"][name]["centre"], abs=1e-5)
            assert by_name[name]["best_constant"] == pytest.approx(known["categories"][name]["best_constant"], abs=1e-5)
            sd = known["categories"][name]["random_sd"]
            assert by_name[name]["random"] == pytest.approx(known["categories"][name]["random"], abs=3 * sd / 20**0.5)
            assert by_name[name]["null_filters"] == 0
        for rule, key in (
            ("lowest", "lowest"),
            ("highest-activation", "highest_activation"),
            ("mean", "mean_over_categories"),
        ):
            assert by_name[f"all: {rule}"]["deviation"] == pytest.approx(answer["all_categories"][key], abs=5e-5)


@pytest.mark.real
def test_voc_parts_on_real_annotations(real_data):
    data = open_dataset("voc-parts", real_data / "pascal-part", {})
    assert len(data.records) == 53
    place = next(i for i, record in enumerate(data.records) if record.label == "horse")
    notes = data.annotation(place)
    names = {concept.number: concept.name for concept in data.concepts}
    found = {names[number] for number in np.unique(notes.planes["part"]) if number}
    assert {"head", "torso", "muzzle"} <= found
    marks = {mark.name: (mark.x, mark.y) for mark in data.landmarks(place)}
    x0, y0, x1, y1 = data.records[place].box
    assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y in marks.values())
    wheels = [mark for i, r in enumerate(data.records) if r.label == "aeroplane" for mark in data.landmarks(i)]
    assert sum(mark.name == "wheel" for mark in wheels) == 5
