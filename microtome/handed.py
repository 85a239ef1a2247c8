"""Networks and data sets that a program hands over as objects, found again by a number as files and code are by a name.

number = hand_over(model)
NetworkSpec("microtome.handed:network", {"number": number})
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from microtome.datasets.base import Dataset
from microtome.errors import InputError

if TYPE_CHECKING:
    import torch

_numbers = itertools.count(1)
_handed: WeakValueDictionary[int, object] = WeakValueDictionary()
GONE = "the object was handed over as number {}, and is no longer there: keep the result that it was handed over for"


def hand_over(thing: torch.nn.Module | Dataset) -> int:
    """Its number, never given twice. The caller keeps the object: here it is not kept alive."""
    number = next(_numbers)
    _handed[number] = thing
    return number


def network(number: int) -> torch.nn.Module:
    """A copy of a network, on the CPU: the caller's own is never touched.

    Raises:
        InputError: it is gone, or cannot be copied.
    """
    import torch

    found = _handed.get(number)
    if not isinstance(found, torch.nn.Module):
        raise InputError(GONE.format(number))
    try:
        return copy.deepcopy(found).cpu()
    except Exception as error:  # whatever a module of somebody's raises
        raise InputError(
            f"model: must be a module that copy.deepcopy can copy, got {type(found).__name__}, of which it says: "
            f"{error}; detach tensors that the module keeps"
        ) from error


def dataset(number: int) -> Dataset:
    """A data set itself: stages only read it. Raises InputError if it is gone."""
    found = _handed.get(number)
    if not isinstance(found, Dataset):
        raise InputError(GONE.format(number))
    return found
