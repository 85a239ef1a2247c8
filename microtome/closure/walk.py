"""From entry points to all code that they reach."""

from __future__ import annotations

import builtins
import gc
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from microtome.closure.names import Chain, Import, Names, Reference
from microtome.closure.outside import COMPUTING, MISSING, distributions, version
from microtome.closure.source import EFFECTS, ModuleCode, module_code
from microtome.closure.text import digest_of
from microtome.closure.user import UserCode

ROOT = Path(__file__).resolve().parents[2]
OURS = ("microtome", "storage", "tasks", "flows")
_WHOLE = frozenset({"globals", "eval", "exec"})  # whoever calls them can name anything in its module


@dataclass(frozen=True)
class Places:
    """Where code lies.

    Args:
        root: the folder of our own packages.
        user: the folder of a user's own modules, which are found before all others; or None.
        ours: names of our packages.
        computing: installed packages whose version counts where our code reaches them, with their distributions.
    """

    root: Path = ROOT
    user: Path | None = None
    ours: tuple[str, ...] = OURS
    computing: Mapping[str, str] = field(default_factory=lambda: COMPUTING)


@dataclass(frozen=True)
class Closure:
    """The code that entry points reach.

    Args:
        definitions: digests by `package.module:name`; by `module` for a user's module, by path for a file. What is
            named and not there is `missing`.
        packages: versions of installed distributions.
        named_by: for each definition but the first, one that names it: why it is here. Not part of the digest.
    """

    definitions: Mapping[str, str]
    packages: Mapping[str, str]
    named_by: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Digest of all of it: 32 hexadecimal characters, the same in every process, place and machine."""
        items = (*sorted(self.definitions.items()), ("", ""), *sorted(self.packages.items()))
        return digest_of(*(part for item in items for part in item))


def closure(
    roots: Sequence[str],
    places: Places | None = None,
    *,
    files: Sequence[str] = (),
    follow_annotations_of_roots: Collection[str] = (),
) -> Closure:
    """The code that entry points reach; nothing is imported.

    Args:
        roots: `package.module:name` each, or `package.module` for a whole module; ours, a user's, or installed ones,
            of which the version counts whether they compute or not.
        places: where code lies; by default this project's own.
        files: files and folders, below the root, that code reads: templates, styles. They count by content.
        follow_annotations_of_roots: parameters of the roots whose annotations count too: what is handed to an entry
            point is often named nowhere else.
    """
    with _without_collector():
        walk = _Following(places or Places())
        for root in roots:
            walk.root(root, follow_annotations_of_roots)
        walk.finish()
        for file in files:
            walk.file(file)
    return Closure(walk.definitions, walk.packages, walk.named_by)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Syntax trees are many objects and no garbage: reading them takes a fifth of the time without the collector."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Target(NamedTuple):
    """What a name stands for: a definition, a whole module (no name), or something installed (no module of ours)."""

    module: str
    name: str = ""
    outside: bool = False

    def __str__(self) -> str:
        return f"{self.module}:{self.name}" if self.name else self.module


class _Following:
    """One closure in the making."""

    def __init__(self, places: Places) -> None:
        self.definitions: dict[str, str] = {}
        self.packages: dict[str, str] = {}
        self.named_by: dict[str, str] = {}
        self._places = places
        self._user = UserCode(places.user, places.root, places.ours)
        self._sources: dict[str, ModuleCode | None] = {}
        self._names: dict[tuple[str, Chain, bool], frozenset[_Target]] = {}
        self._active: set[tuple[str, str]] = set()
        self._loaded: set[str] = set()
        self._waiting: list[_Target] = []
        self._reached: set[_Target] = set()

    def root(self, reference: str, parameters: Collection[str]) -> None:
        """Begin at an entry point."""
        module, _, name = reference.partition(":")
        name = name.partition(".")[0]
        self._user.follow(Import(module, name or None))
        if parameters and self._user.is_ours(module):
            for target in self._attribute(module, (name,)):
                source = self._source(target.module)
                if source is not None:
                    found = source.annotations(target.name, parameters)
                    self._note(f"{target}({','.join(sorted(parameters))})", source, ("", found))

    def finish(self) -> None:
        """Follow everything that was reached."""
        for origin in self._user.ours:
            self._reach(self._attribute(origin.module, (origin.name,) if origin.name else ()))
        while self._waiting:
            target = self._waiting.pop()
            if target.name:
                self._definition(target)
            else:
                self._module(target.module)
        self.definitions |= self._user.digests
        for package in sorted(self._user.installed):
            self.packages |= distributions(package)

    def file(self, name: str) -> None:
        """Count a file, or every file of a folder."""
        root = self._places.root
        place = root / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if not file.is_dir() and "__pycache__" not in file.parts:
                content = digest_of(file.read_bytes()) if file.is_file() else MISSING
                self.definitions[file.relative_to(root).as_posix()] = content

    def _definition(self, target: _Target) -> None:
        source = self._source(target.module)
        if source is None or target.name not in source.units:
            self.definitions[str(target)] = MISSING
        else:
            self._note(str(target), source, source.read(target.name))

    def _module(self, name: str) -> None:
        """All of a module: its definitions, what it imports by name, and of a package the modules in it."""
        source = self._source(name)
        if source is None:
            self.definitions[name] = MISSING
            return
        self._reach([_Target(name, unit) for unit in source.units], name)
        exported = {**(source.typed if "__getattr__" in source.units else {}), **source.imports}
        origins = {origin for found in exported.values() for origin in found if origin.name}
        names = Names(frozenset(Reference(origin, ()) for origin in origins), frozenset())
        self._note(name, source, (digest_of(*(f"{bound}={exported[bound]}" for bound in sorted(exported))), names))
        self._reach([_Target(star) for star in source.stars if self._is_ours(star)], name)
        self._reach([_Target(inner) for inner in self._inside(source)], name)

    def _note(self, key: str, source: ModuleCode, read: tuple[str, Names]) -> None:
        """Digest code together with what its names stand for, and reach all of that."""
        own, names = read
        lines = []
        for reference in names.references:
            targets = self._targets(source, reference)
            if targets:
                lines.append(f"{reference} {sorted(map(str, targets))}")
                self._reach(targets, key)
        self.definitions[key] = digest_of(own, *sorted(lines))
        for name in (source.name, *names.loads):
            self._load(name)

    def _reach(self, targets: Iterable[_Target], by: str = "") -> None:
        for target in targets:
            if target.outside:
                distribution = self._places.computing.get(target.module.partition(".")[0])
                if distribution is not None:
                    self.packages[distribution] = version(distribution)
            elif target not in self._reached:
                self._reached.add(target)
                if by:
                    self.named_by[str(target)] = by
                self._waiting.append(target)

    def _load(self, name: str) -> None:
        """Count what runs when a module is imported, by it and by all that it imports."""
        if name in self._loaded or not self._is_ours(name):
            return
        self._loaded.add(name)
        self._load(name.rpartition(".")[0])
        source = self._source(name)
        if source is not None:
            if EFFECTS in source.units:
                self._reach([_Target(name, EFFECTS)], name)
            for other in source.loads:
                self._load(other)

    def _targets(self, source: ModuleCode, reference: Reference) -> frozenset[_Target]:
        origin, chain = reference
        if origin is None:
            return self._named(source, chain, outside=False)
        return self._imported(origin, chain)

    def _imported(self, origin: Import, chain: Chain) -> frozenset[_Target]:
        return self._attribute(origin.module, (origin.name, *chain) if origin.name else chain)

    def _attribute(self, module: str, chain: Chain) -> frozenset[_Target]:
        """What a chain of attributes of a module stands for."""
        if not self._is_ours(module):
            return frozenset([_Target(module, chain[0] if chain else "", True)])
        source = self._source(module)
        self._load(module)
        if source is None:
            return frozenset([_Target(module, chain[0] if chain else "")])
        if not chain or chain[0] == "*":
            return frozenset([_Target(module)])
        return self._named(source, chain, outside=True)

    def _named(self, source: ModuleCode, chain: Chain, *, outside: bool) -> frozenset[_Target]:
        key, around = (source.name, chain, outside), (source.name, chain[0])
        if key in self._names:
            return self._names[key]
        if around in self._active:  # a package that imports its own module, or a circle, whose begin is looked through
            return frozenset(self._submodule(source, chain))
        self._active.add(around)
        found = frozenset(self._candidates(source, chain, outside=outside))
        self._active.remove(around)
        if not self._active:  # inside a circle an answer may be a part of the whole
            self._names[key] = found
        return found

    def _submodule(self, source: ModuleCode, chain: Chain) -> frozenset[_Target]:
        name = f"{source.name}.{chain[0]}"
        if source.is_package and self._source(name) is not None:
            return self._attribute(name, chain[1:])
        return frozenset()

    def _candidates(self, source: ModuleCode, chain: Chain, *, outside: bool) -> Iterator[_Target]:
        """All that a name in a module may stand for: its own definitions and imports, else the last resorts."""
        name, rest = chain[0], chain[1:]
        if name in source.units or name in source.imports:
            if name in source.units:
                yield _Target(source.name, name)
            for origin in source.imports.get(name, ()):
                yield from self._imported(origin, rest)
                if origin == ("sys", None) and rest[:1] == ("modules",):
                    yield _Target(source.name)
            yield from self._starred(source, chain)
            return
        found = {*self._lazy(source, chain, outside=outside), *self._starred(source, chain)}
        if outside:
            found |= self._submodule(source, chain)
        if not found and outside:
            found = {_Target(source.name, name)}
            if "__getattr__" in source.units:
                found.add(_Target(source.name))
        if not found and name in _WHOLE:
            found = {_Target(source.name)}
        yield from found

    def _lazy(self, source: ModuleCode, chain: Chain, *, outside: bool) -> Iterator[_Target]:
        """Names imported under `if TYPE_CHECKING:`, which `__getattr__` gives to other modules."""
        origins = source.typed.get(chain[0], ())
        if origins and (not outside or "__getattr__" in source.units):
            for origin in origins:
                yield from self._imported(origin, chain[1:])
            if outside:
                yield _Target(source.name, "__getattr__")

    def _starred(self, source: ModuleCode, chain: Chain) -> Iterator[_Target]:
        for star in source.stars:
            other = self._source(star) if self._is_ours(star) else None
            if other is not None:
                targets = self._named(other, chain, outside=True)
                yield from (target for target in targets if self._is_there(target))
            elif not hasattr(builtins, chain[0]):
                yield _Target(star, chain[0], True)

    def _is_there(self, target: _Target) -> bool:
        source = self._source(target.module)
        return target.outside or (source is not None and (not target.name or target.name in source.units))

    def _is_ours(self, module: str) -> bool:
        return module.partition(".")[0] in self._places.ours

    def _inside(self, source: ModuleCode) -> list[str]:
        """Names of the modules in a package."""
        if not source.is_package:
            return []
        folder = self._places.root.joinpath(*source.name.split("."))
        names = {entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").is_file()}
        return [f"{source.name}.{name}" for name in sorted(names - {"__init__", "__main__"})]

    def _source(self, name: str) -> ModuleCode | None:
        """A module of ours; a folder without `__init__` is an empty package; None where there is none."""
        if name not in self._sources:
            self._sources[name] = self._found(name)
        return self._sources[name]

    def _found(self, name: str) -> ModuleCode | None:
        above = name.rpartition(".")[0]
        package = self._source(above) if above else None
        if above and (package is None or not package.is_package):
            return None
        place = self._places.root.joinpath(*name.split("."))
        for file, is_package in ((place / "__init__.py", True), (place.with_name(f"{place.name}.py"), False)):
            if file.is_file():
                return module_code(name, file.read_bytes(), is_package=is_package, ours=self._places.ours)
        return module_code(name, b"", is_package=True, ours=self._places.ours) if place.is_dir() else None
