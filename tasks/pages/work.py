"""Stage `pages`: the findings of every stage, as pages."""

from __future__ import annotations

import json
from importlib import import_module
from itertools import chain
from typing import Any

from microtome.report import views
from microtome.report.cover import cover
from microtome.report.overview import overview
from microtome.report.render import render, render_units
from microtome.report.unit import unit_pages
from storage import Draft
from tasks.pages import PagesOptions
from tasks.pages.audited import Inputs
from tasks.pages.shown import Shown
from tasks.session import Session
from tasks.stage import PageOf


def run(options: PagesOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Write the pages."""
    shown = Shown(inputs.jobs, inputs.artifacts, draft, session, options.top_images)
    wanted = list(dict.fromkeys(job.stage.page for job in inputs.jobs.values() if job.stage.page))
    session.begin(len(wanted), "findings")
    layers: list[views.Layer] = []
    pages: list[views.Page] = []
    told: list[views.Told] = []
    for page in wanted:
        made, of_units = _page(page, shown)
        if isinstance(made, views.Page):
            pages.append(made)
            told.append(of_units)
        else:
            layers += made
            told.insert(0, of_units)  # the dissection's: where a unit is high comes before what follows from it
        session.advance(1)
    report = overview(inputs.audited, layers, pages, unit_pages(layers, told))
    for name, content in chain(render(report).items(), render_units(report)):
        draft.write(name, content)
        session.check()
    _write_cover(report, draft)


def _write_cover(report: views.Report, draft: Draft) -> None:
    """The picture that stands for the report elsewhere, and what it shows."""

    def read(name: str) -> bytes:
        with draft.read(name) as source:
            content: bytes = source.read()
        return content

    found = cover(report, read)
    if found:
        draft.write("cover.webp", found.picture)
        draft.write("cover.json", json.dumps({"caption": found.caption}).encode())


def _page(page: PageOf, shown: Shown) -> tuple[views.Page | list[views.Layer], views.Told]:
    """Findings of a stage, then its page from them alone, and what they tell of single units."""
    found = _named(page.findings)(shown)
    return _named(page.page)(found), _named(page.units)(found) if page.units else {}


def _named(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
