"""The door for small files: JSON that microtome keeps of its own work, each kind with a schema of its own.

Whatever is no JSON of its schema (cut short, empty, of another form, a folder) is damaged: it is set aside under
another name, said in one sentence, and counts as not there. One of a newer layout stays for the version that wrote it.
What cannot be read, or not be moved, is passed over with a sentence, too. So no damage of a small file stops a command.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from storage.files import Files, StoreError

T = TypeVar("T")

_SEAL = "seal"
_LONGEST = 200  # characters of a reason
_AT_ONCE = 10_000  # keys that are written at a time


def _inside(name: str) -> str:
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError("must be a file name below the folder, without `..`")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
"""A relative name with forward slashes that stays below the folder it is looked up in."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A content digest, hexadecimal."""

Number = Annotated[int, Field(ge=0)]
"""Of bytes or rows."""

Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Seconds since the epoch."""

Seconds = Annotated[float, Field(ge=-1e11, le=1e11, allow_inf_nan=False)]
"""Of work; a clock that was set back makes them negative."""


class Damaged(ValueError):
    """A small file is not what its kind says; the message says why."""


class Newer(Damaged):
    """A small file is of a layout that this version does not know."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of small file.

    Args:
        what: a sentence calls it, for example `run record`.
        form: the type of its content, whose annotations are the schema.
        lost: what it means that one is lost; ends the sentence.
        layout: the newest that this version knows; a file without the key `layout` has 1.
        sealed: whether a file carries a checksum of its content under the key `seal`, so that a digit that was altered
            does not pass for another figure. A file without a seal is taken as it is.
    """

    what: str
    form: Any
    lost: str
    layout: int = 1
    sealed: bool = False

    @cached_property
    def _schema(self) -> TypeAdapter[T]:
        return TypeAdapter(self.form)

    def load(self, files: Files, name: str, fault: Callable[[T], str] = lambda _: "") -> T | None:
        """A file's content; None where there is none that can be used, told unless it is merely not there.

        Args:
            files: the workspace.
            name: of the file.
            fault: what else is wrong with content of the right form; empty where nothing is.
        """
        try:
            content = self.parse(files.read(name))
            if why := fault(content):
                raise Damaged(why)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Newer as newer:
            files.say(f"{name}: this {self.what} was written by a newer version ({newer}); it is passed over")
            return None
        except (Damaged, IsADirectoryError) as error:
            why = str(error.strerror if isinstance(error, OSError) else error)
            files.say(f"{name}: this {self.what} is damaged: {why}; {_aside(files, name)}; {self.lost}", damage=True)
            return None
        except StoreError:  # all of the workspace is away, not this file damaged
            raise
        except OSError as error:
            text = f"{name}: this {self.what} cannot be read: {error.strerror}; it is passed over; {self.lost}"
            files.say(text, damage=True)
            return None
        return content

    def parse(self, content: bytes) -> T:
        """What a file's bytes say. Raises Damaged."""
        try:
            return self._schema.validate_json(self._unsealed(content), strict=True)
        except ValidationError as error:
            newer = _layout_of(content)
            if newer > self.layout:
                raise Newer(f"its layout is {newer}, this one knows {self.layout}") from error
            raise Damaged(_reason(error)) from error

    def _unsealed(self, content: bytes) -> bytes:
        """The same without its seal, which must hold; as it is where there is none, or a newer version wrote it."""
        if not self.sealed or _layout_of(content) > self.layout:
            return content
        try:
            plain = json.loads(content)
        except (ValueError, RecursionError):  # which the schema tells in words
            return content
        if not isinstance(plain, dict) or _SEAL not in plain:
            return content
        if plain.pop(_SEAL) not in (None, _seal(plain)):
            raise Damaged("its content is not what was written")
        return json.dumps(plain).encode()

    def dump(self, value: T) -> bytes:
        """The bytes of a file."""
        given = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        text = json.dumps(given, default=str, ensure_ascii=False).encode(errors="replace")  # half characters: no JSON
        if not self.sealed:
            return text
        plain = json.loads(text)
        del text, given  # of a memo of hundreds of thousands of files a hundred MB
        plain[_SEAL] = _seal(plain)
        return b"".join(_dumped(plain, list(plain), indent=1))

    def save(self, files: Files, name: str, value: T) -> None:
        """Write or replace a file, atomically."""
        files.write(name, self.dump(value))

    def save_reserved(self, files: Files, name: str, value: T) -> None:
        """The same, in the room that `Files.reserve` kept for it."""
        files.write_reserved(name, self.dump(value))


def _seal(plain: dict[str, object]) -> str:
    digest = hashlib.sha256()
    for part in _dumped(plain, sorted(plain)):
        digest.update(part)
    return digest.hexdigest()


def _dumped(plain: dict[str, object], names: Sequence[str], *, indent: int | None = None) -> Iterator[bytes]:
    """What `json.dumps` makes of an object, some keys at a time: of all at once it holds several times what it makes.

    Args:
        plain: the object, of JSON values.
        names: its keys, in the order in which they are written; below them keys are written by name, or with an
            indent as they come.
        indent: of each level; all in one line where left out.
    """
    line = "" if indent is None else "\n"
    yield f"{{{line}".encode()
    for first in range(0, len(names), _AT_ONCE):
        some = {name: plain[name] for name in names[first : first + _AT_ONCE]}
        text = json.dumps(some, indent=indent, sort_keys=indent is None)[1 + len(line) : -1 - len(line)]
        yield f"{(',' + (line or ' ')) if first else ''}{text}".encode()
    yield f"{line}}}".encode()


def _layout_of(content: bytes) -> int:
    with suppress(ValueError, RecursionError):
        plain = json.loads(content)
        layout = plain.get("layout") if isinstance(plain, dict) else None
        if isinstance(layout, int) and not isinstance(layout, bool):
            return layout
    return 1


def _reason(error: ValidationError) -> str:
    """The first of what a schema found, in one line: keys may come from damaged bytes."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    words = f"{place}: {first['msg']}" if place else first["msg"]
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)[:_LONGEST]


def _aside(files: Files, name: str) -> str:
    try:
        return f"it was set aside as {files.set_aside(name).rpartition('/')[2]}"
    except OSError:
        return "it is passed over, since it cannot be set aside"
