"""A module of ours, read and not imported: its top level split into definitions, imports and effects."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Sequence
from functools import cache

from microtome.closure.names import Import, Names, Reference, annotated, bindings, imported, named
from microtome.closure.text import Function, digest_of, idle, written

EFFECTS = "<effects>"  # the unit of all that runs when the module is imported, beside its definitions
_ENTER_NOTHING = frozenset({Import("microtome.compiling", "compiled")})  # decorators of ours that only wrap
_EMPTY = Names(frozenset(), frozenset())


class ModuleCode:
    """The top level of a module.

    Args:
        name: dotted.
        is_package: whether it is an `__init__`.
        tree: its syntax.
        ours: names of the packages whose decorators count as effects.
        has_globals: whether any function may assign a global.
    """

    def __init__(
        self, name: str, *, is_package: bool, tree: ast.Module, ours: Collection[str], has_globals: bool
    ) -> None:
        self.name = name
        self.is_package = is_package
        self.package = name if is_package else name.rpartition(".")[0]
        self.units: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, list[Import]] = {}
        self.typed: dict[str, list[Import]] = {}
        self.stars: list[str] = []
        self.loads: set[str] = set()
        self._ours = ours
        self._statements: list[ast.stmt] = []
        self._read: dict[str, tuple[str, Names]] = {}
        effects = self._split(tree.body) + self._decorated()
        if effects:
            self.units[EFFECTS] = effects
        if has_globals:
            self._note_globals()

    def read(self, unit: str) -> tuple[str, Names]:
        """Digest of a definition's own code, and what it names.

        Args:
            unit: a name in `units`.
        """
        if unit not in self._read:
            statements = self.units[unit]
            order = self._order(unit) if len(statements) > 1 and unit != EFFECTS else ""
            self._read[unit] = digest_of(written(statements), order), named(statements, self.package)
        return self._read[unit]

    def annotations(self, unit: str, parameters: Collection[str]) -> Names:
        """What the annotations of a function's parameters name.

        Args:
            unit: a name in `units`.
            parameters: of the function.
        """
        functions = [node for node in self.units.get(unit, ()) if isinstance(node, Function)]
        found = [annotated(function, parameters, self.package) for function in functions]
        return found[-1] if found else _EMPTY

    def _split(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Sort statements; returns those that have effects of their own."""
        effects = []
        for node in body:
            if idle(node):
                continue
            if isinstance(node, ast.If) and _is_typing(node.test):
                self._note_imports(node.body, self.typed)
                effects += self._split(node.orelse)
            elif isinstance(node, ast.If) and _is_main(node.test):
                effects += self._split(node.orelse)
            elif not _is_all(node):
                effects += self._sorted(node)
        return effects

    def _sorted(self, node: ast.stmt) -> list[ast.stmt]:
        bound = bindings([node], self.package)
        if isinstance(node, Function | ast.ClassDef):
            bound.names = {node.name}
        self.loads |= bound.loads
        self.stars += bound.stars
        for name, origins in bound.imports.items():
            self.imports.setdefault(name, []).extend(origins)
        if isinstance(node, ast.Import | ast.ImportFrom):
            return []
        self._statements.append(node)
        for name in sorted({*bound.names, *bound.imports}):
            self.units.setdefault(name, []).append(node)
        return [] if _only_binds(node) else [node]

    def _note_imports(self, body: Iterable[ast.stmt], into: dict[str, list[Import]]) -> None:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name, origin in imported(node, self.package):
                    into.setdefault(name, []).append(origin)

    def _decorated(self) -> list[ast.stmt]:
        """Definitions that a decorator of ours may enter somewhere when the module is imported."""
        definitions = (node for node in self._statements if isinstance(node, Function | ast.ClassDef))
        return [node for node in definitions if any(map(self._is_our_decorator, node.decorator_list))]

    def _is_our_decorator(self, node: ast.AST) -> bool:
        while isinstance(node, ast.Call | ast.Attribute):
            node = node.func if isinstance(node, ast.Call) else node.value
        name = getattr(node, "id", "")
        origins = set(self.imports.get(name, ())) - _ENTER_NOTHING
        return name in self.units or any(origin.module.partition(".")[0] in self._ours for origin in origins)

    def _note_globals(self) -> None:
        """A function that assigns a global is part of what that name means."""
        for node in self._statements:
            if isinstance(node, Function | ast.ClassDef):
                for name in {name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names}:
                    if node not in self.units.setdefault(name, []):
                        self.units[name].append(node)

    def _order(self, unit: str) -> str:
        """Where a name is bound more than once: the order of all statements that run and name it."""
        reference = Reference(None, (unit,))
        running = (node for node in self._statements if not isinstance(node, Function | ast.ClassDef))
        places = []
        for node in running:
            names = {r.chain[0] for r in named([node], self.package).references if r.origin is None}
            if unit in names or node in self.units[unit]:
                places.append(written([node]))
        return f"{reference.chain}{places}"


@cache
def module_code(name: str, content: bytes, *, is_package: bool, ours: tuple[str, ...]) -> ModuleCode:
    """Read a module; the same content is read once in a process.

    Args:
        name: dotted.
        content: of its file.
        is_package: whether the file is an `__init__`.
        ours: names of the packages that are read at all.

    Raises:
        SyntaxError: it is not Python.
    """
    has_globals = b"global" in content  # no walk through all of it for what most modules have not
    return ModuleCode(name, is_package=is_package, tree=ast.parse(content), ours=ours, has_globals=has_globals)


def _only_binds(node: ast.AST) -> bool:
    """Whether a statement at the top of a module does no more than give names a value, as an import fallback does."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return all(_is_plain(target) for target in targets)
    if isinstance(node, ast.If):
        return all(map(_only_binds, [*node.body, *node.orelse]))
    if isinstance(node, ast.Try):
        handled = [inner for handler in node.handlers for inner in handler.body]
        return all(map(_only_binds, [*node.body, *handled, *node.orelse, *node.finalbody]))
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, definitions) or type(node).__name__ == "TypeAlias" or idle(node)


def _is_plain(target: ast.AST) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(map(_is_plain, target.elts))
    return isinstance(target, ast.Name) or (isinstance(target, ast.Starred) and _is_plain(target.value))


def _is_typing(test: ast.AST) -> bool:
    return getattr(test, "attr", getattr(test, "id", None)) == "TYPE_CHECKING"


def _is_main(test: ast.AST) -> bool:
    return isinstance(test, ast.Compare) and getattr(test.left, "id", None) == "__name__"


def _is_all(node: ast.AST) -> bool:
    """Whether a statement says which names a star would import."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [getattr(target, "id", None) for target in targets] == ["__all__"]
    return False
