"""Stage `activations`: the maps of the wanted layers for every picture, in one forward pass each; or how to make them
again, where they are not stored.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from microtome.errors import InputError
from microtome.networks import LayerGeometry
from storage import Draft
from storage.tensors import ROW_GROUP, TensorBlock, Tensors, TensorWriter
from tasks.activations import ActivationsOptions
from tasks.activations.making import Maker
from tasks.activations.result import AGAIN, geometry_row, shard_prefix
from tasks.finetuning.result import Finetuned
from tasks.index.result import Index
from tasks.session import Session
from tasks.spans import SPAN, span, span_name, spans
from tasks.subject import Subject, network_of

MOST_SHARD_IMAGES = 4096 // ROW_GROUP * ROW_GROUP
SPARE = 1.05  # room left beside the forecast, for tables and rounding


@dataclass(frozen=True)
class Inputs:
    """Pictures, and the network under audit or one that was fine-tuned."""

    index: Index
    network: Subject | None = None
    finetuned: Finetuned | None = None


def shards(options: ActivationsOptions, inputs: Inputs, done: Sequence[str]) -> dict[str, int]:
    """Spans of the pictures; finished ones stay, whatever their size."""
    return spans(inputs.index.images, _span(options.shard_images), done)


def _span(wanted: int | None) -> int:
    """Images of a span, whole row groups."""
    return min(MOST_SHARD_IMAGES, max(ROW_GROUP, (wanted or SPAN) // ROW_GROUP * ROW_GROUP))


class Shard:
    """Extracts the maps of spans of pictures, one file per layer; and makes them again where they are not stored.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: ActivationsOptions, inputs: Inputs, session: Session) -> None:
        source = replace(inputs.index.source, shift=options.shift)
        self._maker = Maker(options, session, source, network_of(inputs))
        self._options, self._session, self._images = options, session, len(source)
        self._told = self._alike = False

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the span's maps, or what they are known by, and which layers they are of, as every span does.

        Raises:
            InputError: they are to be stored, and there is no room for those of all pictures.
        """
        layers, (first, last) = self._maker.layers, span(name)
        if self._stores(draft):
            _Writing(self._options, draft, name).write(self._maker, range(len(layers)))
        else:
            prints = self._maker.prints(first, last, range(len(layers)))
            draft.write(f"{AGAIN}{name}.json", json.dumps(prints).encode())
        draft.write("layers.json", json.dumps({"layers": [geometry_row(layer) for layer in layers]}).encode())

    def made(self, layer: int, name: str, groups: Sequence[int], first: Sequence[str]) -> Iterator[TensorBlock]:
        """Maps that are not stored. See `tasks.activations.result.Making`; whether they come out the same is seen once
        by each process and job.
        """
        start, end = span(name)
        if not self._alike and self._maker.prints(start, end, [layer]) != [first[layer]]:
            raise InputError(
                "execution.storage: maps that are made again must come out bit for bit as in the stage activations, "
                f"got others for image {start}: by another processor, another number of threads, or pictures that "
                "changed since; store them (auto, none, lz4, zstd), and run it with --refresh activations"
            )
        self._alike = True
        for low, high in _runs(groups):
            images = start + low * ROW_GROUP, min(start + high * ROW_GROUP, end)
            for at, (maps,) in self._maker.row_groups(*images, [layer]):
                yield TensorBlock(at, maps)

    def _stores(self, draft: Draft) -> bool:
        """Whether maps are stored: as the audit file says, or by whether those of all pictures fit."""
        wanted = self._options.storage
        if wanted == "recompute":
            return False
        size, room = forecast(self._options, self._maker.layers, self._images), self._room(draft)
        if fits(size, room):
            return True
        if wanted != "auto":
            refuse_more_than_fits(size, room, self._images, more=", or execution.storage: recompute")
        said = without_room(self._images, size, room)
        if not self._told:
            self._session.progress.say(f"{self._session.name}: {said}; {AGAIN_WORDS}")
        self._told = True
        return False

    def _room(self, draft: Draft) -> int | None:
        """Bytes for all maps: those that are free, and those that the stage has filled, so that it answers one way from
        its first span to its last.
        """
        files = self._session.files
        free = files.free()
        return None if free is None else free + sum(files.sizes(draft.key.folder).values())


AGAIN_WORDS = "they are not stored, but made again by each stage that reads them (execution.storage: recompute)"


def run(options: ActivationsOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Nothing is left to do: the spans' files are the maps."""


def forecast(options: ActivationsOptions, layers: Sequence[LayerGeometry], images: int) -> int:
    """Bytes that the maps will take, uncompressed."""
    values = sum(layer.units * layer.grid[0] * layer.grid[1] for layer in layers)
    return images * values * np.dtype(options.precision).itemsize


def fits(size: int, room: int | None) -> bool:
    """Whether maps of so many bytes are stored where so many are free."""
    return room is None or size * SPARE <= room


def refuse_more_than_fits(size: int, room: int | None, images: int, *, more: str = "") -> None:
    """Refuse maps that the workspace has no room for.

    Args:
        size: bytes that they need.
        room: bytes that are free; None where nobody can tell.
        images: that they are of.
        more: advice.

    Raises:
        InputError: they do not fit.
    """
    if not fits(size, room):
        raise InputError(
            f"workspace: {without_room(images, size, room)}; use another workspace, fewer layers, `limit:`, "
            f"execution.precision: float16{more}"
        )


def without_room(images: int, size: int, room: int | None) -> str:
    """What is wrong where they do not."""
    return f"the maps of {images} images need {size / 1e9:.2f} GB, got {(room or 0) / 1e9:.2f} GB free"


def _runs(groups: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First, and the one behind the last, of groups that follow one another."""
    numbers = np.asarray(groups)
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
        yield int(run[0]), int(run[-1]) + 1


@dataclass(frozen=True)
class _Writing:
    """Writes a span's maps, one file per layer."""

    options: ActivationsOptions
    draft: Draft
    name: str

    def write(self, maker: Maker, numbers: Sequence[int]) -> None:
        """A row group is written beside the forward pass of the next one, one at a time."""
        with contextlib.ExitStack() as stack:
            writers: list[TensorWriter] = []
            begun: Future[None] | None = None
            for start, maps in maker.row_groups(*span(self.name), numbers):
                if not writers:
                    writers = self._writers(stack, maker.layers, maps)
                    beside = stack.enter_context(ThreadPoolExecutor(1, "write"))  # ends before the files are closed
                if begun:
                    begun.result()
                begun = beside.submit(_write, writers, start, maps)
            if begun:
                begun.result()
            for writer in writers:
                writer.close()

    def _writers(
        self, stack: contextlib.ExitStack, layers: Sequence[LayerGeometry], maps: Sequence[Tensors]
    ) -> list[TensorWriter]:
        """Of a span's files: every layer's is compressed as the first layer's values ask for."""
        first, last = span(self.name)
        compression = compression_for(self.options.storage, maps[0])
        writers = []
        for number, layer in enumerate(layers):
            file = f"{shard_prefix(number)}{span_name(first, last)}.parquet"
            sink = stack.enter_context(self.draft.publish(file, rows=last - first))
            about, shape = {"layer": layer.name, "stage": self.draft.key.digest}, (layer.units, *layer.grid)
            writers.append(TensorWriter(sink, shape, self.options.precision, compression=compression, about=about))
        return writers


def _write(writers: Sequence[TensorWriter], start: int, maps: Sequence[Tensors]) -> None:
    for writer, tensors in zip(writers, maps, strict=True):
        writer.write(start, tensors)


def compression_for(wanted: str, maps: Tensors) -> str:
    """How maps are compressed.

    Args:
        wanted: option; `auto` is lz4 where most values are zero, which halves the bytes at little cost: dense values
            hardly shrink.
        maps: some of them.
    """
    if wanted != "auto":
        return wanted
    return "lz4" if np.count_nonzero(maps) < 0.35 * maps.size else "none"
