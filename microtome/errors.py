"""The one kind of error that a user can cause, and how it is put into words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MOST_FAULTS = 50  # that are listed
ALIKE = 3  # that are listed one by one
MORE_MEMORY = "use a smaller network.input.size, device: cpu, or a machine with more memory"


class InputError(Exception):
    """Something the user gave is wrong: a file, a key, a layer, a weight. Exit status 2.

    Args:
        faults: one sentence per fault; all that were found, so that one run suffices to mend them.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class OutOfMemory(InputError):
    """A batch does not fit into memory; half of it may.

    Args:
        key: of the audit file that says how large batches are.
        batch: how large this one is.
    """

    def __init__(self, key: str, batch: int) -> None:
        self.key, self.batch = key, batch
        less = "use fewer" if batch > 1 else MORE_MEMORY
        super().__init__(f"{key}: what is computed at a time must fit into memory, got {batch}, which does not; {less}")

    def __reduce__(self) -> tuple[type[OutOfMemory], tuple[str, int]]:
        return type(self), (self.key, self.batch)

    @property
    def words(self) -> str:
        """For another process; see `of`."""
        return f"{self.key} {self.batch}"

    @classmethod
    def of(cls, words: str) -> OutOfMemory:
        """From its words."""
        key, _, batch = words.partition(" ")
        return cls(key, int(batch))


class Interrupted(Exception):
    """The user asked to stop; everything finished is kept. Exit status 130."""


def suggest(got: str, allowed: Sequence[str]) -> str:
    """A clause naming the nearest allowed names, or all of them where they are few.

    Args:
        got: the name that was not found.
        allowed: the names there are.

    Returns:
        for example `; did you mean 'features.12'?`, or an empty string when there is nothing to say.
    """
    near = difflib.get_close_matches(got, allowed, n=3, cutoff=0.5)
    if near:
        return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
    if len(allowed) <= 12:
        return "; allowed: " + ", ".join(allowed)
    return ""


def refuse(faults: Sequence[str]) -> None:
    """Raise InputError if there are faults: the first of them, and how many more there are."""
    rest = len(faults) - MOST_FAULTS
    if faults:
        raise InputError([*faults[:MOST_FAULTS], *([f"... and {rest} more faults"] if rest > 0 else [])])


def folded(faults: Sequence[str]) -> list[str]:
    """Faults of files, `FILE: words`, those of the same words as one, where there are more than ALIKE of them."""
    alike: dict[str, list[str]] = {}
    for fault in faults:
        alike.setdefault(fault.partition(": ")[2] or fault, []).append(fault)
    return [
        line
        for same in alike.values()
        for line in (same if len(same) <= ALIKE else [f"{same[0]} (and the same of {len(same) - 1} more files)"])
    ]
