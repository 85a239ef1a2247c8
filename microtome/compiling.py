"""Loops that numba compiles when they are first called, and keeps for the user's other processes.

Numba's own cache looks at the file of a function alone, and would go on with what it compiled of the other files that
the function calls. Here all of `microtome.quantify`, where the loops are, has to be what it was: each state of it has a
folder of its own, so that no process finds what another made of other code. What cannot be read or written costs a
compilation, never an audit. Where a new folder is made, those that no process has used for a month go.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator
from numba.core.dispatcher import Dispatcher
from numba.core.sigutils import normalize_signature

LOOPS = Path(__file__).parent / "quantify"
UNUSED = 30 * 86400
"""Seconds after which a folder that nobody has used is one of code that is no more."""
_NAME = re.compile("[0-9a-f]{32}")  # of our folders

Loop = TypeVar("Loop", bound=Callable[..., object])


class LoopFolder(UserWideCacheLocator):
    """In numba's folder of this user's caches, by the digest of all our loops' code."""

    def get_cache_path(self) -> str:
        """Where what is compiled lies."""
        return str(Path(super().get_cache_path()) / code()[:32])  # type: ignore[no-untyped-call]

    def get_source_stamp(self) -> str:
        """What was compiled counts as long as this is the same."""
        return code()

    def ensure_cache_path(self) -> None:
        """See to it that the folder is there, which every process does that has loops. Raises OSError: it cannot be."""
        folder = Path(self.get_cache_path())
        new = not folder.exists()
        super().ensure_cache_path()  # type: ignore[no-untyped-call]
        with suppress(OSError):
            os.utime(folder)
            if new:
                _prune(folder)


def _prune(kept: Path) -> None:
    """Remove the folders beside one that nobody has used for long, as far as that is possible.

    Whoever has used one all the while has its loops in memory, and at worst compiles those that it had not called yet.
    """
    for folder in kept.parent.iterdir():
        if folder != kept and _NAME.fullmatch(folder.name) and time.time() - folder.lstat().st_mtime > UNUSED:
            shutil.rmtree(folder, ignore_errors=True)


class _CompiledLoop(CompileResultCacheImpl):
    _locator_classes = [LoopFolder]


class CompiledLoops(FunctionCache):
    """What was compiled of a function; of damaged files, and on a full disk, nothing."""

    _impl_class = _CompiledLoop

    def load_overload(self, sig, target_context):  # type: ignore[no-untyped-def]
        """What is kept of a signature, or None.

        Two processes may choose one name for what they compile of two signatures: what is found has to be of this one.
        """
        try:
            found = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # whatever a damaged pickle raises
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None
        return found if found is None or found.signature.args == normalize_signature(sig)[0] else None  # type: ignore[no-untyped-call]

    def save_overload(self, sig, data):  # type: ignore[no-untyped-def]
        """Keep what was compiled, if that is possible."""
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


@lru_cache(1)
def code() -> str:
    """Digest of the code of all loops and of what they call."""
    found = hashlib.sha256()
    for file in sorted(LOOPS.rglob("*.py")):
        found.update(f"{file.relative_to(LOOPS)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def compiled(loop: Loop) -> Dispatcher[Loop]:
    """A loop that lets go of Python's lock, compiled once; anew in each process where there is no place to keep it."""
    found = njit(nogil=True)(loop)
    if not vars(config)["CACHE_LOCATOR_CLASSES"]:  # by which somebody would have all caches elsewhere, by other rules
        with suppress(RuntimeError):  # no folder of the user's that can be written
            found._cache = CompiledLoops(loop)  # type: ignore[attr-defined, no-untyped-call]  # as `enable_caching` does with numba's own
    return found
