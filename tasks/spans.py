"""How stages split that map over pictures: spans of consecutive pictures, by names that say which."""

from __future__ import annotations

from collections.abc import Sequence

from storage.tensors import ROW_GROUP

SPAN = 10 * ROW_GROUP
"""Pictures of a span, whole row groups, in which everything is stored: their maps take 6 s of AlexNet on a core, 45 of
ResNet-50. Not by the clock, so that it is always the same."""


def spans(images: int, size: int = SPAN, done: Sequence[str] = ()) -> dict[str, int]:
    """Names of spans that cover all pictures, in order, with their numbers of pictures.

    Args:
        images: how many there are.
        size: pictures of a span.
        done: spans, of whatever size, that are finished: others fill the gaps between them.
    """
    starts = dict(span(name) for name in done)
    found: dict[str, int] = {}
    first = 0
    while first < images:
        following = min((start for start in starts if start > first), default=images)
        last = starts.get(first) or min(first + size, following)
        found[span_name(first, last)] = last - first
        first = last
    return found


def span_name(first: int, last: int) -> str:
    """Of the pictures from `first` to before `last`; names sort as the spans do."""
    return f"{first:09d}-{last:09d}"


def span(name: str) -> tuple[int, int]:
    """First picture of a span, and the one behind its last."""
    first, last = name.split("-")
    return int(first), int(last)


def span_in(file: str) -> str:
    """The span that a file is called after, without folder and suffix."""
    return file.rpartition("/")[2].partition(".")[0]


def layered(layers: int, names: dict[str, int]) -> dict[str, int]:
    """The same spans for each layer.

    Args:
        layers: how many.
        names: of the spans.
    """
    return {layer_span(number, name): size for number in range(layers) for name, size in names.items()}


def layer_span(layer: int, name: str) -> str:
    """What `layered` calls a span of a layer: a folder for the layer, and the span in it."""
    return f"{layer:03d}/{name}"


def of_layer(name: str) -> tuple[int, int, int]:
    """Layer, first picture, and the one behind the last, of what `layered` names."""
    layer, _, rest = name.partition("/")
    return int(layer), *span(rest)


def layer_part(layer: int, number: int) -> str:
    """What some other numbered part of a layer is called."""
    return f"{layer:03d}/{number:06d}"


def of_layer_part(name: str) -> tuple[int, int]:
    """Layer and number of what `layer_part` names."""
    layer, _, number = name.partition("/")
    return int(layer), int(number)


def groups_within(file: str, first: int, last: int | None) -> range:
    """The row groups of a span's file that hold images from `first` to before `last`, whole row groups.

    Args:
        file: whose name, without folder and suffix, is the span.
        first: image.
        last: the one behind the last; None for all of the file's.
    """
    start, end = span(span_in(file))
    low, high = max(start, first) - start, (end if last is None else min(end, last)) - start
    return range(low // ROW_GROUP, -(-high // ROW_GROUP))
