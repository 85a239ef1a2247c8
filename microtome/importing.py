"""Find an object of the user's by its reference."""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from microtome.errors import MORE_MEMORY, InputError, Interrupted, suggest
from microtome.memory import ran_out

_OURS = Path(__file__).resolve().parent.parent
_PACKAGES = ("flows", "tasks", "storage", "microtome")
_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib"))
_keys: dict[str, str] = {}  # module of the user's -> the audit file's key that names it


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
        InputError: no such module, or one that fails or wants to end the process; or no such name in it; or a module
            of the user's own with the name of a package of ours.
    """
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise InputError(f"{key}: must be package.module:name, got {reference!r}")
    refuse_our_names([module_name], root, key)
    _refuse_missing(module_name, root, key)
    with users_code(key, f"module {module_name!r} cannot be imported"), importable(root):
        module = importlib.import_module(module_name)
    _keys[module_name] = key
    if not hasattr(module, name):
        names = [n for n in dir(module) if not n.startswith("_")]
        raise InputError(f"{key}: {module_name!r} has no {name!r}{suggest(name, names)}")
    return getattr(module, name)


def _refuse_missing(module: str, root: Path, key: str) -> None:
    """Raise InputError for a module that is nowhere, before it is imported: only its first part can be looked for."""
    top = module.partition(".")[0]
    with importable(root):
        importlib.invalidate_caches()
        try:
            found = find_spec(top) is not None
        except ValueError:  # it is loaded and has no file, such as `__main__`
            found = True
    if not found:
        beside = sorted(file.stem for file in root.glob("*.py"))
        raise InputError(
            f"{key}: there must be a module {top!r} beside the audit file ({root}) or among the installed packages, "
            f"got none{suggest(top, beside) if beside else ''}"
        )


def refuse_our_names(reached: Iterable[str], root: Path, key: str) -> None:
    """A module of the user's own that is named, or imported, must not be called as a package of ours: whoever imports
    that name gets ours. One that merely lies there does no harm.

    Args:
        reached: names of modules that are used, or of what is in them.
        root: the user's folder.
        key: the audit file's key, for the error.

    Raises:
        InputError: one is.
    """
    used = {re.split("[.:]", name, maxsplit=1)[0] for name in reached}
    for name in used & set(_PACKAGES):
        for place in (root / name, root / f"{name}.py"):
            is_module = place.is_file() or any(place.glob("*.py"))
            if is_module and not place.resolve().is_relative_to(_OURS / name):
                raise InputError(f"{key}: {place} has the name of a package of microtome's own; give it another name")


@contextmanager
def users_code(key: str, what: str) -> Iterator[None]:
    """Around code that the user wrote: whatever it raises becomes an InputError with the file and line at fault.

    `SystemExit` too: a module that leaves the process must not look like an audit that passed.

    Args:
        key: the audit file's key that names the code.
        what: failed, in words.
    """
    try:
        yield
    except (InputError, Interrupted):
        raise
    except (Exception, SystemExit) as error:
        advice = f"; {MORE_MEMORY}" if ran_out(error) else ""
        raise InputError(f"{key}: {what}: {said(error)}{_at(place_of(error))}{advice}") from error


def blamed(error: BaseException) -> str | None:
    """One sentence about an error that the user's own code raised while a stage called it; None for any other.

    Args:
        error: with its traceback.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if _is_users(Path(frame.f_code.co_filename))]
    if not frames:
        return None
    keys = [_keys[name] for frame in frames if (name := frame.f_globals.get("__name__")) in _keys]
    key = f"{keys[-1]}: " if keys else ""
    return f"{key}the code that it names failed: {said(error)}{_at(place_of(error))}"


def said(error: BaseException) -> str:
    """An error in one line: its kind, and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def place_of(error: BaseException) -> tuple[Path, int] | None:
    """The user's file and line that an error comes from; None where no file of the user's is on its way."""
    if isinstance(error, SyntaxError) and error.filename and _is_users(Path(error.filename)):
        return Path(error.filename), error.lineno or 0
    found = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return next((place for place in reversed(found) if _is_users(place[0])), None)


def _at(place: tuple[Path, int] | None) -> str:
    return f" ({place[0]}, line {place[1]})" if place else ""


def _is_users(file: Path) -> bool:
    """Neither the standard library's, nor an installed package's, nor ours."""
    if file.suffix != ".py":
        return False
    file = file.resolve()
    ours = any(file.is_relative_to(_OURS / package) for package in _PACKAGES)
    return not ours and not any(file.is_relative_to(folder) for folder in _INSTALLED)
