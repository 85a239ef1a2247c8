"""Data sets that lie in an object store: brought to this machine before they are read, and again where they changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from storage.bucket import Bucket, Stored, cache_folder
from storage.files import Altered, LocalFiles
from storage.small import FileName, Kind, Number

_LIST = "brought.json"
_FETCHED = 8  # objects at once
_ROOM = 1 << 30  # bytes that stay free on the disk
_Known = tuple[Number, str, int]  # bytes and tag of the object, and when its copy was last changed, in nanoseconds
BROUGHT = Kind[dict[FileName, _Known]]("list of what was brought", dict[FileName, _Known], "it is brought again")


def brought(url: str, say: Callable[[str], None]) -> Path:
    """The folder of this machine that holds what lies below an address: what is missing there is fetched, what is not
    as it was, too, and what lies there no more goes.

    An object counts as unchanged while its size and the tag of its content stay, its copy while its size and its time
    of change do. That what is fetched is what was listed is looked at: its size and its tag.

    Args:
        url: `s3://bucket/prefix`, as of a workspace.
        say: told in one sentence what is fetched.

    Raises:
        ValueError: no such address, nothing lies there, or a name that no file can have; no room on this machine.
        StoreError: the store cannot be reached. Altered: an object changed while it was fetched.
    """
    bucket = Bucket(url)
    bucket.check()
    place = cache_folder() / "data" / f"{url.rstrip('/').rpartition('/')[2]}-{bucket.digest}"
    files = LocalFiles(place / "files")
    about = LocalFiles(place)
    with about.lock("lock", lambda: None):
        there = {name: entry for name, entry in bucket.list("").items() if not name.endswith("/")}
        if not there:
            raise ValueError(f"nothing lies at {url}")
        known = BROUGHT.load(about, _LIST) or {}
        missing = [name for name, entry in there.items() if not _is_here(files, name, entry, known)]
        if missing:
            _fetch(bucket, files, {name: there[name] for name in missing}, say)
        for name in set(files.names("")) - set(there):
            files.remove(name)
        stamps = {name: files.stamp(name) for name in there}
        listed = {name: (there[name].size, there[name].tag, stamp.changed) for name, stamp in stamps.items() if stamp}
        BROUGHT.save(about, _LIST, listed)
    return place / "files"


def _is_here(files: LocalFiles, name: str, entry: Stored, known: Mapping[str, _Known]) -> bool:
    stamp = files.stamp(name)
    return stamp is not None and stamp.size == entry.size and known.get(name) == (entry.size, entry.tag, stamp.changed)


def _fetch(bucket: Bucket, files: LocalFiles, wanted: Mapping[str, Stored], say: Callable[[str], None]) -> None:
    size = sum(entry.size for entry in wanted.values())
    if size + _ROOM > files.free():
        raise ValueError(f"{bucket.url} holds {size / 1e9:.1f} GB, and {files.location('')} has no room for it")
    say(f"{bucket.url}: fetching {len(wanted)} files, {size / 1e6:.1f} MB")

    def fetch(name: str) -> None:
        with files.publish(name) as sink:
            tag = bucket.fetch(name, sink)  # type: ignore[arg-type]  # it only writes
            if (sink.size, tag) != (wanted[name].size, wanted[name].tag):
                raise Altered(f"{bucket.url}/{name} changed while it was fetched; run it again")

    with ThreadPoolExecutor(_FETCHED) as pool:
        list(pool.map(fetch, wanted))
