"""Loops that numba compiles when they are first called, and keeps for the user's other processes.

Numba's own cache looks at the file of a function alone, and would go on with what it compiled of the other files that
the function calls. Here all of `microtome.quantify`, where the loops are, has to be what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from numba import config, njit
from numba.core.caching import UserWideCacheLocator
from numba.core.dispatcher import Dispatcher

LOOPS = Path(__file__).parent / "quantify"
_LOCATORS = "CACHE_LOCATOR_CLASSES"  # numba's setting: who says where what is compiled is kept

Loop = TypeVar("Loop", bound=Callable[..., object])


class Kept(UserWideCacheLocator):
    """In numba's folder of this user's caches, under the digest of all our loops' code."""

    def get_source_stamp(self) -> str:
        """What was compiled counts as long as this is the same."""
        return code()


@lru_cache(1)
def code() -> str:
    """Digest of the code of all loops and of what they call."""
    found = hashlib.sha256()
    for file in sorted(LOOPS.rglob("*.py")):
        found.update(f"{file.relative_to(LOOPS)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def compiled(loop: Loop) -> Dispatcher[Loop]:
    """A loop that lets go of Python's lock, compiled once; anew in each process where there is no place to keep it."""
    settings = vars(config)
    before, settings[_LOCATORS] = settings[_LOCATORS], f"{__name__}.{Kept.__name__}"
    try:
        return njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # no folder of the user's that can be written
        return njit(nogil=True)(loop)
    finally:
        settings[_LOCATORS] = before
