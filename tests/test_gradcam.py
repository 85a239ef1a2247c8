"""Grad-CAM: which maps it weighs in every family, and the weighted sum itself against the literal one and captum."""

import pytest
import torch
import torchvision.models
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from microtome.errors import InputError
from microtome.networks import walk
from microtome.networks.small import creature_net
from microtome.visualize.attribution import scaled
from microtome.visualize.gradcam import enlarged, gradcam, spatial_layer
from microtome.visualize.methods import cam_layer

READ = {  # the layer, its units, at 96 pixels its grid
    "alexnet": ("features.11", 256, 5),
    "vgg11": ("features.19", 512, 6),
    "vgg16_bn": ("features.42", 512, 6),
    "squeezenet1_0": ("features.12", 512, 5),
    "resnet18": ("layer4.1", 512, 3),
    "densenet121": ("features", 1024, 3),
    "googlenet": ("inception5b", 1024, 3),
    "mobilenet_v2": ("features.18", 1280, 3),
    "mobilenet_v3_small": ("features.12", 576, 3),
    "efficientnet_b0": ("features.8", 1280, 3),
    "mnasnet0_5": ("layers", 1280, 3),
    "shufflenet_v2_x0_5": ("conv5", 1024, 3),
    "regnet_y_400mf": ("trunk_output.block4.block4-5", 440, 3),
    "convnext_tiny": ("features.7.2", 768, 3),
    "swin_t": ("features.7.1", 768, 3),
}


@pytest.mark.parametrize("name", READ)
def test_the_layer_is_what_the_head_reads(name):
    more = {"init_weights": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(**more).eval()
    hooks = sum(len(module._forward_hooks) for module in network.modules())
    found = spatial_layer(network, (96, 96))
    assert (found.name, found.units, found.grid) == (READ[name][0], READ[name][1], (READ[name][2],) * 2)
    assert hooks == sum(len(module._forward_hooks) for module in network.modules())


def vit() -> nn.Module:
    torch.manual_seed(0)
    network = VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=4
    ).eval()
    nn.init.normal_(network.heads.head.weight)
    return network


def swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=4).eval()


class DenseEnd(nn.Module):
    """Ends as DenseNet: a norm within the features, the last rectifier a function of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
        self.classifier = nn.Linear(5, 3)

    def forward(self, x):
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


class Branched(nn.Module):
    """Two branches side by side, pooled, dropped, and classified by a convolution, as GoogLeNet and SqueezeNet do."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"a": nn.Conv2d(3, 2, 3, padding=1), "b": nn.Conv2d(3, 4, 1)})
        self.joined = Joined(self.block)
        self.relu, self.drop, self.last = nn.ReLU(inplace=inplace), nn.Dropout(), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.relu(self.last(self.drop(self.joined(x)))).mean((2, 3))


class Joined(nn.Module):
    def __init__(self, block: nn.ModuleDict) -> None:
        super().__init__()
        self.a, self.b = block["a"], block["b"]

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], 1)


@pytest.mark.parametrize(
    ("make", "name", "units", "size"),
    [
        (vit, "encoder.layers.encoder_layer_1", 8, 32),  # of the last block the class token alone is read
        (swin, "features.3.0", 16, 32),
        (DenseEnd, "features", 5, 12),
        (lambda: Branched(True), "joined", 6, 12),
        (lambda: Branched(False), "joined", 6, 12),
        (creature_net, "features", 64, 96),
    ],
)
def test_the_layer_in_small_networks(make, name, units, size):
    torch.manual_seed(0)
    network = make().eval()
    for whole in (network, scaled(network, (0.5,) * 3, (0.25,) * 3)):
        found = spatial_layer(whole, (size, size))
        assert (found.name, found.units) == (name, units)


def test_a_layer_can_be_named_and_none_is_refused():
    network = creature_net().eval()
    assert cam_layer(network, (96, 96), "features.3").name == "features.3"
    with pytest.raises(InputError, match="cam_layer: flatten"):
        cam_layer(network, (96, 96), "flatten")
    with pytest.raises(InputError, match="cam_layer: Sequential must have a layer with a grid"):
        spatial_layer(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), (8, 8))


@pytest.mark.parametrize("make", [vit, swin, lambda: creature_net().eval()])
def test_maps_are_the_literal_weighted_sum(make):
    torch.manual_seed(1)
    network = make().double()
    size = (96, 96) if not hasattr(network, "heads") and not hasattr(network, "head") else (32, 32)
    x, classes = torch.rand(2, 3, *size, dtype=torch.float64), torch.tensor([0, 3])
    layer = spatial_layer(network, size)
    found = gradcam(network, x, classes, layer)
    assert found.shape == (2, 1, *size)
    assert found.min() >= 0
    for place in range(2):
        given, caught = x[place : place + 1].clone().requires_grad_(), []
        handle = network.get_submodule(layer.name).register_forward_hook(lambda _m, _i, out, to=caught: to.append(out))
        answer = network(given)
        handle.remove()
        slope = layer.as_maps(torch.autograd.grad(answer[0, classes[place]], caught[0])[0])[0]
        maps = layer.as_maps(caught[0].detach())[0]
        cells = torch.zeros(layer.grid, dtype=torch.float64)
        for unit in range(layer.units):
            cells += slope[unit].mean() * maps[unit]
        wanted = enlarged(cells.clamp(min=0)[None, None], layer, size)[0]
        torch.testing.assert_close(found[place], wanted)


def test_what_follows_in_place_changes_neither_maps_nor_slopes():
    """The convolution is named, and a ReLU writes over its answer: still the convolution's own maps are weighed."""
    torch.manual_seed(0)
    kept = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double()
    written = nn.Sequential(kept[0], nn.ReLU(inplace=True), *kept[2:])
    x = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    for layer in walk(kept.eval(), (12, 12), ["0", "1"]):
        one, other = (gradcam(network.eval(), x, torch.tensor([0, 1]), layer) for network in (kept, written))
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("make", [lambda: creature_net().eval()])
def test_captum_agrees_on_the_cells(make):
    attr = pytest.importorskip("captum.attr")
    network, x, classes = make(), torch.rand(2, 3, 96, 96), torch.tensor([1, 2])
    layer = spatial_layer(network, (96, 96))
    module = network.get_submodule(layer.name)
    wanted = attr.LayerGradCam(network, module).attribute(x.requires_grad_(), classes, relu_attributions=True)
    torch.testing.assert_close(gradcam(network, x, classes, layer), enlarged(wanted.detach(), layer, (96, 96)))


def test_cells_are_enlarged_about_their_centres():
    (layer,) = walk(nn.Sequential(nn.Conv2d(3, 1, 4, stride=4)).eval(), (16, 16), ["0"])
    cells = torch.arange(16.0).reshape(1, 1, 4, 4)
    wide = enlarged(cells, layer, (16, 16))
    assert wide[0, 0, 0, 0] == 0  # clamped beyond the outer centres
    assert wide[0, 0, 15, 15] == pytest.approx(15)
    middle = wide[0, 0, 1:3, 1:3].mean()  # about the first cell's centre, 2.0
    assert float(middle) == pytest.approx(float(wide[0, 0, 1, 1] + wide[0, 0, 2, 2]) / 2, abs=1e-6)
    assert wide[0, 0, 5, 2] == pytest.approx(4 * (5.5 - 2) / 4 + (2.5 - 2) / 4)
    (single,) = walk(nn.Sequential(nn.Conv2d(3, 1, 16)).eval(), (16, 16), ["0"])
    assert enlarged(torch.full((1, 1, 1, 1), 3.0), single, (16, 16)).unique().tolist() == [3]
