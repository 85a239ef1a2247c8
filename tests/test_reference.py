"""The pages that are made from declarations are those that the declarations make now; what others name is there."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from flows.reference import pages, renewed
from tasks.registry import STAGES

ROOT = Path(__file__).parent.parent


def test_nothing_of_the_reference_is_stale():
    stale = [page.name for page, content in pages() if page.read_text(encoding="utf-8") != content]
    assert stale == [], "write them anew: python -m flows.reference"


def test_every_column_has_a_meaning_and_every_table_a_stage_of_its_own():
    names = [table.name for stage in STAGES for table in stage.tables]
    assert len(set(names)) == len(names)
    for stage in STAGES:
        assert stage.about.endswith(".")
        for table in stage.tables:
            assert table.about.strip()
            assert all(column.meaning.strip() for column in table.columns.values()), table.name


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="must have the lines"):
        renewed("a page", "content")


def defined(body: Iterable[ast.stmt]) -> dict[str, ast.stmt]:
    """Statements by the names that they define."""
    found = {}
    for node in body:
        places = getattr(node, "targets", [getattr(node, "target", node)])
        names = [getattr(place, "id", getattr(place, "name", None)) for place in places]
        found |= {name: node for name in names if name}
    return found


def is_defined(file: Path, name: str) -> bool:
    """Whether a module defines `name`, or in a class of it `Class.name`."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for part in name.split("."):
        node = defined(body).get(part)
        if node is None:
            return False
        body = getattr(node, "body", [])
    return True


PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_definition_that_a_page_names_by_its_file_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:flows|tasks|storage|microtome|tests|benchmarks)/[\w/]+\.py):([\w.]+)`", text)
    lost = [(file, name) for file, name in named if not (ROOT / file).is_file() or not is_defined(ROOT / file, name)]
    assert lost == []
    assert named or page != "docs/architecture.md"


@pytest.mark.parametrize("page", [*PAGES, "README.md"])
def test_every_file_and_folder_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:flows|tasks|storage|microtome|tests|benchmarks|examples)/[\w/.-]*)`", text)
    assert [place for place in named if not (ROOT / place).exists() and not (ROOT / f"{place}.py").exists()] == []


def test_a_definition_that_is_not_there_is_missed():
    assert is_defined(ROOT / "tasks/options.py", "Lighting.tail")
    assert not is_defined(ROOT / "tasks/options.py", "Lighting.tial")
    assert not is_defined(ROOT / "tasks/options.py", "Lightning")
