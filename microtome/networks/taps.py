"""Layers that a network has no module for: what a module is given, and how much each attention head gives to it.

`NAME.input` is what the module NAME is given. Of the projection that ends an attention block (`attn.proj`) that is what
the heads make of the values, one head's units after another's, at every place. `NAME.heads` is a unit per head of the
same: the Euclidean norm of its part. Each is a module of its own within NAME, through which its input goes, so that it
can be watched, removed and optimised like every other layer; the network answers as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from microtome.errors import InputError

_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "heads", "n_head")


class Given(nn.Identity):
    """What a module is given."""


class Heads(nn.Identity):
    """How much each head gives to a module: (..., heads), or (pictures, heads, rows, columns) before a convolution.

    Args:
        count: of heads.
        dim: along which their parts lie one after another.
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.count, self.dim = count, dim


def tap(network: nn.Module, names: Sequence[str]) -> None:
    """Put in the layers that some names mean.

    Args:
        network: whose modules get them.
        names: dotted names or globs of layers; those that end otherwise mean modules that are there.

    Raises:
        InputError: there are no heads whose parts could be told.
    """
    modules = dict(network.named_modules())
    for pattern in names:
        base, _, kind = pattern.rpartition(".")
        for name in [found for found in modules if found and fnmatchcase(found, base)] if kind in _KINDS else ():
            if pattern not in modules and not hasattr(modules[name], kind):
                _KINDS[kind](modules, name)


def _tap_input(modules: Mapping[str, nn.Module], name: str) -> None:
    modules[name].add_module("input", Given())
    modules[name].register_forward_pre_hook(_through_input)


def _tap_heads(modules: Mapping[str, nn.Module], name: str) -> None:
    module, parent = modules[name], modules[name.rpartition(".")[0]]
    counts = [count for key in _COUNTS if isinstance(count := getattr(parent, key, None), int)]
    if not counts:
        raise InputError(
            f"network.layers: {name}.heads: the module around {name} must say how many heads it has (num_heads), got a "
            f"{type(parent).__name__} that does not; name {name}.input, which is what all heads give together"
        )
    module.add_module("heads", Heads(counts[0], 1 if isinstance(module, nn.Conv2d) else -1))
    module.register_forward_pre_hook(_through_heads)


_KINDS: Mapping[str, Callable[[Mapping[str, nn.Module], str], None]] = {"input": _tap_input, "heads": _tap_heads}


def _through_input(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (module.get_submodule("input")(inputs[0]), *inputs[1:])


def _through_heads(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Each head's part times what the layer says its norm is, through its norm: by 1 where nobody changes that."""
    heads = module.get_submodule("heads")
    if not isinstance(heads, Heads):
        return inputs
    parts = torch.unflatten(inputs[0], heads.dim, (heads.count, -1))
    within = heads.dim + 1 if heads.dim > 0 else -1
    norms = torch.linalg.vector_norm(parts, dim=within)
    factor = torch.where(norms > 0, heads(norms) / norms.clamp_min(torch.finfo(norms.dtype).tiny), 1.0)
    return ((parts * factor.unsqueeze(within)).flatten(heads.dim - (heads.dim < 0), within), *inputs[1:])
