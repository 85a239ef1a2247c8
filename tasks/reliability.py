"""Stage `reliability`: which saliency methods pass the tests that their pictures have to pass."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.quantify.intervals import mean_interval
from microtome.visualize import reliability as science
from microtome.visualize.reliability import Method
from tasks.networks import network_of
from tasks.pictures import Pictures, sampled
from tasks.rows import Rows, append
from tasks.stage import Work

BATCH = 4


def run(work: Work) -> None:
    """Test every method on a sample of the pictures, in the network's own coordinates."""
    torch.set_num_threads(work.session.threads)
    network = network_of(work).to(work.session.device)
    pictures = Pictures(work)
    chosen = sampled(len(pictures), work.parameters["images"], work.parameters["seed"])
    scale = work.job.reach["input"]
    mean, std = (torch.tensor(scale[name])[:, None, None] for name in ("mean", "std"))
    x = ((pictures.batch(chosen) - mean) / std).to(work.session.device)
    with torch.no_grad():
        order = torch.cat([network(part) for part in x.split(BATCH)]).argsort(1, descending=True)
    found = {
        name: method
        for name, method in science.methods(seed=work.parameters["seed"]).items()
        if name in work.parameters["methods"]
    }
    shifts = _shifts(x, mean, std, work.parameters["seed"])
    layers = _cascade(network, work.parameters["layers"])
    work.begin(len(found) * (len(shifts) + 2 * len(layers) + 2), "tests")
    rows: Rows = defaultdict(list)
    for name, method in found.items():
        _invariance(work, rows, name, (method, network, x, order[:, 0]), shifts)
        _randomisation(work, rows, name, (method, network, x, order[:, 0]), layers)
        cosine = _batched(
            lambda a, c, o, m=method: science.class_cosine(network, m, a, c, o), x, order[:, 0], order[:, 1]
        )
        limit = work.parameters["class_cosine"]
        _row(rows, (name, "class sensitivity", "first against second class"), cosine, np.mean(cosine) <= limit)
        work.advance(1)
    work.draft.table("reliability", rows)


def _shifts(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, seed: int) -> Mapping[str, torch.Tensor]:
    """In the network's own coordinates."""
    channels = x.shape[1]
    drawn = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed))
    return {
        "-1": torch.full((channels,), -1.0),
        "channel mean": (mean / std).flatten(),
        "+0.5": torch.full((channels,), 0.5),
        "drawn image": drawn,
    }


def _cascade(network: torch.nn.Module, wanted: int) -> list[str]:
    """At most so many of the layers with weights, the first and the last among them, evenly spread."""
    layers = science.parameter_layers(network)
    places = sorted({round(at) for at in np.linspace(0, len(layers) - 1, min(wanted, len(layers)))})
    return [layers[place] for place in places]


Subject = tuple[Method, torch.nn.Module, torch.Tensor, torch.Tensor]


def _invariance(work: Work, rows: Rows, name: str, subject: Subject, shifts: Mapping[str, torch.Tensor]) -> None:
    method, network, x, classes = subject
    exact = copy.deepcopy(network).double()  # in float32 a ReLU that flips within rounding can move a map by a percent
    x = dithered(x.double(), work.job.reach["input"]["std"], work.parameters["seed"])
    for label, shift in shifts.items():
        errors, gate = [], 0.0
        for part, some in zip(x.split(BATCH), classes.split(BATCH), strict=True):
            result = science.invariance(exact, method, part, some, shift.to(part))
            errors.append(result.error)
            gate = max(gate, result.gate)
        error = np.concatenate(errors)
        passed = None if gate > science.SAME_FUNCTION else bool(error.max() <= work.parameters["invariance_error"])
        _row(rows, (name, "input invariance", label), np.maximum(0.0, 1.0 - error), passed)
        work.advance(1)


def dithered(x: torch.Tensor, std: Sequence[float], seed: int) -> torch.Tensor:
    """Pictures with noise of less than half a grey level.

    In flat areas neighbouring cells are equal, pooling picks one of them by rounding, and the twin rounds differently:
    without this, gradients of photographs with white backgrounds seem to depend on the shift, by some five per cent.
    """
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) - 0.5
    return x + (noise / 255 / torch.tensor(std, dtype=x.dtype)[:, None, None]).to(x.device)


def _randomisation(work: Work, rows: Rows, name: str, subject: Subject, layers: Sequence[str]) -> None:
    """Cascading from the output and from the input; the network as it is never enters a mean."""
    method, network, x, classes = subject
    own = torch.cat([method(network, part, c) for part, c in zip(x.split(BATCH), classes.split(BATCH), strict=True)])
    every = science.parameter_layers(network)
    for direction, order in (("from the output", every[::-1]), ("from the input", every)):
        for layer, changed in science.randomised(network, order, work.parameters["seed"]):
            if layer not in layers:
                continue
            new = [method(changed, part, c) for part, c in zip(x.split(BATCH), classes.split(BATCH), strict=True)]
            alike = science.similarity(own, torch.cat(new))
            first = layer == order[0]
            limit = work.parameters["randomised_cosine"]
            passed = bool(np.mean(alike.cosine) <= limit) if direction == "from the output" and first else None
            for measure in ("cosine", "spearman", "ssim"):
                judged = passed if measure == "cosine" else None
                _row(rows, (name, f"randomisation {direction}, {measure}", layer), getattr(alike, measure), judged)
            work.advance(1)
    controls = {"edges": science.edges(x).expand_as(own), "noise": science.noise_maps(own, work.parameters["seed"])}
    for label, control in controls.items():
        alike = science.similarity(own, control)
        for measure in ("cosine", "spearman", "ssim"):
            _row(rows, (name, f"control, {measure}", label), getattr(alike, measure), None)
    work.advance(1)


def _batched(compare: Any, *parts: torch.Tensor) -> NDArray[np.float64]:
    split = [part.split(BATCH) for part in parts]
    return np.concatenate([compare(*some) for some in zip(*split, strict=True)])


def _row(rows: Rows, what: tuple[str, str, str], values: NDArray[np.float64], passed: bool | None) -> None:
    """Mean over pictures with a bootstrap interval; `passed` is None where nothing is judged, or the test is void."""
    value, low, high = mean_interval(values)
    row = dict(zip(("method", "test", "shift_or_layer"), what, strict=True))
    judged = None if passed is None else bool(passed)
    append(rows, {**row, "value": value, "low": low, "high": high, "n": len(values), "passed": judged})
