"""Answers of layers that keep their units last or their cells as tokens: the unit asked for, wherever it is asked."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from microtome.networks import Capture, gradient_footprint, walk
from microtome.visualize.adversarial import moved
from microtome.visualize.ascent import ascend
from microtome.visualize.attribution import Target, answer_of, attribute, located, scaled
from microtome.visualize.features import FeatureRecipe, visualise
from microtome.visualize.occlusion import Occluder, discrepancy
from tests.conftest import write_audit
from tests.test_pipeline import run

SIDE = 32
SWIN = {"patch_size": [4, 4], "embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3], "window_size": [4, 4]}
VIT = {"image_size": SIDE, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 10, "mlp_dim": 14}
NETWORKS = {
    "swin": lambda: SwinTransformer(**SWIN, num_classes=5),
    "vit": lambda: VisionTransformer(**VIT, num_classes=5),
    "convnext": lambda: ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=5),
}
LAYERS = {"swin": "features.1", "vit": "encoder.layers.encoder_layer_0", "convnext": "features.1.0.block.4"}
PICTURES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


def built(name: str) -> nn.Module:
    """A network whose every parameter is drawn, so that no two units answer alike."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture(params=NETWORKS, scope="module")
def subject(request):
    network = built(request.param)
    (layer,) = walk(network, (SIDE, SIDE), [LAYERS[request.param]])
    with Capture(network, [layer]) as capture:
        maps = capture(PICTURES)[layer.name].clone()
    return network, layer, maps


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_answers_as_it_is_captured(name):
    network = built(name)
    layers = walk(network, (SIDE, SIDE))
    assert len({layer.dims for layer in layers}) > 1  # several layouts in one network
    for layer in layers:
        with Capture(network, [layer]) as capture, torch.no_grad():
            wanted = capture(PICTURES)[layer.name]
        with torch.no_grad():
            torch.testing.assert_close(answer_of(network, PICTURES, layer), wanted)
            torch.testing.assert_close(answer_of(network, PICTURES, layer.name), wanted)


def test_targets_score_the_unit_that_they_name(subject):
    network, layer, maps = subject
    for unit in range(layer.units):
        for where in (layer, layer.name):
            answer = answer_of(network, PICTURES, where).detach()
            torch.testing.assert_close(Target(unit, where).score(answer), maps[:, unit].flatten(1).amax(1))
            torch.testing.assert_close(Target(unit, where, "sum").score(answer), maps[:, unit].sum((1, 2)))
            torch.testing.assert_close(Target(unit, where, (1, 2)).score(answer), maps[:, unit, 1, 2])
    with pytest.raises(ValueError, match=f"units must lie in 0..{layer.units - 1}"):
        Target(layer.units, layer).score(answer)


def test_a_map_is_the_gradient_of_the_unit_that_is_named(subject):
    network, layer, maps = subject
    for unit in (0, layer.units - 1):
        x = PICTURES.clone().requires_grad_()
        caught = []
        handle = network.get_submodule(layer.name).register_forward_hook(lambda _m, _i, o, to=caught: to.append(o))
        network(x)
        handle.remove()
        cells = maps[:, unit].flatten(1).argmax(1)
        at = [layer.as_maps(caught[0])[n, unit].flatten()[cell] for n, cell in enumerate(cells)]
        wanted = torch.autograd.grad(sum(at), x)[0]
        torch.testing.assert_close(attribute(network, PICTURES, Target(unit, layer)), wanted)
        torch.testing.assert_close(attribute(network, PICTURES, Target(unit, layer.name)), wanted)


def test_synthesis_and_ascent_climb_the_unit_that_is_named(subject):
    network, layer, _ = subject
    unit = layer.units - 1
    whole = scaled(network, (0.5,) * 3, (0.25,) * 3)
    for where in (layer, layer.name):
        (made,) = visualise(whole, where, [unit], FeatureRecipe((SIDE, SIDE), steps=4, batch=1))
        with Capture(whole.network, [layer]) as capture:
            maps = capture(whole.normalised(made.picture[None]))[layer.name]
        assert made.peak == pytest.approx(float(maps[0, unit].max()), rel=1e-4)
        assert made.objective == pytest.approx(float(maps[0, unit].mean()), rel=1e-4, abs=1e-5)
        found = ascend(network, (SIDE, SIDE), Target(unit, where), steps=2)
        with Capture(network, [layer]) as capture:
            maps = capture(found.picture[None])[layer.name]
        assert found.scores[-1] == pytest.approx(float(maps[0, unit].max()), rel=1e-4)


def test_occlusion_and_attacks_look_at_the_unit_that_is_named(subject):
    network, layer, maps = subject
    unit, occluder = layer.units - 1, Occluder(16, 16, mean=True)
    for where in (layer, layer.name):
        heat, cell = discrepancy(network, where, unit, PICTURES[0], occluder=occluder)
        assert cell == divmod(int(maps[0, unit].argmax()), layer.grid[1])
        covered = PICTURES[0].clone()
        covered[:, 1:17, 1:17] = PICTURES[0].mean((1, 2))[:, None, None]  # its place from (-15 + 16, -15 + 16)
        with Capture(network, [layer]) as capture:
            lost = maps[0, unit][cell] - capture(covered[None])[layer.name][0, unit][cell]
        assert heat[9, 9] == pytest.approx(float(lost), rel=1e-4, abs=1e-5)
    changed = PICTURES.flip(3)
    with Capture(network, [layer]) as capture:
        one, two = (capture(x)[layer.name].flatten(2).amax(2) for x in (PICTURES, changed))
    wanted = (one - two).norm(dim=1) / one.norm(dim=1)
    found = moved(network, PICTURES, changed, torch.zeros(3, dtype=torch.long), layers=[layer.name])
    np.testing.assert_allclose(found.layers[layer.name].change, wanted, rtol=1e-4)


def test_layers_without_a_grid_answer_with_vectors(subject):
    network = subject[0]
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    assert located(network, last, (SIDE, SIDE)) == last
    torch.testing.assert_close(answer_of(network, PICTURES, last), network(PICTURES))
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    assert answer_of(pooled, PICTURES, "1").shape == (3, 4)


@pytest.mark.parametrize("name", ["swin", "convnext"])
def test_a_geometry_of_another_size_is_refused(name):
    network = built(name)
    (layer,) = walk(network, (SIDE, SIDE), [LAYERS[name]])
    with pytest.raises(ValueError, match="walk the network at the size of these pictures"):
        answer_of(network, torch.rand(1, 3, 2 * SIDE, SIDE), layer)


@pytest.mark.parametrize("name", NETWORKS)
def test_footprints_of_every_layer(name):
    """Layer norms make the plain sum of a cell's units constant; the footprint looks at a drawn combination."""
    network = built(name)
    for layer in walk(network, (SIDE, SIDE)):
        first, last, left, right = gradient_footprint(network, (SIDE, SIDE), layer, (1, 1))
        assert 0 <= first < last <= SIDE
        assert 0 <= left < right <= SIDE


@pytest.mark.parametrize(
    ("factory", "arguments", "layer"),
    [
        ("torchvision.models.swin_transformer:SwinTransformer", {**SWIN, "num_classes": 6}, "features.1"),
        ("torchvision.models.vision_transformer:VisionTransformer", {**VIT, "num_classes": 6}, "encoder.layers.*_0"),
    ],
)
def test_stages_of_pictures_work_on_tokens_and_channels_last(factory, arguments, layer, tmp_path):
    content = {
        "name": "grids",
        "network": {"load": factory, "arguments": arguments, "layers": [layer], "input": {"size": [SIDE, SIDE]}},
        "dataset": {"format": "creatures", "count": 10, "size": SIDE, "seed": 3},
        "stages": {
            "dissection": {"bootstrap": 0, "permutations": 0, "min_iou": 0.001, "tail": 0.05},
            "features": {"units": 3, "steps": 2, "batch": 2},
            "occlusion": {"units": 2, "top_images": 2, "stride": 12, "minimal_images": 1, "segments": 4},
            "adversarial": {"images": 4, "eps": [4], "steps": 2},
            "report": False,
        },
    }
    done = run(write_audit(tmp_path / "audit.yaml", content))
    units = {row["unit"]: row for row in done["features"][0].table("features").to_pylist()}
    assert all(np.isfinite(row["peak"]) for row in units.values())
    crops = {row["kind"] for row in done["features"][0].table("unit_crops").to_pylist()}
    assert crops == {"natural", "gradient"}  # GELU has no deconvolution, and nothing is called so
    assert len(done["occlusion"][0].table("occlusion").to_pylist()) == 2
    measures = {row["measure"] for row in done["adversarial"][0].table("adversarial").to_pylist()}
    assert any("detectors that keep their label" in measure for measure in measures)
