"""Backward rules, saliency, ascent, features, reliability, occlusion, attacks: literal rules, captum, planted truth."""

import contextlib
import copy
import hashlib
import itertools
import types
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision.models
from torch import nn
from torch.nn import functional
from torchvision.models.swin_transformer import SwinTransformer

from microtome.errors import InputError
from microtome.visualize.adversarial import Attack, attack, fgsm, moved, noise, same_size_noise, strongest_kept
from microtome.visualize.ascent import ascend
from microtome.visualize.attribution import (
    Target,
    answer_of,
    attribute,
    contrast,
    on_grey,
    over_channels,
    saliency,
    scaled,
)
from microtome.visualize.features import FeatureRecipe, diverse, high_frequency_share, visualise
from microtome.visualize.methods import integrated_gradients, methods, notes, rise, smoothgrad
from microtome.visualize.names import REDRAWN, REMOVALS
from microtome.visualize.occlusion import (
    Occluder,
    discrepancy,
    kept_at_random,
    minimal_image,
    receptive_field,
    superpixels,
)
from microtome.visualize.reliability import (
    Invariance,
    Limits,
    dithered,
    edges,
    exactly_shifted,
    invariance,
    joined_invariance,
    layer_label,
    parameter_layers,
    randomised,
    redrawn,
    shifted_twin,
    shifts,
    similarity,
    spread_evenly,
    ssim,
)
from microtome.visualize.rules import RULES, BackwardRule, UnsupportedActivation
from tests.conftest import soak


class Chain(nn.Module):
    """Convolutions and pools whose ReLUs are written in a way of choice."""

    def __init__(self, way: str = "module", pool: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.last = nn.Linear(5, 3)
        self.relu = nn.ReLU(inplace="inplace" in way)
        self.way, self.pool = way, pool

    def rectified(self, x):
        if self.way in ("module", "module inplace"):
            return self.relu(x)
        if self.way == "method_":
            x.relu_()
            return x
        ways = {"functional": functional.relu, "torch": torch.relu, "method": torch.Tensor.relu, "torch_": torch.relu_}
        return ways[self.way](x)

    def forward(self, x):
        x = functional.max_pool2d(self.rectified(self.one(x)), self.pool, stride=2)
        return self.last(self.rectified(self.two(x)).mean((2, 3)))


def literal(network: Chain, x: torch.Tensor, classes: torch.Tensor, method: str, dead: str = "drop") -> torch.Tensor:
    """Each rule written out, layer by layer, for Chain."""

    def relu(signal, f):
        if method == "gradient":
            return signal * (f > 0)
        if method == "deconvolution":
            return signal.clamp(min=0)
        return signal.clamp(min=0) * (f > 0)

    f1 = network.one(x)
    r1 = f1.clamp(min=0)
    p = functional.max_pool2d(r1, network.pool, stride=2)
    f2 = network.two(p)
    signal = network.last.weight[classes][:, :, None, None].expand_as(f2) / (f2.shape[2] * f2.shape[3])
    signal = functional.conv_transpose2d(relu(signal, f2), network.two.weight, padding=1)
    below = torch.zeros_like(r1)
    images, channels, rows, columns = signal.shape
    for n in range(images):
        for c in range(channels):
            for i in range(rows):
                for j in range(columns):
                    window = r1[n, c, 2 * i : 2 * i + network.pool, 2 * j : 2 * j + network.pool]
                    if method == "deconvolution" and dead == "drop" and not window.any():
                        continue
                    at = divmod(int(window.flatten().argmax()), window.shape[1])
                    below[n, c, 2 * i + at[0], 2 * j + at[1]] += signal[n, c, i, j]
    return functional.conv_transpose2d(relu(below, f1), network.one.weight, padding=1)


PICTURES = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CLASSES = torch.tensor([0, 2, 1])
WAYS = ("module", "module inplace", "functional", "torch", "torch_", "method", "method_")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("pool", [2, 3])
def test_rules_equal_the_literal_ones_however_a_relu_is_written(way, method, pool):
    network = Chain(way, pool).double()
    got = attribute(network, PICTURES, Target(CLASSES), method=method)
    with torch.no_grad():
        wanted = literal(network, PICTURES, CLASSES, method)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


SLOPED = {  # a unit, and its slope at f
    "relu6": (nn.ReLU6(), lambda f: ((f > 0) & (f < 6)).double()),
    "relu6 inplace": (nn.ReLU6(inplace=True), lambda f: ((f > 0) & (f < 6)).double()),
    "functional relu6": (functional.relu6, lambda f: ((f > 0) & (f < 6)).double()),
    "hardtanh": (nn.Hardtanh(0, 1), lambda f: ((f > 0) & (f < 1)).double()),
    "hardtanh by name": (lambda x: functional.hardtanh(x, min_val=0.0, max_val=2.0), lambda f: (f > 0) * (f < 2.0)),
    "leaky": (nn.LeakyReLU(0.3), lambda f: 0.3 + 0.7 * (f > 0).double()),
    "leaky inplace": (nn.LeakyReLU(0.3, inplace=True), lambda f: 0.3 + 0.7 * (f > 0).double()),
    "leaky_": (lambda x: functional.leaky_relu_(x, 0.3), lambda f: 0.3 + 0.7 * (f > 0).double()),
    "prelu": (nn.PReLU(init=0.25).double(), lambda f: 0.25 + 0.75 * (f > 0).double()),
    "rrelu": (nn.RReLU(0.1, 0.3).eval(), lambda f: 0.2 + 0.8 * (f > 0).double()),
    "threshold": (nn.Threshold(0.5, 0.0), lambda f: (f > 0.5).double()),
}


class Sloped(nn.Module):
    """Two convolutions with a unit of choice behind each, and a residual sum, written in place where torch can."""

    def __init__(self, unit, written: bool) -> None:
        super().__init__()
        self.written = written
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.unit = nn.Linear(4, 3), unit

    def forward(self, x):
        first = self.unit(6 * self.one(x))
        second = self.unit(6 * self.two(first))
        if self.written:
            second += 0.5 * first
        else:
            second = second + 0.5 * first
        return self.last(second.mean((2, 3)))


def literal_sloped(network: Sloped, slope, x: torch.Tensor, method: str) -> torch.Tensor:
    def below(signal, f):
        if method == "gradient":
            return signal * slope(f)
        return signal.clamp(min=0) * (slope(f) if method == "guided" else 1)

    unit = network.unit
    f1 = 6 * network.one(x)
    r1 = unit(f1.clone())
    f2 = 6 * network.two(r1)
    assert (f1 > 6).any()
    assert (f2 < 0).any()
    top = network.last.weight[CLASSES][:, :, None, None].expand_as(f2) / (f2.shape[2] * f2.shape[3])
    middle = functional.conv_transpose2d(6 * below(top, f2), network.two.weight, padding=1) + 0.5 * top
    return functional.conv_transpose2d(6 * below(middle, f1), network.one.weight, padding=1)


@pytest.mark.parametrize("unit", SLOPED)
@pytest.mark.parametrize("method", RULES)
def test_rules_of_other_rectifiers_equal_the_literal_ones(unit, method):
    called, slope = SLOPED[unit]
    network = Sloped(called, written=unit not in ("leaky inplace", "leaky_")).double()
    pictures = 4 * PICTURES
    got = attribute(network, pictures, Target(CLASSES), method=method)
    with torch.no_grad():
        wanted = literal_sloped(network, slope, pictures, method)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    others = [attribute(network, pictures, Target(CLASSES), method=rule) for rule in RULES if rule != method]
    assert not any(torch.allclose(got, other) for other in others)


class Mixed(nn.Module):
    """A ReLU, and a unit of choice after it."""

    def __init__(self, unit) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.unit, self.last = nn.Conv2d(3, 4, 3), unit, nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.unit(functional.relu(self.one(x))).mean((2, 3)))


@pytest.mark.parametrize("unit", [nn.Hardswish(), nn.GELU(), nn.SiLU(), nn.Hardtanh(), nn.ELU(), torch.tanh, nn.Mish()])
def test_networks_that_mix_are_refused_by_name(unit):
    network = Mixed(unit).double()
    name = getattr(unit, "__name__", type(unit).__name__).lower()
    for method in ("guided", "deconvolution"):
        with pytest.raises(UnsupportedActivation, match=rf"got {name} \(1 call\) beside relu \(1 call\) in Mixed"):
            attribute(network, PICTURES, Target(0), method=method)
    assert attribute(network, PICTURES, Target(0)).abs().max() > 0


def test_gates_are_counted_and_pass_the_ordinary_gradient():
    gated = Mixed(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))).double()
    rule = BackwardRule("guided")
    with rule:
        gated(PICTURES)
    rule.check(gated)
    assert (dict(rule.rectifiers), dict(rule.gates), dict(rule.bent)) == ({"relu": 1}, {"sigmoid": 1}, {})


def test_float32_is_close_to_float64():
    for method in RULES:
        got = attribute(Chain(), PICTURES.float(), Target(CLASSES), method=method)
        wanted = attribute(Chain().double(), PICTURES, Target(CLASSES), method=method)
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-6)


def test_dead_windows_and_overwriting():
    network = Chain().double()
    with torch.no_grad():
        network.one.bias -= 0.4  # windows that are zero everywhere
    first = attribute(network, PICTURES, Target(CLASSES), method="deconvolution", dead_windows="first")
    with torch.no_grad():
        torch.testing.assert_close(first, literal(network, PICTURES, CLASSES, "deconvolution", "first"))
    drop = attribute(network, PICTURES, Target(CLASSES), method="deconvolution")
    spread = attribute(network, PICTURES, Target(CLASSES), method="deconvolution", dead_windows="spread")
    assert not torch.allclose(first, drop)
    assert not torch.allclose(first, spread)
    overlap = Chain(pool=3).double()
    added = attribute(overlap, PICTURES, Target(CLASSES), method="deconvolution")
    lost = attribute(overlap, PICTURES, Target(CLASSES), method="deconvolution", unpool="overwrite")
    assert not torch.allclose(added, lost)


FAMILIES = ("alexnet", "vgg11_bn", "resnet18", "squeezenet1_0", "densenet121", "googlenet", "inception_v3",
            "shufflenet_v2_x0_5", "mnasnet0_5", "regnet_x_400mf", "mobilenet_v2")  # fmt: skip
LARGE = ("vgg11", "resnext50_32x4d", "wide_resnet50_2")  # of kinds that others have
OTHER_ACTIVATIONS = ("mobilenet_v3_small", "efficientnet_b0", "convnext_tiny")


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    more = (
        {"init_weights": False, "aux_logits": name == "inception_v3"} if name in ("googlenet", "inception_v3") else {}
    )
    return getattr(torchvision.models, name)(weights=None, **more)


@pytest.mark.soak
@pytest.mark.parametrize("name", [*FAMILIES, "regnet_y_400mf", *OTHER_ACTIVATIONS, *LARGE[: soak(0, 3)]])
def test_networks_are_left_as_found(name):
    network = built(name).train()
    hooks = sum(len(module._forward_hooks) + len(module._backward_hooks) for module in network.modules())
    relus = [id(module) for module in network.modules() if isinstance(module, nn.ReLU)]
    state = copy.deepcopy(network.state_dict())
    side = 96 if name != "inception_v3" else 128
    for method in RULES:
        pictures = torch.rand(2, 3, side, side)
        if name in OTHER_ACTIVATIONS and method != "gradient":
            with contextlib.suppress(UnsupportedActivation):  # refused by name; MobileNet v3 has ReLUs among others
                attribute(network, pictures, Target(3), method=method)
        maps = attribute(network, pictures, Target(3), method=method, allow_gradient_fallback=True)
        assert maps.abs().max() > 0
    assert hooks == sum(len(module._forward_hooks) + len(module._backward_hooks) for module in network.modules())
    assert relus == [id(module) for module in network.modules() if isinstance(module, nn.ReLU)]
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(value.grad is None and value.requires_grad for value in network.parameters())


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "squeezenet1_0"])
def test_captum_agrees_where_it_is_exact(name):
    attr = pytest.importorskip("captum.attr")
    network, pictures, classes = built(name).eval(), torch.rand(2, 3, 96, 96), torch.tensor([1, 7])
    guided = attribute(network, pictures, Target(classes), method="guided")
    deconvolution = attribute(network, pictures, Target(classes), method="deconvolution", dead_windows="first")
    plain = attribute(network, pictures, Target(classes))
    given = pictures.clone().requires_grad_()
    torch.testing.assert_close(guided, attr.GuidedBackprop(network).attribute(given, classes), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        deconvolution, attr.Deconvolution(network).attribute(given, classes), rtol=1e-4, atol=1e-7
    )
    torch.testing.assert_close(plain, attr.Saliency(network).attribute(given, classes, abs=False), rtol=1e-4, atol=1e-7)


def with_own_relus(network: nn.Module) -> nn.Module:
    """A ResNet whose blocks call a ReLU module of their own each time: captum cannot tell two calls of one apart."""

    def forward(block, x):
        out = block.relu(block.bn1(block.conv1(x)))
        out = block.bn2(block.conv2(out))
        return block.second_relu(out + (x if block.downsample is None else block.downsample(x)))

    for block in network.modules():
        if isinstance(block, torchvision.models.resnet.BasicBlock):
            block.second_relu = nn.ReLU()
            block.forward = types.MethodType(forward, block)
    return network


def test_captum_agrees_on_resnet18_whose_relus_are_not_shared():
    attr = pytest.importorskip("captum.attr")
    network, pictures, classes = built("resnet18").eval(), torch.rand(2, 3, 96, 96), torch.tensor([1, 7])
    guided = attribute(network, pictures, Target(classes), method="guided")
    deconvolution = attribute(network, pictures, Target(classes), method="deconvolution", dead_windows="first")
    given, own = pictures.clone().requires_grad_(), with_own_relus(copy.deepcopy(network))
    torch.testing.assert_close(guided, attr.GuidedBackprop(own).attribute(given, classes), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(deconvolution, attr.Deconvolution(own).attribute(given, classes), rtol=1e-4, atol=1e-7)


class RuledReLU(torch.autograd.Function):
    """A ReLU whose backward pass is written down: the reference for networks that call ReLU as a function."""

    @staticmethod
    def forward(ctx, x, guided):
        ctx.save_for_backward(x)
        ctx.guided = guided
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, signal):
        (x,) = ctx.saved_tensors
        return signal.clamp(min=0) * ((x > 0) if ctx.guided else 1), None


@pytest.mark.parametrize("method", ["guided", "deconvolution"])
@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "densenet121", "resnet18", "shufflenet_v2_x0_5"])
def test_exact_where_relus_are_functions_or_shared(name, method, monkeypatch):
    network = built(name).double().eval()
    side = 96 if name != "inception_v3" else 128
    pictures = torch.rand(1, 3, side, side, dtype=torch.float64)
    got = attribute(network, pictures, Target(5), method=method, dead_windows="first")
    plain = attribute(network, pictures, Target(5))
    guided = method == "guided"
    monkeypatch.setattr(functional, "relu", lambda x, inplace=False: RuledReLU.apply(x, guided))
    given = pictures.clone().requires_grad_()
    wanted = torch.autograd.grad(network(given)[0, 5], given)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
    assert functional.cosine_similarity(plain.flatten(), got.flatten(), dim=0) < 0.99


def test_networks_without_relus_are_refused_by_name():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 100, 3)).double()
    with pytest.raises(UnsupportedActivation, match=r"got silu \(1 call\) in Sequential"):
        attribute(network, PICTURES, Target(0), method="guided")
    plain = attribute(network, PICTURES, Target(0))
    told = attribute(network, PICTURES, Target(0), method="guided", allow_gradient_fallback=True)
    assert torch.equal(plain, told)


def test_targets():
    network = Chain().double()
    maps = answer_of(network, PICTURES, "two")
    assert Target(2, "two").score(maps).tolist() == maps[:, 2].flatten(1).amax(1).tolist()
    assert Target(2, "two", "sum").score(maps).tolist() == maps[:, 2].sum((1, 2)).tolist()
    assert Target(2, "two", (1, 3)).score(maps).tolist() == maps[:, 2, 1, 3].tolist()
    logits = network(PICTURES)
    assert Target().score(logits).tolist() == logits.amax(1).tolist()
    with pytest.raises(ValueError, match=r"units must lie in 0\.\.4, got \[5, 5, 5\]"):
        Target(5, "two").score(maps)
    with pytest.raises(ValueError, match="must be given"):
        Target(None, "two").score(maps)


def test_saliency_by_hand_and_batches_are_exact_per_sample():
    network = Chain().double()
    together = saliency(network, PICTURES, Target(CLASSES))
    for place in range(3):
        x = PICTURES[place : place + 1].clone().requires_grad_()
        slope = torch.autograd.grad(network(x)[0, CLASSES[place]], x)[0]
        torch.testing.assert_close(together[place], slope.abs().amax(1)[0], rtol=1e-12, atol=1e-15)
    maps = torch.tensor([3.0, -4.0, 0.0])[None, :, None, None]
    assert [float(over_channels(maps, name)) for name in ("max", "sum", "l2")] == [4.0, -1.0, 5.0]


def test_maps_are_by_pixels_in_0_1():
    network = Chain().double()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    by_pixel = attribute(scaled(network, mean, std).double(), PICTURES, Target(CLASSES))
    m, s = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std))
    torch.testing.assert_close(by_pixel, attribute(network, (PICTURES - m) / s, Target(CLASSES)) / s)


def test_ascent_climbs_and_its_weight_pulls_back():
    network = Chain()
    free = ascend(network, (16, 16), Target(1), weight=0.0, steps=60)
    held = ascend(network, (16, 16), Target(1), steps=60)
    assert free.scores[-1] > free.scores[0]
    assert held.weight > 0
    assert held.picture.norm() < free.picture.norm()
    assert torch.equal(
        ascend(network, (16, 16), Target(1), steps=5).picture, ascend(network, (16, 16), Target(1), steps=5).picture
    )
    zero = ascend(network, (16, 16), Target(1), init="zero", steps=1, weight=0.0)
    slope = attribute(network, torch.zeros(1, 3, 16, 16), Target(1))[0]
    torch.testing.assert_close(
        functional.cosine_similarity(zero.picture.flatten(), slope.flatten(), dim=0), torch.tensor(1.0)
    )


def test_a_unit_has_one_picture_whoever_shares_its_batch():
    network = scaled(Chain(), (0.5,) * 3, (0.25,) * 3)
    recipe = FeatureRecipe((24, 24), steps=12, batch=3)
    alone = visualise(network, "two", [2], recipe)[0]
    among = visualise(network, "two", [0, 2, 4, 1], recipe)[1]
    again = visualise(network, "two", [3, 3, 3, 2], recipe)[3]
    assert torch.equal(alone.picture, among.picture)
    assert torch.equal(alone.picture, again.picture)
    other = visualise(network, "two", [2], FeatureRecipe((24, 24), steps=12, batch=3, seed=1))[0]
    assert not torch.equal(alone.picture, other.picture)


@pytest.mark.parametrize("objective", ["channel", "neuron", "layer", "direction", "negative"])
def test_objectives_rise(objective):
    network = scaled(Chain(), (0.5,) * 3, (0.25,) * 3)
    start, end = (
        visualise(network, "two", [1], FeatureRecipe((24, 24), objective, steps=steps, batch=1, transforms=False))[0]
        for steps in (1, 60)
    )
    assert end.objective > start.objective
    assert 0 <= float(end.picture.min()) <= float(end.picture.max()) <= 1
    assert not end.unreached


def test_logits_dead_units_and_diversity():
    network = scaled(Chain(), (0.5,) * 3, (0.25,) * 3)
    assert visualise(network, None, [2], FeatureRecipe((24, 24), "logit", steps=20, batch=1))[0].objective > float(
        network(torch.full((1, 3, 24, 24), 0.5)).detach()[0, 2]
    )
    dead = Chain()
    with torch.no_grad():
        dead.one.weight[3], dead.one.bias[3] = 0, -1
    found = visualise(scaled(dead, (0.5,) * 3, (0.25,) * 3), "one", [3, 0], FeatureRecipe((24, 24), steps=30, batch=2))
    assert [item.unreached for item in found] == [True, False]
    assert np.ptp(found[0].picture) == 0
    pictures = diverse(network, "two", 1, FeatureRecipe((24, 24), steps=30), count=3)
    assert not torch.equal(pictures[0].picture, pictures[1].picture)


def test_high_frequencies():
    y, x = np.mgrid[:32, :32]
    fine = torch.from_numpy(np.stack([(x + y) % 2] * 3).astype(np.float32))
    coarse = torch.from_numpy(np.stack([np.sin(2 * np.pi * x / 32)] * 3).astype(np.float32))
    assert high_frequency_share(fine) == pytest.approx(1)
    assert high_frequency_share(coarse) == pytest.approx(0, abs=1e-12)
    assert high_frequency_share(torch.zeros(3, 8, 8)) == 0


def padded(bias: bool, padding: int) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=padding, stride=2, bias=bias), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    ).double().eval()  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_the_shifted_twin_is_the_same_function(bias, padding):
    network = padded(bias, padding)
    for shift in (torch.tensor([-1.0, 0.5, 2.0]).double(), torch.rand(3, 12, 12, dtype=torch.float64)):
        moved = PICTURES + (shift[:, None, None] if shift.ndim == 1 else shift)
        torch.testing.assert_close(shifted_twin(network, shift)(moved), network(PICTURES), rtol=1e-10, atol=1e-10)
    assert isinstance(network[0], nn.Conv2d)


class SamePadding(nn.Conv2d):
    """Pads by itself, as TensorFlow does."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Standardised(nn.Conv2d):
    """Makes its weights before it uses them, as networks without normalisation do."""

    def forward(self, x):
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)


@pytest.mark.parametrize(
    "first",
    [
        SamePadding(3, 6, 3, 2),
        Standardised(3, 6, 3, 2),
        nn.Conv2d(3, 6, 3, 1, "valid"),
        nn.Conv2d(3, 6, 3, 2, 1, padding_mode="reflect"),
        nn.Conv2d(3, 6, 3, groups=3),
    ],
    ids=["padded by itself", "standardised", "valid", "reflected", "grouped"],
)
def test_a_convolution_of_any_kind_has_a_shifted_twin(first):
    network = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).double().eval()
    for shift in (torch.tensor([-1.0, 0.5, 2.0]).double(), torch.rand(3, 12, 12, dtype=torch.float64)):
        moved = PICTURES + (shift[:, None, None] if shift.ndim == 1 else shift)
        torch.testing.assert_close(shifted_twin(network, shift)(moved), network(PICTURES), rtol=1e-10, atol=1e-10)


def test_invariance_passes_and_fails_as_expected():
    network, shift = padded(True, 1), torch.full((3,), -1.0, dtype=torch.float64)
    found = methods()
    for name in ("gradient", "deconvolution", "guided"):
        result = invariance(network, found[name], PICTURES, CLASSES, shift=shift)
        assert not result.void
        assert result.error.max() < 1e-10
    for name in ("input x gradient", "integrated gradients"):
        assert invariance(network, found[name], PICTURES, CLASSES, shift=shift).error.min() > 0.1
    moved = shift[None, :, None, None].expand(1, -1, 12, 12)
    first = integrated_gradients(network, PICTURES, CLASSES)
    restated = integrated_gradients(shifted_twin(network, shift), PICTURES + moved, CLASSES, moved)
    torch.testing.assert_close(first, restated, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_a_twin_behind_a_normalisation_undoes_shifts_of_the_pixels(bias):
    network = scaled(padded(bias, 1), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)).double()
    for shift in shifts((12, 12), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), seed=1).values():
        moved = PICTURES + (shift[:, None, None] if shift.ndim == 1 else shift)
        twin = shifted_twin(network, shift.double())
        torch.testing.assert_close(twin(moved.double()), network(PICTURES), rtol=1e-7, atol=1e-7)


def test_smoothgrad_is_the_literal_mean_with_noise_of_each_picture():
    network = padded(True, 1)
    pictures = PICTURES * torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)[:, None, None, None]
    together = smoothgrad(network, pictures, CLASSES, seed=3)
    for place, picture in enumerate(pictures):
        digest = hashlib.sha256((3).to_bytes(8, "big") + picture.numpy().tobytes()).digest()
        draw, slopes = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1), []
        for _ in range(16):
            sigma = 0.15 * (picture.max() - picture.min())
            x = (picture + sigma * torch.randn(picture.shape, generator=draw)).requires_grad_()
            slopes.append(torch.autograd.grad(network(x[None])[0, CLASSES[place]], x)[0])
        torch.testing.assert_close(together[place], sum(slopes) / 16, rtol=1e-10, atol=1e-14)
        alone = smoothgrad(network, pictures[place : place + 1], CLASSES[place : place + 1], seed=3)
        torch.testing.assert_close(alone[0], together[place], rtol=1e-10, atol=1e-14)
    # With next to no noise it is the gradient: noise follows each picture's own range.
    flat = torch.full_like(PICTURES, 0.3) + 1e-7 * PICTURES
    torch.testing.assert_close(
        smoothgrad(network, flat, CLASSES), attribute(network, flat, Target(CLASSES)), rtol=1e-4, atol=1e-6
    )
    given = smoothgrad(network, flat, CLASSES, pictures, seed=3)  # another picture's noise, on request
    assert not torch.allclose(given, attribute(network, flat, Target(CLASSES)), rtol=1e-2)
    assert not torch.allclose(together, smoothgrad(network, pictures, CLASSES, seed=4))


def test_integrated_gradients_are_captums_and_complete():
    attr = pytest.importorskip("captum.attr")
    network = padded(True, 1)
    for baseline in (None, torch.full_like(PICTURES[:1], 0.25)):
        got = integrated_gradients(network, PICTURES, CLASSES, baseline)
        start = torch.zeros_like(PICTURES) if baseline is None else baseline.expand_as(PICTURES)
        wanted = attr.IntegratedGradients(network).attribute(PICTURES, start, target=CLASSES, n_steps=32)
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-10)
        alone = integrated_gradients(network, PICTURES[1:2], CLASSES[1:2], baseline)
        torch.testing.assert_close(alone[0], got[1], rtol=1e-9, atol=1e-12)
        owed = (network(PICTURES) - network(start))[torch.arange(3), CLASSES].detach()
        torch.testing.assert_close(got.sum((1, 2, 3)), owed, rtol=0.02, atol=0.002)


class _Twice(nn.Module):
    """Looks at the picture in two places."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return (self.one(x) + self.other(x)).relu().mean((2, 3))


def test_float64_in_the_first_convolution_is_enough_for_input_invariance():
    torch.manual_seed(0)
    network = scaled(padded(True, 1).float(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    pictures, found = dithered(PICTURES.double(), 0), methods()
    exact, whole = exactly_shifted(network, pictures[:1].float()), copy.deepcopy(network).double()
    assert {value.dtype for value in exact.parameters()} == {torch.float32, torch.float64}
    drawn = shifts((12, 12), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), seed=1)
    for shift in (drawn["minus channel mean"], drawn["drawn image"]):
        for name in ("gradient", "guided", "smoothgrad", "input x gradient", "integrated gradients"):
            own = found[name](exact, pictures, CLASSES, pictures)
            got = invariance(exact, found[name], pictures, CLASSES, shift=shift.double(), own=own)
            wanted = invariance(whole, found[name], pictures, CLASSES, shift=shift.double())
            assert not got.void
            np.testing.assert_allclose(got.error, wanted.error, rtol=1e-5, atol=1e-8)
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_a_network_that_looks_at_the_picture_twice_is_float64_as_a_whole():
    exact = exactly_shifted(_Twice(), PICTURES[:1].float())
    assert {value.dtype for value in exact.parameters()} == {torch.float64}
    exact(PICTURES.double())


def test_smoothgrad_passes_input_invariance_under_shifts_that_differ_between_channels():
    network = padded(True, 1)
    for shift in (torch.tensor([-1.0, 0.5, 2.0]).double(), torch.rand(3, 12, 12, dtype=torch.float64) * 3):
        result = invariance(network, methods()["smoothgrad"], PICTURES, CLASSES, shift=shift)
        assert not result.void
        assert result.error.max() < 1e-9


class Corner(nn.Module):
    """Sees the mean of the upper left corner alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(5.0))

    def forward(self, x):
        seen = self.weight * x[:, :, :6, :6].mean((1, 2, 3))
        return torch.stack([seen, torch.zeros_like(seen)], 1)


def test_rise_finds_what_the_network_sees_and_equals_the_literal_sum():
    pictures, classes = torch.full((2, 3, 24, 24), 0.8), torch.tensor([0, 1])
    found = rise(Corner(), pictures, classes, masks=400)
    assert found.shape == (2, 1, 24, 24)
    inside, outside = found[0, 0, :6, :6].mean(), found[0, 0, 12:, 12:].mean()
    assert inside > 5 * outside.abs()
    torch.testing.assert_close(found[1], -found[0], rtol=1e-4, atol=1e-6)  # the other class of two
    alone = rise(Corner(), pictures[:1], classes[:1], masks=400)
    torch.testing.assert_close(alone[0], found[0])
    from microtome.visualize.methods import _masks

    masks = torch.cat(list(_masks((24, 24), 60, 2)))
    assert masks.shape == (60, 1, 24, 24)
    assert 0 <= masks.min() < masks.max() <= 1
    assert masks.mean() == pytest.approx(0.5, abs=0.05)
    got = rise(Corner(), pictures[:1], classes[:1], seed=2, masks=60)
    with torch.no_grad():
        chance = [float(Corner()(pictures[:1] * mask).softmax(1)[0, 0]) for mask in masks]
    wanted = sum((p - sum(chance) / 60) * mask for p, mask in zip(chance, masks, strict=True)) / (60 * 0.5)
    torch.testing.assert_close(got[0], wanted, rtol=1e-3, atol=1e-6)


def test_methods_that_a_network_cannot_have_are_named():
    bent = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    found = {note.method: note for note in notes(bent, (12, 12), tuple(methods()))}
    assert {name for name, note in found.items() if not note.drawn} == {"deconvolution", "guided"}
    assert "gelu (1 call)" in found["guided"].note
    assert found["grad-cam"].note == "1: 4 units on 10 × 10 cells"
    assert notes(bent, (12, 12), ["grad-cam"], cam="0")[0].note.startswith("0: 4 units")
    with pytest.raises(InputError, match=r"methods: at least one must suit Sequential, got none: guided: .*gelu"):
        notes(bent, (12, 12), ["guided"])
    with pytest.raises(InputError, match=r"cam_layer: nowhere: never runs"):
        notes(bent, (12, 12), ["gradient", "grad-cam"], cam="nowhere")
    gated = Mixed(lambda x: x * torch.sigmoid(x))
    assert notes(gated, (12, 12), ["guided"])[0].note == "relu (1 call) by its rule; left plain: sigmoid (1 call)"
    blind = nn.Sequential(nn.Flatten(), nn.Linear(432, 2)).eval()
    assert not notes(blind, (12, 12), ["gradient", "grad-cam"])[1].drawn


def test_similarity_and_its_parts():
    one = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    same = similarity(one, one)
    np.testing.assert_allclose([same.cosine, same.spearman, same.ssim], 1, rtol=1e-9)
    flipped = similarity(one, -one)
    np.testing.assert_allclose(flipped.cosine, -1)
    np.testing.assert_allclose(flipped.spearman, 1)
    none = similarity(one, torch.zeros_like(one))
    assert abs(none.cosine).max() == 0
    other = one.roll(3, 3)
    other[0, 0, :5] = 0.0  # equal values share a rank
    got = similarity(one, other)
    for place in range(2):
        wanted = scipy.stats.spearmanr(*(m[place].abs().sum(0).flatten() for m in (one, other))).statistic
        assert got.spearman[place] == pytest.approx(wanted, rel=1e-9)


def test_maps_that_are_nowhere_negative_are_compared_about_their_means():
    draw = torch.Generator().manual_seed(0)
    one, other = torch.rand(2, 40, 1, 30, 30, generator=draw, dtype=torch.float64)
    assert functional.cosine_similarity(one.flatten(1), other.flatten(1)).min() > 0.7  # whatever they show
    found = similarity(one, other).cosine
    assert abs(found.mean()) < 0.01
    for place in range(3):
        wanted = np.corrcoef(one[place].flatten(), other[place].flatten())[0, 1]
        assert found[place] == pytest.approx(wanted, rel=1e-9)
    signed = one - 0.7  # as it is
    wanted = functional.cosine_similarity(signed.flatten(1), (2 * signed).flatten(1))
    np.testing.assert_allclose(similarity(signed, 2 * signed).cosine, wanted)
    apart = similarity(one, -one).cosine
    plain = functional.cosine_similarity((one - one.mean((1, 2, 3), keepdim=True)).flatten(1), -one.flatten(1))
    np.testing.assert_allclose(apart, plain)


def literal_ssim(one, other):
    """Wang et al. 2004 with Gaussian windows that lie in the map as a whole, window by window."""
    one, other = one / one.max(), other / other.max()
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.outer(bell, bell) / bell.sum() ** 2
    values = []
    for row in range(one.shape[0] - 10):
        for column in range(one.shape[1] - 10):
            a, b = (m[row : row + 11, column : column + 11] for m in (one, other))
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * a * a).sum() - ma**2, (weight * b * b).sum() - mb**2
            ab = (weight * a * b).sum() - ma * mb
            luminance = (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
            values.append(luminance * (2 * ab + 0.03**2) / (va + vb + 0.03**2))
    return np.mean(values)


@pytest.mark.parametrize("size", [(11, 11), (15, 23)])
def test_ssim_is_the_literal_one(size):
    one, other = np.random.default_rng(0).random((2, 3, *size))
    other = 0.5 * one + 0.5 * other
    for got, a, b in zip(ssim(one, other), one, other, strict=True):
        assert got == pytest.approx(literal_ssim(a, b), abs=1e-12)
    assert ssim(one, np.zeros_like(one)) == pytest.approx([0, 0, 0], abs=0.05)


def test_randomisation_is_seeded_cascades_and_spares_the_network():
    network = padded(True, 1)
    before = copy.deepcopy(network.state_dict())
    order = parameter_layers(network)[::-1]
    assert order == ["6", "2", "0"]
    steps = [(name, copy.deepcopy(changed.state_dict())) for name, changed in randomised(network, order, 3)]
    again = [copy.deepcopy(changed.state_dict()) for _, changed in randomised(network, order, 3)]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(torch.equal(value, again[1][key]) for key, value in steps[1][1].items())
    assert torch.equal(steps[0][1]["0.weight"], before["0.weight"])
    assert not torch.equal(steps[0][1]["6.weight"], before["6.weight"])
    assert torch.equal(steps[1][1]["6.weight"], steps[0][1]["6.weight"])


def test_a_layer_is_drawn_anew_several_times_each_otherwise_and_alone():
    network = padded(True, 1)
    before = copy.deepcopy(network.state_dict())
    drawn = [copy.deepcopy(changed.state_dict()) for changed in redrawn(network, "6", 3)]
    _, cascade = next(randomised(network, ["6", "2"], 3))
    assert len(drawn) == REDRAWN
    assert all(torch.equal(drawn[0][key], value) for key, value in cascade.state_dict().items())
    assert len({float(state["6.weight"].sum()) for state in drawn}) == REDRAWN
    for state in drawn:
        assert all(torch.equal(value, before[key]) for key, value in state.items() if not key.startswith("6."))


class Token(nn.Module):
    """Parameters of its own, beside modules of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 3))
        self.one, self.norm, self.attention = nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.MultiheadAttention(4, 2)
        self.unit, self.batch, self.last = nn.PReLU(), nn.BatchNorm2d(4), nn.Linear(4, 2)


@pytest.mark.parametrize("make", [Token, torchvision.models.vision_transformer.VisionTransformer, SwinTransformer])
def test_every_parameter_belongs_to_a_step_of_randomisation(make):
    size = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
    swin = {"patch_size": [4, 4], "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": [4, 4]}
    network = make(**{Token: {}, SwinTransformer: swin}.get(make, size))
    for value in network.parameters():
        nn.init.normal_(value, 0.7, 0.2)
    before = copy.deepcopy(network.state_dict())
    order = parameter_layers(network)
    *_, (_, changed) = randomised(network, order[::-1], 0)
    kept = [name for name, value in changed.named_parameters() if torch.equal(value, before[name])]
    assert not kept
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())
    owned = [f"{layer}.{name}".lstrip(".") for layer in order for name, _ in
             network.get_submodule(layer).named_parameters(recurse=False)]  # fmt: skip
    assert sorted(owned) == sorted(name for name, _ in network.named_parameters())


def test_a_network_s_own_parameters_are_called_by_their_names():
    assert parameter_layers(Token())[0] == ""
    assert layer_label(Token(), "") == "token"
    assert layer_label(Token(), "one") == "one"


def test_edges():
    assert edges(PICTURES).shape == (3, 1, 12, 12)
    assert edges(torch.ones(1, 3, 6, 6)).abs().max() == 0


@pytest.mark.parametrize("where", [(0, 0), (3, 2), (5, 5)])
def test_the_network_is_asked_only_where_the_occluder_touches_the_field(where):
    """Against covering every place of the picture by hand, at a corner, within, and at the far edge."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).double()
    for convolution in (network[0], network[2]):
        convolution.weight.data.abs_()  # bright pixels light the cells above them
    picture = torch.rand(3, 12, 12, dtype=torch.float64)
    picture[:, 2 * where[0], 2 * where[1]] = 90
    asked = []
    handle = network.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    occluder = Occluder(3, 1, seed=4)
    heat, cell = discrepancy(network, "2", 1, picture, occluder=occluder)
    handle.remove()
    assert max(abs(at - there) for at, there in zip(cell, where, strict=True)) <= 1
    draw = torch.Generator().manual_seed(4)
    patch = torch.rand(3, 3, 3, generator=draw).double() * (picture.max() - picture.min()) + picture.min()
    for row in range(12):
        for column in range(12):
            covered = picture.clone()
            for y, x in itertools.product(range(3), repeat=2):
                if 0 <= row + y - 1 < 12 and 0 <= column + x - 1 < 12:
                    inner = (y - max(0, 1 - row), x - max(0, 1 - column))  # the patch begins at the edge that cuts it
                    covered[:, row + y - 1, column + x - 1] = patch[:, inner[0], inner[1]]
            with torch.no_grad():
                lost = network(picture[None])[0, 1][cell] - network(covered[None])[0, 1][cell]
            assert heat[row, column] == pytest.approx(float(lost), abs=1e-9)
    assert sum(asked) < 14 * 14


@pytest.mark.parametrize(("kernel", "width"), [(3, 1), (5, 1), (5, 4), (7, 3)])
def test_a_convolution_has_the_field_of_its_kernel(kernel, width):
    network = nn.Conv2d(3, 2, kernel, bias=False)
    nn.init.constant_(network.weight, 1.0)
    picture = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0)) + 0.5
    picture[:, 9:16, 9:16] += 3.0  # so that the highest cell is not at the edge
    whole = nn.Sequential(network)
    heat, cell = discrepancy(whole, "0", 1, picture, occluder=Occluder(width, 1, mean=True))
    centre = tuple(at + kernel / 2 for at in cell)
    field = receptive_field([np.abs(heat)], [centre], occluder=Occluder(width, 1), threshold=1e-4)
    assert field.size == (kernel, kernel)
    assert (field.images, field.whole) == (1, 1)


def test_a_cell_beyond_the_picture_counts_as_its_nearest_pixel():
    """Padded grids have cells whose centres lie outside."""
    heat = np.zeros((8, 6))
    heat[0, 5] = 1
    inside, beyond = (
        receptive_field([heat], [centre], occluder=Occluder(1, 1)) for centre in ((0.5, 5.5), (-7.5, 13.5))
    )
    np.testing.assert_array_equal(inside.heat, beyond.heat)
    assert beyond.size == (1, 1)
    assert (inside.whole, beyond.whole) == (0, 0)


def test_a_field_is_whole_where_it_ends_before_the_picture_does():
    """What stands out is cut by an edge of three pictures, each another; of the fourth it is not."""
    field = np.zeros((60, 60))
    field[20:31, 22:33] = 1.0  # about (25.5, 27.5)
    cut = [field[24:, :], field[:, 27:], field[:29, :], field]
    shift = [(24, 0), (0, 27), (0, 0), (0, 0)]
    maps = [np.pad(item, [(0, 60 - item.shape[0]), (0, 60 - item.shape[1])], constant_values=np.nan) for item in cut]
    centres = [(25.5 - row, 27.5 - column) for row, column in shift]
    own = [
        receptive_field([heat], [centre], occluder=Occluder(1, 1)) for heat, centre in zip(maps, centres, strict=True)
    ]
    assert [found.whole for found in own] == [0, 0, 1, 1]  # NaN beyond the lower edge is no picture's edge
    together = receptive_field(maps, centres, occluder=Occluder(1, 1))
    assert (together.size, together.images) == ((11, 11), 4)
    assert together.whole == 2


def test_a_class_decided_by_one_patch_has_it_as_its_minimal_image():
    class Patch(nn.Module):
        def forward(self, x):
            seen = x[:, 0, 4:8, 4:8].mean((1, 2)) * 10
            return torch.stack([seen, torch.full_like(seen, 3.0)], 1)

    picture = torch.zeros(3, 12, 12)
    picture[0, 4:8, 4:8] = 1.0
    y, x = np.mgrid[:12, :12] // 4
    found = minimal_image(Patch(), picture, (y * 3 + x).astype(np.int64))
    assert np.flatnonzero(found.kept).tolist() == [4]
    assert len(found.order) == 8
    assert found.scores[0] == found.scores[-1] == pytest.approx(10)
    assert found.predicted == 0
    kept = kept_at_random(Patch(), picture, (y * 3 + x).astype(np.int64), found, seed=0)
    assert kept.shape == (REMOVALS,)
    assert kept.mean() == pytest.approx(1 / 9, abs=0.1)  # one segment of nine is left, and the mean is too dark
    nothing = replace(found, order=[])
    assert kept_at_random(Patch(), picture, (y * 3 + x).astype(np.int64), nothing, seed=0).all()
    smooth = np.stack([x, y, x + y], 2).astype(np.float32)[..., :3].repeat(4, 0).repeat(4, 1) / 4
    assert superpixels(smooth, 9).max() >= 4


def test_attacks_stay_in_their_ball_and_raise_the_loss():
    network, pictures = padded(True, 1), PICTURES
    before = functional.cross_entropy(network(pictures), CLASSES)
    for how in (fgsm(8 / 255), Attack(8 / 255, steps=10), Attack(8 / 255, "l2", steps=10)):
        changed = attack(network, pictures, CLASSES, how)
        assert 0 <= changed.min() <= changed.max() <= 1
        moved = changed - pictures
        size = moved.abs().amax() if how.norm == "linf" else moved.flatten(1).square().mean(1).sqrt().max()
        assert size <= how.eps + 1e-12
        assert functional.cross_entropy(network(changed), CLASSES) > before
        control = same_size_noise(pictures, changed)
        assert ((control - pictures).abs() <= moved.abs() + 1e-12).all()
    wanted = attack(network, pictures, CLASSES, Attack(8 / 255, steps=10, targeted=True))
    assert functional.cross_entropy(network(wanted), CLASSES) < before
    assert torch.equal(noise(pictures, Attack(0.1)), noise(pictures, Attack(0.1)))


def test_what_moved_in_the_network_is_literal():
    network = padded(True, 1)
    changed = (PICTURES + 0.1 * torch.randn(PICTURES.shape, generator=torch.Generator().manual_seed(5)).double()).clamp(
        0, 1
    )
    with torch.no_grad():
        classes = network(PICTURES).argmax(1)
        before, after = network(PICTURES), network(changed)
    got = moved(network, PICTURES, changed, classes, layers=["0", "6"])
    for place in range(len(PICTURES)):
        assert got.flipped[place] == float(int(after[place].argmax()) != int(classes[place]))
        assert got.logit_lost[place] == pytest.approx(
            float(before[place, classes[place]] - after[place, classes[place]])
        )
        peaks = [answer_of(network, x, "0")[place].flatten(1).max(1).values.tolist() for x in (PICTURES, changed)]
        apart = sum((a - b) ** 2 for a, b in zip(*peaks, strict=True)) ** 0.5
        assert got.layers["0"].change[place] == pytest.approx(apart / sum(a * a for a in peaks[0]) ** 0.5)
    own = attribute(network, PICTURES, Target(classes))
    np.testing.assert_allclose(got.saliency, similarity(own, attribute(network, changed, Target(classes))).spearman)
    assert moved(network, PICTURES, PICTURES, classes, layers=["0"]).layers["0"].kept.tolist() == [1] * len(PICTURES)


def test_strongest_units_kept():
    one = torch.arange(60.0)[None].expand(2, -1).clone()
    other = one.clone()
    other[1, 59] = -1.0  # of the three strongest of sixty one is gone
    assert strongest_kept(one, other).tolist() == [1, pytest.approx(2 / 3)]


def test_shifts_dither_and_the_choice_of_layers():
    x, mean, std = torch.zeros(2, 3, 5, 5), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    found = shifts((5, 5), mean, std, seed=3)
    assert list(found) == ["-1", "minus channel mean", "+0.5", "drawn image"]
    assert found["minus channel mean"].tolist() == pytest.approx([-m for m in mean])
    assert torch.equal(found["drawn image"], shifts((5, 5), mean, std, seed=3)["drawn image"])
    assert found["drawn image"].shape == (3, 5, 5)
    noisy = dithered(x.double(), 0) * 255
    assert 0.4 < noisy.abs().max() <= 0.5
    names = [str(number) for number in range(10)]
    assert spread_evenly(names, 4) == ["0", "3", "6", "9"]
    assert spread_evenly(names, 99) == names
    assert spread_evenly(names, 2) == ["0", "9"]


def test_verdicts():
    limits = Limits(0.01, 0.5, 0.8)
    good, bad, void = (Invariance(np.array(e), gate) for e, gate in (([0, 0.009], 0), ([0, 0.02], 0), ([0, 0.0], 1)))
    assert [limits.invariant(item) for item in (good, bad, void)] == [True, False, None]
    assert limits.invariant(joined_invariance([good, bad])) is False
    assert limits.invariant(joined_invariance([good, void])) is None
    assert joined_invariance([good, bad]).alike.tolist() == pytest.approx([1, 0.991, 1, 0.98])
    assert Invariance(np.array([3.0]), 0.0).alike.tolist() == [0]
    assert limits.forgets(np.array([0.2, 0.8]))
    assert not limits.forgets(np.array([0.3, 0.8]))
    assert limits.tells_classes_apart(np.array([0.8, 0.8]))
    assert not limits.tells_classes_apart(np.array([0.8, 0.9]))


def test_a_signed_map_on_grey():
    signal = torch.linspace(-1, 1, 3 * 1000).reshape(3, 10, 100)
    assert contrast(signal) == pytest.approx(0.99, abs=1e-3)
    shown = on_grey(signal)
    assert (float(shown.min()), float(shown.max())) == (0, 1)
    assert float(on_grey(signal / 50)[1, 5, 0]) == pytest.approx(float(shown[1, 5, 0]), abs=1e-6)
    assert on_grey(torch.zeros(3, 4, 4)).unique().tolist() == [0.5]
