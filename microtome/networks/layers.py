"""Name the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch

from microtome.errors import InputError, suggest

MOST = 6  # layers at either end that are named where none is alike


def layer_names(module: torch.nn.Module) -> list[str]:
    """Dotted names of all submodules, in the order in which they are registered."""
    return [name for name, _ in module.named_modules() if name]


def _some(names: Sequence[str]) -> str:
    """A clause with the first and the last of many layers."""
    return f"; its {len(names)} layers are {', '.join(names[:MOST])}, ..., {', '.join(names[-MOST:])}"


def match_layers(module: torch.nn.Module, patterns: Sequence[str]) -> list[str]:
    """Layers that the patterns name, in the network's order, each once.

    Args:
        module: the network.
        patterns: dotted names (`features.12`) or globs (`layer*.0`, `features.1?`).

    Raises:
        InputError: a pattern that matches no layer, with the nearest names.
    """
    names = layer_names(module)
    faults = [
        f"network.layers: no layer {pattern!r} in {type(module).__name__}{suggest(pattern, names) or _some(names)}"
        for pattern in patterns
        if not any(fnmatchcase(name, pattern) for name in names)
    ]
    if faults:
        raise InputError(faults)
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
