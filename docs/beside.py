"""What the pages link to beside docs/ becomes part of the site: notebooks, results of benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(\.\./([^)#]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the files that any page links to."""
    pages = [file for file in files.documentation_pages() if file.abs_src_path]
    linked = {found for page in pages for found in LINK.findall(Path(page.abs_src_path).read_text(encoding="utf-8"))}
    for name in sorted(linked):
        files.append(File.generated(config, f"beside/{name}.txt", content=(ROOT / name).read_bytes()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead the links there."""
    return LINK.sub(r"](beside/\1.txt)", markdown)
