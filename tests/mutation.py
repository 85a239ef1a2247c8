"""Small changes to real code, one at a time, and which entry points' digests they change.

tree = Tree(tmp_path)                                   # a copy of our packages
for mutant in mutants(tree.root / "microtome/quantify/resampling.py"):
    changed = tree.changed(mutant, {"tree": Root(("tasks.tree:run",))})
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from microtome.closure import OURS, ROOT, Closure, Places, closure

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
Edit = tuple[str, Callable[[], None], Callable[[], None]]
"""What a change is called, how it is made and how it is undone."""


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Args:
        file: the module's.
        definition: the names that the changed statement at the top of the module binds; empty for a bare statement.
        line: of the change, in the module as it was.
        description: what was changed.
        source: the module's new text.
        path: names of the classes and functions in whose bodies the change lies, from the outermost.
    """

    file: Path
    definition: tuple[str, ...]
    line: int
    description: str
    source: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Root:
    """What one digest begins from: the arguments of `closure`."""

    roots: tuple[str, ...]
    files: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()

    def closure(self, places: Places) -> Closure:
        """All that it reaches."""
        return closure(self.roots, places, files=self.files, follow_annotations_of_roots=self.annotations)


class Tree:
    """A copy of our packages, in which one file at a time is changed.

    Args:
        folder: where the copy goes.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        for name in OURS:
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.places = Places(root=self.root)
        self._before: dict[Root, tuple[str, frozenset[Path]]] = {}

    def changed(self, mutant: Mutant, roots: Mapping[str, Root]) -> set[str]:
        """Names of the roots whose digest the change changes; the file is put back."""
        before = {name: self._read(root) for name, root in roots.items()}
        own = mutant.file.read_bytes()
        mutant.file.write_text(mutant.source, encoding="utf-8")
        try:
            asked = {name: digest for name, (digest, opened) in before.items() if mutant.file in opened}
            return {name for name, digest in asked.items() if roots[name].closure(self.places).digest != digest}
        finally:
            mutant.file.write_bytes(own)

    def _read(self, root: Root) -> tuple[str, frozenset[Path]]:
        """A root's digest, and the files that were opened for it: no other file's content can change it."""
        if root not in self._before:
            with _opened() as files:
                digest = root.closure(self.places).digest
            self._before[root] = digest, frozenset(files)
        return self._before[root]


_listening: list[set[Path]] = []


@contextmanager
def _opened() -> Iterator[set[Path]]:
    """The files that are opened inside, as Python's own audit hook tells."""
    if not _hooked:
        sys.addaudithook(_heard)
        _hooked.append(True)
    _listening.append(set())
    try:
        yield _listening[-1]
    finally:
        _listening.pop()


_hooked: list[bool] = []  # a hook cannot be taken off again


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _listening and isinstance(arguments[0], str):
        _listening[-1].add(Path(arguments[0]))


def mutants(file: Path) -> Iterator[Mutant]:
    """Every change of one constant or one operator in a module.

    Left alone: docstrings, `pass`, annotations that run nothing (of functions, and of variables outside class bodies),
    `__all__`, what stands under `if TYPE_CHECKING:` or `if __name__ == "__main__":`.

    Args:
        file: a module that parses.
    """
    text = file.read_text(encoding="utf-8")
    for statement in ast.parse(text).body:
        if not _left_alone(statement):
            yield from _of_statement(Mutant(file, _bound(statement), 0, "", text), statement)


def _of_statement(blank: Mutant, statement: ast.stmt) -> Iterator[Mutant]:
    for node, path in _live(statement, (), in_class=False):
        for edit in _changes(node):
            yield _edited(replace(blank, path=path), statement, node, edit)


def _edited(blank: Mutant, statement: ast.stmt, node: ast.AST, edit: Edit) -> Mutant:
    """The module with one statement at its top written anew after an edit, which is undone."""
    description, change, undo = edit
    change()
    new = ast.unparse(statement)
    undo()
    line = getattr(node, "lineno", statement.lineno)
    return replace(blank, line=line, description=description, source=_replaced(blank.source, statement, new))


def _live(node: ast.AST, path: tuple[str, ...], *, in_class: bool) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """What may be changed in a node, and the classes and functions around it."""
    if isinstance(node, ast.Constant | ast.BinOp | ast.AugAssign | ast.BoolOp | ast.Compare):
        yield node, path
    skipped = {"returns"} if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else set()
    if isinstance(node, ast.arg) or (isinstance(node, ast.AnnAssign) and not in_class):
        skipped = {"annotation"}
    for name, value in ast.iter_fields(node):
        inside = (*path, node.name) if name == "body" and isinstance(node, DEFINITIONS) else path
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in skipped and not _idle(child):
                yield from _live(child, inside, in_class=isinstance(node, ast.ClassDef))


def reworded(file: Path) -> tuple[Mutant, int]:
    """A module with all of its words changed at once, and how many these are: docstrings and other bare strings,
    annotations of functions, what declarations say of stages, tables and columns. Comments and layout go, too.

    Args:
        file: a module that parses.
    """
    tree, count = ast.parse(file.read_text(encoding="utf-8")), 0
    for node in ast.walk(tree):
        for holder, name, new in _words(node):
            setattr(holder, name, new)
            count += 1
    return Mutant(file, (), 1, "all words", f"# Other words.\n{ast.unparse(tree)}\n"), count


def _words(node: ast.AST) -> Iterator[tuple[ast.AST, str, object]]:
    """The words of a node that run nothing: what holds them, in which field, and others."""
    said: list[ast.AST] = []
    if isinstance(node, ast.Expr) and _idle(node):
        said = [node.value]
    elif isinstance(node, ast.arg) and node.annotation is not None:
        yield node, "annotation", ast.Name("object")
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
        yield node, "returns", ast.Name("object")
    elif isinstance(node, ast.Call) and _called(node) == "table":
        said = node.args[1:2]
    elif isinstance(node, ast.Call) and _called(node) in TYPES:
        said = node.args[:1]
    elif isinstance(node, ast.Call) and _called(node) == "Stage":
        said = [keyword.value for keyword in node.keywords if keyword.arg in ("about", "starter")]
    for text in said:
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield text, "value", f"{text.value} More words."


_OTHER = (("int32", "int64"), ("float32", "float64"), ("string", "flag"), ("floats", "string"))
TYPES = {new: old for old, new in _OTHER} | dict(_OTHER)  # each type of a column, and another one
IMPORTS = "from __future__ import annotations\n"


def schemas(file: Path) -> Iterator[Mutant]:
    """Every change of the type or the name of one column in the tables that a module declares.

    Args:
        file: a module that parses.
    """
    text = file.read_text(encoding="utf-8")
    for statement in ast.parse(text).body:
        tables = (node for node in ast.walk(statement) if isinstance(node, ast.Call) and _called(node) == "table")
        for column in (keyword for table in tables for keyword in table.keywords if _called(keyword.value) in TYPES):
            blank = Mutant(file, _bound(statement), 0, "", text)
            kind = column.value.func
            for edit in (_set(kind, "id", f"tables.{TYPES[kind.id]}"), _set(column, "arg", f"{column.arg}x")):
                found = _edited(blank, statement, column, edit)
                yield replace(found, source=found.source.replace(IMPORTS, f"{IMPORTS}\nfrom storage import tables", 1))


def _called(node: ast.AST) -> str | None:
    return getattr(getattr(node, "func", None), "id", None)


def _changes(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            yield _swap(node.ops, number, OPERATORS[type(operator)]())
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp):
        yield _set(node, "op", OPERATORS[type(node.op)]())


def _constants(node: ast.Constant) -> Iterator[Edit]:
    value = node.value
    if isinstance(value, bool):
        yield _set(node, "value", not value)
    elif isinstance(value, int | float | complex):
        yield _set(node, "value", value + 1)
    elif isinstance(value, str):
        yield _set(node, "value", value + "x")
    elif isinstance(value, bytes):
        yield _set(node, "value", value + b"x")
    elif value is None:
        yield _set(node, "value", 0)


def _set(node: ast.AST, name: str, new: object) -> Edit:
    old = getattr(node, name)
    return f"{_shown(old)} -> {_shown(new)}", lambda: setattr(node, name, new), lambda: setattr(node, name, old)


def _swap(items: list, number: int, new: ast.AST) -> Edit:
    old = items[number]
    return (
        f"{_shown(old)} -> {_shown(new)}",
        lambda: items.__setitem__(number, new),
        lambda: items.__setitem__(number, old),
    )


def _shown(value: object) -> str:
    return type(value).__name__ if isinstance(value, ast.AST) else repr(value)


def _replaced(text: str, statement: ast.stmt, new: str) -> str:
    """The text with a statement at its top written anew."""
    lines = text.splitlines(keepends=True)
    decorators = [node.lineno for node in getattr(statement, "decorator_list", ())]
    return "".join([*lines[: min([statement.lineno, *decorators]) - 1], f"{new}\n", *lines[statement.end_lineno :]])


def _bound(statement: ast.stmt) -> tuple[str, ...]:
    if isinstance(statement, DEFINITIONS):
        return (statement.name,)
    assigned = isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign)
    places = getattr(statement, "targets", None) or [statement.target] if assigned else [statement]
    stored = (node for place in places for node in ast.walk(place) if isinstance(node, ast.Name))
    return tuple(dict.fromkeys(node.id for node in stored if isinstance(node.ctx, ast.Store)))


def _left_alone(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom) or _idle(statement):
        return True
    if isinstance(statement, ast.If):
        return ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'")
    return _bound(statement) == ("__all__",)


def _idle(node: ast.AST) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
