"""The pages that are made from declarations are those that the declarations make now; what others name is there."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from flows.reference import pages, renewed
from tasks.registry import STAGES
from tests.compiled import Project

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


def test_every_key_of_the_audit_file_has_a_meaning():
    keys = [
        line for _, page in pages() for line in page.splitlines() if line.startswith("| `") and line.count(" | ") >= 3
    ]
    assert len(keys) > 100
    without = [line for line in keys if not re.match(r"\| `[\w.\[\]]+` \| [A-Z`].+\. \| ", line)]
    assert without == []


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
    named = [place for place in named if place != "examples/.microtome"]  # which audits of the examples make
    assert [place for place in named if not (ROOT / place).exists() and not (ROOT / f"{place}.py").exists()] == []


FOLLOWED = {  # the option `tail`: a definition, and those on its way that its text names
    "flows.cli:audit": {"flows.plan:Plan"},
    "flows.plan:Plan": {"flows.auditfile:read_audit"},
    "flows.auditfile:read_audit": {"flows.auditfile:understood"},
    "flows.auditfile:understood": {"flows.auditfile:AuditModel"},
    "flows.auditfile:AuditModel": {"flows.auditfile:StagesModel"},
    "flows.auditfile:StagesModel": {"flows.auditfile:_stages_model"},
    "flows.auditfile:_stages_model": {"tasks.registry:STAGES"},
    "tasks.registry:STAGES": {"tasks.dissection:STAGE"},
    "tasks.dissection:STAGE": {"tasks.labelling:DissectionOptions", "tasks.dissection:plan"},
    "tasks.labelling:DissectionOptions": {"tasks.null:NullOptions"},
    "tasks.null:NullOptions": {"tasks.tally:TallyOptions"},
    "tasks.tally:TallyOptions": {"tasks.options:Lighting"},
    "tasks.dissection:plan": {"tasks.tally:TallyOptions", "tasks.tally:STAGE"},
    "tasks.tally.work:Shard": {"tasks.tally.lighting:Lighter"},
}


def test_the_option_that_is_followed_goes_from_definition_to_definition():
    project = Project(ROOT)
    for place, steps in FOLLOWED.items():
        assert steps <= {":".join(named) for named in project.names(tuple(place.split(":")))}, place
    assert is_defined(ROOT / "tasks/options.py", "Lighting.tail")
    assert "tasks.tally.work:run" in {stage.work for stage in STAGES}  # in words: a search, no jump


def test_all_who_read_the_option_that_is_followed_are_named():
    """Every module of tasks that asks options for their `tail` is on the page."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    asking = [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "tasks").rglob("*.py"))
        if re.search(r"(options|lighting)\.tail\b", file.read_text(encoding="utf-8"))
    ]
    assert len(asking) == 9
    assert [file for file in asking if f"`{file}:" not in text] == []


def test_a_definition_that_is_not_there_is_missed():
    assert is_defined(ROOT / "tasks/options.py", "Lighting.tail")
    assert not is_defined(ROOT / "tasks/options.py", "Lighting.tial")
    assert not is_defined(ROOT / "tasks/options.py", "Lightning")
