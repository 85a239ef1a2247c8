"""What runs found, one beside another: in the terminal, and as a page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from flows.console import warn
from flows.reports import publish
from flows.text import as_text, flat, printable, text_table
from microtome.errors import InputError
from microtome.quantify.wordnet import WordNet
from microtome.report.comparison import (
    AGREEMENT,
    BestUnit,
    ComparedLayer,
    ComparedRun,
    Comparison,
    agreement_line,
    difference_words,
    page,
    sentences,
)
from microtome.report.words import day
from storage import Artifact, Files, RunRecord
from storage.runs import verdict
from storage.tables import ReadRow
from tasks.comparison import Side, check_comparable, compared_figures, stability_intervals
from tasks.comparison_labels import LabelledRun, LabelledRuns, is_imported
from tasks.comparison_units import DissectedPair
from tasks.registry import TABLES

FIGURES = (
    ("confirmed", "confirmed_low", "confirmed_high"),
    ("detectors", "detectors_low", "detectors_high"),
    ("unique_per_category", "unique_low", "unique_high"),
    ("unique_per_unit", "unique_per_unit_low", "unique_per_unit_high"),
    ("significant", None, None),
    ("mean_iou", None, None),
)
MEASURING = ("tail", "align", "inclusive", "denominator", "min_iou")
"""Options of a dissection that change its counts though nothing changed in the network."""


def shown(files: Files, run: RunRecord) -> str:
    """A run's figures, gates and stages, as text."""
    parts = [f"run      {run.run_id}\naudit    {run.name}\nnetwork  {run.network}\nstatus   {run.status}"]
    layers = _layers(files, run)
    if layers:
        head = ["layer", "units", *(figure for figure, _, _ in FIGURES)]
        rows = [[row["layer"], row["units"], *(_figure(row, *names) for names in FIGURES)] for row in layers]
        parts.append(text_table(head, rows))
    if run.gates:
        gates = [[gate["gate"], gate["value"], gate["limit"], verdict(gate), gate.get("note")] for gate in run.gates]
        parts.append(text_table(["gate", "value", "limit", "verdict", "note"], gates))
    stages = [
        [name, "cached" if stage.get("cached") else "run", stage.get("seconds"), stage["folder"]]
        for name, stage in run.stages.items()
    ]
    parts.append(text_table(["stage", "state", "seconds", "folder"], stages))
    return "\n\n".join(parts)


def compared(files: Files, first: RunRecord, second: RunRecord) -> tuple[str, Path | None]:
    """Two runs beside each other: the table and the verdict as text, and the page.

    Raises:
        InputError: they cannot be compared, and why.
    """
    with _readable(first, second):
        found = comparison(files, first, second)
    said = [*map(printable, found.cautions if found.imported else ()), "\n".join(map(printable, sentences(found)))]
    text = "\n\n".join([*_tables(found), *said])
    view = page(found, f"compare-{first.run_id}-{second.run_id}.html")
    footer = " and ".join(f"{run.run_id}, begun on {day(run.started)}" for run in (first, second))
    return text, publish(files, view, view.title, f"Of the runs {footer}.")


def _tables(found: Comparison) -> Iterator[str]:
    """Headline figures, and how far labels agree."""
    if found.figures or not found.imported:
        head = ["stage", "figure", "of", found.first.name, found.second.name, "difference"]
        rows = [[f.stage, f.name, f.row, f.first.words, f.second.words, difference_words(f)] for f in found.figures]
        yield text_table(head, rows)
    agreed = [[layer.name, *agreement_line(each)] for layer in found.layers for each in layer.agreements]
    if agreed:
        yield text_table(["layer", *AGREEMENT], agreed)


def comparison(files: Files, first: RunRecord, second: RunRecord) -> Comparison:
    """What two runs differ in. Raises InputError where they cannot be compared."""
    one, two = Side.of(files, first, warn), Side.of(files, second, warn)
    if is_imported(one) or is_imported(two):
        return _labels(one, two)
    check_comparable(one, two)
    paired = stability_intervals(one, two)
    layers: list[ComparedLayer] = []
    best: list[BestUnit] = []
    images, size = 0, (1, 1)
    if "dissection" in one.stages and "dissection" in two.stages:
        pair = DissectedPair(one, two, _thumbnails(one, two))
        layers = pair.layers()
        best = pair.best(layers)
        images, size = one.index.images, one.index.frame.size
        paired |= pair.intervals()
    figures = compared_figures(one.figures, two.figures, paired)
    return Comparison(
        *_both(one, two),
        figures,
        layers,
        list(_differences(one, two)),
        list(_cautions(one, two)),
        images,
        size,
        best=best,
    )


def _labels(one: Side, two: Side) -> Comparison:
    """What units are called in two runs, one of which others published. Raises InputError: no layer in common."""
    runs = LabelledRuns(LabelledRun(one), LabelledRun(two), WordNet.found())
    runs.check()
    figures = compared_figures(*runs.figures, {})
    return Comparison(*_both(one, two), figures, runs.layers(), [], list(runs.cautions()), 0, (1, 1), imported=True)


def _both(one: Side, two: Side) -> tuple[ComparedRun, ComparedRun]:
    runs = (one.run, two.run)
    names = [run.name for run in runs] if one.run.name != two.run.name else ["run 1", "run 2"]
    return _about(one, names[0]), _about(two, names[1])


def _about(side: Side, name: str) -> ComparedRun:
    run = side.run
    audit = run.about.get("audit", {})
    facts = [
        ("run", run.run_id),
        ("audit", run.name),
        ("network", _network(run)),
        ("seed", str(audit.get("seed", "–"))),
        ("begun", day(run.started)),
        ("status", run.status),
    ]
    described = f"{_network(run)}, begun on {day(run.started)}"
    network = audit.get("network", {})
    known = ComparedRun(name, run.run_id, facts, "", described, random="load" in network and not network.get("weights"))
    if "report" not in side.stages:
        return known
    units = frozenset(side.stages["report"].names("unit/"))
    return replace(known, report=f"../{run.stages['report']['folder']}/index.html", units=units)


def _network(run: RunRecord) -> str:
    """A run's network in words; as recorded where it is not known what was loaded, as of imported labels."""
    network = run.about.get("audit", {}).get("network", {})
    if "load" not in network:
        return run.network
    weights = network.get("weights")
    arguments = ", ".join(f"{name} {as_text(value)}" for name, value in network.get("arguments", {}).items())
    loaded = network["load"].rpartition(":")[2] + (f" ({arguments})" if arguments else "")
    return f"{loaded} with {f'the weights {Path(weights).name}' if weights else 'random weights'}"


def _thumbnails(*sides: Side) -> Callable[[int], str]:
    """Pictures of the index that both runs share, out of whichever report has them, as data for the page."""
    places: dict[str, tuple[int, Artifact, str]] = {}  # the smallest one of each picture
    for side in sides:
        for report in (other.stages["report"] for other in sides if "report" in other.stages):
            for name in report.names(f"assets/{side.index.digest[:12]}"):
                found = (report.manifest["files"][name]["bytes"], report, name)
                image = name.rpartition("/")[2].partition(".")[0]
                places[image] = min(found, places.get(image, found), key=lambda item: item[0])

    @cache
    def thumbnail(image: int) -> str:
        place = places.get(f"{image:06d}")
        if place is None:
            return ""
        _, report, name = place
        return f"data:image/webp;base64,{base64.b64encode(report.read(name)).decode()}"

    return thumbnail


def _differences(one: Side, two: Side) -> Iterator[tuple[str, str, str]]:
    """Configuration, networks, data, code and versions that are not the same in both."""
    told = [dict(flat(side.run.about.get("audit", {}))) for side in (one, two)]
    yield from _apart("", *told)
    versions = [{str(k): as_text(v) for k, v in side.run.about.get("environment", {}).items()} for side in (one, two)]
    yield from _apart("version of ", *versions)
    for what, name in (("network", "network"), ("data set", "data")):
        read = [dict(_read(side, name)) for side in (one, two)]
        several = any(len(found) > 1 for found in read)
        yield from ((f"{what}{f' of {key}' if several else ''}, by content", a, b) for key, a, b in _apart("", *read))
    code = [{name: artifact.manifest["code"] for name, artifact in side.stages.items()} for side in (one, two)]
    shared = [{name: digest for name, digest in here.items() if name in code[0] and name in code[1]} for here in code]
    yield from _apart("microtome's code of ", *shared)


def _apart(what: str, one: Mapping[str, str], two: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for key in dict.fromkeys([*one, *two]):
        if one.get(key) != two.get(key):
            yield f"{what}{key}", one.get(key, "–"), two.get(key, "–")


def _read(side: Side, name: str) -> Iterator[tuple[str, str]]:
    """Digest of an outside thing that stages read, once each, by the first stage that read it."""
    seen = set()
    for stage, artifact in side.stages.items():
        digest = artifact.manifest["inputs"].get(name)
        if digest and digest not in seen:
            seen.add(digest)
            yield stage, digest[:12]


def _cautions(one: Side, two: Side) -> Iterator[str]:
    """What makes figures differ though nothing changed in the network."""
    if "dissection" not in one.stages or "dissection" not in two.stages:
        return
    options = [side.dissection.options.model_dump(mode="json") for side in (one, two)]
    apart = [f"{name} is {options[0][name]} in the first run and {options[1][name]} in the second"
             for name in MEASURING if options[0][name] != options[1][name]]  # fmt: skip
    frames = [side.index.frame for side in (one, two)]
    if frames[0].masks != frames[1].masks:
        apart.append(
            f"masks have {_side(frames[0].masks)} pixels in the first run and {_side(frames[1].masks)} in the second"
        )
    if apart:
        own = "; unit by unit both are counted by the first one's limit" if _limits_differ(options) else ""
        told = "; ".join(apart) + own
        yield f"The two dissections do not measure alike, so their counts differ for that, too: {told}."


def _limits_differ(options: Sequence[Mapping[str, object]]) -> bool:
    return options[0]["min_iou"] != options[1]["min_iou"]


def _side(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


@contextmanager
def _readable(*runs: RunRecord) -> Iterator[None]:
    """Around queries. Raises InputError where a table was altered since its checksum was seen to hold."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError | ValueError) and type(error).__module__ not in ("duckdb", "_duckdb"):
            raise
        names = " or ".join(dict.fromkeys(run.run_id for run in runs))
        why = str(error).strip().splitlines()[0][:200]
        raise InputError(
            f"run {names}: a table cannot be read: {why}; `microtome verify` marks its stage, and the audit makes it "
            "again"
        ) from error


def _layers(files: Files, run: RunRecord) -> list[ReadRow]:
    from storage.catalogue import connect  # here: DuckDB takes as long to import as runs do to compare

    with _readable(run):
        found = connect(files, [run], TABLES, say=warn).sql("select * from layers order by layer")
        rows: list[ReadRow] = found.to_arrow_table().to_pylist()
    return rows


def _figure(row: ReadRow, name: str, low: str | None, high: str | None) -> str:
    value = row.get(name)  # a run of an earlier version may have no such column
    if value is None:
        return "-"
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    if low is None or high is None or row[low] is None:
        return text
    return f"{text} [{row[low]:.0f}, {row[high]:.0f}]"
