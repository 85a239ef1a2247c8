"""Work that does not fit into memory: told apart from other errors, and let go of; and memory that is handed back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import traceback
from collections.abc import Iterator

from microtome.errors import OutOfMemory

_SAID = ("can't allocate memory", "bad_alloc", "ALLOC_FAILED", "out of memory")


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


def hand_back() -> None:
    """Hand what was freed back to the system: pyarrow's pool keeps it, and glibc where anything above it is in use.

    Other C libraries have no such call, and nothing is done.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
