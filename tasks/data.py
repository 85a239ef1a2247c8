"""A data set of the audit file, as stages read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from microtome.closure import Places, closure
from microtome.datasets.base import Dataset, Record
from microtome.datasets.formats import code_root, open_dataset
from microtome.importing import refuse_our_names
from microtome.networks.normalisation import Normalisation


@dataclass(frozen=True)
class DataPlace:
    """Where a data set is.

    Args:
        format: a format's name, or `package.module:factory`.
        root: its folder; None where it is generated.
        options: of the format.
        base: where modules of the user's own are looked for.
    """

    format: str
    root: Path | None
    options: Mapping[str, object] = field(hash=False)
    base: Path

    def open(self) -> Dataset:
        """Read its tables. Raises InputError."""
        return open_dataset(self.format, self.root, self.options, base=self.base)


@dataclass(frozen=True)
class DataSpec:
    """A data set, and what it was when it was planned with.

    Args:
        place: where it is.
        scale: of the network that looks at it; part of the network's digest, not of the data set's.
        digest: of its files, its options and the code of its format.
        has_landmarks: whether any picture has part landmarks.
        crop: what its format is cropped to where the audit file does not say.
        records: of its pictures, as its tables have them.
        concepts: how many it knows.
    """

    place: DataPlace
    scale: Normalisation
    digest: str
    has_landmarks: bool
    crop: str
    records: Sequence[Record] = field(hash=False, compare=False, repr=False)
    concepts: int


def data_spec(place: DataPlace, scale: Normalisation, digest: Callable[[Path], str]) -> DataSpec:
    """Open a data set's tables once, to know what it is.

    Args:
        place: where it is.
        scale: of the network.
        digest: content digest of a file.

    Raises:
        InputError: it cannot be opened, or its code imports a module with the name of a package of ours.
    """
    code = closure([code_root(place.format)], Places(user=place.base))
    refuse_our_names(code.definitions, place.base, "dataset.format")
    dataset, root = place.open(), place.root
    content = hashlib.sha256(json.dumps([place.format, dict(place.options)], sort_keys=True, default=str).encode())
    content.update(code.digest.encode())
    for file in dataset.files():
        name = file.relative_to(root).as_posix() if root and file.is_relative_to(root) else file.name
        content.update(f"{name}\0{digest(file)}\0".encode())
    marked, crop = dataset.has_landmarks(), dataset.default_crop
    return DataSpec(place, scale, content.hexdigest(), marked, crop, dataset.records, len(dataset.concepts))
