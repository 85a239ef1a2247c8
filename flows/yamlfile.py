"""YAML from a file or the command line, as plain values with the line of each.

Plain means keys of text, and text, numbers, true, false, null, lists and mappings of them. The text is taken apart
event by event rather than with yaml.safe_load, which follows aliases without limit, keeps the last of two equal keys,
nests as deep as Python's stack, and raises errors of its own for dates and long numbers.
"""

from __future__ import annotations

import codecs
import math
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from microtome.errors import InputError

LARGEST = 256 << 10  # bytes of a file
MOST = 10_000  # values, aliases written out
DEEPEST = 50  # levels of nesting
LONGEST_NUMBER = 40  # characters

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_RESOLVER = yaml.resolver.Resolver()
_CONSTRUCTOR = yaml.constructor.SafeConstructor()
_REFUSED = ("Cc", "Cs")  # control characters, and halves of characters, which no file name can hold
_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Its scanner looks at every open bracket for every token, far ahead of the events: many brackets take hours."""

    def fetch_flow_collection_start(self, TokenClass: type) -> None:
        if self.flow_level >= DEEPEST:
            raise yaml.scanner.ScannerError(
                problem=f"brackets are nested deeper than {DEEPEST}", problem_mark=self.get_mark()
            )
        super().fetch_flow_collection_start(TokenClass)


@dataclass(frozen=True)
class Content:
    """What a YAML text holds.

    Args:
        value: plain values.
        lines: line, from 1, of each key and item, by its path.
    """

    value: Any
    lines: Mapping[tuple[str | int, ...], int]


def read_yaml(file: Path) -> Content:
    """Read a file of one YAML document with keys and values.

    Raises:
        InputError: no file that can be read, too large, not UTF-8, not YAML, or not plain; with lines.
    """
    content = parse(_text(file), str(file), keyed=True)
    if not isinstance(content.value, dict):
        got = "nothing" if content.value is None else type(content.value).__name__
        raise InputError(f"{file}: must hold keys and values, got {got}")
    return content


def parse(text: str, where: str, *, keyed: bool = False) -> Content:
    """Plain values of a YAML text. Keys are text; below, whole numbers may stand for themselves: `{0: none, 1: road}`.

    Args:
        text: one document, or nothing, which is None.
        where: what errors begin with: the file, or the option.
        keyed: whether its own keys must be words, as those of a file.

    Raises:
        InputError: all that is not plain, each with its line; or the first place at which it is not YAML.
    """
    builder = _Builder(where, keyed)
    try:
        for event in yaml.parse(text, _Loader):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        letter = ord(error.character) if isinstance(error.character, str) else error.character
        raise InputError(f"{where}:{line}: must hold no control characters, got U+{letter:04X}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise InputError(f"{place}: is not YAML: {error.problem}") from error
    except (ValueError, OverflowError) as error:  # yaml's own, for "\U99999999"
        raise InputError(f"{where}: is not YAML: {error}") from error
    return builder.content()


def override(values: dict[str, Any], option: str) -> None:
    """Replace one value of a file's content.

    Args:
        values: the content; changed.
        option: `dotted.key=value` of `--set`; the value is YAML, and a number in the key chooses from a list.

    Raises:
        InputError: no key, no value, no YAML, or a key below something that has none.
    """
    key, equals, text = option.partition("=")
    if not equals:
        raise InputError(f"--set: must be key=value, got {option!r:.80}")
    parts = key.split(".")
    if not all(parts) or not key.isprintable() or len(parts) > DEEPEST:
        raise InputError(f"--set: the key must be names with dots between them, got {key!r:.80}")
    value = parse(text, f"--set {key}").value
    place: Any = values
    for end, part in enumerate(parts[:-1], 1):
        at = _index(place, part, key)
        there = place.get(at) if isinstance(place, dict) else place[at]
        if there is None or there is False:  # `dissection:` alone, or a stage that is switched off
            place[at] = {}
        place = place[at]
        if not isinstance(place, dict | list):
            raise InputError(f"--set {key}: {'.'.join(parts[:end])} has no keys of its own, it is {place!r:.40}")
    place[_index(place, parts[-1], key)] = value


def _index(place: dict[str, Any] | list[Any], part: str, key: str) -> Any:
    """A key of a mapping, or a number of a list."""
    if isinstance(place, dict):
        return part
    if not (part.isascii() and part.isdigit() and len(part) < 6 and int(part) < len(place)):
        raise InputError(f"--set {key}: must choose from a list by a number below {len(place)}, got {part!r:.40}")
    return int(part)


def _text(file: Path) -> str:
    try:
        kind = file.stat().st_mode
        if not stat.S_ISREG(kind):  # a pipe would be waited for, a device may never end
            raise InputError(f"{file}: must be a file, got {'a folder' if stat.S_ISDIR(kind) else 'a pipe or device'}")
        with file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > LARGEST:
        raise InputError(f"{file}: must have at most {LARGEST >> 10} KiB, got more; is it an audit file?")
    for mark, name in _MARKS:
        if data.startswith(mark):
            raise InputError(f"{file}: must be UTF-8, got {name}; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: must be UTF-8, got the byte 0x{data[error.start]:02x}") from error


@dataclass
class _Node:
    """A value before it is plain. An alias is the node that it names: nothing is written out before it is known to be
    small.

    Args:
        line: where it begins.
        value: of a scalar.
        items: of a list.
        pairs: of a mapping; what a merge key brings comes first.
        merges: whether it is a merge key, <<.
        anchor: its name for aliases.
        size, depth: of all that is in it, aliases written out.
    """

    line: int
    value: Any = None
    items: list[_Node] | None = None
    pairs: list[tuple[_Node, _Node]] | None = None
    merges: bool = False
    anchor: str | None = None
    size: int = 1
    depth: int = 1


class _Builder:
    """Nodes from YAML's events, and all that is wrong with them."""

    def __init__(self, where: str, keyed: bool) -> None:
        self._where, self._keyed = where, keyed
        self._faults: list[str] = []
        self._open: list[_Node] = []
        self._anchors: dict[str, _Node | None] = {}
        self._root: _Node | None = None

    def take(self, event: yaml.Event) -> None:
        """The next event."""
        line = 1 + (event.start_mark.line if event.start_mark else 0)
        if isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            self._stop(line, "must hold one document, got a second")
        if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent) and event.tag is not None:
            self._fault(line, f"must have no tags, got {event.tag!r:.60}")
        if isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) == DEEPEST:
                self._stop(line, f"must be nested at most {DEEPEST} deep, got deeper")
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(_Node(line, items=[], pairs=[] if mapping else None, anchor=event.anchor))
            if event.anchor:
                self._anchors[event.anchor] = None  # an alias of it before its end would hold itself
        elif isinstance(event, yaml.CollectionEndEvent):
            self._add(self._ended(self._open.pop()))
        elif isinstance(event, yaml.ScalarEvent):
            merges = event.implicit[0] and event.value == "<<"
            self._add(_Node(line, self._scalar(event, line), merges=merges, anchor=event.anchor))
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._named(str(event.anchor), line))

    def content(self) -> Content:
        """Plain values and lines. Raises InputError for all faults."""
        if self._faults:
            raise InputError(self._faults)
        if self._root is None:
            return Content(None, {})
        return Content(_plain(self._root), dict(_lines(self._root)))

    def _add(self, node: _Node) -> None:
        """Put a whole node where it belongs."""
        if node.anchor:
            self._anchors[node.anchor] = node
        if len(self._open) + node.depth > DEEPEST:
            self._stop(node.line, f"must be nested at most {DEEPEST} deep, got deeper")
        if not self._open:
            self._root = node
            return
        around = self._open[-1]
        if around.items is not None:
            around.items.append(node)
        around.size += node.size
        around.depth = max(around.depth, node.depth + 1)
        if sum(one.size for one in self._open) > MOST:
            self._stop(node.line, f"must hold at most {MOST} values, aliases written out, got more")

    def _ended(self, node: _Node) -> _Node:
        """A mapping's items in pairs, its keys checked; a list as it is."""
        if node.pairs is None or node.items is None:
            return node
        first: dict[str, int] = {}
        merged: list[tuple[_Node, _Node]] = []
        for key, value in zip(node.items[::2], node.items[1::2], strict=True):
            if key.merges:
                merged += self._merged(value)
                continue
            self._key(key, first)
            node.pairs.append((key, value))
        node.pairs[:0] = merged
        node.items = None
        return node

    def _key(self, key: _Node, first: dict[str, int]) -> None:
        name = str(key.value) if self._numbered(key) else key.value
        if not isinstance(name, str) or key.items is not None or not name.isprintable():
            got = "a list or mapping" if key.items is not None or key.pairs is not None else repr(name)[:60]
            self._fault(key.line, f"keys must be words, got {got}; put it into quotes")
        elif name in first:
            self._fault(key.line, f"{name:.60}: is given twice, first in line {first[name]}")
        else:
            first[name] = key.line

    def _numbered(self, key: _Node) -> bool:
        """Whether a key is a whole number where one may stand."""
        return type(key.value) is int and key.value >= 0 and not (self._keyed and not self._open)

    def _merged(self, value: _Node) -> list[tuple[_Node, _Node]]:
        """What a merge key brings: of several mappings, the first has the last word."""
        sources = [value] if value.items is None else value.items
        if any(source.pairs is None for source in sources):
            self._fault(value.line, "<< must name a mapping or a list of them")
            return []
        return [pair for source in reversed(sources) for pair in source.pairs or ()]

    def _named(self, name: str, line: int) -> _Node:
        found = self._anchors.get(name)
        if name not in self._anchors:
            self._fault(line, f"no anchor &{name:.40} stands before the alias *{name:.40}")
        elif found is None:
            self._fault(line, f"the alias *{name:.40} stands inside what it repeats")
        return _Node(line) if found is None else found

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        text: str = event.value
        strange = [letter for letter in text if letter not in "\n\t" and unicodedata.category(letter) in _REFUSED]
        if strange:
            self._fault(line, f"must hold no control characters, got U+{ord(strange[0]):04X}")
        if not event.implicit[0]:  # in quotes, or a block: text
            return text
        resolved: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # the stubs leave it out
        tag = resolved.removeprefix(_PREFIX)
        if tag == "null":
            return None
        if tag == "bool":
            return _CONSTRUCTOR.construct_yaml_bool(yaml.ScalarNode(tag, text))
        return self._number(tag, text, line) if tag in ("int", "float") else text

    def _number(self, tag: str, text: str, line: int) -> int | float:
        if len(text) > LONGEST_NUMBER:
            self._fault(line, f"numbers must have at most {LONGEST_NUMBER} characters, got {len(text)}")
            return 0
        node = yaml.ScalarNode(tag, text)
        try:
            read = _CONSTRUCTOR.construct_yaml_int if tag == "int" else _CONSTRUCTOR.construct_yaml_float
            value: int | float = read(node)
        except (ValueError, OverflowError):  # such as 0x_ , which YAML's pattern lets pass
            self._fault(line, f"is no number, got {text!r}")
            return 0
        if not math.isfinite(value):
            self._fault(line, f"numbers must be finite, got {text}")
        return value

    def _fault(self, line: int, text: str) -> None:
        self._faults.append(f"{self._where}:{line}: {text}")

    def _stop(self, line: int, text: str) -> NoReturn:
        self._fault(line, text)
        raise InputError(self._faults)


def _plain(node: _Node) -> Any:
    """Values of their own for every alias, so that changing one place changes no other."""
    if node.pairs is not None:
        return {str(key.value): _plain(value) for key, value in node.pairs}
    return node.value if node.items is None else [_plain(item) for item in node.items]


def _lines(node: _Node, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Line of every key and item, by its path."""
    for key, value in node.pairs or ():
        yield (*path, str(key.value)), key.line
        yield from _lines(value, (*path, str(key.value)))
    for place, item in enumerate(node.items or ()):
        yield (*path, place), item.line
        yield from _lines(item, (*path, place))
