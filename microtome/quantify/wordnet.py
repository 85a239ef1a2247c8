"""Distances between nouns in WordNet (Miller 1995), where its files lie on this machine; nothing is ever downloaded.

The files are those of the database itself, `index.noun` and `data.noun` (wndb(5WN)): NLTK's corpus `wordnet`, in a
folder or a zip, or an installed WordNet.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

_FILES = ("index.noun", "data.noun")
_CORPUS = "corpora/wordnet"
_HYPERNYMS = (b"@", b"@i")


class _Folder(Protocol):
    """A folder, or one in a zip."""

    def joinpath(self, *other: str) -> _Folder:
        """What is in it."""

    def is_file(self) -> bool:
        """Whether it is a file."""

    def read_bytes(self) -> bytes:
        """Its content."""


class WordNet:
    """The nouns of a WordNet.

    Args:
        index: content of `index.noun`: the senses of each lemma.
        data: content of `data.noun`: what each sense is a kind of, at the offset that is its number.
    """

    def __init__(self, index: bytes, data: bytes) -> None:
        lines = (line.partition(b" ") for line in index.split(b"\n") if line and not line.startswith(b" "))
        self._index = {lemma: rest for lemma, _, rest in lines}
        self._data = data
        self._kinds: dict[tuple[int, ...], Mapping[int, int]] = {}

    @classmethod
    def found(cls) -> WordNet | None:
        """The one that lies on this machine; None where there is none."""
        for folder in _folders():
            if all(folder.joinpath(name).is_file() for name in _FILES):
                return cls(*(folder.joinpath(name).read_bytes() for name in _FILES))
        return None

    def senses(self, lemma: str) -> list[int]:
        """The senses of a noun, by their numbers; none where it is not known.

        Args:
            lemma: in small letters, blanks between its words.
        """
        fields = self._index.get(lemma.replace(" ", "_").encode(), b"").split()
        # part of speech, senses, kinds of pointers, these, senses again, of them tagged; then the senses' numbers
        return [int(number) for number in fields[-int(fields[1]) :]] if fields else []

    def kinds(self, senses: tuple[int, ...]) -> Mapping[int, int]:
        """What a noun is a kind of by any of its senses, these among them, each with the fewest steps up to it.

        Args:
            senses: of the noun.
        """
        if senses not in self._kinds:
            found: dict[int, int] = {}
            edge, steps = list(senses), 0
            while edge:
                found |= dict.fromkeys(edge, steps)
                above = dict.fromkeys(kind for one in edge for kind in self._above(one))
                edge, steps = [kind for kind in above if kind not in found], steps + 1
            self._kinds[senses] = found
        return self._kinds[senses]

    def _above(self, sense: int) -> list[int]:
        line = self._data[sense : self._data.index(b"\n", sense)].partition(b"|")[0].split()
        words = int(line[3], 16)
        pointers = line[4 + 2 * words :]
        every = [pointers[1 + 4 * number : 5 + 4 * number] for number in range(int(pointers[0]))]
        return [int(offset) for symbol, offset, part, _ in every if symbol in _HYPERNYMS and part == b"n"]

    def similarity(self, one: tuple[int, ...], other: tuple[int, ...]) -> float:
        """The path similarity of two nouns: 1 / (1 + the fewest steps between two of their senses, over what both are).

        0 where nothing is above both.

        Args:
            one, other: the nouns' senses.
        """
        here, there = self.kinds(one), self.kinds(other)
        steps = min((up + there[kind] for kind, up in here.items() if kind in there), default=None)
        return 0.0 if steps is None else 1 / (1 + steps)


def _folders() -> Iterable[_Folder]:
    """Where a WordNet may lie: NLTK's places, and those of an installed one."""
    named = os.environ.get("NLTK_DATA", "").split(os.pathsep)
    prefixes = [Path(sys.prefix, part) for part in ("", "share", "lib")]
    system = [Path(root, part) for root in ("/usr", "/usr/local") for part in ("share", "lib")]
    homes = [Path(name) for name in named if name] + [each / "nltk_data" for each in (Path.home(), *prefixes, *system)]
    for home in homes:
        yield home / _CORPUS
        if zipfile.is_zipfile(home / f"{_CORPUS}.zip"):
            yield zipfile.Path(home / f"{_CORPUS}.zip").joinpath("wordnet")
    yield Path(os.environ.get("WNSEARCHDIR") or "/usr/share/wordnet")
