"""Memory that is freed and kept, given back to the system."""

from __future__ import annotations

import pyarrow as pa

from microtome.memory import trim


def give_back() -> None:
    """Give what is kept of freed memory to the system: by pyarrow's pool, and by the C library, if it is glibc."""
    pa.default_memory_pool().release_unused()
    trim()
