"""`load: timm:NAME`: names, weights, and the preprocessing that timm's configurations state."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import timm.data
import torch
import yaml
from PIL import Image

from flows.foresee import told
from flows.plan import Plan, Request
from microtome.datasets.source import loose
from microtome.errors import InputError
from microtome.networks import NetworkSpec, load_network
from microtome.networks.classes import class_names
from microtome.networks.identity import network_digest
from microtome.networks.preprocessing import Preprocessing
from microtome.networks.zoo import timm_preprocessing
from tests.conftest import clean_environment, write_audit

VIT = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
CONTENT = {
    "name": "by name",
    "network": {"load": VIT, "arguments": {"img_size": 32, "depth": 1}, "layers": ["blocks.0"]},
    "dataset": {"format": "creatures", "count": 4, "size": 48},
    "stages": {"dissection": {"bootstrap": 0, "permutations": 0}},
}


@pytest.mark.parametrize(
    ("load", "arguments", "weights", "words"),
    [
        ("timm:resnet10", {}, None, r"timm has no network 'resnet10'; did you mean 'resnet1"),
        ("timm:resnet18.b1_in1k", {}, None, r"timm's resnet18 has no tag 'b1_in1k'; did you mean 'a1_in1k'"),
        ("timm:resnet18", {"pretrained": True}, None, r"network\.arguments: pretrained must be left out"),
        ("timm:resnet18", {"checkpoint_path": "x.pth"}, None, r"network\.arguments: checkpoint_path must be left out"),
        ("timm:resnet18", {}, "a1_in1k", r"network\.weights: must be a file ending in .*, got 'a1_in1k'"),
        ("timm:resnet18", {"depth": 3}, None, r"network\.load: timm:resnet18\(depth=3\) failed"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(load, arguments, weights, words):
    with pytest.raises(InputError, match=words):
        load_network(NetworkSpec(load, arguments, weights))


def test_without_timm_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"network\.load: timm:resnet18 needs .* pip install 'microtome\[timm\]'"):
        load_network(NetworkSpec("timm:resnet18"))


def test_weights_come_from_a_file_alone(tmp_path):
    network = timm.create_model("resnet10t", num_classes=3)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    found = load_network(NetworkSpec("timm:resnet10t", {"num_classes": 3}, "w.pth", tmp_path))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.state_dict().items())
    drawn = [load_network(NetworkSpec("timm:resnet10t", seed=seed)).conv1[0].weight for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_classes_are_those_of_its_own_weights():
    network = torch.nn.Identity()
    names = class_names(network, "timm:resnet18", 1000)
    assert names[0].startswith("tench")
    assert names[207].startswith("golden retriever")
    assert class_names(network, "timm:resnet18", 10) is None


def test_the_version_of_timm_is_part_of_the_network(monkeypatch):
    before = network_digest(NetworkSpec("timm:resnet18"), str)
    monkeypatch.setattr("microtome.closure.outside.version", lambda _distribution: "0.0.1")
    assert network_digest(NetworkSpec("timm:resnet18"), str) != before
    assert network_digest(NetworkSpec("timm:resnet18.a1_in1k"), str) != network_digest(
        NetworkSpec("timm:resnet18"), str
    )


@pytest.mark.parametrize("size", [(150, 100), (90, 160), (300, 300)])
@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto", "efficientnet_lite0", "levit_128s"]
)
def test_a_picture_is_prepared_as_timm_prepares_it(name, size):
    """To the pixel: shorter side, filter, crop, scale."""
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((size[0] * 2, size[1] * 2))
    wanted = timm.data.create_transform(**config, is_training=False)(picture).numpy()
    taken = timm_preprocessing(f"timm:{name}", {})
    got = taken.scale(taken.frame.place(_record(picture)).picture(picture))
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def _record(picture):
    from microtome.datasets.base import Record

    return Record("x", "all", *picture.size)


def test_keys_of_the_file_go_before_the_configuration(tmp_path):
    file = write_audit(tmp_path / "audit.yaml", CONTENT)
    own = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3, "shortest-side-crop", 0.9, "bicubic")
    assert Plan(Request(file)).planner.input == own
    changed = {**CONTENT, "network": {**CONTENT["network"], "input": {"mean": [0.1, 0.2, 0.3], "resize": "squash"}}}
    found = Plan(Request(write_audit(file, changed))).planner
    assert found.input == Preprocessing((32, 32), (0.1, 0.2, 0.3), (0.5,) * 3, "squash", None, "bicubic")
    assert found.described["network"]["input"] == {
        "size": [32, 32],
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5] * 3,
        "resize": "squash",
        "interpolation": "bicubic",
    }


def test_a_plan_says_what_was_read_and_what_is_set_apart(tmp_path):
    content = {**CONTENT, "network": {**CONTENT["network"], "input": {"std": [0.25] * 3}}}
    said = told(Plan(Request(write_audit(tmp_path / "audit.yaml", content))))
    wanted = [
        "network.input: 32 x 32, shortest-side-crop, of which the centre 0.9 of each side is cut out, bicubic, "
        "mean 0.5 0.5 0.5, std 0.25 0.25 0.25 (timm's configuration, but for std)",
        "network.layers: blocks.0: 1 of 5 tokens lie at no place of the picture (class token, registers): set apart, "
        "in no map",
    ]
    assert [line for line in said if line.startswith("network.")] == wanted


def test_only_timms_networks_may_leave_out_the_size(tmp_path):
    content = {**CONTENT, "network": {"load": "torchvision.models:resnet18", "layers": ["layer1"]}}
    with pytest.raises(InputError, match=r"network: input\.size: must be given, height and width"):
        Plan(Request(write_audit(tmp_path / "audit.yaml", content)))
    content["network"]["load"] = "timm:hf-hub/x"
    with pytest.raises(InputError, match=r"network\.load: must be timm:NAME or timm:NAME\.TAG"):
        Plan(Request(write_audit(tmp_path / "audit.yaml", content)))


def test_a_second_plan_asks_neither_timm_nor_torch(tmp_path):
    file = write_audit(tmp_path / "audit.yaml", CONTENT)
    assert Plan(Request(file)).planner.input.size == (32, 32)
    code = (
        "import sys; from pathlib import Path; from flows.plan import Plan, Request;"
        f"assert Plan(Request(Path({str(file)!r}))).jobs; assert not {{'torch', 'timm'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment(tmp_path))
    assert yaml.safe_load((tmp_path / ".microtome/preprocessing.json").read_text())


def test_loose_pictures_lie_in_the_same_frame(tmp_path):
    Image.fromarray(np.zeros((50, 80, 3), np.uint8)).save(tmp_path / "p.png")
    taken = timm_preprocessing(VIT, {"img_size": 32})
    assert loose(tmp_path / "p.png", taken.frame, taken.scale).normalised(0).shape == (3, 32, 32)
