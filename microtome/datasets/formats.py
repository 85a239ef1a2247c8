"""Data sets by the name of their format."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from microtome.datasets.base import Dataset
from microtome.errors import InputError, refuse, suggest
from microtome.importing import named_object, users_code

# Named by reference, so that opening one format neither imports the others nor counts their code.
FORMATS: Mapping[str, str] = {
    "broden": "microtome.datasets.broden:Broden",
    "masks": "microtome.datasets.masks:Masks",
    "coco": "microtome.datasets.coco:Coco",
    "animal-parts": "microtome.datasets.animal_parts:AnimalParts",
    "voc-parts": "microtome.datasets.voc_parts:VocParts",
    "cub": "microtome.datasets.cub:Cub",
    "folder": "microtome.datasets.folder:Folder",
    "creatures": "microtome.datasets.creatures:Creatures",
}
GENERATED = ("creatures",)


def open_dataset(form: str, root: Path | None, options: Mapping[str, object], *, base: Path = Path()) -> Dataset:
    """Open a data set; reads its tables, not its pictures.

    Args:
        form: a name in `FORMATS`, or `package.module:factory` of the user's own, called like them.
        root: its folder; None where it is generated.
        options: keyword arguments of the format.
        base: where modules of the user's own are looked for.

    Raises:
        InputError: unknown format or option, a missing folder, or what the format finds wrong.
    """
    factory = named_object(code_root(form), base, "dataset.format")
    if root is None and form not in GENERATED and ":" not in form:
        raise InputError(f"dataset.root: the format {form} needs a folder, got none")
    if root is not None and not root.is_dir():
        raise InputError(f"dataset.root: no such folder, got {root}")
    if form in FORMATS:
        _check_options(form, factory, options)
    with users_code("dataset", f"{form} cannot be opened with {sorted(options)}"):
        dataset = factory(root, **options) if root is not None else factory(**options)
    if not isinstance(dataset, Dataset):
        raise InputError(f"dataset.format: {form} must give a microtome.datasets.Dataset, got {type(dataset).__name__}")
    return dataset


def _check_options(form: str, factory: Callable[..., object], options: Mapping[str, object]) -> None:
    known = [name for name in inspect.signature(factory).parameters if name != "root"]
    rule = f"the format {form} has no such option, only {', '.join(known) or 'none'}; got"
    refuse([f"dataset.{name}: {rule} {value!r}" for name, value in options.items() if name not in known])


def code_root(form: str) -> str:
    """`module:name` of what opens a format. Raises InputError if there is no such format."""
    if ":" not in form and form not in FORMATS:
        raise InputError(
            f"dataset.format: unknown format {form!r}{suggest(form, list(FORMATS))}; or package.module:factory"
        )
    return FORMATS.get(form, form)
