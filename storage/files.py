"""The one small interface through which every file goes.

Names are relative and use forward slashes. A file becomes visible whole or not at all. Nothing above this module
renames anything, since an object store cannot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

CHECKS = ".check.json"  # ends the name of a file beside another, with its checksum
_PART = ".part"
_PAUSE = 0.05  # s between two questions whether a lock is free


@dataclass(frozen=True)
class FileStamp:
    """Size in bytes and time of last change in nanoseconds: enough to see that a file is not what it was."""

    size: int
    changed: int


class StoreError(OSError):
    """An object store does not do what it is asked to; `strerror` is the sentence."""

    def __str__(self) -> str:
        return str(self.strerror)


class Altered(ValueError):
    """A file of an object store has not the content that its checksum says."""


class HashingSink:
    """A binary stream that hashes what is written through it, for the checksum of a file never read back."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False
        self.abandoned = False  # after an error; libraries that are torn down later still want to write their ends

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash."""
        view = memoryview(data)
        if self.abandoned:
            return view.nbytes
        self._hash.update(view)
        self._stream.write(view)
        self.size += view.nbytes
        return view.nbytes

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def flush(self) -> None:
        """Pass on what is buffered."""
        self._stream.flush()

    def close(self) -> None:
        """Nothing to do: whoever opened the stream closes it."""

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all that was written."""
        return self._hash.hexdigest()


class Files(ABC):
    """A workspace's files.

    Args:
        say: told in one sentence of what is passed over, each sentence once.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()
        self.faults: list[str] = []
        """What was told of damage."""

    def say(self, text: str, *, damage: bool = False) -> None:
        """Tell in one sentence of something that is passed over.

        Args:
            text: the sentence.
            damage: whether it is so because it is damaged; or else it is merely none of this version's.
        """
        if text in self._said:
            return
        self._said.add(text)
        if damage:
            self.faults.append(text)
        self._say(text)

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError; IsADirectoryError for a folder, a pipe and the like."""

    @abstractmethod
    def publish(self, name: str) -> contextlib.AbstractContextManager[HashingSink]:
        """A stream whose content becomes the file `name` when the context ends without an error, atomically."""

    @abstractmethod
    def copy(self, source: str, name: str) -> None:
        """Publish a file with the content of another, which nobody may write to any more, in its room if possible."""

    @abstractmethod
    def source(self, name: str) -> pa.NativeFile:
        """The file for random access, for Parquet."""

    @abstractmethod
    def stamp(self, name: str) -> FileStamp | None:
        """Size and time of last change; None where there is no such file."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """The files of `names`, with their bytes."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder and the folders in it, sorted; without unfinished files.

        Names that are not UTF-8 are none of ours: they are left out, and it is said.
        """

    @abstractmethod
    def unfinished(self, folder: str) -> list[str]:
        """Names of the files in a folder, and the folders in it, that are being written or never were to the end."""

    @abstractmethod
    def settle(self, names: Iterable[str]) -> None:
        """Return when files are where a power cut takes nothing of them."""

    def settled(self, names: Iterable[str]) -> None:  # noqa: B027  # a folder looks for itself
        """Take note that another process has settled files."""

    @abstractmethod
    def lock(self, name: str, waiting: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Keep all others who ask for the lock of that name waiting, in whatever process they are.

        Args:
            name: of a file that is there for nothing else, and stays.
            waiting: called again and again while somebody else has it; it may raise, to wait no more.

        Raises:
            OSError: it cannot be had: see `no_locks`, or the folder cannot be written.
        """

    @abstractmethod
    def reserve(self, name: str, size: int) -> None:
        """Keep so many bytes of room for a file that is to be written whatever happens to the disk meanwhile."""

    @abstractmethod
    def write_reserved(self, name: str, content: bytes) -> None:
        """Write or replace a file, atomically, in the room that was kept for it, which is used up by it; as `write`
        does where there is none.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; no error where there is none."""

    def remove_each(self, names: Iterable[str]) -> None:
        """Remove files; no error for one that is not there."""
        for name in names:
            self.remove(name)

    @abstractmethod
    def set_aside(self, name: str) -> str:
        """Give a file, or a folder with all that is in it, a name that nobody looks for; gives that name."""

    @abstractmethod
    def linked(self, name: str, below: str) -> bool:
        """Whether a file is a link, or lies in a folder below another that is one: then its content is elsewhere.

        Args:
            name: of the file, relative to `below`.
            below: the folder, which may itself be a link: a user's own, to a larger disk.
        """

    @abstractmethod
    def cut_links(self, folder: str) -> None:
        """Remove links below a folder, not what they lead to."""

    @abstractmethod
    def writable(self, name: str) -> bool:
        """Whether this user may write the file or folder, or make it where there is none."""

    @abstractmethod
    def free(self) -> int | None:
        """Free bytes; None where there is no limit to know."""

    @abstractmethod
    def location(self, name: str) -> str:
        """Where the file lies on this machine, or would: for people, and for libraries that open files themselves."""

    @property
    def address(self) -> str:
        """What people call the workspace, and give to commands: its folder, or its address in an object store."""
        return self.location("")

    def bring(self, name: str, sha256: str = "") -> str:
        """See to it that a file lies on this machine, where it does not; gives its location.

        Args:
            name: of the file.
            sha256: that its content must have where it is fetched; nobody looks where left out.

        Raises:
            FileNotFoundError: it is not where it would be fetched from. Altered: it has another content.
        """
        return self.location(name)

    def here(self, name: str) -> bool:
        """Whether a file lies on this machine, or else would have to be brought."""
        return True

    def forget(self, name: str) -> bool:
        """Drop this machine's copy of a file that can be brought again; whether there was one."""
        return False

    def write(self, name: str, content: bytes) -> None:
        """Publish a small file."""
        with self.publish(name) as sink:
            sink.write(content)


class LocalFiles(Files):
    """A folder on a local disk.

    Args:
        root: the folder; made when first written to.
        say: told in one sentence of what is passed over.
    """

    def __init__(self, root: Path, say: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(say)
        self._root = root.resolve()

    def read(self, name: str) -> bytes:
        """The whole file."""
        place = self._root / name
        if not stat.S_ISREG(place.stat().st_mode):  # opening a pipe would wait for ever
            raise IsADirectoryError(errno.EISDIR, "is no regular file", name)
        return place.read_bytes()

    @contextlib.contextmanager
    def publish(self, name: str) -> Iterator[HashingSink]:
        """Written beside its place under a name of its own, then moved over it; a folder in its place makes way.

        No fsync: a file that a power cut shortens fails its checksum. What is trusted without reading it is settled.
        """
        place = self._root / name
        self._make(place.parent)
        beside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}{_PART}")
        sink = None
        try:
            with beside.open("wb") as stream:
                sink = HashingSink(stream)
                yield sink
            self._move(beside, name)
        except BaseException:
            if sink:
                sink.abandoned = True
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise

    def _make(self, folder: Path) -> None:
        """Make a folder; what is in its place, or in that of one above it in the workspace, makes way."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            between = (place for place in (folder, *folder.parents) if self._root in place.parents)
            wrong = next((place for place in between if os.path.lexists(place) and not place.is_dir()), None)
            if wrong is None:
                raise
            name = wrong.relative_to(self._root).as_posix()
            aside = self.set_aside(name)
            self.say(f"{name}: must be a folder ({error.strerror}); it was set aside as {aside}", damage=True)
            self._make(folder)

    def _move(self, beside: Path, name: str) -> None:
        """Move a file over its place; a folder there makes way."""
        os.replace(beside, self._for_file(name))

    def _for_file(self, name: str) -> Path:
        """The place of a file; a folder there makes way."""
        place = self._root / name
        if place.is_dir() and not place.is_symlink():
            aside = self.set_aside(name)
            self.say(f"{name}: is a folder where a file must be; it was set aside as {aside}", damage=True)
        return place

    def copy(self, source: str, name: str) -> None:
        """By a second name of the same file (link(2)); by its bytes where the file system has no such names."""
        place = self._root / name
        self._make(place.parent)
        beside = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}{_PART}")
        try:
            os.link(self._root / source, beside, follow_symlinks=False)
        except OSError as error:
            if is_full(error) or isinstance(error, FileNotFoundError):
                raise
            self.write(name, self.read(source))
            return
        try:
            self._move(beside, name)
        finally:
            beside.unlink(missing_ok=True)  # rename(2) of two names of one file does nothing

    def source(self, name: str) -> pa.NativeFile:
        """The file for random access."""
        return pa.OSFile(str(self._root / name), "rb")

    def stamp(self, name: str) -> FileStamp | None:
        """Size and time of last change."""
        try:
            found = (self._root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return FileStamp(found.st_size, found.st_mtime_ns)

    def names(self, folder: str) -> list[str]:
        """Files below a folder, sorted, without unfinished ones."""
        return [name for name in self._below(folder, _unless_gone) if not name.endswith(_PART)]

    def sizes(self, folder: str) -> dict[str, int]:
        """One by one."""
        stamps = {name: self.stamp(name) for name in self.names(folder)}
        return {name: stamp.size for name, stamp in stamps.items() if stamp}

    def unfinished(self, folder: str) -> list[str]:
        """Files below a folder that have not yet been moved to their place, sorted; in folders that can be listed."""
        return [name for name in self._below(folder, lambda _: None) if name.endswith(_PART)]

    def _below(self, folder: str, fault: Callable[[OSError], None]) -> list[str]:
        walked = os.walk(self._root / folder, onerror=fault)
        found = (Path(place, name) for place, _, names in walked for name in names)
        named = (file.relative_to(self._root).as_posix() for file in found if file.is_file())
        return sorted(filter(self._is_ours, named))

    def _is_ours(self, name: str) -> bool:
        ours = _is_text(name)
        if not ours:
            self.say(f"{name!r}: its name is not UTF-8, so it is none of microtome's; it is passed over")
        return ours

    def settle(self, names: Iterable[str]) -> None:
        """By fsync(2) of each file, and of the folders from it up to the workspace."""
        places = [self._root / name for name in names]
        nearest = {place.parent for place in places}  # of thousands of files a few
        folders = {
            above for folder in nearest for above in (folder, *folder.parents) if above.is_relative_to(self._root)
        }
        for place in (*places, *folders):
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def lock(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """By flock(2): it ends with the process that has it, however that ends."""
        self._make((self._root / name).parent)
        place = self._for_file(name)
        if place.is_symlink():
            place.unlink()  # what it leads to is none of microtome's
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            while not _locked(handle):
                waiting()
                time.sleep(_PAUSE)
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # closing would not do: a child of this process may have it, too
            os.close(handle)

    def reserve(self, name: str, size: int) -> None:
        """By a file of zeros beside its place."""
        self.write(_room(name), bytes(size))

    def write_reserved(self, name: str, content: bytes) -> None:
        """Over the bytes of that file, which takes no new ones of the disk, and then moved to its place."""
        room = self._root / _room(name)
        try:
            with room.open("r+b") as stream:
                stream.write(content)
                stream.truncate()
            self._move(room, name)
        except OSError as error:
            if is_full(error):
                raise
            self.write(name, content)

    def remove(self, name: str) -> None:
        """Remove a file or a folder."""
        place = self._root / name
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            try:
                place.unlink()
            except OSError as error:
                _unless_gone(error)

    def linked(self, name: str, below: str) -> bool:
        """By lstat(2) of the file and of each folder between."""
        place = os.path.join(self._root, below)  # asked of every file of a cached audit: pathlib takes thrice the time
        for part in name.split("/"):
            place = os.path.join(place, part)
            if os.path.islink(place):
                return True
        return False

    def cut_links(self, folder: str) -> None:
        """Removed one by one."""
        for place, folders, files in os.walk(self._root / folder):
            for name in (*folders, *files):
                if (link := Path(place, name)).is_symlink():
                    link.unlink()

    def set_aside(self, name: str) -> str:
        """Renamed in its folder."""
        other = f"{name}.damaged-{uuid.uuid4().hex[:8]}"
        os.rename(self._root / name, self._root / other)
        return other

    def writable(self, name: str) -> bool:
        """By the permissions of the nearest folder that is there: whatever is in the place of one makes way."""
        place = self._root / name
        return os.access(next(path for path in (place, *place.parents) if path.is_dir()), os.W_OK | os.X_OK)

    def free(self) -> int:
        """Free bytes of the disk that the folder is on, or will be."""
        return shutil.disk_usage(_there(self._root)).free

    def location(self, name: str) -> str:
        """Absolute path."""
        return str(self._root / name)


def _room(name: str) -> str:
    """Where room for a file is kept."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}.{file}.room"


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, or the share of it that a user may fill, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _unless_gone(error: OSError) -> None:
    """A folder that others removed meanwhile, or that is none, has no files; any other error is raised: one that cannot
    be listed is not empty.
    """
    if not isinstance(error, FileNotFoundError | NotADirectoryError) and error.errno != errno.ELOOP:
        raise error


def _there(place: Path) -> Path:
    """The nearest folder above a place, or itself, that is there."""
    return next(path for path in (place, *place.parents) if path.exists())


def no_locks(error: OSError) -> bool:
    """Whether it says that a file system has no locks."""
    return error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _locked(handle: int) -> bool:
    """Whether the lock could be had now. A second time changes nothing."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_files(
    workspace: str,
    base: Path = Path(),
    say: Callable[[str], None] = lambda _: None,
    settings: Mapping[str, str] = {},
) -> Files:
    """The files of a workspace.

    Args:
        workspace: a folder, relative to `base` unless absolute; or an address in an object store.
        base: usually the audit file's folder.
        say: told in one sentence of what is passed over because it is damaged.
        settings: of the object store, where the environment is not to be asked (storage/bucket).

    Raises:
        ValueError: a path that is not UTF-8; no address of an object store, or a store that is not there or does not
            answer.
    """
    if "://" in workspace:
        return _remote(workspace, say, settings)
    files = LocalFiles(base / workspace, say)
    if not _is_text(files.location("")):
        raise ValueError(f"workspace: its path must be UTF-8, got {files.location('')!r}; rename the folder")
    return files


def _remote(workspace: str, say: Callable[[str], None], settings: Mapping[str, str]) -> Files:
    from storage.bucket import Bucket  # here: most workspaces are folders
    from storage.remote import RemoteFiles

    try:
        bucket = Bucket(workspace, settings)
        bucket.check()
    except (ValueError, StoreError) as error:
        raise ValueError(f"workspace: {error}") from error
    return RemoteFiles(bucket, say)


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
