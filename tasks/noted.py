"""Content digests of the files that an audit reads, by the hundred thousand."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from microtome.texts import Texts
from storage.digests import MISSING

_NO_DIGEST = bytes(32)  # of a file that is missing: no content has it


class NotedFiles:
    """Digests by absolute path, in some 60 bytes a file: a plan keeps them for as long as the audit runs."""

    def __init__(self) -> None:
        self._folders: dict[str, int] = {}
        self._folder, self._name, self._digest = array("I"), Texts(), bytearray()

    def note(self, file: str, digest: str) -> None:
        """Note a file, by its path in full; of one that is noted twice the later digest counts."""
        folder, slash, name = file.rpartition("/")
        self._folder.append(self._folders.setdefault(folder + slash, len(self._folders)))
        self._name.append(name)
        self._digest += _NO_DIGEST if digest == MISSING else bytes.fromhex(digest)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Paths with their digests, in the order in which they were noted."""
        folders = list(self._folders)
        for place, folder in enumerate(self._folder):
            digest = self._digest[32 * place : 32 * place + 32]
            yield folders[folder] + self._name[place], MISSING if digest == _NO_DIGEST else digest.hex()
