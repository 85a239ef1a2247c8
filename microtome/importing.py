"""Find an object of the user's by its reference."""

from __future__ import annotations

import importlib
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
