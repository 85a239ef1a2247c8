"""What other tools published of a network's units, as a run of its own: `microtome import`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flows.claiming import claimed
from flows.console import progress, warn
from flows.run import STOP, Outcome, carry_out, outcome_of, stoppable
from microtome.errors import InputError, refuse
from microtome.quantify.published import is_tally, layer_of
from microtome.report.imported import NAMES
from storage import Files, RunRecord, RunStore
from storage.digests import FileDigests, absolute
from storage.inputs import keep_inputs
from tasks.execution import environment
from tasks.imported import STAGE as IMPORTED
from tasks.imported import ImportedOptions, Method
from tasks.imported.files import PublishedFiles
from tasks.pages import STAGE as PAGES
from tasks.pages import Described, PagesOptions
from tasks.report import STAGE as REPORT
from tasks.report import ReportOptions
from tasks.session import Session
from tasks.stage import External, Job, Settings

SETTINGS = Settings(seed=0, device="cpu", threads=1)
"""Nothing is drawn, and no network is run."""


def import_tallies(files: Files, place: Path, layer: str | None) -> Outcome:
    """NetDissect's tallies as a run.

    Args:
        files: the workspace.
        place: a tally, or a folder of tallies; what else it holds is passed over, and said.
        layer: whose the one tally is; left out, the file's name says it.

    Raises:
        InputError: everything that is wrong with the files, before anything is written.
    """
    found = _tallies(place)
    if layer and len(found) > 1:
        raise InputError(f"--layer: names one, got {len(found)} tallies in {place}; import the file that is meant")
    named = [layer or layer_of(file) for file in found]
    unnamed = [file for file, name in zip(found, named, strict=True) if not name]
    refuse([f"--layer: must name the layer of {file}, whose name does not say it" for file in unnamed])
    twice = sorted({name for name in named if named.count(name) > 1})
    refuse([f"{place}: a layer must have one tally, got several of {name!r}" for name in twice])
    published = _digested(files, dict(zip(named, found, strict=True)))
    _ = published.tallies  # all faults, before anything is written
    return _carried_out(files, "netdissect", place, published)


def import_labels(files: Files, method: Method, file: Path) -> Outcome:
    """A list of labels as a run.

    Args:
        files: the workspace.
        method: that gave the labels.
        file: the list.

    Raises:
        InputError: as `import_tallies`.
    """
    published = _digested(files, {"": file})
    _ = published.labels
    return _carried_out(files, method, file, published)


def _tallies(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    files = sorted(file for file in place.iterdir() if file.suffix.lower() == ".csv")
    found = [file for file in files if is_tally(file)]
    for file in files:
        if file not in found:
            warn(f"{file}: passed over, since it has not the columns of a tally")
    if not found:
        raise InputError(f"{place}: must hold tallies of NetDissect, CSV files with unit, category, label; got none")
    return found


def _digested(files: Files, chosen: Mapping[str, Path]) -> PublishedFiles:
    digests = FileDigests(files)
    return PublishedFiles(chosen, {layer: digests.of(file) for layer, file in chosen.items()})


def _carried_out(files: Files, method: Method, place: Path, published: PublishedFiles) -> Outcome:
    """The stages of a run, and its record."""
    sources = [{"file": file.name, "sha256": published.digests[layer]} for layer, file in published.files.items()]
    audit = {"name": _name(place), "imported": {"method": method, "files": sources}}
    jobs, session = _jobs(method, published, Described(audit)), Session(files, SETTINGS, progress(), STOP)
    about = {"audit": audit, "file": str(place), "environment": environment(session)}
    run = RunRecord.start(_name(place), f"published by {NAMES[method]}", about)
    with stoppable(), claimed(files, [job.key.folder for job in jobs]):
        done = {job.name: carry_out(job, session, refresh=False) for job in jobs}
        outcome = outcome_of(run, done, "done")
        read = {absolute(file): published.digests[layer] for layer, file in published.files.items()}
        RunStore(files).save(replace(outcome.run, inputs={"published labels": keep_inputs(files, read)}))
    return outcome


def _name(place: Path) -> str:
    """What the run is called: by its folder, or its file where that has a name of its own."""
    file = place.resolve()
    return file.name if file.is_dir() else file.parent.name if file.stem == "tally" else file.stem


def _jobs(method: Method, published: PublishedFiles, described: Described) -> Sequence[Job]:
    made = Job(IMPORTED, ImportedOptions(method=method), SETTINGS, {"published": published})
    roots = tuple(sorted(IMPORTED.page.roots)) if IMPORTED.page else ()
    shown: dict[str, Job | External] = {made.name: made, "audit": described}
    pages = Job(PAGES, PagesOptions(top_images=1), SETTINGS, shown, roots=roots)
    return made, pages, Job(REPORT, ReportOptions(), SETTINGS, {**shown, "pages": pages})
