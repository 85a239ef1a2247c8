"""The documentation as a site: it builds, every link leads somewhere, and it asks nothing of the outside."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.test_imports import ROOT

FETCHED = re.compile(
    r"""<(?:script|img|iframe)[^>]*\bsrc=["']?(https?:[^"' >]+)"""
    r"""|<link[^>]*rel=["']?(?:stylesheet|preload|icon)[^>]*href=["']?(https?:[^"' >]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_in_it(site):
    pages = {file.stem for file in (ROOT / "docs").glob("*.md")}
    named = {
        Path(page).stem
        for part in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
        for pages_of in part.values()
        for entry in pages_of
        for page in entry.values()
    }
    assert named == pages
    assert pages <= {file.stem for file in site.glob("*.html")}
    assert "load_network" in (site / "api.html").read_text()
    assert (site / "beside/examples/notebooks/dissect_your_network.py.txt").is_file()


def test_nothing_is_fetched(site):
    assert FETCHED.search('<script defer src="https://a.b/c.js">')
    assert FETCHED.search('<link rel="stylesheet" href="https://a.b/c.css">')
    for page in site.rglob("*.html"):
        assert FETCHED.findall(page.read_text()) == [], page
