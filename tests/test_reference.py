"""The pages that are made from declarations are those that the declarations make now."""

import re

import pytest

from flows.reference import pages, renewed
from tasks.registry import STAGES


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
