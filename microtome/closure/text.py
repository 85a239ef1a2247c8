"""Python's syntax written out so that only what runs counts: no comments, docstrings, positions or idle annotations."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache

ANNOTATED = frozenset({"register", "validate_call"})  # decorators that read a function's annotations at run time
_IDLE = frozenset({"ctx", "type_comment", "kind"})
Function = ast.FunctionDef | ast.AsyncFunctionDef


def digest_of(*parts: str | bytes) -> str:
    """SHA-256 of the parts, each set apart from the next: 32 hexadecimal characters."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(f"{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def written(statements: Iterable[ast.AST]) -> str:
    """The statements in one canonical form, the same from every version of Python that reads them.

    Args:
        statements: of one definition, in the order in which they run.
    """
    out: list[str] = []
    for statement in statements:
        _write(statement, out, in_class=False)
    return "".join(out)


def idle(statement: ast.AST) -> bool:
    """Whether a statement does nothing: a docstring, another bare string, or `pass`."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    return isinstance(statement, ast.Pass)


def reads_annotations(function: Function) -> bool:
    """Whether a decorator acts on the annotations, as `functools.singledispatch` does."""
    heads = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return any(getattr(head, "attr", getattr(head, "id", None)) in ANNOTATED for head in heads)


@cache
def _fields(kind: type[ast.AST]) -> tuple[str, ...]:
    return tuple(name for name in kind._fields if name not in _IDLE)


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below one, but for those that say nothing: whether a name is read or bound, it says itself."""
    found: list[ast.AST] = []
    for name in _fields(type(node)):  # type: ignore[arg-type]  # its cache wants a hashable type
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            found.append(value)
        elif isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST)]
    return found


def _write(node: ast.AST, out: list[str], *, in_class: bool) -> None:
    if isinstance(node, ast.Constant):
        out.append(f"{type(node.value).__name__} {node.value!r};")
    elif isinstance(node, ast.Name):
        out.append(f"Name {node.id};")
    elif isinstance(node, ast.AnnAssign) and not in_class:
        _write_assignment(node, out)
    elif isinstance(node, Function) and not reads_annotations(node):
        _write_function(node, out)
    elif not idle(node):
        out.append(f"{type(node).__name__}(")
        inside = isinstance(node, ast.ClassDef) or (in_class and not isinstance(node, Function | ast.Lambda))
        for name in _fields(type(node)):  # type: ignore[arg-type]  # its cache wants a hashable type
            _write_field(name, getattr(node, name, None), out, in_class=inside)
        out.append(")")


def _write_assignment(node: ast.AnnAssign, out: list[str]) -> None:
    """Like the same assignment without an annotation."""
    out.append("Assign(targets[")
    _write(node.target, out, in_class=False)
    out.append("]")
    _write_field("value", node.value, out, in_class=False)
    out.append(")")


def _write_function(node: Function, out: list[str]) -> None:
    """Without annotations of what it takes and returns."""
    out.append(f"{type(node).__name__} {node.name}(")
    _write_arguments(node.args, out)
    for name in ("decorator_list", "body"):
        _write_field(name, getattr(node, name), out, in_class=False)
    out.append(")")


def _write_field(name: str, value: object, out: list[str], *, in_class: bool) -> None:
    if value is None or value == []:
        return
    out.append(name)
    if isinstance(value, list):
        out.append("[")
        for item in value:
            if isinstance(item, ast.AST):
                _write(item, out, in_class=in_class)
            else:
                out.append(f"{item!r};")
        out.append("]")
    elif isinstance(value, ast.AST):
        out.append(" ")
        _write(value, out, in_class=in_class)
    else:
        out.append(f" {value!r};")


def _write_arguments(arguments: ast.arguments, out: list[str]) -> None:
    """Names, kinds and default values, without annotations."""
    for group in (arguments.posonlyargs, arguments.args, arguments.kwonlyargs):
        out.append(",".join(argument.arg for argument in group) + ";")
    out.append(f"{getattr(arguments.vararg, 'arg', '')};{getattr(arguments.kwarg, 'arg', '')};")
    for default in (*arguments.defaults, None, *arguments.kw_defaults):
        if default is None:
            out.append("None;")
        else:
            _write(default, out, in_class=False)
