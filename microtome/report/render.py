"""View models to HTML."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from microtome.report.views import Report

_FOLDER = Path(__file__).parent / "templates"


def render(report: Report, *, alone: bool = False) -> dict[str, bytes]:
    """The report's pages: file name -> content. Thumbnails are the caller's.

    Same view, same bytes: nothing here looks at a clock or draws a number.

    Args:
        report: what they show.
        alone: pages that stand for themselves, without an overview to go back to.
    """
    environment = _environment()
    environment.globals.update(alone=alone)
    pages = (
        {} if alone else {"index.html": environment.get_template("index.html").render(report=report, here="index.html")}
    )
    for layer in report.layers:
        pages[layer.page] = environment.get_template("layer.html").render(report=report, layer=layer, here=layer.page)
    for page in report.pages:
        pages[page.page] = environment.get_template("page.html").render(report=report, page=page, here=page.page)
    return {name: text.encode() for name, text in pages.items()}


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
    environment.globals.update(script=Markup(script), style=Markup(style), policy=policy(script))
    environment.filters["svg"] = Markup  # charts are our own, and their text was escaped when they were drawn
    return environment
