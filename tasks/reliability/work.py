"""Stage `reliability`: which saliency methods pass the tests that their pictures have to pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.sampling import sampled
from microtome.errors import InputError
from microtome.quantify.crossed import crossed_interval
from microtome.quantify.intervals import mean_interval
from microtome.visualize import reliability as science
from microtome.visualize.attribution import Scaled, laid_out
from microtome.visualize.methods import Method
from microtome.visualize.reliability import Limits
from storage import Draft
from storage.tables import Row
from tasks.index.result import Index
from tasks.reliability import ReliabilityOptions
from tasks.saliency import at_hand
from tasks.saliency.at_hand import AtHand
from tasks.session import Session
from tasks.subject import Subject

BATCH = 4
MEASURES = ("cosine", "spearman", "ssim")


@dataclass(frozen=True)
class Inputs:
    """Pictures, and the network that looks at them."""

    index: Index
    network: Subject


def shards(options: ReliabilityOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """The methods, also those that the network turns out not to have."""
    return dict.fromkeys(options.methods, 1)


class Shard:
    """Tests methods on a sample of the pictures, by pixels in [0, 1]: the maps that the gallery draws.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: ReliabilityOptions, inputs: Inputs, session: Session) -> None:
        self._bench = Bench.of(options, inputs, session)
        self._wanted = AtHand.of(options, self._bench.network, inputs.index.frame.size, session)

    def __call__(self, draft: Draft, name: str) -> None:
        """Leave the rows of a method's tests, and what is to be known of every method."""
        rows: list[Row] = []
        for method in [found for called, found in self._wanted.methods.items() if called == name]:
            own = self._bench.maps(method, self._bench.network)
            tests = (
                self._bench.invariance(method),
                self._bench.randomisation(method, own),
                self._bench.class_sensitivity(method, own),
            )
            rows += [{"method": name, **row} for row in chain(*tests)]
        draft.leave(name, {"reliability": rows, "reliability_methods": self._wanted.rows})


def run(options: ReliabilityOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Put the methods' rows together, in the order in which they are asked for."""
    parts = {name: draft.left(name) for name in options.methods}
    methods = parts[options.methods[0]]["reliability_methods"]
    draft.rows("reliability", [row for part in parts.values() for row in part["reliability"]])
    draft.rows("reliability_methods", methods)


def preflight(options: ReliabilityOptions, network: torch.nn.Module, size: tuple[int, int]) -> None:
    """Refuse what could only fail later.

    Raises:
        InputError: no method suits the network, Grad-CAM's layer is none, or no shift of its input can be undone.
    """
    at_hand.preflight(options, network, size)
    try:
        science.shifted_twin(network, torch.zeros(3))
    except InputError as error:
        raise InputError([fault.replace("reliability: ", "network: ") for fault in error.faults]) from error


@dataclass(frozen=True)
class Bench:
    """What every method is tested on.

    Args:
        network: takes pixels in [0, 1].
        x: (pictures, 3, height, width).
        order: (pictures, classes) the classes by rank.
        layers: whose randomisation is shown.
        limits: of a pass.
        session: of the stage.
        shifts: of the pixels, by name.
    """

    network: Scaled
    x: torch.Tensor
    order: torch.Tensor
    layers: Sequence[str]
    limits: Limits
    session: Session
    shifts: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, options: ReliabilityOptions, inputs: Inputs, session: Session) -> Bench:
        """Pictures and network of a stage."""
        network, scale, source = inputs.network.pixels(session.device), inputs.network.scale, inputs.index.source
        x = source.batch(sampled(len(source), options.images, session.seed), session.device)
        with torch.no_grad():
            order = torch.cat([network(part) for part in torch.split(x, BATCH)]).argsort(1, descending=True)
        limits = Limits(options.invariance_error, options.randomised_cosine, options.class_cosine)
        layers = science.spread_evenly(science.parameter_layers(network.network), options.randomised)
        shifts = science.shifts(source.frame.size, scale.mean, scale.std, seed=session.seed)
        return cls(network, x, order, layers, limits, session, shifts)

    def maps(self, method: Method, network: torch.nn.Module, *, rank: int = 0) -> torch.Tensor:
        """(pictures, 3, height, width) maps of the class of a rank, the predicted one by default."""
        fast = laid_out(network)
        return torch.cat([method(fast, x, classes) for x, classes in self.batches(self.x, rank)])

    def batches(self, x: torch.Tensor, rank: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pictures and their classes of a rank."""
        return zip(torch.split(x, BATCH), torch.split(self.order[:, rank], BATCH), strict=True)

    def invariance(self, method: Method) -> Iterator[Row]:
        """Under shifts of the input that a twin undoes; in float64, where no ReLU flips by rounding."""
        exact = laid_out(science.exactly_shifted(self.network, self.x[:1]))
        batches = list(self.batches(science.dithered(self.x.double(), self.session.seed)))
        own = [method(exact, x, classes, x) for x, classes in batches]
        for label, shift in self.shifts.items():
            parts = [
                science.invariance(exact, method, x, classes, shift=shift.to(x), own=maps)
                for (x, classes), maps in zip(batches, own, strict=True)
            ]
            found = science.joined_invariance(parts)
            yield _row("input invariance", label, found.alike, self.limits.invariant(found))
            self.session.check()

    def randomisation(self, method: Method, own: torch.Tensor) -> Iterator[Row]:
        """Cascading from the output and from the input; the network as it is never enters a mean.

        Args:
            method: under test.
            own: its maps of the network as it is.
        """
        whole = self.network.network
        every = science.parameter_layers(whole)
        for direction, order in (("from the output", every[::-1]), ("from the input", every)):
            for layer, changed in science.randomised(whole, order, self.session.seed):
                if layer not in self.layers:
                    continue
                label = science.layer_label(whole, layer)
                if direction == "from the output" and layer == order[0]:
                    yield from self.forgetting(method, own, layer, label)
                else:
                    yield from _alike(f"randomisation {direction}", label, self.alike(method, own, changed), None)
                self.session.check()
        noise = science.noise_maps(own, self.session.seed)
        for label, control in {"edges": science.edges(self.x).expand_as(own), "noise": noise}.items():
            yield from _alike("control", label, science.similarity(own, control), None)
        self.session.check()

    def alike(self, method: Method, own: torch.Tensor, changed: torch.nn.Module) -> science.Similarity:
        """How alike a method's maps are with those of a changed network."""
        behind = Scaled(changed, *self.network.scale).to(self.x.device)
        return science.similarity(own, self.maps(method, behind))

    def forgetting(self, method: Method, own: torch.Tensor, layer: str, label: str) -> Iterator[Row]:
        """The verdict of randomisation: the layer next to the output drawn anew several times."""
        copies = science.redrawn(self.network.network, layer, self.session.seed)
        drawn = [self.alike(method, own, changed) for changed in copies]
        for measure in MEASURES:
            values = np.array([getattr(alike, measure) for alike in drawn])
            passed = self.limits.forgets(values) if measure == "cosine" else None
            yield _row(f"randomisation from the output, {measure}", label, values, passed)

    def class_sensitivity(self, method: Method, own: torch.Tensor) -> Iterator[Row]:
        """Between the maps of the two best classes.

        Args:
            method: under test.
            own: its maps of the best class.
        """
        cosine = science.similarity(own, self.maps(method, self.network, rank=1)).cosine
        passed = self.limits.tells_classes_apart(cosine)
        yield _row("class sensitivity", "first against second class", cosine, passed)
        self.session.check()


def _alike(test: str, label: str, alike: science.Similarity, passed: bool | None) -> Iterator[Row]:
    """A row for each measure; the cosine alone is judged."""
    for measure in MEASURES:
        judged = passed if measure == "cosine" else None
        yield _row(f"{test}, {measure}", label, getattr(alike, measure), judged)


def _row(test: str, label: str, values: NDArray[np.float64], passed: bool | None) -> Row:
    """Mean over (pictures,) or (draws, pictures) with a bootstrap interval over both; `passed` is None where nothing is
    judged, or the test is void."""
    value, low, high = mean_interval(values) if values.ndim == 1 else crossed_interval(values)
    draws = 1 if values.ndim == 1 else len(values)
    what = {"test": test, "shift_or_layer": label, "n": values.shape[-1], "draws": draws}
    return {**what, "value": value, "low": low, "high": high, "passed": passed}
