"""Loading, naming and capturing."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from microtome.errors import InputError
from microtome.importing import named_object
from microtome.networks import Capture, NetworkSpec, load_network, match_layers, walk
from microtome.networks.identity import network_digest


def chain(inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=inplace), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=inplace)
    ).eval()


def test_an_in_place_relu_does_not_alter_a_captured_map():
    batch = torch.randn(2, 3, 12, 12)
    found = {}
    for inplace in (True, False):
        module = chain(inplace)
        with Capture(module, walk(module, (12, 12), ["0", "1", "2"])) as capture:
            found[inplace] = capture(batch)
    assert all(torch.equal(found[True][name], found[False][name]) for name in ("0", "1", "2"))
    assert (found[True]["0"] < 0).any()


def test_captures_of_one_network_do_not_stop_each_other():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    layers, batch = walk(module, (12, 12), ["0", "1"]), torch.rand(2, 3, 12, 12)
    with Capture(module, layers[:1]) as first, Capture(module, layers[1:]) as second:
        assert second(batch)["1"].shape == (2, 5, 8, 8)
        assert first(batch)["0"].shape == (2, 4, 10, 10)


def test_capture_stops_after_the_deepest_layer_and_leaves_no_hook():
    module = chain()
    ran = []
    module[3].register_forward_hook(lambda *_: ran.append(1))
    before = sum(len(sub._forward_hooks) for sub in module.modules())
    geometry = walk(module, (12, 12), ["2"])
    ran.clear()
    with Capture(module, geometry) as capture:
        capture(torch.zeros(1, 3, 12, 12))
    assert not ran
    assert sum(len(sub._forward_hooks) for sub in module.modules()) == before


def test_maps_of_a_picture_do_not_depend_on_its_batch():
    module = chain()
    batch = torch.randn(4, 3, 12, 12)
    with Capture(module, walk(module, (12, 12), ["3"])) as capture:
        together = capture(batch)["3"]
        order = torch.tensor([2, 0, 3, 1])
        assert torch.equal(capture(batch[order])["3"], together[order])


def test_globs_and_suggestions():
    module = torchvision.models.squeezenet1_0()
    assert match_layers(module, ["features.12", "features.1?"])[:2] == ["features.10", "features.11"]
    with pytest.raises(InputError, match=r"no layer 'feature\.12'.*did you mean 'features\.12'"):
        match_layers(module, ["feature.12"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_read_back(tmp_path, suffix):
    state = torchvision.models.squeezenet1_1().state_dict()
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save({"state_dict": state}, file)
    module = load_network(NetworkSpec("torchvision.models:squeezenet1_1", {}, file.name, tmp_path))
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


class Sneaky:
    def __reduce__(self):
        return (print, ("code of the file's ran",))


def test_a_pickle_that_is_no_plain_state_dict_is_refused(tmp_path, capsys):
    torch.save({"weight": Sneaky()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="plain state dict"):
        load_network(NetworkSpec("torchvision.models:alexnet", {}, "evil.pth", tmp_path))
    assert "ran" not in capsys.readouterr().out


def test_weights_that_do_not_fit_are_all_named(tmp_path):
    state = torchvision.models.squeezenet1_1().state_dict()
    state["classifier.1.weight"] = torch.zeros(10, 512, 1, 1)
    state["stray"] = torch.zeros(1)
    del state["features.0.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as caught:
        load_network(NetworkSpec("torchvision.models:squeezenet1_1", {}, "w.safetensors", tmp_path))
    text = str(caught.value)
    assert "missing features.0.bias" in text
    assert "stray" in text
    assert "classifier.1.weight must be (1000, 512, 1, 1), got (10, 512, 1, 1)" in text


@pytest.mark.parametrize(
    ("load", "weights", "words"),
    [
        ("torchvision.models:squeezenet1_o", None, "did you mean"),
        ("torchvision.modells:alexnet", None, "cannot be imported"),
        ("alexnet", None, "must be package.module:name"),
        ("torchvision.models:alexnet", "IMAGENET1K_V9", "did you mean 'IMAGENET1K_V1'"),
        ("torchvision.models:alexnet", "gone.safetensors", "no such file"),
    ],
)
def test_bad_references_are_named(tmp_path, load, weights, words):
    with pytest.raises(InputError, match=words):
        load_network(NetworkSpec(load, {}, weights, tmp_path))


def test_the_digest_follows_content_not_path(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"1")
    (tmp_path / "b.pth").write_bytes(b"1")

    def digest(weights):
        spec = NetworkSpec("torchvision.models:alexnet", {}, weights, tmp_path)
        return network_digest(spec, lambda f: f.read_bytes().hex())

    assert digest("a.pth") == digest("b.pth")
    (tmp_path / "b.pth").write_bytes(b"2")
    assert digest("a.pth") != digest("b.pth")


def test_a_change_in_the_users_own_code_changes_the_digest(tmp_path):
    spec = NetworkSpec("mine_digest:net", {}, None, tmp_path)
    (tmp_path / "mine_digest.py").write_text("def net(): ...")
    before = network_digest(spec, lambda _: "")
    (tmp_path / "mine_digest.py").write_text("def net(): return 1")
    assert network_digest(spec, lambda _: "") != before


def test_random_weights_follow_the_seed():
    first, again, other = (load_network(NetworkSpec("torchvision.models:squeezenet1_1", seed=s)) for s in (1, 1, 2))
    weights = [next(iter(module.state_dict().values())) for module in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


OUR_NAME = "has the name of a package of microtome's own"


@pytest.mark.parametrize("name", ["flows", "tasks", "storage", "microtome"])
@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_module_with_the_name_of_a_package_of_ours_is_refused_where_it_is_used(tmp_path, name, form):
    """Whether the audit file names it, or a network beside it imports it; one that merely lies there does no harm."""
    alone, importing = tmp_path / f"alone_{name}_{form}.py", tmp_path / f"importing_{name}_{form}.py"
    alone.write_text("from torch import nn\ndef net():\n    return nn.ReLU()\n")
    importing.write_text(f"def net():\n    import {name}\n    return {name}.net()\n")
    if form == "folder":
        (tmp_path / name).mkdir()
    place = tmp_path / name / "__init__.py" if form == "folder" else tmp_path / f"{name}.py"
    place.write_text("def net():\n    pass\n")
    harmless = NetworkSpec(f"{alone.stem}:net", root=tmp_path)
    assert network_digest(harmless, str)
    assert isinstance(load_network(harmless), nn.ReLU)
    with pytest.raises(InputError, match=f"network.load: .*{name}.* {OUR_NAME}"):
        load_network(NetworkSpec(f"{name}:net", root=tmp_path))
    for load in (f"{importing.stem}:net", f"{name}:net"):
        with pytest.raises(InputError, match=OUR_NAME):
            network_digest(NetworkSpec(load, root=tmp_path), str)


def test_our_own_checkout_is_no_module_beside_it():
    """An audit file in the checkout's root may name what is ours."""
    root = Path(__file__).parent.parent
    spec = NetworkSpec("microtome.networks.small:creature_net", root=root)
    assert load_network(spec) is not None


def test_a_layer_and_a_module_that_are_not_there_are_told_beside_those_that_are(tmp_path):
    deep = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(20)))
    with pytest.raises(InputError, match=r"no layer 'layer4' in Sequential; its 20 layers are 0, 1, 2, 3, 4, 5, "):
        match_layers(deep, ["layer4"])
    (tmp_path / "tinynet.py").write_text("")
    with pytest.raises(InputError, match=r"beside the audit file .* got none; did you mean 'tinynet'\?"):
        named_object("tinynt:net", tmp_path, "network.load")
