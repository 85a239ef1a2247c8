"""The whole report from its pages: what was audited, with what, and what the gates said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypedDict

import yaml

from microtome.networks.preprocessing import Preprocessing
from microtome.report import views
from microtome.report.words import day

_VERSIONS = ("microtome", "torch", "numpy", "pyarrow", "pillow", "python")


class GateRow(TypedDict):
    """What a gate demanded, and what came of it."""

    gate: str
    value: float | None
    low: float | None
    high: float | None
    limit: float | None
    verdict: str
    passed: bool
    note: str


class ImportedFile(TypedDict):
    """A file that others published: its name, and the SHA-256 of its content."""

    file: str
    sha256: str


class ImportedFrom(TypedDict):
    """Where labels that others published come from."""

    method: str
    files: list[ImportedFile]


@dataclass(frozen=True)
class Finished:
    """A stage that was carried out.

    Args:
        stage: its kind.
        variant: which of several runs of it; empty for the only one.
        digest: that names its output.
        seconds: that it took.
        started: seconds since the epoch.
        size: bytes.
        rows: of its tables, by file name.
        read: digests of what it read.
        environment: versions, device, threads.
    """

    stage: str
    variant: str
    digest: str
    seconds: float
    started: float
    size: int
    rows: Mapping[str, int]
    read: Mapping[str, str]
    environment: Mapping[str, object]


@dataclass(frozen=True)
class Audited:
    """An audit that was carried out.

    Args:
        audit: the audit file, as JSON values; of what others published its name and `imported`.
        stages: by name, in order.
    """

    audit: Mapping[str, Any]
    stages: Mapping[str, Finished]

    @property
    def imported(self) -> ImportedFrom | None:
        """Where labels that others published come from; None of an audit."""
        found: ImportedFrom | None = self.audit.get("imported")
        return found

    @property
    def weights(self) -> str:
        """Where they come from."""
        return str(self.audit["network"].get("weights") or f"random weights (seed {self.audit['seed']})")

    @property
    def indices(self) -> list[Finished]:
        """The data sets."""
        return [stage for stage in self.stages.values() if stage.stage == "index"]


def overview(
    audited: Audited,
    layers: Sequence[views.Layer],
    pages: Sequence[views.Page],
    units: Sequence[views.UnitPage] = (),
) -> views.Report:
    """The report, as it is before the gates' verdict is known."""
    first = next(iter(audited.stages.values()))
    started = min(stage.started for stage in audited.stages.values())
    return views.Report(
        title=audited.audit["name"],
        network=_looked_at(audited),
        dataset=" and ".join(_dataset(index, audited.audit) for index in audited.indices),
        layers=layers,
        pages=pages,
        footer=f"{'Imported' if audited.imported else 'Computed'} on {day(started)}, by microtome "
        f"{first.environment['microtome']}. Runs that changed nothing since then share these pages.",
        units=units,
        baseline=_baseline(audited) if layers else "",
        found=_found(layers),
        rule=next((layer.found.rule for layer in layers if layer.found), ""),
    )


def _found(layers: Sequence[views.Layer]) -> views.Table | None:
    """How many units of each layer are detectors, and of what."""
    lines: list[Sequence[views.Cell]] = [
        [views.Links([(layer.name, layer.page)]), layer.found.count, layer.found.strip, layer.found.concepts]
        for layer in layers
        if layer.found
    ]
    first = next((layer.found for layer in layers if layer.found), None)
    if first is None:
        return None
    columns = [("layer", False), (f"{first.what}, 95 %", True), ("0 to all units", False)]
    columns.append(("of which concepts (so many units)", False))
    known = first.strip.low is not None
    legend = [("dot", f"{first.what}, of all units"), *([("range", "95 % interval")] if known else [])]
    return views.Table(columns, lines, "", legend)


def _baseline(audited: Audited) -> str:
    """What counts of detectors are to be read beside. What others published is audited elsewhere."""
    if audited.imported:
        return ""
    if audited.audit["network"].get("weights"):
        return (
            "On easy pictures an untrained network can have confirmed detectors, too. To see what training gave, "
            "audit the same network with random weights (the audit file under another name, without its line "
            "“weights”), and let “microtome compare” set both runs side by side."
        )
    return (
        "These weights are random, so these counts are a baseline: what the network's shape and the pictures give "
        "without any training. A trained network's counts mean what they exceed them by."
    )


def _looked_at(audited: Audited) -> str:
    """What was audited, or where labels come from."""
    if audited.imported:
        return f"what others published, from {' and '.join(file['file'] for file in audited.imported['files'])}"
    return f"{audited.audit['network']['load'].partition(':')[2]} with {audited.weights.rpartition('/')[2]}"


def conclusion(audited: Audited, gates: Sequence[GateRow]) -> views.Conclusion:
    """The gates' verdict, and where everything comes from.

    Args:
        audited: the whole audit.
        gates: what each demanded, and what came of it.
    """
    environment = next(iter(audited.stages.values())).environment
    device = f"{environment['device']}, {environment['threads']} threads, {environment['machine']}"
    return views.Conclusion(
        gates=[_gate(row) for row in gates],
        imported=audited.imported is not None,
        provenance=[
            *(_of_files(audited.imported) if audited.imported else _of_network(audited)),
            ("Device", device),
            ("Versions", ", ".join(f"{name} {environment[name]}" for name in _VERSIONS)),
        ],
        stages=[
            views.StageLine(name, f"{stage.seconds:.1f} s", f"{stage.size / 1e6:.1f} MB", stage.digest)
            for name, stage in audited.stages.items()
        ],
        configuration=yaml.safe_dump(dict(audited.audit), sort_keys=False, allow_unicode=True),
    )


def _of_files(imported: ImportedFrom) -> list[tuple[str, str]]:
    return [
        ("Method", imported["method"]),
        *((file["file"], f"SHA-256 {file['sha256']}") for file in imported["files"]),
    ]


def _of_network(audited: Audited) -> list[tuple[str, str]]:
    data = [(f"Data set {index.variant}".strip(), f"digest {index.read['data']}") for index in audited.indices]
    network = f"{audited.audit['network']['load']}, digest {_network(audited)}"
    taken = [("Input", Preprocessing.of(given).words)] if (given := audited.audit["network"].get("input")) else []
    return [("Network", network), ("Weights", audited.weights), *taken, *data, ("Seed", str(audited.audit["seed"]))]


def _network(audited: Audited) -> str:
    """Digest of the network, which any stage that looked at it has read."""
    return next((stage.read["network"] for stage in audited.stages.values() if "network" in stage.read), "")


def _dataset(index: Finished, audit: Mapping[str, Any]) -> str:
    several = audit.get("datasets") or {}
    data = audit.get("dataset") or several[index.variant or "main"]
    images, concepts = index.rows["images.parquet"], index.rows["concepts.parquet"]
    named = f", {concepts:,} concepts" if concepts else ""
    role = f"{index.variant or 'main'}: " if len(several) > 1 else ""
    return f"{role}{PurePath(data.get('root') or data['format']).name} ({images:,} images{named})"


def _gate(row: GateRow) -> views.Gate:
    limit = "–" if row["limit"] is None else f"{row['limit']:g}"
    value, low, high = (_beside(number, row["limit"]) for number in (row["value"], row["low"], row["high"]))
    interval = "" if row["low"] is None or row["high"] is None else f" [{low}, {high}]"
    return views.Gate(row["gate"], f"{value}{interval}", limit, row["passed"], row["note"], row["verdict"])


def _beside(value: float | None, limit: float | None) -> str:
    """To three digits, as elsewhere; to six where three would not tell it from the limit."""
    if value is None:
        return "–"
    short = f"{value:.0f}" if value == int(value) else f"{value:.3g}"
    return f"{value:g}" if limit is not None and value != limit and float(short) == limit else short
