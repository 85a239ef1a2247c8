"""The files that other tools wrote, as the stage reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from microtome.errors import InputError, refuse
from microtome.quantify.published import PublishedTally, UnitLabel, read_labels, read_tally


@dataclass(frozen=True, eq=False)
class PublishedFiles:
    """Files of one method.

    Args:
        files: layer -> its file; a list of labels names its layers itself, and stands under the empty name.
        digests: SHA-256 of each, by the same names.
    """

    files: Mapping[str, Path]
    digests: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of their names, what they are of, and their content."""
        named = [[layer, file.name, self.digests[layer]] for layer, file in self.files.items()]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    @cached_property
    def tallies(self) -> list[PublishedTally]:
        """The files as tallies. Raises InputError: all faults of all of them."""
        found, faults = list[PublishedTally](), list[str]()
        for layer, file in self.files.items():
            try:
                found.append(read_tally(file, layer))
            except InputError as error:
                faults += error.faults
        refuse(faults)
        return found

    @cached_property
    def labels(self) -> list[UnitLabel]:
        """The files as lists of labels. Raises InputError: all faults."""
        try:
            return [label for file in self.files.values() for label in read_labels(file)]
        except InputError as error:
            refuse(error.faults)
            raise
