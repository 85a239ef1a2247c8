"""Content digests of files, remembered by path, size and time of change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from pathlib import Path

from storage.files import Files
from storage.small import Kind, Sha256

_NAME = "digests.json"
_Known = tuple[int, int, int, int, Sha256]  # bytes, mtime, ctime, inode, digest
MEMO = Kind[dict[str, _Known]](
    "memo of digests", dict[str, _Known], "the files of the data are read again", sealed=True
)
MISSING = "missing"
"""Stands for the digest of what is no regular file; no content has it."""
_FRESH = 2_000_000_000  # ns: a file changed this recently could change again within the clock's grain


def absolute(path: Path) -> str:
    """A path in full, as text: bytes that are not UTF-8 as escapes. Links in it stay."""
    return os.fsencode(path.absolute()).decode(errors="backslashreplace")


class FileDigests:
    """Digests of the user's files; a large data set is not read again for each audit.

    A file counts as unchanged while its size, its times of change (mtime, which anybody can set; ctime, which nobody
    can) and its inode stay.

    Args:
        files: the workspace, which keeps the memo. Losing it costs time, nothing else.
        reread: whether every file is read once, whatever the memo says.
    """

    def __init__(self, files: Files, *, reread: bool = False) -> None:
        self._files, self._reread = files, reread
        self._held: dict[str, _Known] | None = None
        self._read: set[str] = set()
        self._changed = False
        self.altered: list[Path] = []
        """Files that were found to differ from what the memo says, though size, times and inode stayed."""

    @property
    def _known(self) -> dict[str, _Known]:
        if self._held is None:
            self._held = MEMO.load(self._files, _NAME) or {}
        return self._held

    def of(self, path: Path) -> str:
        """SHA-256 of a file's content; MISSING where there is no regular file."""
        try:
            found = path.stat()
        except OSError:
            return MISSING
        if not stat.S_ISREG(found.st_mode):
            return MISSING
        key = absolute(path)
        known = self._known.get(key)
        stamped = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        same = known is not None and known[:-1] == stamped
        if known is not None and same and (not self._reread or key in self._read):
            return known[-1]
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if same and known is not None and known[-1] != digest:
            self.altered.append(path)
            del self._known[key]
            self._changed = True
        if self._reread:
            self._read.add(key)
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _FRESH:
            self._known[key] = (*stamped, digest)
            self._changed = True
        return digest

    def save(self) -> None:
        """Write the memo if anything was learnt, and it can be written; let go of it: it is half a kilobyte a file."""
        if self._changed:
            with contextlib.suppress(OSError):  # a full disk, a workspace that may only be read
                MEMO.save(self._files, _NAME, self._known)
            self._changed = False
        self._held = None
