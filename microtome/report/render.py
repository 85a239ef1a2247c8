"""View models to HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from microtome.report.overlay import FINE, SHEET
from microtome.report.views import Badge, Conclusion, Links, Part, Report, Section, Table, UnitKey, large_of

_FOLDER = Path(__file__).parent / "templates"
INDEX = "index.html"
LONGEST = 30  # signs of a file's name below a picture
_MARKERS = {name: Markup(f"<!-- {name} -->") for name in ("mark", "verdict", "ungated", "provenance")}
# no name from data can look like one, for all are escaped


def render(report: Report, *, alone: bool = False) -> dict[str, bytes]:
    """The report's pages: file name -> content. Thumbnails are the caller's, and the first page is to be `completed`.

    Same view, same bytes: nothing here looks at a clock or draws a number.

    Args:
        report: what they show.
        alone: pages that stand for themselves, without an overview to go back to.
    """
    show = _Show(report, alone)
    pages = {} if alone else {INDEX: show(INDEX, INDEX)}
    if report.units:
        pages["units.html"] = show("units.html", "units.html")
    for layer in report.layers:
        pages[layer.page] = show("layer.html", layer.page, layer=layer)
    for page in report.pages:
        pages[page.page] = show("page.html", page.page, page=replace(page, sections=explained_once(page.sections)))
    return pages


def completed(index: bytes, conclusion: Conclusion) -> bytes:
    """The first page, with what is known when the whole audit is done.

    Args:
        index: as `render` made it.
        conclusion: what is put in.
    """
    for name, marker in _MARKERS.items():
        made = _environment().get_template(f"{name}.html").render(conclusion=conclusion)
        index = index.replace(marker.encode(), made.encode())
    return index


def render_units(report: Report) -> Iterator[tuple[str, bytes]]:
    """File name and content of each unit's page, one after another, for there may be thousands."""
    show = _Show(report)
    for unit in report.units:
        yield unit.key.page, show("unit.html", unit.key.page, unit=unit)


@dataclass(frozen=True)
class _Show:
    """Renders pages of one report."""

    report: Report
    alone: bool = False

    def __call__(self, template: str, here: str, **shown: object) -> bytes:
        """A page; `root` leads from it to the report's folder."""
        root = "../" * here.count("/")
        known = {} if self.alone else self.report.by_unit
        made = _environment().get_template(template)
        return made.render(report=self.report, here=here, root=root, alone=self.alone, known=known, **shown).encode()


def explained_once(sections: Sequence[Section]) -> list[Section]:
    """Sections without the notes of tables that stand below a table before: layers are told of in the same way."""
    seen: set[str] = set()

    def bare(part: Part) -> Part:
        if not isinstance(part, Table) or not part.note:
            return part
        if part.note in seen:
            return replace(part, note="")
        seen.add(part.note)
        return part

    return [replace(section, parts=[bare(part) for part in section.parts]) for section in sections]


def typeset(text: str) -> str:
    """Words of a page as they are set: a true minus before a number, no break before a percent or in an interval."""
    signed = re.sub(r"(?<![\w.,)\]-])-(?=\d)", "\u2212", text)
    compared = re.sub(r"\b([pq]) ([=≤]) (?=\d)", "\\1\u00a0\\2\u00a0", signed)
    return re.sub(r"\[[\d.,%+\u2212\u00a0 ]+\]", _unbroken, re.sub(r"(?<=\d) ?%", "\u00a0%", compared))


def _unbroken(interval: re.Match[str]) -> str:
    return interval[0].replace(" ", "\u00a0")


def apart(text: str) -> list[str]:
    """The sentences of a headline, the first of which is set larger."""
    return re.split(r"(?<=[.?!])\s+(?=[A-Z“])|(?<=[a-z)\]]\.)\s+(?=\d)|\n+(?=\S)", text.strip())


def short(file: str) -> str:
    """A file's name with its middle left out, where it is long: both ends tell pictures apart."""
    return file if len(file) <= LONGEST else f"{file[: LONGEST // 3]}…{file[-(2 * LONGEST // 3 - 1) :]}"


def policy(script: str) -> str:
    """Content-Security-Policy of a page: nothing from outside, one known script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src 'self' data: file:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


@lru_cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_FOLDER / "report.js").read_text(encoding="utf-8")
    style = (_FOLDER / "report.css").read_text(encoding="utf-8")
    environment.globals.update(
        script=Markup(script), style=Markup(style), policy=policy(script), sheet=SHEET, fine=FINE, markers=_MARKERS
    )
    environment.tests["unit"] = lambda cell: isinstance(cell, UnitKey)
    environment.tests["badge"] = lambda cell: isinstance(cell, Badge)
    environment.tests["links"] = lambda cell: isinstance(cell, Links)
    environment.filters |= {"large": large_of, "typeset": typeset, "apart": apart, "short": short}
    environment.filters["place"] = lambda unit: quote(unit.page)
    environment.filters["svg"] = Markup  # charts are our own, and their text was escaped when they were drawn
    return environment
