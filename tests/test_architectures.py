"""Networks of many families, as they come: where their cells look is seen by planting a patch in a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from microtome.errors import InputError
from microtome.networks import Capture, LayerGeometry, NetworkSpec, load_network, walk
from microtome.networks.probe import probe
from tests.architectures import FAMILIES, Architecture
from tests.conftest import count, soak, write_audit
from tests.test_pipeline import run

BY_NAME = {family.family: family for family in FAMILIES}
QUICK = ("ShuffleNet", "ViT", "Swin, timm's", "ResNet", "HRNet", "ViT, registers", "MaxViT", "XCiT", "MobileViT")
AUDITED = ("Swin, timm's", "ViT, registers")


def some(names: Sequence[str]):
    """These families in `make test`, all of them in `make soak`."""
    chosen = soak([BY_NAME[name] for name in names], list(FAMILIES))
    return pytest.mark.parametrize("family", chosen, ids=lambda one: one.family)


def answering(network, layer: LayerGeometry, picture: torch.Tensor, cells: list[tuple[int, int]]) -> list:
    """Where a layer changes most if a bright patch, as large as a cell's distance, is put at the centre of a cell."""
    found, half = [], max(2, int(layer.jump[0]) // 2)
    colour = 3 * torch.randn(3, 1, 1, generator=torch.Generator().manual_seed(5))
    with Capture(network, [layer]) as capture:
        before = capture(picture)[layer.name]
        for row, column in cells:
            planted = picture.clone()
            y, x = (max(0, round(layer.centres(axis)[cell]) - half) for axis, cell in ((0, row), (1, column)))
            planted[:, :, y : y + 2 * half, x : x + 2 * half] += colour
            change = (capture(planted)[layer.name] - before).square().sum(1)[0]
            found.append(divmod(int(change.argmax()), layer.grid[1]))
    return found


@pytest.mark.soak
@some(QUICK)
def test_the_responding_cell_moves_with_a_planted_patch(family: Architecture):
    """It lies where the patch does, or off it by less than the field (kernels of random weights are lopsided), and by
    as much in every place: rows and columns are told apart, and none is out of order."""
    network = family.network()
    picture = 0.2 * torch.rand(1, 3, family.size, family.size, generator=torch.Generator().manual_seed(3))
    for layer in walk(network, (family.size, family.size), family.layers):
        ends = [(size // 4, 3 * size // 4) for size in layer.grid]
        cells = [(row, column) for row in ends[0] for column in ends[1]]
        found = answering(network, layer, picture, cells)
        for axis in (0, 1):
            off = [one[axis] - two[axis] for one, two in zip(found, cells, strict=True)]
            assert max(map(abs, off)) * layer.jump[axis] <= layer.field[axis] / 2, (layer.name, cells, found)
            wide = layer.field[axis] > 3 * layer.jump[axis]  # so that the picture's border may be felt
            assert max(off) - min(off) <= wide, (layer.name, cells, found)


def tapped(family: Architecture, *names: str) -> torch.nn.Module:
    return load_network(NetworkSpec(family.load, family.arguments, layers=names))


def test_windows_are_put_back_where_they_were_cut_out():
    """A patch moves its window, 4 x 4 cells; in the next block, whose windows are shifted by 2, those that touch it."""
    family = BY_NAME["Swin, timm's"]
    names = [f"layers.0.blocks.{block}.attn.proj.input" for block in (0, 1)]
    network = tapped(family, *names)
    first, second = walk(network, (family.size, family.size), names)
    assert first.order != second.order
    assert first.order != tuple(range(256))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    planted = picture.clone()
    planted[:, :, 20:24, 24:28] += 1  # cell (5, 6)
    with Capture(network, [first, second]) as capture:
        before, after = capture(picture), capture(planted)
    for layer, rows, columns in ((first, range(4, 8), range(4, 8)), (second, range(2, 10), range(2, 10))):
        moved = (after[layer.name] - before[layer.name]).abs().amax(1)[0] > 1e-6
        wanted = torch.zeros(16, 16, dtype=torch.bool)
        wanted[rows.start : rows.stop, columns.start : columns.stop] = True
        assert torch.equal(moved, wanted), layer.name


@pytest.mark.parametrize(
    ("name", "projection", "heads"),
    [
        ("ViT, registers", "blocks.1.attn.proj", 4),
        ("Swin, timm's", "layers.0.blocks.1.attn.proj", 2),
        ("MaxViT", "stages.0.blocks.0.attn_grid.attn.proj", 1),
        ("CoAtNet", "stages.3.blocks.0.attn.proj", 8),
        ("XCiT", "blocks.1.attn.proj", 4),
    ],
)
def test_heads_are_parts_of_what_the_projection_is_given(name, projection, heads):
    family = BY_NAME[name]
    network, plain = tapped(family, f"{projection}.*"), tapped(family)
    assert [kind for kind, _ in network.get_submodule(projection).named_children()] == []
    network = tapped(family, f"{projection}.input", f"{projection}.heads")
    pictures = torch.rand(2, 3, family.size, family.size, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(network(pictures), plain(pictures))
    given, sizes = walk(network, (family.size,) * 2, [f"{projection}.input", f"{projection}.heads"])
    assert (sizes.units, sizes.grid) == (heads, given.grid)
    with Capture(network, [given, sizes]) as capture:
        maps = capture(pictures)
    parts = maps[given.name].unflatten(1, (heads, -1)).double()
    torch.testing.assert_close(maps[sizes.name].double(), parts.square().sum(2).sqrt(), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(
            without(network, sizes, 0, 1, pictures), without(network, given, 0, given.units // heads, pictures)
        )


def without(network, layer: LayerGeometry, first: int, count: int, pictures: torch.Tensor) -> torch.Tensor:
    """The answer where some units of a layer are zero."""

    def silence(_module, _inputs, output):
        changed = output.clone()
        changed.narrow(layer.channel, first, count).zero_()
        return changed

    handle = network.get_submodule(layer.name).register_forward_hook(silence)
    try:
        return network(pictures)
    finally:
        handle.remove()


def test_heads_that_cannot_be_told_are_refused():
    with pytest.raises(InputError, match=r"layer2\.heads: the module around layer2 must say how many heads"):
        tapped(BY_NAME["ResNet"], "layer2.heads")
    network = tapped(BY_NAME["ViT"], "encoder.layers.*.self_attention.out_proj.input")
    layer = "encoder.layers.encoder_layer_0.self_attention.out_proj.input"
    with pytest.raises(InputError, match="never runs in a forward pass; the nearest layer with maps is encoder"):
        walk(network, (64, 64), [layer])


TRANSFORMERS = """
from types import SimpleNamespace
from torch import nn

class Classifier(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, pictures):
        return SimpleNamespace(loss=None, logits=self.head(self.convolution(pictures).mean((2, 3))))

def network(**config):
    return Classifier(SimpleNamespace(**config))
"""


def test_an_answer_that_is_an_object_gives_its_logits(tmp_path):
    """As networks of the package transformers answer; any other is refused by the probe."""
    (tmp_path / "of_transformers.py").write_text(TRANSFORMERS)
    pictures = torch.rand(2, 3, 16, 16)
    network = load_network(NetworkSpec("of_transformers:network", {"return_dict": True}, root=tmp_path))
    probe(network, walk(network, (16, 16), ["convolution"]), [pictures], answer=True)
    assert network(pictures).shape == (2, 2)
    other = load_network(NetworkSpec("of_transformers:network", root=tmp_path))
    with pytest.raises(InputError, match=r"answer must be a tensor .* got SimpleNamespace; return the logits alone"):
        probe(other, walk(other, (16, 16), ["convolution"]), [pictures], answer=True)


@pytest.mark.parametrize(
    ("name", "layer", "apart"),
    [
        ("ViT", "encoder.ln", 1),
        ("ViT, registers", "blocks.1", 1),
        ("DeiT, distilled", "blocks.1", 2),
        ("CaiT", "blocks.1", 0),
    ],
)
def test_class_and_register_tokens_are_set_apart(name, layer, apart):
    """A patch in the picture's first cell answers in the token after them, which is the grid's first."""
    family = BY_NAME[name]
    network = family.network()
    assert getattr(network, "num_prefix_tokens", apart) in (apart, 1)  # CaiT has its class token in later blocks only
    (found,) = walk(network, (family.size,) * 2, [layer])
    assert (found.apart, found.offset) == (apart, apart)
    raw = []
    network.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: raw.append(output))
    picture = torch.rand(1, 3, family.size, family.size, generator=torch.Generator().manual_seed(3))
    planted = picture.clone()
    planted[:, :, :8, :8] += 3
    with torch.no_grad():
        network(picture), network(planted)
    answers = (raw[1] - raw[0]).square().sum(2)[0]
    assert int(answers.argmax()) == apart
    maps = found.as_maps(raw[0])
    assert torch.equal(maps[0, :, 0, 0], raw[0][0, apart])
    assert torch.equal(maps.flatten(2).mT, raw[0][:, apart:])


STAGES = {
    "dissection": {"bootstrap": 20, "permutations": 20, "min_iou": 0.001, "tail": 0.05},
    "stability": {"top_images": 8, "bootstrap": 20, "permutations": 20},
    "graph": {"filters": 3, "rounds": 2, "permutations": 5},
    "features": {"units": 2, "steps": 2},
    "occlusion": {"units": 1, "top_images": 2, "stride": 24, "minimal_images": 1, "segments": 6},
    "reliability": {"images": 2, "randomised": 2, "methods": ["gradient", "guided", "grad-cam"]},
    "report": False,
}


@pytest.mark.soak
@some(AUDITED)
def test_a_network_is_audited_as_it_comes(family: Architecture, tmp_path):
    """Every stage; a saliency method that a network cannot have is left out by name, and all others are judged."""
    network = {"load": family.load, "arguments": family.arguments, "layers": list(family.layers)}
    creatures = {"format": "creatures", "count": 120, "size": family.size, "seed": 3, "categories": ["bird"]}
    content = {
        "name": family.family,
        "network": {**network, "input": {"size": [family.size] * 2}},
        "dataset": creatures,
        "stages": STAGES,
        "execution": {"threads": 1},
    }
    done = {name: artifact for name, (artifact, _) in run(write_audit(tmp_path / "audit.yaml", content)).items()}
    layers = done["dissection"].table("layers").to_pylist()
    assert sorted(row["layer"] for row in layers) == sorted(family.layers)  # theirs is the network's order
    assert all(row["dead"] < row["units"] for row in layers), layers
    for stage, table, column in (
        ("dissection", "units", "iou"),
        ("null", "null", "iou"),
        ("stability", "stability", "deviation"),
        ("features", "features", "peak"),
        ("occlusion", "occlusion", "size_x"),
        ("graph", "graph_nodes", "x"),
        ("reliability", "reliability", "value"),
    ):
        if done[stage].has(f"{table}.parquet"):
            values = done[stage].table(table).to_pandas()[column].to_numpy(dtype=float)
            assert len(values), (stage, table)
            assert np.isfinite(values).any(), (stage, table)
    judged = set(done["reliability"].table("reliability").to_pandas()["method"])
    for row in done["reliability"].table("reliability_methods").to_pylist():
        assert row["drawn"] == (row["method"] in judged), row
        assert row["note"], row
    count("architectures audited")
