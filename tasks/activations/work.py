"""Stage `activations`: the maps of the wanted layers for every picture, in one forward pass each."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.source import Source
from microtome.errors import InputError
from microtome.networks import Capture, LayerGeometry, walk_matching
from microtome.networks.engine import FORMATS, CompiledCapture, capturing
from storage import Draft
from storage.tensors import ROW_GROUP, Tensors, TensorWriter
from tasks.activations import ActivationsOptions
from tasks.activations.result import geometry_row, shard_prefix
from tasks.finetuning.result import Finetuned
from tasks.index.result import Index
from tasks.session import Session
from tasks.spans import SPAN, span, span_name, spans
from tasks.subject import Subject, network_of

BATCH = 16  # fixed, the last one padded: a picture's maps do not depend on how many pictures there are
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
    """Extracts the maps of spans of pictures, one file per layer.

    Args:
        options, inputs, session: of the stage.
    """

    def __init__(self, options: ActivationsOptions, inputs: Inputs, session: Session) -> None:
        self._source, self._module = replace(inputs.index.source, shift=options.shift), network_of(inputs)
        self._layers, _ = walk_matching(self._module, self._source.frame.size, options.layers)
        self._module.to(session.device).to(memory_format=FORMATS[options.layout])
        self._capture = capturing(options.engine, self._module, self._layers)
        self._options, self._session = options, session
        self._extractor = _Extractor(options, session, self._layers, _Batches(self._source, session))

    def __call__(self, draft: Draft, name: str) -> None:
        """Write the span's maps, and which layers they are of, as every span does. Raises InputError: no room is left
        for these and all that come after them.
        """
        first, last = span(name)
        rest = len(self._source) - first
        refuse_more_than_fits(forecast(self._options, self._layers, rest), self._session.files.free(), rest)
        with self._capture as capture:
            self._extractor.shard(draft, capture, (first, last))
        draft.write("layers.json", json.dumps({"layers": [geometry_row(layer) for layer in self._layers]}).encode())


def run(options: ActivationsOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Nothing is left to do: the spans' files are the maps."""


def forecast(options: ActivationsOptions, layers: Sequence[LayerGeometry], images: int) -> int:
    """Bytes that the maps will take, uncompressed."""
    values = sum(layer.units * layer.grid[0] * layer.grid[1] for layer in layers)
    return images * values * np.dtype(options.precision).itemsize


def refuse_more_than_fits(size: int, free: int | None, images: int) -> None:
    """Refuse maps that the workspace has no room for.

    Args:
        size: bytes that they need.
        free: bytes that are there; None where nobody can tell.
        images: that they are of.

    Raises:
        InputError: they do not fit.
    """
    if free is not None and size * SPARE > free:
        raise InputError(
            f"workspace: the maps of {images} images need {size / 1e9:.2f} GB, got {free / 1e9:.2f} GB free; use "
            "another workspace, fewer layers, `limit:`, or execution.precision: float16"
        )


class _Batches:
    """Normalised input batches, each decoded by all threads.

    On a CPU the batches take turns with the forward pass: decoding beside it would make its threads wait for one
    another, which was measured to double its time. On a CUDA device they are made ahead.
    """

    def __init__(self, source: Source, session: Session) -> None:
        self._source, self._threads = source, session.threads
        self._ahead = 3 if session.device == "cuda" else 0

    def __call__(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """(BATCH, 3, height, width) for every BATCH images from `first` on; zeros after `last`."""
        with ThreadPoolExecutor(self._threads, "decode") as pool:
            begun: deque[tuple[torch.Tensor, list[Future[None]]]] = deque()
            for start in range(first, last, BATCH):
                begun.append(self._begin(pool, range(start, min(start + BATCH, last))))
                if len(begun) > self._ahead:
                    yield _ended(*begun.popleft())
            while begun:
                yield _ended(*begun.popleft())

    def _begin(self, pool: ThreadPoolExecutor, images: range) -> tuple[torch.Tensor, list[Future[None]]]:
        batch = torch.empty(BATCH, 3, *self._source.frame.size)
        batch[len(images) :] = 0
        places = batch.numpy()
        return batch, [pool.submit(self._fill, place, image) for place, image in zip(places, images, strict=False)]

    def _fill(self, place: NDArray[np.float32], image: int) -> None:
        self._source.scale(self._source.framed(image), out=place)


def _ended(batch: torch.Tensor, parts: Sequence[Future[None]]) -> torch.Tensor:
    for part in parts:
        part.result()
    return batch


@dataclass(frozen=True)
class _Extractor:
    """Turns batches into shards."""

    options: ActivationsOptions
    session: Session
    layers: Sequence[LayerGeometry]
    batches: _Batches

    def shard(self, draft: Draft, capture: Capture | CompiledCapture, images: tuple[int, int]) -> None:
        """Write the images from the first to before the last, one file per layer.

        A row group is written beside the forward pass of the next one, one at a time.

        Args:
            draft: of the stage.
            capture: of the network's maps.
            images: first and last.
        """
        with contextlib.ExitStack() as stack:
            writers: list[TensorWriter] = []
            begun: Future[None] | None = None
            for start, maps in self._row_groups(capture, *images):
                if not writers:
                    writers = self._writers(stack, draft, span_name(*images), maps)
                    beside = stack.enter_context(ThreadPoolExecutor(1, "write"))  # ends before the files are closed
                if begun:
                    begun.result()
                begun = beside.submit(_write, writers, start, maps)
            if begun:
                begun.result()
            for writer in writers:
                writer.close()

    def _row_groups(
        self, capture: Capture | CompiledCapture, first: int, last: int
    ) -> Iterator[tuple[int, list[Tensors]]]:
        """The layers' maps, a row group of images at a time."""
        held: list[list[Tensors]] = [[] for _ in self.layers]
        start = done = first
        for batch in self.batches(first, last):
            count = min(BATCH, last - done)
            form = FORMATS[self.options.layout]
            maps = capture(batch.to(self.session.device, non_blocking=True, memory_format=form))
            for place, layer in zip(held, self.layers, strict=True):
                place.append(self._stored(layer, maps[layer.name][:count], done))
            done += count
            if done - start == ROW_GROUP or done == last:
                yield start, [np.concatenate(parts) for parts in held]
                held, start = [[] for _ in self.layers], done

    def _stored(self, layer: LayerGeometry, maps: torch.Tensor, first: int) -> Tensors:
        """Maps as they are stored, refused where they are not finite: NaN would pass every comparison silently."""
        stored = maps.to(getattr(torch, self.options.precision)).cpu()
        if not torch.isfinite(stored.sum()) and not torch.isfinite(stored).all():
            narrow = self.options.precision == "float16" and bool(torch.isfinite(maps).all())
            advice = "use execution.precision: float32" if narrow else "check the weights and network.input"
            raise InputError(
                f"network: layer {layer.name} must give finite values, got NaN or infinity among images {first} to "
                f"{first + len(maps) - 1}; {advice}"
            )
        return stored.numpy()

    def _writers(
        self, stack: contextlib.ExitStack, draft: Draft, name: str, maps: Sequence[Tensors]
    ) -> list[TensorWriter]:
        """Of a span's files: every layer's is compressed as the first layer's values ask for."""
        first, last = span(name)
        compression = compression_for(self.options.compression, maps[0])
        writers = []
        for number, layer in enumerate(self.layers):
            sink = stack.enter_context(draft.publish(f"{shard_prefix(number)}{name}.parquet", rows=last - first))
            about, shape = {"layer": layer.name, "stage": draft.key.digest}, (layer.units, *layer.grid)
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
