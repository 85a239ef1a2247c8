"""Which stages no run needs any more, and their removal beside audits that are going on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from microtome.errors import InputError
from storage import Files, RunRecord, RunStore
from storage.claims import EXPIRY, Claims, InUse
from storage.files import no_locks
from storage.stages import PUT_BY

_FINISHED = ("done", "gate failed")


def collect(files: Files, keep: int, *, dry_run: bool, waiting: Callable[[], None]) -> list[tuple[str, int]]:
    """Remove the stages that no kept run and no living process uses, and what the dead left half written.

    Of every audit the latest finished runs are kept, and whatever was begun since. A stage that is not finished is kept
    only while a living process claims it.

    Args:
        files: the workspace.
        keep: finished runs kept per audit.
        dry_run: only tell.
        waiting: called again and again while it has to wait for another collection.

    Returns:
        folder or file, and bytes, of each.

    Raises:
        InputError: the workspace's file system has no locks.
    """
    sizes = _sizes(files)
    if dry_run:
        return list(_unneeded(files, sizes, keep, Claims(files).in_use()))
    removed: list[tuple[str, int]] = []
    try:
        with Claims(files, waiting).collecting() as in_use:
            for name, size in _unneeded(files, sizes, keep, in_use):
                _remove(files, name)
                removed.append((name, size))
    except OSError as error:
        if no_locks(error):
            raise InputError(
                f"gc: needs locks, or a running audit could lose its stages; the workspace's file system has none "
                f"({error.strerror})"
            ) from error
        raise
    return removed


def _remove(files: Files, name: str) -> None:
    if name.startswith(("stages/", f"{PUT_BY}/")) and name == _folder(name):
        files.remove(f"{name}/manifest.json")  # first: a collection that is killed leaves no damaged stage
    files.remove(name)


def _sizes(files: Files) -> dict[str, int]:
    """Bytes of every stage directory, and of those that are put by."""
    sizes: dict[str, int] = defaultdict(int)
    for room in ("stages", PUT_BY):
        for name, size in files.sizes(room).items():
            sizes[_folder(name)] += size
        for name in files.unfinished(room):
            sizes[_folder(name)] += _bytes(files, name)
    return sizes


def _unneeded(files: Files, sizes: Mapping[str, int], keep: int, in_use: InUse) -> Iterator[tuple[str, int]]:
    store = RunStore(files)
    named: dict[str, list[RunRecord]] = defaultdict(list)
    for run in store.all():
        named[run.name].append(run)
    kept = [run for runs in named.values() for run in _kept(runs, keep)]
    used = {stage["folder"] for run in kept for stage in run.stages.values()}
    used |= store.named_by_unreadable() | in_use.folders
    used |= {folder.replace("stages", PUT_BY, 1) for folder in used}
    yield from ((folder, size) for folder, size in sizes.items() if folder not in used)
    for name in files.unfinished(""):
        stamp = files.stamp(name)
        if name.startswith("stages/"):  # only who claims a stage writes into it
            dead = _folder(name) in used - in_use.folders
        else:
            dead = stamp is not None and in_use.now - stamp.changed > EXPIRY * 1e9
        if dead and stamp is not None:
            yield name, stamp.size


def _kept(runs: Sequence[RunRecord], keep: int) -> list[RunRecord]:
    """The latest so many finished runs of an audit, and all that began after the first of them."""
    finished = [number for number, run in enumerate(runs) if run.status in _FINISHED]
    return list(runs[finished[-keep] :] if len(finished) >= keep else runs)


def _folder(name: str) -> str:
    """The stage directory that a file is in."""
    return "/".join(name.split("/")[:3])


def _bytes(files: Files, name: str) -> int:
    stamp = files.stamp(name)
    return stamp.size if stamp else 0
