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
from tasks.pictures import Pictures, pixel_network, sampled
from tasks.rows import Rows, append
from tasks.stage import Work

BATCH = 4


def run(work: Work) -> None:
    """Test every method on a sample of the pictures, in the network's own coordinates."""
    torch.set_num_threads(work.session.threads)
    whole, pictures = pixel_network(work), Pictures(work)
    network = whole.network
    chosen = sampled(len(pictures), work.parameters["images"], work.parameters["seed"])
    scale = work.job.reach["input"]
    x = whole.normalised(pictures.batch(chosen, work.session.device))
    with torch.no_grad():
        order = torch.cat([network(part) for part in x.split(BATCH)]).argsort(1, descending=True)
    found = {
        name: method
        for name, method in science.methods(seed=work.parameters["seed"]).items()
        if name in work.parameters["methods"]
    }
    shifts = science.shifts(x, scale["mean"], scale["std"], seed=work.parameters["seed"])
    layers = science.spread_evenly(science.parameter_layers(network), work.parameters["layers"])
    work.begin(len(found) * (len(shifts) + 2 * len(layers) + 2), "tests")
    rows: Rows = defaultdict(list)
    for name, method in found.items():
        _invariance(work, rows, name, (method, network, x, order[:, 0]), shifts)
        _randomisation(work, rows, name, (method, network, x, order[:, 0]), layers)
        cosine = _batched(
            lambda a, c, o, m=method: science.class_cosine(network, m, a, c, others=o), x, order[:, 0], order[:, 1]
        )
        passed = _limits(work).tells_classes_apart(cosine)
        _row(rows, (name, "class sensitivity", "first against second class"), cosine, passed)
        work.advance(1)
    work.draft.table("reliability", rows)


def _limits(work: Work) -> science.Limits:
    return science.Limits(
        *(work.parameters[name] for name in ("invariance_error", "randomised_cosine", "class_cosine"))
    )


Subject = tuple[Method, torch.nn.Module, torch.Tensor, torch.Tensor]


def _invariance(work: Work, rows: Rows, name: str, subject: Subject, shifts: Mapping[str, torch.Tensor]) -> None:
    method, network, x, classes = subject
    exact = copy.deepcopy(network).double()  # in float32 a ReLU that flips within rounding can move a map by a percent
    x = science.dithered(x.double(), work.job.reach["input"]["std"], work.parameters["seed"])
    for label, shift in shifts.items():
        found = science.joined_invariance(
            [
                science.invariance(exact, method, part, some, shift=shift.to(part))
                for part, some in zip(x.split(BATCH), classes.split(BATCH), strict=True)
            ]
        )
        _row(rows, (name, "input invariance", label), found.alike, _limits(work).invariant(found))
        work.advance(1)


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
            passed = _limits(work).forgets(alike.cosine) if direction == "from the output" and first else None
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
    append(rows, {**row, "value": value, "low": low, "high": high, "n": len(values), "passed": passed})
