"""Find an object of the user's by its reference."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microtome.errors import InputError, suggest


@contextmanager
def importable(root: Path) -> Iterator[None]:
    """Modules beside the audit file can be imported inside this context."""
    sys.path.insert(0, str(root.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(root.resolve()))


def named_object(reference: str, root: Path, key: str) -> Any:
    """The object that `package.module:name` refers to.

    Args:
        reference: for example `torchvision.models:squeezenet1_0`.
        root: directory whose modules can be named too.
        key: the audit file's key, for the error.

    Raises:
        InputError: no such module, or no such name in it.
    """
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise InputError(f"{key}: must be package.module:name, got {reference!r}")
    try:
        with importable(root):
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"{key}: module {module_name!r} cannot be imported: {error}") from error
    if not hasattr(module, name):
        names = [n for n in dir(module) if not n.startswith("_")]
        raise InputError(f"{key}: {module_name!r} has no {name!r}{suggest(name, names)}")
    return getattr(module, name)


def code_version(module_name: str, root: Path) -> str:
    """Version of an installed package, or digest of all sources of a module or package of the user's own.

    Args:
        module_name: dotted name; it is not imported.
        root: directory whose modules can be named too.
    """
    try:
        with importable(root):
            found = importlib.util.find_spec(module_name.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is None:
        return "missing"
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    sources = [file for folder in folders for file in sorted(folder.rglob("*.py"))] or [Path(str(found.origin))]
    if "site-packages" in sources[0].parts:
        name = module_name.partition(".")[0]
        owners = importlib.metadata.packages_distributions().get(name, [name])
        return f"{owners[0]}=={importlib.metadata.version(owners[0])}"
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
