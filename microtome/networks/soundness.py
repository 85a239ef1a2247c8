"""Whether a network can be looked at at all: ordinary modules, with weights in memory, in float32, none of them NaN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.parameter import is_lazy

from microtome.errors import InputError


def refuse_unfit(module: torch.nn.Module, load: str) -> None:
    """Before weights are put in.

    TorchScript runs its layers without telling anybody; everything in microtome computes in float32; weights that are
    on 'meta', or of lazy modules that never ran, have a shape at most.

    Args:
        module: what the factory returned.
        load: the factory, for the error.

    Raises:
        InputError: it is not ordinary, or has a weight that is not there or not in float32.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise InputError(
                f"network.load: must give an ordinary torch.nn.Module, got TorchScript{f' as {name}' if name else ''} "
                f"from {load}, whose layers cannot be watched; return the module itself, before torch.jit touches it"
            )
    weights = [*module.named_parameters(), *module.named_buffers()]
    empty = [name for name, weight in weights if weight.is_meta or is_lazy(weight)]
    if empty:
        raise InputError(
            f"network.load: weights must be in memory, got {listed(empty)} of {load} on 'meta' or of a lazy module; "
            "build the network on the CPU, and give lazy modules their sizes"
        )
    kinds = {name: p.dtype for name, p in module.named_parameters() if p.is_floating_point()}
    other = [name for name, kind in kinds.items() if kind != torch.float32]
    if other:
        loss = "which rounds them" if torch.float64 in kinds.values() else "which changes none of them"
        got = " and ".join(sorted({str(kinds[name]) for name in other}))
        raise InputError(
            f"network.load: weights must be float32, got {got} in {listed(other)} of {load}; return module.float() "
            f"from the factory, {loss}"
        )


def refuse_not_finite(module: torch.nn.Module, source: str) -> None:
    """After weights were put in: no parameter may hold NaN or infinity, and no buffer NaN (masks of -inf are ordinary).

    Args:
        module: the network.
        source: of its weights, with the audit file's key.

    Raises:
        InputError: some do, with their names.
    """
    faults = [f"{name} ({count:,} of {p.numel():,})" for name, p in module.named_parameters() if (count := _wrong(p))]
    faults += [f"{name} ({count:,} of {b.numel():,})" for name, b in module.named_buffers() if (count := _nan(b))]
    if faults:
        raise InputError(
            f"{source}: weights must be finite numbers, got NaN or infinity in {listed(faults)}; the training diverged "
            "or the file is damaged: use an earlier or another copy"
        )


def listed(names: Sequence[str]) -> str:
    """The first eight of many, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _wrong(weight: torch.Tensor) -> int:
    """How many are not finite. Their sum says at once that none is, in most cases."""
    if not weight.is_floating_point() or torch.isfinite(weight.sum()):
        return 0
    return int((~torch.isfinite(weight)).sum())


def _nan(buffer: torch.Tensor) -> int:
    return int(torch.isnan(buffer).sum()) if buffer.is_floating_point() else 0
