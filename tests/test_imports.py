"""Imports go downwards only and in no circle, planning waits for no torch, a class has a name of its own."""

import ast
import graphlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABOVE = {
    "microtome": {"flows", "tasks", "storage", "prefect", "duckdb", "pyarrow"},
    "storage": {"flows", "tasks", "prefect", "torch", "microtome"},
    "tasks": {"flows", "prefect"},
    "flows": set(),
}


TWICE = {"Inputs", "Shard"}  # what a stage reads, and what carries a part of it out: `tasks.<stage>.work.Inputs`


def sources() -> dict[str, Path]:
    """Module -> file, of all four rooms."""
    files = [file for room in ABOVE for file in (ROOT / room).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("room", ABOVE)
def test_imports_go_downwards(room):
    wrong = {str(file): imported(file) & ABOVE[room] for file in (ROOT / room).rglob("*.py")}
    assert {file: names for file, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import flows.plan, flows.run, flows.cli", {"torch", "prefect"}),
        ("from microtome.quantify import dissection", {"prefect", "duckdb", "pyarrow"}),
    ],
)
def test_what_an_import_brings(statement, absent):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not absent & set(loaded.stdout.split())


def at_import(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """What runs when a module is imported: not in functions, not for the type checker alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (found for part in child.orelse for found in at_import(part))
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(child)


def needed(file: Path, modules: dict[str, Path]) -> set[str]:
    """Our modules that one takes names from; a name that is a module counts as that module."""
    found = set()
    for node in at_import(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert not node.level, f"{file}: a relative import"
            found |= {
                name if (name := f"{node.module}.{alias.name}") in modules else str(node.module) for alias in node.names
            }
    return found & set(modules)


def test_no_circle():
    modules = sources()
    graph = {name: needed(file, modules) - {name} for name, file in modules.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_a_circle_would_be_seen(tmp_path):
    (tmp_path / "one.py").write_text("if True:\n    import two\n")
    (tmp_path / "two.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import one\n")
    modules = {name: tmp_path / f"{name}.py" for name in ("one", "two")}
    assert [needed(file, modules) for file in modules.values()] == [{"two"}, set()]


def test_no_two_classes_have_one_name():
    places = defaultdict(list)
    for module, file in sources().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name for name, found in places.items() if len(found) > 1} == TWICE


def test_four_positional_arguments_at_most():
    bound = {"self", "cls", "context", "_module"}  # what Python, autograd and torch's hooks hand over first
    many = []
    for module, file in sources().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                if len(set(names) - bound) > 4:
                    many.append(f"{module}:{node.lineno} {names}")
    assert many == []


def test_any_stays_rare():
    """Where a library gives no more: 120 uses of the word in all four packages, imports counted."""
    found = sum(len(re.findall(r"\bAny\b", file.read_text())) for file in sources().values())
    assert found < 120, f"Any must stay below 120 uses, got {found}; give the value a type"
