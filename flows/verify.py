"""Read every byte of results, and of what they were made from, and say what is not as it was."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microtome.datasets.tables import reason
from storage import Files, RunRecord, StageStore
from storage.digests import FileDigests
from storage.inputs import kept_inputs
from tasks.session import Progress

MOST = 20  # changed files of one list that are named


@dataclass(frozen=True)
class Checked:
    """How many stages and input files were read, and a sentence for each thing that is not as it was."""

    stages: int
    inputs: int
    faults: tuple[str, ...]


def verified(files: Files, runs: Sequence[RunRecord], *, everything: bool, progress: Progress) -> Checked:
    """Read every byte of stages and of inputs. Damaged stages are marked, so that the next audit makes them again.

    Args:
        files: the workspace.
        runs: whose stages must be there, and whose inputs must be what they were.
        everything: whether the workspace's other finished stages are read, too: a later audit may use them.
        progress: where progress goes.
    """
    needed = list(dict.fromkeys(stage["folder"] for run in runs for stage in run.stages.values()))
    others = [folder for folder, _ in StageStore(files).finished() if folder not in needed] if everything else []
    faults = _damaged(files, [*needed, *others], set(needed), progress)
    read, changed = _inputs(files, runs, progress)
    return Checked(len(needed) + len(others), read, tuple(dict.fromkeys((*files.faults, *faults, *changed))))


def _damaged(files: Files, folders: Sequence[str], needed: Collection[str], progress: Progress) -> list[str]:
    """What is wrong with stages. One that is not needed may be collected meanwhile."""
    faults: list[str] = []
    store = StageStore(files, faults.append)
    progress.begin("verify", len(folders), "stages")
    for folder in folders:
        if store.verify(folder) is None and folder in needed:
            faults.append(f"{folder} is not there, or was set aside; the audit makes it again")
        progress.advance("verify", 1)
    progress.end("verify", f"{len(folders)} stages read")
    return faults


def _inputs(files: Files, runs: Sequence[RunRecord], progress: Progress) -> tuple[int, list[str]]:
    """How many input files were read, and which are not what the runs read."""
    digests, faults, count = FileDigests(files, reread=True), [], 0
    for of, name in dict.fromkeys((of, name) for run in runs for of, name in run.inputs.items()):
        listed = kept_inputs(files, name)
        if listed is None:
            faults.append(f"{of}: whether it changed cannot be told, its list {name} is not there")
            continue
        progress.begin("inputs", len(listed), f"files of {of}")
        changed = list(_changed(listed, digests, progress))
        faults += [f"{of}: {fault}" for fault in changed[:MOST]]
        faults += [f"{of}: ... and {len(changed) - MOST} more files"] if len(changed) > MOST else []
        count += len(listed)
        progress.end("inputs", f"{len(listed)} files of {of} read")
    digests.save()
    return count, faults


def _changed(listed: Mapping[str, str], digests: FileDigests, progress: Progress) -> Iterator[str]:
    for file, digest in listed.items():
        try:
            now = digests.of(Path(file))
        except OSError as error:
            yield f"{file} cannot be read: {reason(error)}"
        else:
            if now != digest:
                yield f"{file} {'is gone' if now == 'missing' else 'changed'} since it was read"
        progress.advance("inputs", 1)
