"""Content digests of files, remembered by path, size and time of change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path

from storage.files import Files

_MEMO = "digests.json"
_FRESH = 2_000_000_000  # ns: a file changed this recently could change again within the clock's grain


class FileDigests:
    """Digests of the user's files; a large data set is not read again for each audit.

    A file counts as unchanged while its size, its times of change (mtime, which anybody can set; ctime, which nobody
    can) and its inode stay.

    Args:
        files: the workspace, which keeps the memo. Losing it costs time, nothing else.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        try:
            self._known: dict[str, list[int | str]] = json.loads(files.read(_MEMO))
        except (OSError, ValueError):
            self._known = {}
        self._changed = False

    def of(self, path: Path) -> str:
        """SHA-256 of a file's content, or `missing`, which no file has."""
        try:
            found = path.stat()
        except OSError:
            return "missing"
        key = str(path.resolve())
        known = self._known.get(key)
        stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        if known is not None and known[:-1] == stamp:
            return str(known[-1])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _FRESH:
            self._known[key] = [*stamp, digest]
            self._changed = True
        return digest

    def save(self) -> None:
        """Write the memo if anything was learnt."""
        if self._changed:
            with contextlib.suppress(OSError):  # a full disk, a workspace that may only be read
                self._files.write(_MEMO, json.dumps(self._known).encode())
            self._changed = False
