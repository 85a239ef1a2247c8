"""A user's own modules: whole files, by content, with all that they import."""

from __future__ import annotations

import ast
import importlib.machinery
from collections.abc import Iterator
from pathlib import Path

from microtome.closure.names import Import, absolute
from microtome.closure.outside import MISSING, found_at, is_installed, is_standard
from microtome.closure.text import digest_of

_SUFFIXES = (*importlib.machinery.EXTENSION_SUFFIXES, ".py", ".pyc")  # in the order in which Python looks
_DYNAMIC = frozenset({"importlib", "import_module", "__import__", "pkgutil", "runpy", "exec", "eval"})


class UserCode:
    """Files reached from imports of a user's.

    Args:
        folder: of the user's modules, which are found before all others; or None.
        root: folder of our own packages.
        ours: their names.
    """

    def __init__(self, folder: Path | None, root: Path, ours: tuple[str, ...]) -> None:
        self.digests: dict[str, str] = {}
        self.installed: set[str] = set()
        self.ours: list[Import] = []
        self._folder = folder.resolve() if folder else None
        self._root = root.resolve()
        self._names = ours
        self._bases: dict[str, Path | None] = {}
        self._read: set[Path] = set()

    def is_ours(self, module: str) -> bool:
        """Whether a name means one of our own packages, and none of the user's."""
        name = module.partition(".")[0]
        if name not in self._names:
            return False
        return self._folder in (None, self._root) or not _is_module(_entry(self._folder, name))

    def follow(self, origin: Import) -> None:
        """Count what an import reaches."""
        package = origin.module.partition(".")[0]
        if self.is_ours(package):
            self.ours.append(origin)
        elif package:
            if package not in self._bases:
                self._bases[package] = self._base(package)
            base = self._bases[package]
            if base is not None:
                self._walk(base, origin)

    def _base(self, package: str) -> Path | None:
        """The folder of a package that counts by content; None where it counts otherwise, or not at all."""
        if self._folder and _is_module(_entry(self._folder, package)):
            return self._folder
        if is_standard(package):
            return None
        found = found_at(package)
        if found is not None and not is_installed(found):
            return found
        if found is not None:
            self.installed.add(package)
        elif self._folder and (self._folder / package).is_dir():
            return self._folder
        else:
            self.digests[package] = MISSING
        return None

    def _walk(self, base: Path, origin: Import) -> None:
        """The packages above a module, the module, and a submodule where it is one that is asked for."""
        place, name = base, ""
        for part in origin.module.split("."):
            name = f"{name}.{part}" if name else part
            entry = _entry(place, part)
            if entry is None:
                self.digests[name] = MISSING
                return
            self._file(name, entry)
            place = place / part
        if origin.name == "*":
            for entry in sorted(place.glob("*.py")) if place.is_dir() else ():
                self._file(f"{name}.{entry.stem}", entry)
        elif origin.name and place.is_dir():
            entry = _entry(place, origin.name)
            if entry is not None:
                self._file(f"{name}.{origin.name}", entry)

    def _file(self, name: str, file: Path) -> None:
        """Count one file and follow what it imports."""
        if file in self._read or file.is_dir():
            return
        self._read.add(file)
        content = file.read_bytes()
        self.digests[name] = digest_of(content)
        if file.suffix != ".py":
            return
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            return
        package = name if file.stem == "__init__" else name.rpartition(".")[0]
        for node in ast.walk(tree):
            for origin in _imports(node, package):
                self.follow(origin)
        if any(_name(node) in _DYNAMIC for node in ast.walk(tree)):
            self._neighbours(name, file)

    def _neighbours(self, name: str, file: Path) -> None:
        """Imports made at run time may reach any module of the same package, or beside the same file."""
        package = name.partition(".")[0]
        top = file.parents[name.count(".") + (file.stem == "__init__")] / package
        if top.is_dir() and (file.stem == "__init__" or "." in name):
            others = [(entry, entry.relative_to(top.parent)) for entry in sorted(top.rglob("*.py"))]
        else:
            others = [(entry, Path(entry.name)) for entry in sorted(file.parent.glob("*.py"))]
        for entry, place in others:
            parts = place.with_suffix("").parts
            self._file(".".join(parts[:-1] if parts[-1] == "__init__" else parts), entry)


def _entry(folder: Path, name: str) -> Path | None:
    """What Python would import a module from: a package, a file, or a folder without `__init__`."""
    for suffix in _SUFFIXES:
        if (folder / name / f"__init__{suffix}").is_file():
            return folder / name / f"__init__{suffix}"
    for suffix in _SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    return folder / name if (folder / name).is_dir() else None


def _is_module(entry: Path | None) -> bool:
    return entry is not None and entry.is_file()


def _imports(node: ast.AST, package: str) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, None) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = absolute(node, package)
        yield from (Import(module, alias.name) for alias in node.names)


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.alias):
        return node.name.partition(".")[0]
    return getattr(node, "id", getattr(node, "attr", None))
