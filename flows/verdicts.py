"""An audit's verdict for machines: JUnit XML, which continuous integration shows as tests, and JSON."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.run import StageFailed
from microtome.errors import InputError, Interrupted
from microtome.importing import said
from storage import RunRecord
from storage.runs import GateRun, verdict

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Verdicts:
    """Where an audit's verdict is written to; nowhere by default.

    Args:
        junit: for JUnit XML.
        json: for JSON.
    """

    junit: Path | None = None
    json: Path | None = None

    def check(self) -> None:
        """Before hours of work. Raises InputError where a file cannot be written."""
        for option, file in (("--junit", self.junit), ("--json", self.json)):
            if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
                raise InputError(f"{option}: must be a file in a folder that is there, got {str(file)!r}")

    @contextmanager
    def told(self, file: Path) -> Iterator[None]:
        """Around an audit: if it fails, so do the files, lest those of an earlier run be taken for this one's.

        Args:
            file: the audit file, for a name.
        """
        try:
            yield
        except BaseException as error:
            word = _why(error)
            self._write(junit_of_error(file.name, word), {"audit": file.name, "status": "failed", "error": word})
            raise

    def write(self, run: RunRecord) -> None:
        """Write what came of a run."""
        self._write(junit(run), as_json(run))

    def _write(self, xml: bytes, plain: object) -> None:
        if self.junit is not None:
            self.junit.write_bytes(xml)
        if self.json is not None:
            self.json.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def junit(run: RunRecord) -> bytes:
    """JUnit XML of a run: a test case per gate. One that only warns passes, and says so; one not judged is skipped."""
    counted = [verdict(gate) for gate in run.gates]
    suite = _suite(run.name, len(counted), failures=counted.count("failed"), skipped=counted.count("not judged"))
    suite.set("time", f"{run.seconds:.3f}")
    suite.set("timestamp", datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("run", run.run_id), ("network", run.network), ("status", run.status)):
        ElementTree.SubElement(properties, "property", name=name, value=_xml(value))
    for gate in run.gates:
        _case(suite, run.name, gate)
    return _document(suite)


def junit_of_error(audit: str, why: str) -> bytes:
    """JUnit XML of an audit that came to no verdict: one test case, which is an error."""
    suite = _suite(audit, 1, errors=1)
    case = ElementTree.SubElement(suite, "testcase", classname=_xml(audit), name="the audit")
    ElementTree.SubElement(case, "error", message=_xml(why)).text = _xml(why)
    return _document(suite)


def as_json(run: RunRecord) -> dict[str, object]:
    """A run, its gates and its headline figures, as JSON values."""
    gates = [{**gate, "verdict": verdict(gate)} for gate in run.gates]
    return {
        "audit": run.name,
        "run": run.run_id,
        "network": run.network,
        "status": run.status,
        "started": datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds"),
        "seconds": run.seconds,
        "gates": gates,
        "figures": list(run.figures),
    }


def gate_lines(gates: Sequence[GateRun]) -> Iterator[str]:
    """Gates for people, a line each."""
    words = {"passed": "passed", "failed": "FAILED", "warned": "warning", "not judged": "not judged"}
    for gate in gates:
        yield f"{words[verdict(gate)]}  {gate['gate']}: {sentence(gate)}"


def sentence(gate: GateRun) -> str:
    """What came of a gate: value, interval, limit, note."""
    value, low, high = gate["value"], gate.get("low"), gate.get("high")
    measured = "no value" if value is None else f"{value:g}"
    interval = "" if low is None or high is None else f" [{low:g}, {high:g}]"
    limit = "" if gate["limit"] is None else f", limit {gate['limit']:g}"
    note = gate.get("note")
    return f"{measured}{interval}{limit}{f' ({note})' if note else ''}"


def _why(error: BaseException) -> str:
    """Why an audit came to no verdict, in words."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "stopped; everything finished is kept"
    return str(error) if isinstance(error, InputError | StageFailed) else said(error)


def _suite(name: str, tests: int, *, failures: int = 0, errors: int = 0, skipped: int = 0) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_xml(name), tests=str(tests))
    for key, value in (("failures", failures), ("errors", errors), ("skipped", skipped)):
        suite.set(key, str(value))
    return suite


def _case(suite: ElementTree.Element, audit: str, gate: GateRun) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=_xml(audit), name=_xml(gate["gate"]))
    text, found = _xml(sentence(gate)), verdict(gate)
    if found == "failed":
        ElementTree.SubElement(case, "failure", message=text).text = text
    elif found == "not judged":
        ElementTree.SubElement(case, "skipped", message=text)
    else:
        ElementTree.SubElement(case, "system-out").text = f"warning: {text}" if found == "warned" else text


def _document(suite: ElementTree.Element) -> bytes:
    whole = ElementTree.Element("testsuites")
    whole.append(suite)
    ElementTree.indent(whole)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(whole, encoding="unicode")}\n'.encode()


def _xml(text: str) -> str:
    """Text as XML can hold it: what it cannot becomes a replacement character."""
    return _NOT_XML.sub("\ufffd", text)
