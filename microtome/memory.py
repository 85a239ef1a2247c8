"""Memory: kept from one batch to the next, and work that does not fit into it, told apart and let go of."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache

from microtome.errors import OutOfMemory

_SAID = ("can't allocate memory", "bad_alloc", "ALLOC_FAILED", "out of memory")
# For glibc's mallopt. By itself it gives blocks above 32 MB back to the system as soon as they are freed, and what is
# freed at the end of the heap soon after; the system then clears each page anew.
_KEPT = {
    -3: 1 << 30,  # M_MMAP_THRESHOLD: smaller blocks are cut from the heap
    -1: (1 << 31) - 1,  # M_TRIM_THRESHOLD: so much may lie free at its end
    -2: 64 << 20,  # M_TOP_PAD: it grows by so much at a time
    -8: 1,  # M_ARENA_MAX: threads share it, since heaps of their own hold no large blocks
}


@cache
def keep_freed() -> bool:
    """Have the C library keep what is freed for the next batch, from now on. Gives whether it could be asked to.

    A forward pass on a CPU takes and frees the same large blocks for each batch: with what the library does by itself
    a third of ResNet-50's time went into clearing pages (docs/dissection.md). Results are the same. Does nothing where
    the C library is not glibc.
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and all(mallopt(name, value) for name, value in _KEPT.items())


def trim() -> None:
    """Give what the C library keeps to the system, if it is glibc."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    try:
        library = ctypes.CDLL(None)
        return getattr(library, name) if hasattr(library, "gnu_get_libc_version") else None
    except TypeError:  # Windows has no library of the process as a whole
        return None


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the device's memory, or this process's, is used up.

    CUDA raises `torch.OutOfMemoryError`, or where a library of it asks for memory a RuntimeError; torch on a CPU a
    RuntimeError of its allocator; numpy and pyarrow a MemoryError.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


@contextlib.contextmanager
def fitting(key: str, batch: int) -> Iterator[None]:
    """Around work on one batch. Raises OutOfMemory where it does not fit.

    Args:
        key: of the audit file that says how large batches are.
        batch: how large this one is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(key, batch) from error


def let_go(error: BaseException) -> None:
    """Drop what an error keeps alive: the frames that it came through hold the batch, and the network."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
