"""Networks that no audit can be made of, one per fault: each is told so before the first stage. And some that are odd
but sound.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional

from flows.foresee import foresee
from flows.plan import Plan, Request
from microtome.errors import InputError
from microtome.networks import NetworkSpec, load_network, match_layers, walk
from microtome.networks.probe import probe
from tests.commands import left
from tests.conftest import change_audit
from tests.test_pipeline import run

SIZE = (32, 32)


class Net(nn.Module):
    """Two convolutions; the layer `c` is looked at. Faults change what comes between."""

    def __init__(self):
        super().__init__()
        self.b, self.c, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.answer(self.c(self.between(self.relu(self.b(x)), x)))

    def between(self, hidden, x):
        return hidden

    def answer(self, maps):
        return self.head(self.relu(maps).mean((2, 3)))


def shown(x):
    """Whether there is anything to see: the blank input of `walk` shows nothing."""
    return bool(x.abs().sum() > 0)


class DropoutLeftOn(Net):
    def between(self, hidden, x):
        return functional.dropout(hidden, 0.3)


class Noise(Net):
    def between(self, hidden, x):
        return hidden + 1e-3 * torch.randn_like(hidden)


class Counts(Net):
    calls = 0

    def between(self, hidden, x):
        self.calls += 1
        return hidden * (1 + 0.01 * self.calls)


class NormalisesOverTheBatch(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def between(self, hidden, x):
        return self.norm(hidden)


class EvalDoesNothing(Net):
    """A frozen-batch-norm trick turned round: a network that cannot leave training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def train(self, mode=True):
        return super().train(True)

    def between(self, hidden, x):
        return self.norm(hidden)


class Skips(Net):
    def forward(self, x):
        return self.answer(torch.zeros(len(x), 6, 4, 4) if shown(x) else self.c(self.b(x)))


class RunsTwice(Net):
    def between(self, hidden, x):
        if shown(x):
            self.c(hidden)
        return hidden


class Reshapes(Net):
    def between(self, hidden, x):
        return functional.max_pool2d(hidden, 2) if shown(x) else hidden


class Routes(Net):
    """Only some of the pictures reach the layer."""

    def between(self, hidden, x):
        return hidden[:1] if shown(x) else hidden


class Tokens(Net):
    """Tokens beyond the grid's, as many as the pictures' brightness says."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(4, 6)

    def between(self, hidden, x):
        tokens = hidden.flatten(2).transpose(1, 2)
        return torch.cat([tokens, tokens.new_zeros(len(x), 1 + int(x.max() > 2), 4)], 1)

    def answer(self, maps):
        return self.head(maps.mean(1))


class NotFinite(Net):
    def between(self, hidden, x):
        return hidden / (x.abs().sum() == 0)


class HalfInside(Net):
    def answer(self, maps):
        return super().answer(maps.float())

    def between(self, hidden, x):
        return hidden

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


class Fails(Net):
    def between(self, hidden, x):
        return hidden.view(2, 2, -1) if shown(x) else hidden


class FailsAlone(Net):
    def between(self, hidden, x):
        return hidden.reshape(2, 4, *hidden.shape[2:])


class FailsWhenBlank(Net):
    def between(self, hidden, x):
        return {}["nothing"]


class AnswersADict(Net):
    def answer(self, maps):
        return {"logits": super().answer(maps)}


class AnswersMaps(Net):
    def answer(self, maps):
        return maps


class DropoutInTheHead(Net):
    def answer(self, maps):
        return functional.dropout(super().answer(maps))


class NotANumber(Net):
    def __init__(self):
        super().__init__()
        self.b.weight.data[0, 0, 0, :2] = float("nan")
        self.c.bias.data[0] = float("inf")


class NotANumberInABuffer(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_var[1] = float("nan")


class Lazy(Net):
    def __init__(self):
        super().__init__()
        self.b = nn.LazyConv2d(4, 3)


class EvalFails(Net):
    def train(self, mode=True):
        raise KeyError("mode")


def float64():
    return Net().double()


def float16():
    return Net().half()


def bfloat16():
    return Net().bfloat16()


def mixed():
    net = Net()
    net.c.half()
    return net


def scripted():
    return torch.jit.script(torchvision.models.squeezenet1_1())


def traced():
    return torch.jit.trace(Net().eval(), torch.zeros(1, 3, *SIZE))


def scripted_inside():
    net = Net()
    net.relu = torch.jit.script(net.relu)
    return net


def on_meta():
    return Net().to("meta")


def half_on_meta():
    net = Net()
    net.c.to("meta")
    return net


def batches():
    """Two of two pictures, the second brighter."""
    drawn = torch.randn(2, 2, 3, *SIZE, generator=torch.Generator().manual_seed(1)).clamp(-1.5, 1.5)
    drawn[1, 0, 0, 0, 0] = 3
    return list(drawn)


def looked_at(factory: str, layers=("c",), *, answer=True) -> None:
    """What an audit does with a network before its first stage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit says that it is deprecated
        module = load_network(NetworkSpec(f"tests.test_probe:{factory}"))
    hooks = sum(len(part._forward_hooks) for part in module.modules())
    geometry = walk(module, SIZE, match_layers(module, list(layers)))
    try:
        probe(module, geometry, batches(), answer=answer)
    finally:
        assert sum(len(part._forward_hooks) for part in module.modules()) == hooks


def refusal(factory: str, layers=("c",), *, answer=True) -> str:
    with pytest.raises(InputError) as caught:
        looked_at(factory, layers, answer=answer)
    (fault,) = caught.value.faults
    assert "\n" not in fault
    return fault


# Faults of the network as it is built


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("float64", "network.load: weights must be float32, got torch.float64 in b.weight, b.bias, c.weight, c.bias, "
                    "head.weight, head.bias of tests.test_probe:float64; return module.float() from the factory, "
                    "which rounds them"),
        ("float16", "got torch.float16 in b.weight"),
        ("bfloat16", "got torch.bfloat16 in b.weight"),
        ("bfloat16", "which changes none of them"),
        ("mixed", "network.load: weights must be float32, got torch.float16 in c.weight, c.bias of"),
        ("scripted", "network.load: must give an ordinary torch.nn.Module, got TorchScript from"),
        ("traced", "network.load: must give an ordinary torch.nn.Module, got TorchScript from"),
        ("scripted_inside", "got TorchScript as relu from"),
        ("on_meta", "network.load: weights must be in memory, got b.weight, b.bias, c.weight, c.bias, head.weight, "),
        ("half_on_meta", "network.load: weights must be in memory, got c.weight, c.bias of"),
        ("Lazy", "network.load: weights must be in memory, got b.weight, b.bias of"),
        ("NotANumber", "network.load: tests.test_probe:NotANumber: weights must be finite numbers, got NaN or infinity "
                       "in b.weight (2 of 108), c.bias (1 of 6)"),
        ("NotANumberInABuffer", "got NaN or infinity in norm.running_var (1 of 4)"),
        ("EvalFails", "network.load: tests.test_probe:EvalFails: eval() failed: KeyError: 'mode' ("),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_looked_at_is_named_when_it_is_loaded(factory, words):
    assert words in refusal(factory)


# Faults that show in what it does


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("DropoutLeftOn", "network.layers: c: must answer the same to the same picture, got values that differ by "),
        ("DropoutLeftOn", "between two identical calls"),
        ("DropoutLeftOn", "eval() must switch off dropout"),
        ("Noise", "between two identical calls"),
        ("Counts", "between two identical calls"),
        ("NormalisesOverTheBatch", "between a picture in a batch and alone"),
        ("EvalDoesNothing", "between a picture in a batch and alone"),
        ("Skips", "network.layers: c: must run once in every forward pass, got 0 times for 2 pictures"),
        ("RunsTwice", "network.layers: c: must run once in every forward pass, got 2 times for 2 pictures"),
        ("Reshapes", "got (2, 6, 13, 13) where a blank input promised (2, 6, 28, 28)"),
        ("Routes", "got (1, 6, 28, 28) where a blank input promised (2, 6, 28, 28)"),
        ("Tokens", "network.layers: c: must give every picture one shape, got (901, 6) and (902, 6) between two "),
        ("NotFinite", "network.layers: c: must give finite values, got NaN or infinity in"),
        ("HalfInside", "network.layers: c: must be float32, got torch.bfloat16"),
        ("Fails", "network.load: the network fails on 2 of the pictures: RuntimeError: "),
        ("FailsAlone", "network.load: the network fails on 1 of the pictures: RuntimeError: "),
        ("FailsWhenBlank", "network.load: the network fails on a blank input of 32 x 32 pixels (network.input.size): "),
        ("AnswersADict", "network.load: the network's answer must be a tensor (pictures, classes), got dict"),
        ("AnswersMaps", "network.load: the network's answer must be (pictures, classes), got (2, 6, 28, 28)"),
        ("DropoutInTheHead", "network.load: the network's answer must answer the same to the same picture"),
    ],
)  # fmt: skip
def test_a_layer_that_does_not_answer_steadily_is_named(factory, words):
    assert words in refusal(factory)


def test_the_fault_says_the_users_file_and_line():
    assert f"({__file__}, line " in refusal("FailsWhenBlank")
    assert f"({__file__}, line " in refusal("Fails")


def test_the_first_layer_that_goes_astray_is_named_and_how_many_follow():
    assert "network.layers: c: " in refusal("DropoutLeftOn", ["b", "c"])
    fault = refusal("NotANumberLater", ["*"], answer=False)
    assert fault.startswith("network.layers: second: must give finite values")
    assert fault.endswith("(and 1 more after it)")


class NotANumberLater(nn.Module):
    """Registered in another order than they run in."""

    def __init__(self):
        super().__init__()
        self.third, self.second, self.first = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        hidden = self.first(x)
        return self.third(self.second(hidden / (x.abs().sum() == 0))).mean((2, 3))


@pytest.mark.parametrize("factory", ["AnswersADict", "AnswersMaps", "DropoutInTheHead"])
def test_an_answer_that_nobody_asks_for_may_be_anything(factory):
    looked_at(factory, answer=False)


# Odd, but sound


class SharedReLU(Net):
    """One module that runs twice, and works in place; it is not looked at."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)


class ScalesItsInput(Net):
    def forward(self, x):
        return super().forward(x.sub_(0.5).div_(2))


class Masked(Net):
    """A mask of -inf, as attention has."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1), persistent=False)


class Usual(Net):
    """Dropout and batch normalisation that heed eval()."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm2d(4), nn.Dropout2d(0.5)

    def between(self, hidden, x):
        return self.dropout(self.norm(hidden))


class Silent(Net):
    def between(self, hidden, x):
        return hidden * 0

    def __init__(self):
        super().__init__()
        self.c.bias.data.zero_()


def pools():
    return nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten())


def resnet():
    return torchvision.models.resnet18()


def squeezenet():
    return torchvision.models.squeezenet1_1()


def vit():
    return torchvision.models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)


@pytest.mark.parametrize(
    ("factory", "layers"),
    [
        ("Net", ["b", "c"]),
        ("SharedReLU", ["b", "c"]),
        ("ScalesItsInput", ["c"]),
        ("Masked", ["c"]),
        ("Usual", ["norm", "dropout", "c"]),
        ("Silent", ["c"]),
        ("pools", ["0", "1"]),
        ("resnet", ["conv1", "layer?", "layer3.0"]),
        ("squeezenet", ["features.0", "features.12"]),
        ("vit", ["encoder.layers.*_1", "encoder.ln"]),
    ],
)
def test_a_sound_network_passes(factory, layers):
    looked_at(factory, layers)


# As an audit does it


@pytest.fixture
def odd_audit(audit_file):
    """An audit of a network whose layer answers at random; of a sound one if something else is done in its middle."""

    def write(done="functional.dropout(x, 0.5)", **changes):
        (audit_file.parent / "odd_net.py").write_text(
            "from torch import nn\nfrom torch.nn import functional\n"
            f"class Odd(nn.Module):\n    def forward(self, x):\n        return {done}\n"
            "def net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), Odd(), nn.Conv2d(4, 5, 3), "
            "nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        )
        network = {"load": "odd_net:net", "layers": ["2"], "input": {"size": [64, 64]}}
        change_audit(audit_file, **{"network": network, "stages": {"dissection": {}, "report": False}} | changes)
        return audit_file

    yield write
    sys.modules.pop("odd_net", None)


def test_an_audit_looks_before_its_first_stage_and_a_plan_only_loads(odd_audit):
    plan = Plan(Request(odd_audit()))
    plan.preflight()
    assert "activations" in {row.stage for row in foresee(plan)}
    with pytest.raises(InputError, match=r"network.layers: 2: must answer the same .* between two identical calls"):
        plan.probe()


STAGES = ["dissection", "saliency", "features", "occlusion", "reliability", "adversarial", "tree", "finetuning"]


@pytest.mark.parametrize("stage", STAGES)
def test_whichever_stage_loads_the_network_it_is_looked_at(odd_audit, stage):
    with pytest.raises(InputError, match="between two identical calls"):
        Plan(Request(odd_audit(stages={stage: {}, "report": False}))).probe()


def test_a_sound_network_passes_with_every_stage(audit_file):
    change_audit(audit_file, stages={stage: {} for stage in STAGES} | {"report": False})
    Plan(Request(audit_file)).probe()


def test_stages_that_do_not_load_the_network_are_not_held_up(odd_audit):
    Plan(Request(odd_audit("None"), only=("index",))).probe()


def test_the_answer_is_asked_for_where_a_stage_asks(odd_audit):
    """Maps only, for dissection; classes too, for saliency."""
    file = odd_audit()
    (file.parent / "odd_net.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))\n"
    )
    Plan(Request(file)).probe()
    change_audit(file, stages={"saliency": {}, "report": False})
    with pytest.raises(InputError, match=r"the network's answer must be \(pictures, classes\), got \(2, 5, 60, 60\)"):
        Plan(Request(file)).probe()


@pytest.fixture
def one_cut_off(tmp_path):
    """A folder of four pictures, the first of which ends too soon."""
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (70, 70, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    content = (place / "0.png").read_bytes()
    (place / "0.png").write_bytes(content[: len(content) // 2])
    return place


def test_a_picture_that_cannot_be_read_is_left_to_the_index(odd_audit, one_cut_off):
    """Which names all such; the other batch is looked at."""
    folder = {"format": "folder", "root": str(one_cut_off)}
    wanted = {"dataset": folder, "stages": {"saliency": {}, "report": False}}
    Plan(Request(odd_audit("x", **wanted))).probe()
    sys.modules.pop("odd_net")
    with pytest.raises(InputError, match="between two identical calls"):
        Plan(Request(odd_audit(**wanted))).probe()


HALF_STEADY = """
from pathlib import Path
from torch import nn
from torch.nn import functional
class Noisy(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.5)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.steady, self.noisy, self.head = nn.Conv2d(3, 4, 3), Noisy(), nn.Linear(4, 2)
    def forward(self, x):
        maps = self.steady(x)
        self.noisy(maps)
        return self.head(maps.mean((2, 3)))
def net():
    with Path(__file__).with_name("loads").open("a") as loads:
        loads.write("x")
    return Net()
"""


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"tree": {"layer": "noisy"}}, "stages.tree.layer: noisy: must answer the same to the same picture"),
        ({"tree": {"layer": "steadi"}}, "stages.tree.layer: steadi: never runs .*; did you mean 'steady'"),
        ({"tree": {"layer": "head"}}, "stages.tree.layer: head: it comes after pooling over all positions"),
        ({"saliency": {"cam_layer": "noisy"}}, "stages.saliency.cam_layer: noisy: must answer the same"),
        ({"reliability": {"cam_layer": "noisy"}}, "stages.reliability.cam_layer: noisy: must answer the same"),
    ],
)
def test_a_layer_that_only_a_stage_names_is_looked_at(odd_audit, stages, words):
    """Beside the audit's own, which is steady; and not for the other stages."""
    file = odd_audit(stages={**stages, "report": False})
    (file.parent / "odd_net.py").write_text(HALF_STEADY)
    network = {"load": "odd_net:net", "layers": ["steady"], "input": {"size": [64, 64]}}
    change_audit(file, network=network)
    with pytest.raises(InputError, match=words):
        Plan(Request(file)).probe()
    change_audit(file, network=network | {"layers": ["steady", "noisy"]})
    if "noisy" in words:
        with pytest.raises(InputError, match=r"network.layers: noisy: must answer the same"):
            Plan(Request(file)).probe()
    change_audit(file, network=network, stages={"dissection": {}, "report": False})
    Plan(Request(file)).probe()


def test_a_gates_layer_is_known_before_the_first_stage(odd_audit):
    """Of the audit's own layers; or of the fine-tuned network's, where there is one. Before the network is loaded where
    no layer is named with a star.
    """
    file = odd_audit("x")
    gate = {"metric": "layers.detectors", "min": 0}
    tuned = {"dissection": {}, "finetuning": {}, "report": False}
    rule = "gates.1.layer: must be one that the audit looks at, got"
    for layer, stages in (("3", {"dissection": {}}), ("extra_map", {"dissection": {}}), ("3", tuned)):
        change_audit(file, gates=[gate | {"layer": "2"}, gate | {"layer": layer}], stages=stages)
        with pytest.raises(InputError, match=f"{rule} '{layer}'"):
            Plan(Request(file))
    change_audit(file, gates=[gate | {"layer": "2"}, gate | {"layer": "29"}], stages={"dissection": {}})
    override = ("network.layers=['2*']",)
    for look in (Plan(Request(file, overrides=override)).preflight, Plan(Request(file, overrides=override)).probe):
        with pytest.raises(InputError, match=f"^{rule} '29'"):
            look()
    change_audit(file, gates=[gate | {"layer": "2"}], stages={"dissection": {}})
    Plan(Request(file)).probe()
    change_audit(file, gates=[gate | {"layer": "extra_map"}], stages=tuned)
    Plan(Request(file)).probe()


def test_a_network_is_loaded_once_however_often_it_is_looked_at(odd_audit):
    file = odd_audit()
    (file.parent / "odd_net.py").write_text(HALF_STEADY.replace("(4, 2)", "(4, 3)"))  # no other test's network
    change_audit(file, network={"load": "odd_net:net", "layers": ["steady"], "input": {"size": [64, 64]}})
    loads = file.parent / "loads"
    list(foresee(plan := Plan(Request(file))))
    plan.preflight()
    assert loads.read_text() == "x"
    for _ in range(2):  # the command's plan, and the flow's
        Plan(Request(file)).probe()
    assert loads.read_text() == "xx"
    change_audit(file, network={"load": "odd_net:net", "layers": ["st*"], "input": {"size": [64, 64]}})
    Plan(Request(file)).probe()
    assert loads.read_text() == "xxx"


def test_a_command_loads_the_network_to_look_at_it_and_once_for_each_stage(odd_audit, command):
    file = odd_audit(stages={"dissection": {"bootstrap": 0, "permutations": 0}, "report": False})
    (file.parent / "odd_net.py").write_text(HALF_STEADY)
    change_audit(file, network={"load": "odd_net:net", "layers": ["steady"], "input": {"size": [64, 64]}})
    assert command("audit", file).returncode == 0
    assert (file.parent / "loads").read_text() == "xx"


def test_audit_and_rerun_end_with_status_two_before_anything_is_made(odd_audit, command):
    file = odd_audit()
    run(file, until="index")
    for done in (left("audit", file), command("rerun", "activations", file)):
        assert done.returncode == 2, done.stderr
        assert "network.layers: 2: must answer the same to the same picture" in done.stderr
        assert "Traceback" not in done.stderr
    assert {path.parent.parent.name for path in file.parent.glob(".microtome/stages/*/*/manifest.json")} == {"index"}
