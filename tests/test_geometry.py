"""Receptive-field geometry: known answers, every torchvision CNN family, and the gradient footprint."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from microtome.errors import InputError
from microtome.networks import LayerGeometry, gradient_footprint, walk, walk_matching
from microtome.networks.normalisation import Normalisation
from microtome.visualize.attribution import Scaled
from tests.conftest import soak

KNOWN = [  # network, input, layer, start, jump, field: methods of Zhang et al., 0-based, first pixel spans 0..1
    ("vgg16", 224, "features.29", 8.0, 16, 196),
    ("vgg16", 224, "features.22", 4.0, 8, 92),
    ("squeezenet1_0", 224, "features.12", 17.5, 16, 155),
    ("alexnet", 227, "features.11", 15.5, 16, 163),
    ("resnet18", 224, "layer4", 0.5, 32, 435),
]

FAMILIES = [  # one of every torchvision CNN family; the last three, large ones of kinds that others have, at length
    ("alexnet", 224, "features.11"),
    ("squeezenet1_1", 224, "features.12"),
    ("resnet18", 224, "layer3"),
    ("densenet121", 224, "features.denseblock2"),
    ("googlenet", 224, "inception4a"),
    ("inception_v3", 299, "Mixed_5d"),
    ("mobilenet_v2", 224, "features.10"),
    ("mnasnet0_5", 224, "layers.9"),
    ("shufflenet_v2_x0_5", 224, "stage3"),
    ("regnet_x_400mf", 224, "trunk_output.block2"),
    ("convnext_tiny", 224, "features.3"),
    ("vgg11", 224, "features.19"),
    ("wide_resnet50_2", 224, "layer2"),
    ("resnext50_32x4d", 224, "layer2"),
]


def build(name: str) -> nn.Module:
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return getattr(torchvision.models, name)(**arguments).eval()


@pytest.mark.parametrize(("name", "size", "layer", "start", "jump", "field"), KNOWN)
def test_known_answers(name, size, layer, start, jump, field):
    (found,) = walk(build(name), (size, size), [layer])
    assert (found.start, found.jump, found.field) == ((start, start), (jump, jump), (field, field))
    assert not found.is_global


def test_caffe_alexnet_without_padding_starts_at_18_in_published_coordinates():
    module = torchvision.models.alexnet()
    module.features[0] = nn.Conv2d(3, 64, 11, stride=4)
    (found,) = walk(module.eval(), (227, 227), ["features.10"])
    assert found.start[0] + 0.5 == 18
    assert (found.jump[0], found.field[0]) == (16, 163)


def transparent(module: nn.Module) -> nn.Module:
    """Positive weights, no rectification, averages for maxima: every input of a cell gets a gradient."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU | nn.ReLU6 | nn.GELU):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(parent, name, pool)
            elif isinstance(child, nn.BatchNorm2d | nn.LayerNorm):
                setattr(parent, name, nn.Identity())
    for parameter in module.parameters():
        nn.init.constant_(parameter, 1 / max(1, parameter[0].numel()))
    return module.double()


@pytest.mark.soak
@pytest.mark.parametrize(("name", "size", "layer"), FAMILIES[: soak(-3, len(FAMILIES))])
def test_walk_agrees_with_the_gradient_footprint(name, size, layer, monkeypatch):
    """The pixels with a gradient are those that the walk names, at a corner and in the middle."""
    module = transparent(build(name))
    monkeypatch.setattr(torch.nn.functional, "relu", lambda x, inplace=False: x)
    monkeypatch.setattr(torch.nn.functional, "max_pool2d", average_like_max)
    (found,) = walk(module, (size, size), [layer])
    assert not found.is_global
    for cell in ((0, 0), (found.grid[0] // 2, found.grid[1] // 2 + 1)):
        first_row, last_row, first_column, last_column = gradient_footprint(module, (size, size), found, cell)
        for axis, (low, high) in enumerate(((first_row, last_row), (first_column, last_column))):
            centre = found.centres(axis)[cell[axis]]
            assert low == max(0, centre - found.field[axis] / 2)
            end = centre + found.field[axis] / 2
            # at the far edge the last window of a strided layer may end a few pixels before the picture does
            assert high == end if end < size - 8 else size - 8 < high <= size


def average_like_max(x, kernel_size, stride=None, padding=0, *_, ceil_mode=False, **__):
    return torch.nn.functional.avg_pool2d(x, kernel_size, stride or kernel_size, padding, ceil_mode)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_small", "regnet_y_400mf"])
def test_squeeze_and_excitation_is_left_out_and_flagged(name):
    layers = walk(build(name), (224, 224))
    last = [layer for layer in layers if layer.grid == (7, 7)][-1]
    assert last.is_global
    assert last.jump == (32, 32)


def test_transformer_tokens_are_a_grid():
    (tokens,) = walk(build("vit_b_16"), (224, 224), ["encoder.layers.encoder_layer_3"])
    assert (tokens.grid, tokens.start, tokens.jump, tokens.offset) == ((14, 14), (8.0, 8.0), (16.0, 16.0), 1)
    assert tokens.is_global
    output = torch.arange(2 * 197 * 768).reshape(2, 197, 768).float()
    maps = tokens.as_maps(output)
    assert maps.shape == (2, 768, 14, 14)
    assert torch.equal(maps[1, :, 3, 5], output[1, 1 + 3 * 14 + 5])


def test_swin_maps_with_channels_last():
    (last,) = walk(build("swin_t"), (224, 224), ["features.7"])
    assert (last.grid, last.jump, last.units) == ((7, 7), (32.0, 32.0), 768)
    assert last.as_maps(torch.zeros(1, 7, 7, 768)).shape == (1, 768, 7, 7)


def test_rows_and_columns_are_walked_apart():
    module = nn.Sequential(nn.Conv2d(3, 2, (5, 3), stride=(2, 1), padding=(0, 1), dilation=(1, 2)))
    (found,) = walk(module.eval(), (33, 20), ["0"])
    assert (found.start, found.jump, found.field) == ((2.5, 1.5), (2, 1), (5, 5))


class Disagreeing(nn.Module):
    def __init__(self):
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(3, 4, 1)
        self.after = nn.Identity()

    def forward(self, x):
        return self.after(self.narrow(x) + self.wide(x)[..., :8, :8])


def test_branches_that_disagree_on_the_stride_are_an_error():
    with pytest.raises(InputError, match="share no grid: strides 2 and 1"):
        walk(Disagreeing().eval(), (16, 16), ["after"])


def test_layers_without_a_map_are_named_all_at_once():
    with pytest.raises(InputError) as caught:
        walk(build("alexnet"), (224, 224), ["avgpool", "classifier.1", "classifier.6"])
    assert len(caught.value.faults) == 2
    assert "classifier.1" in caught.value.faults[0]


def test_a_layer_that_runs_twice_is_an_error():
    shared = nn.ReLU()
    module = nn.Sequential(nn.Conv2d(3, 2, 1), shared, nn.Conv2d(2, 2, 1), shared)
    with pytest.raises(InputError, match="once"):
        walk(module.eval(), (8, 8), ["1"])


def test_the_network_is_left_as_found():
    module = build("resnet18")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    walk(module, (64, 64))
    assert not any(sub._forward_hooks for sub in module.modules())
    assert not module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_cells_field_is_a_box_cut_to_the_picture():
    layer = LayerGeometry("x", 1, (3, 4), (8.0, 10.0), (16.0, 20.0), (11.0, 30.0), False)
    assert layer.field_box(0, (48, 80)) == (0, 2, 25, 14)  # rows 2.5 .. 13.5, columns -5 .. 25
    assert layer.field_box(7, (48, 80)) == (55, 18, 80, 30)  # row 1, column 3: rows 18.5 .. 29.5, columns 55 .. 85


@pytest.mark.parametrize("seed", range(3))
def test_pictures_are_normalised_in_one_way_to_the_bit(seed):
    """What numpy and torch each made of a picture, where it was written out."""
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    got = Normalisation(mean, std)(pixels)
    m, s = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    plain = ((pixels.astype(np.float32) / np.float32(255)).transpose(2, 0, 1) - m) / s
    assert got.tobytes() == plain.tobytes()
    assert got.strides == plain.strides  # convolutions round by the layout
    unit = torch.from_numpy(np.ascontiguousarray((pixels.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)))
    tensor = (unit - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert got.tobytes() == tensor.numpy().tobytes()
    assert got.tobytes() == Scaled(torch.nn.Identity(), mean, std)(unit).numpy().tobytes()
    place = np.full((3, 9, 7), np.nan, np.float32)
    assert Normalisation(mean, std)(pixels, place) is place
    assert place.tobytes() == got.tobytes()
    assert got[1, 2, 3] == pytest.approx((pixels[2, 3, 1] / 255 - 0.456) / 0.224, rel=1e-5)


def test_what_only_a_pattern_names_may_give_no_map():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    layers, left_out = walk_matching(module, (16, 16), ["*"])
    assert ([layer.name for layer in layers], left_out) == (["0", "1"], ["2", "3", "4"])
    assert walk_matching(module, (16, 16), ["1"])[1] == []
    with pytest.raises(InputError, match=r"network\.layers: 4: it comes after pooling"):
        walk_matching(module, (16, 16), ["*", "4"])
    with pytest.raises(InputError) as caught:
        walk_matching(module, (16, 16), ["[34]"])
    assert len(caught.value.faults) == 2
