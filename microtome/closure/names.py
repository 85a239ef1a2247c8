"""Which names a piece of code takes from outside itself: Python's scopes, read from the syntax alone."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from microtome.closure.text import Function, children, reads_annotations

Chain = tuple[str, ...]
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Import(NamedTuple):
    """What an import statement binds a name to: a module, or a name in it; the module's name is absolute."""

    module: str
    name: str | None


class Reference(NamedTuple):
    """A name and the attributes asked of it: of the module (`origin` is None), or of an import inside a function."""

    origin: Import | None
    chain: Chain


@dataclass(frozen=True)
class Names:
    """What a piece of code names.

    Args:
        references: names that it does not bind itself.
        loads: modules that its import statements run.
    """

    references: frozenset[Reference]
    loads: frozenset[str]


@dataclass
class Bound:
    """What statements bind in their own scope."""

    names: set[str] = field(default_factory=set)
    imports: dict[str, list[Import]] = field(default_factory=dict)
    outer: set[str] = field(default_factory=set)  # declared global
    loads: set[str] = field(default_factory=set)
    stars: list[str] = field(default_factory=list)


def named(statements: Iterable[ast.AST], package: str) -> Names:
    """The names that statements at the top of a module take from it.

    Args:
        statements: any.
        package: of the module, for relative imports.
    """
    reader = _Reader(package)
    for statement in statements:
        reader.visit(statement, None)
    return Names(frozenset(reader.references), frozenset(reader.loads))


def annotated(function: Function, parameters: Collection[str], package: str) -> Names:
    """The names in the annotations of some parameters.

    Args:
        function: at the top of a module.
        parameters: their names.
        package: of the module.
    """
    reader = _Reader(package)
    for argument in _arguments(function.args):
        if argument.arg in parameters and argument.annotation is not None:
            reader.annotation(argument.annotation, None)
    return Names(frozenset(reader.references), frozenset(reader.loads))


def bindings(statements: Sequence[ast.AST], package: str) -> Bound:
    """What statements bind in their own scope; functions, classes and comprehensions inside have theirs.

    Args:
        statements: the body of a module, a function or a class, or some of it.
        package: of the module, for relative imports.
    """
    found = Bound()
    waiting: list[ast.AST] = list(statements)
    local: set[str] = set()
    while waiting:
        node = waiting.pop()
        found.names |= _bound_by(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            _bind_import(node, package, found)
        elif isinstance(node, ast.Global):
            found.outer |= set(node.names)
        elif isinstance(node, ast.Nonlocal):
            local |= set(node.names)
        waiting += _in_same_scope(node)
    found.names -= found.outer | local
    return found


def imported(node: ast.Import | ast.ImportFrom, package: str) -> list[tuple[str, Import]]:
    """The names that an import statement binds, and to what; a star is bound as `*`."""
    if isinstance(node, ast.Import):
        whole = ((alias, alias.asname or alias.name.partition(".")[0]) for alias in node.names)
        return [(name, Import(alias.name if alias.asname else name, None)) for alias, name in whole]
    module = absolute(node, package)
    return [(alias.asname or alias.name, Import(module, alias.name)) for alias in node.names]


def absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that a `from` import names, seen from a module of `package`."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def run_by(node: ast.Import | ast.ImportFrom, package: str) -> set[str]:
    """Modules that an import statement runs, among them what may be submodules or mere names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    module = absolute(node, package)
    return {module, *(f"{module}.{alias.name}" for alias in node.names if alias.name != "*")}


def _bound_by(node: ast.AST) -> set[str]:
    """Names that a node itself binds in its scope, imports aside."""
    name: str | None = None
    if isinstance(node, ast.Name):
        name = None if isinstance(node.ctx, ast.Load) else node.id
    elif isinstance(node, _COMPREHENSIONS):
        return _walruses(node)
    elif isinstance(node, Function | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        name = node.name
    elif isinstance(node, ast.MatchMapping):
        name = node.rest
    elif type(node).__name__ == "TypeAlias":  # from Python 3.12 on
        name = node.name.id  # type: ignore[attr-defined]  # unknown to the Python that is checked for
    return set() if name is None else {name}


def _in_same_scope(node: ast.AST) -> Iterable[ast.AST]:
    if isinstance(node, _COMPREHENSIONS):
        return ()
    if isinstance(node, Function | ast.Lambda | ast.ClassDef):
        return _outside(node)
    return children(node)


def _bind_import(node: ast.Import | ast.ImportFrom, package: str, found: Bound) -> None:
    found.loads |= run_by(node, package)
    for name, origin in imported(node, package):
        if name == "*":
            found.stars.append(origin.module)
        else:
            found.imports.setdefault(name, []).append(origin)


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    single = (argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None)
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *single]


def _outside(node: ast.AST) -> list[ast.AST]:
    """The parts of a function or class that are evaluated around it: decorators, default values, bases."""
    found: list[ast.AST] = list(getattr(node, "decorator_list", ()))
    if isinstance(node, ast.ClassDef):
        return [*found, *node.bases, *node.keywords]
    arguments: ast.arguments = node.args  # type: ignore[attr-defined]  # all but classes have them
    return [*found, *arguments.defaults, *(default for default in arguments.kw_defaults if default is not None)]


def _walruses(node: ast.AST) -> set[str]:
    """Names that a comprehension binds around itself."""
    if isinstance(node, ast.Lambda):
        return set()
    found = {node.target.id} if isinstance(node, ast.NamedExpr) else set()
    return found.union(*(_walruses(child) for child in children(node)))


@dataclass(frozen=True)
class _Scope:
    bound: Bound
    is_class: bool
    parent: _Scope | None


class _Reader:
    """Walks code with the scopes around it and notes the names that none of them binds."""

    def __init__(self, package: str) -> None:
        self._package = package
        self.references: set[Reference] = set()
        self.loads: set[str] = set()

    def visit(self, node: ast.AST, scope: _Scope | None) -> None:
        """Note what a node names."""
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                self._note((node.id,), scope)
        elif isinstance(node, ast.Attribute):
            self._attribute(node, scope)
        elif isinstance(node, Function | ast.Lambda):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            self._each(_outside(node), scope)
            inner = _Scope(bindings(node.body, self._package), True, scope)
            self._each(node.body, inner)
        elif isinstance(node, _COMPREHENSIONS):
            self._comprehension(node, scope)
        elif isinstance(node, ast.AnnAssign):
            self._annotated(node, scope)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        elif isinstance(node, ast.Global):
            self.references |= {Reference(None, (name,)) for name in node.names}
        else:
            self._each(children(node), scope)

    def annotation(self, node: ast.AST, scope: _Scope | None) -> None:
        """Note what an annotation names; strings in it are read as code.

        The values of `Literal` are none, and nothing is an instance of what a `Callable` takes or gives.
        """
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                self._written_annotation(node.value, scope)
        elif isinstance(node, ast.Name | ast.Attribute | ast.Call):
            self.visit(node, scope)
        elif isinstance(node, ast.Subscript) and _last(node.value) in ("Literal", "Callable"):
            self.visit(node.value, scope)
        else:
            for child in children(node):
                self.annotation(child, scope)

    def _written_annotation(self, text: str, scope: _Scope | None) -> None:
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError):
            return
        self.annotation(tree.body, scope)

    def _each(self, nodes: Iterable[ast.AST], scope: _Scope | None) -> None:
        for node in nodes:
            self.visit(node, scope)

    def _attribute(self, node: ast.Attribute, scope: _Scope | None) -> None:
        chain = [node.attr]
        root: ast.AST = node.value
        while isinstance(root, ast.Attribute):
            chain.append(root.attr)
            root = root.value
        if isinstance(root, ast.Name):
            self._note((root.id, *reversed(chain)), scope)
        else:
            self.visit(root, scope)

    def _function(self, node: Function | ast.Lambda, scope: _Scope | None) -> None:
        self._each(_outside(node), scope)
        if isinstance(node, Function) and reads_annotations(node):
            for argument in _arguments(node.args):
                if argument.annotation is not None:
                    self.annotation(argument.annotation, scope)
        body: Sequence[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else node.body
        bound = bindings(body, self._package)
        bound.names |= {argument.arg for argument in _arguments(node.args)}
        self._each(body, _Scope(bound, False, scope))

    def _comprehension(self, node: ast.AST, scope: _Scope | None) -> None:
        """The first iterable is evaluated around the comprehension, all else inside it."""
        first, *others = node.generators  # type: ignore[attr-defined]  # every comprehension has them
        self.visit(first.iter, scope)
        targets = [generator.target for generator in (first, *others)]
        inner = _Scope(bindings(targets, self._package), False, scope)
        self._each([*targets, *first.ifs, *others], inner)
        parts = (getattr(node, name, None) for name in ("elt", "key", "value"))
        self._each((part for part in parts if part is not None), inner)

    def _annotated(self, node: ast.AnnAssign, scope: _Scope | None) -> None:
        """Annotations in a class body are read by dataclasses and pydantic; those of other variables run nothing."""
        self.visit(node.target, scope)
        if scope is not None and scope.is_class:
            self.annotation(node.annotation, scope)
        if node.value is not None:
            if _last(node.annotation) == "TypeAlias":
                self.annotation(node.value, scope)
            else:
                self.visit(node.value, scope)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.loads |= run_by(node, self._package)

    def _note(self, chain: Chain, scope: _Scope | None) -> None:
        name, start = chain[0], scope
        while scope is not None:
            if scope is start or not scope.is_class:
                if name in scope.bound.outer:
                    break
                origins = scope.bound.imports.get(name, ())
                self.references |= {Reference(origin, chain[1:]) for origin in origins}
                if not scope.is_class and (origins or name in scope.bound.names):
                    return
            scope = scope.parent
        self.references.add(Reference(None, chain))


def _last(node: ast.AST) -> str | None:
    """The last name of `a.b.c`."""
    return getattr(node, "attr", getattr(node, "id", None))
