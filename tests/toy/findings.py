"""What the report shows of a toy."""

from __future__ import annotations

from microtome.report import views
from tasks.pages.shown import Shown
from tasks.result import StageResult


def findings(shown: Shown) -> float:
    """The mean brightness."""
    values = shown.result("brightness", StageResult).table("brightness").column("brightness").to_pylist()
    return float(sum(values) / len(values))


def page(mean: float) -> views.Page:
    """A page of one sentence."""
    return views.Page("brightness", "brightness.html", f"Mean brightness {mean:.3f}.", views.Figures([]), [])
