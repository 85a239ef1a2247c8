"""What tables may hold: text, numbers and file names, read from CSV, JSON and lines, each fault with its place."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import stat
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from microtome.errors import InputError

if TYPE_CHECKING:
    import _csv

Value = TypeVar("Value", bound=Hashable)

MOST_NUMBER = 65_535  # of a label: what R + 256 G holds, and what tables by number can afford
MOST_SIDE = 10**6  # of a picture, in pixels
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def reason(error: Exception) -> str:
    """What an error says, without repeating the file's name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def file_fault(file: Path, what: str) -> str | None:
    """Why a name cannot be opened without fear: it is missing, or no regular file. Links are followed.

    Args:
        file: the name.
        what: the sentence calls it, for example `picture`.
    """
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return f"{file}: no such {what}" + (", the link leads nowhere" if file.is_symlink() else "")
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a zero byte in it
        return f"{str(file)!r}: cannot be read as a {what}: {reason(error)}"
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"{file}: a {what} must be a regular file, got {kinds.get(stat.S_IFMT(mode), 'a device')}"


def name_fault(name: object) -> str | None:
    """Why a name could not be written into UTF-8 tables."""
    try:
        str(name).encode("utf-8")
    except UnicodeEncodeError:
        return f"{str(name)!r}: a name must be valid Unicode; rename it"
    return None


def read_text(file: Path) -> str:
    """A UTF-8 file, its byte order mark left out.

    Raises:
        InputError: missing, no regular file, not UTF-8 (with the line).
    """
    fault = file_fault(file, "file")
    if fault:
        raise InputError(fault)
    try:
        content = file.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{file}:{line}: must be UTF-8 text, got the byte {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {reason(error)}") from error


def read_json(file: Path) -> object:
    """What a JSON file holds. Raises InputError: unreadable, no JSON, nested too deep."""
    try:
        content: object = json.loads(read_text(file))
        return content
    except RecursionError as error:
        raise InputError(f"{file}: is not JSON that can be read: nested too deep") from error
    except ValueError as error:
        raise InputError(f"{file}: is not JSON: {error}") from error


def read_table(file: Path, columns: Iterable[str], faults: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV with the number of their first line; empty lines are passed over.

    Args:
        file: the table.
        columns: it must have; it may have more.
        faults: rows with too few or too many cells, and where the CSV breaks, are added to it.

    Raises:
        InputError: unreadable, lacks one of the columns, or has a column twice.
    """
    content = read_text(file).encode()  # text in a StringIO would take four bytes a character for as long as it is read
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""), strict=True)
    lines = _csv_rows(reader, file, faults)
    head = next(lines, (1, []))[1]
    missing = [name for name in columns if name not in head]
    if missing:
        found = ", ".join(head) or "none"
        raise InputError([*faults, f"{file}: must have the columns {', '.join(columns)}; got {found}"])
    twice = [name for place, name in enumerate(head) if not name.strip() or name in head[:place]]
    if twice:
        raise InputError(f"{file}:1: each column must have a name of its own, got {twice[0]!r}")
    for line, cells in lines:
        if len(cells) != len(head):
            faults.append(f"{file}:{line}: must have {len(head)} cells, got {len(cells)}")
            continue
        yield line, dict(zip(head, cells, strict=True))


def _csv_rows(reader: _csv.Reader, file: Path, faults: list[str]) -> Iterator[tuple[int, list[str]]]:
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1  # a quoted cell may span several
    except csv.Error as error:
        faults.append(f"{file}:{line}: is not CSV: {error}")


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file that are not blank, with their numbers."""
    for line, text in enumerate(read_text(file).replace("\r\n", "\n").split("\n"), 1):
        if text.strip():
            yield line, text


def key(row: object, name: str) -> object:
    """`row[name]`. Raises ValueError: row is no mapping, or lacks it."""
    if not isinstance(row, Mapping):
        raise ValueError(f"must be an object with the key {name!r}, got {shown(row)}")
    if name not in row:
        raise ValueError(f"has no key {name!r}")
    value: object = row[name]
    return value


def text(value: object, what: str) -> str:
    """A name. Raises ValueError: no text, empty, or no valid Unicode."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what} must be a name, got {shown(value)}")
    fault = name_fault(value)
    if fault:
        raise ValueError(f"{what}: {fault}")
    return value


def below(value: object, what: str) -> str:
    """A file name that stays below the folder it is looked up in. Raises ValueError."""
    name = text(value, what)
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise ValueError(f"{what} must be a path below the data set's folder, without `..`, got {shown(name)}")
    return name


def whole(value: object, what: str, low: int, high: int) -> int:
    """A whole number within bounds, from text, an int or a float. Raises ValueError."""
    number: int | None = None
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"{what} must be a whole number from {low:,} to {high:,}, got {shown(value)}")
    return number


def finite(value: object, what: str) -> float:
    """A finite number, from text, an int or a float. Raises ValueError."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} must be a finite number, got {shown(value)}")
    return number


def numbers(value: object, what: str, count: int) -> tuple[float, ...]:
    """So many finite numbers. Raises ValueError."""
    if not isinstance(value, list | tuple) or len(value) != count:
        raise ValueError(f"{what} must be a list of {count} numbers, got {shown(value)}")
    return tuple(finite(item, what) for item in value)


def unique(seen: dict[Value, str], value: Value, where: str, what: str) -> None:
    """Note where a value stands. Raises ValueError if it stood somewhere already."""
    if value in seen:
        raise ValueError(f"{what} must be unique, and {shown(value)} stands in {seen[value]} already")
    seen[value] = where


def option(value: object, name: str, what: str) -> str:
    """An option that names a file or folder. Raises InputError: a list, a mapping or whatever else is given."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"dataset.{name}: must be the name of {what}, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """A value as a sentence quotes it, at most some sixty characters of it."""
    if isinstance(value, int) and abs(value) > 10**60:
        return "a huge number"  # whose digits Python would refuse to print
    words = repr(value) if isinstance(value, str | int | float | None) else f"{type(value).__name__} {value!r:.200}"
    return words if len(words) <= 60 else f"{words[:57]}..."
