"""What a network does with real pictures, before anything is computed from it.

`walk` sees one blank batch. Here each of a few batches of pictures goes through twice, and one picture alone, with the
wanted layers watched. A layer must run once in every pass, and answer with the same shape, in float32, in finite
numbers, the same at each call, and the same whoever shares a picture's batch: every figure rests on these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from microtome.errors import InputError
from microtome.importing import users_code
from microtome.networks.geometry import LayerGeometry

ANSWER = "the network's answer"

_Given = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Comparison:
    """Two passes whose answers to a picture must be the same.

    Args:
        between: which two.
        advice: what to do where they are not.
        cpu, cuda: what they may differ by, as a share of the largest value.
    """

    between: str
    advice: str
    cpu: float
    cuda: float

    def tolerance(self, largest: float, *, cuda: bool) -> float:
        """What values may differ by, where the largest of them is so large."""
        return largest * (self.cuda if cuda else self.cpu)


_AGAIN = _Comparison(
    "two identical calls",
    "eval() must switch off dropout, noise and whatever changes a state",
    cpu=1e-5,
    cuda=1e-5,
)
_ALONE = _Comparison(
    "a picture in a batch and alone",
    "each picture must be computed for itself; a normalisation over the batch needs running statistics, used in eval()",
    cpu=1e-4,
    cuda=1e-2,  # kernels differ with the batch, and whoever called may round factors to 11 bits (TF32)
)


def probe(
    module: torch.nn.Module, layers: Sequence[LayerGeometry], batches: Sequence[torch.Tensor], *, answer: bool = False
) -> None:
    """Refuse a network whose layers do not answer steadily.

    Args:
        module: the network, in eval mode.
        layers: geometry of each wanted layer, from `walk`.
        batches: (pictures, 3, height, width) each, normalised for the network, on its device; at least two pictures in
            the first, which must differ for a layer that mixes them to be found.
        answer: whether the network's own answer is wanted too: (pictures, classes).

    Raises:
        InputError: a layer that does not keep to the rules above, with what it did; or the network fails.
    """
    known = {layer.name: layer for layer in layers}
    firsts: list[_Given] = []
    for batch in batches:
        firsts.append(_pass(module, known, batch, answer))
        _refuse(_reshaped(firsts[0], firsts[-1], "two batches"))
        _compare(firsts[-1], _pass(module, known, batch, answer), _AGAIN)
    if firsts:
        among = {name: given[: known[name].parts if name in known else 1] for name, given in firsts[0].items()}
        _compare(among, _pass(module, known, batches[0][:1], answer), _ALONE)


def _pass(module: torch.nn.Module, layers: Mapping[str, LayerGeometry], batch: torch.Tensor, answer: bool) -> _Given:
    """What each layer gives, in the order in which they run; after them the network's own answer if it is wanted."""
    given: dict[str, list[object]] = {}
    handles = [module.get_submodule(name).register_forward_hook(_keep(given, name)) for name in layers]
    try:
        with torch.inference_mode(), users_code("network.load", f"the network fails on {len(batch)} of the pictures"):
            said = module(batch.clone())  # some networks normalise their input in place
    finally:
        for handle in handles:
            handle.remove()
    order = sorted(layers, key=lambda name: list(given).index(name) if name in given else -1)
    faults = {name: _layer_fault(layers[name], given.get(name, []), len(batch)) for name in order}
    if answer:
        faults[ANSWER], given[ANSWER] = _answer_fault(said, len(batch)), [said]
    _refuse({name: fault for name, fault in faults.items() if fault})
    return {name: outputs[0] for name, outputs in given.items() if isinstance(outputs[0], torch.Tensor)}


def _keep(given: dict[str, list[object]], name: str) -> Callable[..., None]:
    """A hook that keeps copies: what follows may work in place."""

    def hook(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        given.setdefault(name, []).append(output.clone() if isinstance(output, torch.Tensor) else output)

    return hook


def _layer_fault(layer: LayerGeometry, outputs: Sequence[object], pictures: int) -> str:
    """What is wrong with what a layer gave in one pass; empty if nothing is."""
    if len(outputs) != 1:
        return (
            f"must run once in every forward pass, got {len(outputs)} times for {pictures} pictures (blank: once); "
            "name a layer that does not depend on what is shown"
        )
    output = outputs[0]
    if not isinstance(output, torch.Tensor):
        return f"must give a tensor for every picture, got {type(output).__name__}; name a layer before or after it"
    expected, shape = (pictures, layer.units, *layer.grid), _map_shape(layer, output)
    if shape != expected:
        return (
            f"must give maps of one shape for all pictures, got {shape} where a blank input promised {expected} "
            "(pictures, units, rows, columns); name a layer that does not depend on what is shown"
        )
    return _value_fault(output)


def _map_shape(layer: LayerGeometry, output: torch.Tensor) -> tuple[int, ...]:
    """Of the maps; of the output itself where it cannot be read as maps, or has other tokens than it had."""
    try:
        return tuple(layer.as_maps(output).shape)
    except (RuntimeError, IndexError):
        return tuple(output.shape)


def _answer_fault(answer: object, pictures: int) -> str:
    if not isinstance(answer, torch.Tensor):
        return f"must be a tensor (pictures, classes), got {type(answer).__name__}; return the logits alone"
    if answer.ndim != 2 or len(answer) != pictures:
        shape = tuple(answer.shape)
        return f"must be (pictures, classes), got {shape} for {pictures} pictures; return one vector of logits for each"
    return _value_fault(answer)


def _value_fault(output: torch.Tensor) -> str:
    if output.dtype != torch.float32:
        return f"must be float32, got {output.dtype}; take .half(), autocast or quantisation out of the network"
    wrong = int((~torch.isfinite(output)).sum())
    if wrong:
        return (
            f"must give finite values, got NaN or infinity in {wrong:,} of {output.numel():,}; check the weights and "
            "network.input (mean, std)"
        )
    return ""


def _compare(first: _Given, other: _Given, passes: _Comparison) -> None:
    _refuse(_reshaped(first, other, passes.between))
    faults = {}
    for name, given in first.items():
        largest, difference = (float(values.abs().max()) for values in (given, given - other[name]))
        if difference > passes.tolerance(largest, cuda=given.is_cuda):
            faults[name] = (
                f"must answer the same to the same picture, got values that differ by up to {difference:.3g} between "
                f"{passes.between} (the largest is {largest:.3g}); {passes.advice}"
            )
    _refuse(faults)


def _reshaped(first: _Given, other: _Given, between: str) -> dict[str, str]:
    """Layers whose answers to a picture differ in shape; tokens beyond a grid's are seen here only."""
    shapes = {name: (tuple(given.shape[1:]), tuple(other[name].shape[1:])) for name, given in first.items()}
    return {
        name: f"must give every picture one shape, got {one} and {two} between {between}; name a layer that does not "
        "depend on what is shown"
        for name, (one, two) in shapes.items()
        if one != two
    }


def _refuse(faults: Mapping[str, str]) -> None:
    """Raise the fault of the layer that runs first, and say how many after it have one."""
    if not faults:
        return
    name, fault = next(iter(faults.items()))
    key = "network.load" if name == ANSWER else "network.layers"
    more = f" (and {len(faults) - 1} more after it)" if len(faults) > 1 else ""
    raise InputError(f"{key}: {name}{'' if name == ANSWER else ':'} {fault}{more}")
