"""Stage `report`: the pages, with the gates' verdict and where everything comes from."""

from __future__ import annotations

from microtome.report.overview import conclusion
from microtome.report.render import INDEX, completed
from storage import Draft
from tasks.pages.audited import Inputs
from tasks.report import PAGES, ReportOptions
from tasks.session import Session


def run(options: ReportOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Take the pages over as they are, and complete the first one."""
    pages = inputs.artifacts[PAGES]
    gates = inputs.artifacts["gates"].json("gates.json") if "gates" in inputs.artifacts else []
    for name in pages.names():
        if name != INDEX:
            draft.take(pages, name)
        session.check()
    draft.write(INDEX, completed(pages.read(INDEX), conclusion(inputs.audited, gates)))
