"""Maps by another memory layout or by a compiled program: the same but for rounding, under names of their own."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from flows.foresee import told
from flows.plan import Plan, Request
from microtome.networks import Capture, walk
from microtome.networks.engine import FORMATS, CompiledCapture
from tasks.activations.result import Maps
from tasks.preflight import Looked
from tests.conftest import clean_environment
from tests.test_pipeline import run

compiles = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")


def network() -> nn.Module:
    """Normalisation to fold away, an activation that works in place on a wanted map, and layers nobody asks for."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.Conv2d(6, 5, 3, stride=2), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    ).eval()  # fmt: skip


def maps(capturing, batch):
    with capturing as capture:
        return capture(batch)


@compiles
def test_a_compiled_network_gives_the_maps_before_anything_works_in_place_on_them():
    module = network()
    module[1].running_mean[:], module[1].running_var[:] = torch.randn(6), torch.rand(6) + 0.5
    layers, batch = walk(module, (12, 12), ["1", "3"]), torch.randn(4, 3, 12, 12)
    expected = maps(Capture(module, layers), batch)
    assert expected["1"].min() < 0  # as it was before the activation
    for layout in FORMATS.values():
        shown = batch.contiguous(memory_format=layout)
        found = maps(CompiledCapture(module.to(memory_format=layout), layers), shown)
        assert list(found) == ["1", "3"]
        for name, own in found.items():
            assert own.is_contiguous()
            torch.testing.assert_close(own, expected[name], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_compiled_is_refused_in_a_sentence(tmp_path):
    code = """if True:
        import torch
        from microtome.errors import InputError
        from microtome.networks import walk
        from microtome.networks.engine import CompiledCapture
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 7, 3)).eval()
        try:
            CompiledCapture(module, walk(module, (9, 9), ["0"]))(torch.zeros(2, 3, 9, 9))
        except InputError as error:
            print(error)
    """
    alone = {"CXX": "no-such-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    environment = clean_environment(tmp_path) | alone | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.stdout.startswith(
        "execution.engine: torch.compile must be able to compile the network here, got Invalid"
    )
    assert done.stdout.endswith("; use eager\n")


def stored(artifact) -> np.ndarray:
    maps = Maps(artifact, {})
    return maps.of_images(0, range(70))


@compiles
def test_an_audits_maps_are_the_same_but_for_rounding_and_are_named_apart(audit_file):
    ways = ((), ("execution.layout=channels_last",), ("execution.engine=compiled",))
    made = [run(audit_file, *changes, until="activations")["activations"][0] for changes in ways]
    assert len({artifact.digest for artifact in made}) == len(ways)
    plain, *others = map(stored, made)
    assert plain.max() > 0
    for other in others:
        np.testing.assert_allclose(other, plain, rtol=1e-4, atol=1e-5)


def test_plan_advises_the_layout_that_is_quicker_here(audit_file, monkeypatch):
    plan = Plan(Request(audit_file))
    monkeypatch.setattr(Looked, "quicker", lambda _: 1.44)
    assert list(told(plan)) == []  # the maps of these few pictures take no time worth an advice
    monkeypatch.setattr("flows.foresee.LONG", 0.0)
    (said,) = told(plan)
    assert said.startswith("execution.layout: channels_last would make the forward pass 1.4 times as fast here")
    monkeypatch.setattr(Looked, "quicker", lambda _: 1.1)
    assert list(told(plan)) == []


@pytest.mark.parametrize("change", ["execution.layout=channels_last", "execution.engine=compiled"])
def test_plan_advises_nothing_where_another_way_is_chosen(audit_file, monkeypatch, change):
    monkeypatch.setattr(Looked, "quicker", lambda _: 9.0)
    monkeypatch.setattr("flows.foresee.LONG", 0.0)
    assert list(told(Plan(Request(audit_file, overrides=(change,))))) == []


def test_the_layouts_are_compared_by_running_the_network(audit_file):
    (looked,) = Plan(Request(audit_file)).looked.values()
    seen = []
    looked.module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert looked.quicker() > 0
    assert {shown.is_contiguous() for shown in seen} == {True, False}
    assert all(parameter.is_contiguous() for parameter in looked.module.parameters())
