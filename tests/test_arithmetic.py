"""float32 means float32; what rounds more is asked for by name, and leaves torch as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flows.plan import Plan, Request
from microtome.arithmetic import computing
from microtome.errors import InputError
from storage import Artifact
from tasks.activations.making import ahead
from tasks.activations.result import Maps
from tasks.tally.lighting import Lighter
from tests.test_pipeline import moved, run

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
BACKENDS = torch.backends


def settings() -> tuple[object, ...]:
    places = (BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.cuda.matmul)
    places += (BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn, BACKENDS.mkldnn.matmul)
    return tuple(place.fp32_precision for place in places)


def switches() -> tuple[bool, bool, str]:
    return BACKENDS.cudnn.allow_tf32, BACKENDS.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()


def nothing() -> None: ...


def by_older_switches() -> None:
    BACKENDS.cuda.matmul.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")


def by_newer_switches() -> None:
    BACKENDS.cudnn.conv.fp32_precision = "ieee"
    BACKENDS.cuda.matmul.fp32_precision = "tf32"


@pytest.fixture
def restored():
    yield
    BACKENDS.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    for place in (BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn):
        place.fp32_precision = "tf32"


@pytest.mark.parametrize("changed", [nothing, by_older_switches, by_newer_switches])
@pytest.mark.parametrize("arithmetic", ["float32", "tf32", "bf16"])
def test_torch_is_set_to_the_arithmetic_and_then_as_it_was(restored, changed, arithmetic):
    changed()
    before, wanted = settings(), "tf32" if arithmetic == "tf32" else "ieee"
    with computing(arithmetic):
        assert settings()[:5] == (wanted, wanted, wanted, "ieee", "ieee")
        assert torch.is_autocast_enabled("cpu") == (arithmetic == "bf16")
        if changed is not by_newer_switches:  # these cannot be read beside the older ones, before or inside
            assert switches() == (wanted == "tf32", wanted == "tf32", "high" if wanted == "tf32" else "highest")
    assert settings() == before
    with pytest.raises(ZeroDivisionError), computing(arithmetic):
        1 / 0  # noqa: B018
    assert settings() == before


def test_stages_compute_in_float32_whatever_was_set(audit_file, restored, monkeypatch):
    by_older_switches()
    seen = []

    def watched(*_: object, **__: object) -> None:
        seen.append((*settings()[:3], torch.is_autocast_enabled("cpu")))

    light = Lighter.light
    monkeypatch.setattr(Lighter, "light", lambda self, maps: (watched(), light(self, maps))[1])
    before = settings()
    run(audit_file, until="tally")
    assert set(seen) == {("ieee", "ieee", "ieee", False)}
    assert settings() == before


def stored(artifact: Artifact) -> np.ndarray:
    return Maps(artifact, {}).of_images(0, range(70))


def test_bf16_rounds_maps_and_has_a_name_of_its_own(audit_file):
    plain = run(moved(audit_file, "a"), until="activations")["activations"][0]
    rounded = run(moved(audit_file, "b"), "execution.arithmetic=bf16", until="activations")["activations"][0]
    assert rounded.digest != plain.digest
    one, other = stored(plain), stored(rounded)
    assert other.dtype == np.float32
    np.testing.assert_array_equal(other, torch.from_numpy(other).bfloat16().float().numpy())  # of 8 bits each
    error = np.abs(other - one).max() / np.abs(one).max()
    assert 1e-4 < error < 0.02


def test_bf16_maps_come_out_the_same_when_they_are_made_again(audit_file):
    how = ("execution.arithmetic=bf16", "stages.report=false")
    found = []
    for storage in ("none", "recompute"):
        done = run(moved(audit_file, storage), *how, f"execution.storage={storage}", until="tally")
        found.append(
            [done[stage][0].read(f"{table}.parquet") for stage, table in (("thresholds",) * 2, ("tally", "iou"))]
        )
    assert found[0] == found[1]


def test_tf32_is_refused_without_cuda(audit_file):
    with pytest.raises(
        InputError, match=r"^execution\.arithmetic: tf32 must be computed on a CUDA device, got device cpu"
    ):
        Plan(Request(audit_file, device="cpu", overrides=("execution.arithmetic=tf32",))).jobs  # noqa: B018


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_so_many_more_are_begun_than_were_asked_for(count):
    begun: list[int] = []
    for place, one in enumerate(ahead(lambda one: begun.append(one) or one, range(6), count)):
        assert place == one
        assert len(begun) == min(6, place + 1 + count)
    assert begun == list(range(6))
    assert list(ahead(str, [], count)) == []


def test_batches_on_their_way_give_the_same_maps(audit_file, monkeypatch):
    """As on a CUDA device, where one is computed while the last one's maps are copied."""
    plain = run(moved(audit_file, "a"), until="activations")["activations"][0]
    monkeypatch.setattr("tasks.activations.making.ahead", lambda begin, wanted, count: ahead(begin, wanted, 2))
    other = run(moved(audit_file, "b"), until="activations")["activations"][0]
    np.testing.assert_array_equal(stored(other), stored(plain))


@cuda
@pytest.mark.parametrize("how", [(), ("execution.storage=recompute",), ("execution.arithmetic=tf32",)])
def test_maps_of_a_cuda_device_are_those_of_the_cpu_but_for_rounding(audit_file, how):
    plain = run(moved(audit_file, "a"), "device=cpu", until="thresholds")["thresholds"][0]
    other = run(moved(audit_file, "b"), "device=cuda", *how, until="thresholds")["thresholds"][0]
    one, two = (found.table("thresholds").column("threshold").to_numpy() for found in (plain, other))
    tolerance = 1e-2 if "execution.arithmetic=tf32" in how else 1e-5
    np.testing.assert_allclose(two, one, rtol=tolerance, atol=tolerance * np.abs(one).max())


@cuda
def test_convolutions_on_cuda_are_float32():
    torch.manual_seed(0)
    layer, pictures = torch.nn.Conv2d(64, 64, 3).cuda(), torch.randn(4, 64, 32, 32).cuda()
    exact = torch.nn.functional.conv2d(pictures.double(), layer.weight.double(), layer.bias.double())
    with torch.inference_mode(), computing("float32", "cuda"):
        one = (layer(pictures) - exact).abs().max()
    with torch.inference_mode(), computing("tf32", "cuda"):
        two = (layer(pictures) - exact).abs().max()
    assert one < 1e-5
    assert two > 1e-4 or torch.cuda.get_device_capability() < (8, 0)
