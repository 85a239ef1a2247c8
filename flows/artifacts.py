"""What Prefect's user interface shows of a run: the verdict as markdown, tables, a link to the report, one picture.

All of it is made from the run's record and the report, without Prefect; `flows.posting` sends it. Artifacts of one key
are versions of each other there, so the keys begin with the audit's name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from flows.run import Outcome
from flows.text import printable
from flows.verdicts import sentence
from storage import Artifact, Files, RunRecord, StageStore
from storage.runs import FigureRun, GateRun, verdict

AT_A_GLANCE = 12  # figures in the markdown; the table has them all
MOST_ROWS = 500  # of a table: it lies in Prefect's database
MOST_BYTES = 100_000  # of the picture, likewise
WORDS = {"passed": "✓\u00a0passed", "failed": "✗\u00a0failed", "warned": "!\u00a0warning", "not judged": "not judged"}
_MARKUP = re.compile(r"[\\`*<&~|!@]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|:(?=//)|(?<=www)\.|^\s*[#>+=-]", re.IGNORECASE)
SERVED = "MICROTOME_WORKSPACE_URL"
"""Environment variable: where a web server shows the workspace's folder, for links that a browser can follow."""


@dataclass(frozen=True)
class PrefectArtifact:
    """An artifact as Prefect's API takes it.

    Args:
        key: lower-case letters, digits and dashes.
        type: `markdown`, `table` or `image`.
        data: text, whose form is the type's.
        description: markdown.
    """

    key: str
    type: str
    data: str
    description: str


def artifacts_of(outcome: Outcome, files: Files) -> Iterator[PrefectArtifact]:
    """What there is to show of a run that has ended.

    Args:
        outcome: how.
        files: the workspace.
    """
    run = outcome.run
    name, of = key_of(run.name), f"Run {run.run_id} of {markdown(run.name)}"
    yield PrefectArtifact(f"{name}-verdict", "markdown", verdict_page(outcome, files), f"{of}: {headline(run)}.")
    if run.gates:
        yield _table(f"{name}-gates", [_gate_row(gate) for gate in run.gates], f"The gates. {of}.")
    if run.figures:
        yield _table(f"{name}-figures", [_figure_row(figure) for figure in run.figures], f"Headline figures. {of}.")
    if outcome.report:
        line = _report_line(outcome.report, run, files)
        yield PrefectArtifact(f"{name}-report", "markdown", line, f"The report. {of}.")
        yield from _picture(f"{name}-picture", outcome.report, run, files)


def key_of(audit: str) -> str:
    """An audit's name as Prefect takes keys; with a digest where that is not the name itself, so that two stay two."""
    words = re.sub("[^a-z0-9]+", "-", audit.lower()).strip("-")
    return words if words == audit else f"{words or 'audit'}-{hashlib.sha256(audit.encode()).hexdigest()[:6]}"


def markdown(text: str) -> str:
    """Text that markdown shows as it is: no name from data becomes markup, a link or a picture.

    The newer interface makes links of addresses whatever is escaped, but not where a joiner, which has no width, is in
    them.
    """
    apart = re.sub(r"(?i)(https?:|www|@)(?=[/.\w])", "\\1\u2060", printable(text))
    return re.sub(f"([{re.escape(string.punctuation)}])", r"\\\1", apart)


def cell(text: str) -> str:
    """Text of a table's cell, which the older interface reads as markdown and the newer one shows as it is: escaped
    where markdown would make something of it, and nowhere else."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def headline(run: RunRecord) -> str:
    """The verdict in a few words."""
    found = [verdict(gate) for gate in run.gates]
    count = len(found)
    if not found:
        return run.status
    failed = found.count("failed")
    words = f"{failed} of {count} gates failed" if failed else "no gate failed"
    rest = [
        f"{found.count(kind)} {text}" for kind, text in (("warned", "with a warning"), ("not judged", "not judged"))
    ]
    return ", ".join([words, *(text for text in rest if not text.startswith("0 "))])


def verdict_page(outcome: Outcome, files: Files) -> str:
    """The verdict, the gates and the first headline figures, as markdown."""
    run = outcome.run
    cached = sum(stage.get("cached", False) for stage in run.stages.values())
    lines = [
        f"# {markdown(run.name)}: {headline(run)}",
        "",
        f"Network {markdown(run.network)}, run {markdown(run.run_id)}, {run.seconds:.1f} s; "
        f"{cached} of {len(run.stages)} stages were done before.",
    ]
    if run.gates:
        lines += ["", "| verdict | gate | measured |", "|-|-|-|"]
        lines += [f"| {WORDS[verdict(g)]} | {markdown(g['gate'])} | {markdown(sentence(g))} |" for g in run.gates]
    if run.figures:
        lines += ["", "| stage | figure | value | 95 % interval |", "|-|-|-|-|"]
        rows = [_figure_row(figure) for figure in run.figures[:AT_A_GLANCE]]
        lines += ["| " + " | ".join(markdown(cell) for cell in row.values()) + " |" for row in rows]
        left = len(run.figures) - AT_A_GLANCE
        lines += ["", f"{left} more figures are in {key_of(run.name)}-figures."] if left > 0 else []
    if outcome.report:
        lines += ["", _report_line(outcome.report, run, files)]
    return "\n".join(lines)


def place_of(file: Path, files: Files) -> str:
    """Address of a file of the workspace: below `MICROTOME_WORKSPACE_URL` where that is set, else on this machine."""
    served = os.environ.get(SERVED)
    if not served:
        return file.absolute().as_uri()
    return f"{served.rstrip('/')}/{quote(file.relative_to(files.location('')).as_posix())}"


def _report_line(report: Path, run: RunRecord, files: Files) -> str:
    """Where the report is; a browser follows no link from a page of a server to a file."""
    if os.environ.get(SERVED):
        return f"[The report of run {markdown(run.run_id)}]({place_of(report, files)})"
    opened = f"microtome open {run.run_id} --workspace {files.address}"
    return f"The report is a file on {markdown(platform.node())}: {markdown(str(report))}; {markdown(opened)} opens it."


def _gate_row(gate: GateRun) -> dict[str, str]:
    interval = _interval(gate.get("low"), gate.get("high"))
    row = {"verdict": verdict(gate), "gate": gate["gate"], "value": _number(gate["value"]), "95 % interval": interval}
    return row | {"limit": _number(gate["limit"]), "note": gate.get("note") or ""}


def _figure_row(figure: FigureRun) -> dict[str, str]:
    what = f"{figure['figure']}, {figure['row']}" if figure["row"] else figure["figure"]
    interval = _interval(figure["low"], figure["high"])
    return {"stage": figure["stage"], "figure": what, "value": _number(figure["value"]), "95 % interval": interval}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _table(key: str, rows: Sequence[dict[str, str]], description: str) -> PrefectArtifact:
    shown = [{name: cell(value) for name, value in row.items()} for row in rows[:MOST_ROWS]]
    left = f" The first {MOST_ROWS} of {len(rows)} rows." if len(rows) > MOST_ROWS else ""
    return PrefectArtifact(key, "table", json.dumps(shown, ensure_ascii=False), description + left)


def _picture(key: str, report: Path, run: RunRecord, files: Files) -> Iterator[PrefectArtifact]:
    """The report's cover: its address where a browser can follow it, else the picture itself."""
    pages: Artifact | None = StageStore(files).load(run.stages["report"]["folder"])
    if pages is None or not pages.has("cover.webp"):
        return
    content, caption = pages.read("cover.webp"), markdown(pages.json("cover.json")["caption"])
    if os.environ.get(SERVED):
        yield PrefectArtifact(key, "image", place_of(report.with_name("cover.webp"), files), caption)
    elif len(content) <= MOST_BYTES:
        yield PrefectArtifact(key, "image", f"data:image/webp;base64,{base64.b64encode(content).decode()}", caption)
