"""Imports go downwards only, planning waits for no torch, and the science stands alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABOVE = {
    "microtome": {"flows", "tasks", "storage", "prefect", "duckdb", "pyarrow"},
    "storage": {"flows", "tasks", "prefect", "torch", "microtome"},
    "tasks": {"flows", "prefect"},
    "flows": set(),
}


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
