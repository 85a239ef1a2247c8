"""Data sets by the name of their format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from microtome.datasets.animal_parts import AnimalParts
from microtome.datasets.base import Dataset
from microtome.datasets.broden import Broden
from microtome.datasets.coco import Coco
from microtome.datasets.creatures import Creatures
from microtome.datasets.cub import Cub
from microtome.datasets.folder import Folder
from microtome.datasets.masks import Masks
from microtome.datasets.voc_parts import VocParts
from microtome.errors import InputError, suggest
from microtome.importing import named_object, users_code

FORMATS: Mapping[str, Callable[..., Dataset]] = {
    "broden": Broden,
    "masks": Masks,
    "coco": Coco,
    "animal-parts": AnimalParts,
    "voc-parts": VocParts,
    "cub": Cub,
    "folder": Folder,
    "creatures": Creatures,
}
GENERATED = ("creatures",)


def open_dataset(form: str, root: Path | None, options: Mapping[str, Any], *, base: Path = Path()) -> Dataset:
    """Open a data set; reads its tables, not its pictures.

    Args:
        form: a name in `FORMATS`, or `package.module:factory` of the user's own, called like them.
        root: its folder; None where it is generated.
        options: keyword arguments of the format.
        base: where modules of the user's own are looked for.

    Raises:
        InputError: unknown format or option, a missing folder, or what the format finds wrong.
    """
    if ":" in form:
        factory = named_object(form, base, "dataset.format")
    elif form in FORMATS:
        factory = FORMATS[form]
    else:
        raise InputError(
            f"dataset.format: unknown format {form!r}{suggest(form, list(FORMATS))}; or package.module:factory"
        )
    if root is None and form not in GENERATED and ":" not in form:
        raise InputError(f"dataset.root: the format {form} needs a folder, got none")
    if root is not None and not root.is_dir():
        raise InputError(f"dataset.root: no such folder, got {root}")
    with users_code("dataset", f"{form} cannot be opened with {sorted(options)}"):
        dataset = factory(root, **options) if root is not None else factory(**options)
    if not isinstance(dataset, Dataset):
        raise InputError(f"dataset.format: {form} must give a microtome.datasets.Dataset, got {type(dataset).__name__}")
    return dataset
