"""Stage `activations`: the maps of the wanted layers for every picture, in one forward pass each."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.source import Source
from microtome.errors import InputError
from microtome.networks import Capture, LayerGeometry, walk_matching
from storage import Draft
from storage.tensors import ROW_GROUP, Tensors, TensorWriter
from tasks.activations import ActivationsOptions
from tasks.activations.result import geometry_row, shard_prefix
from tasks.finetuning.result import Finetuned
from tasks.index.result import Index
from tasks.session import Session
from tasks.subject import Subject, network_of

BATCH = 16  # fixed, the last one padded: a picture's maps do not depend on how many pictures there are
SHARD_SECONDS = 30.0
MOST_SHARD_IMAGES = 4096 // ROW_GROUP * ROW_GROUP
SPARE = 1.05  # room left beside the forecast, for tables and rounding


@dataclass(frozen=True)
class Inputs:
    """Pictures, and the network under audit or one that was fine-tuned."""

    index: Index
    network: Subject | None = None
    finetuned: Finetuned | None = None


def run(options: ActivationsOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Extract the maps."""
    source, module = replace(inputs.index.source, shift=options.shift), network_of(inputs)
    layers, _ = walk_matching(module, source.frame.size, options.layers)
    _refuse_more_than_fits(forecast(options, layers, len(source)), session.files.free(), len(source))
    session.begin(len(source))
    pictures = _Batches(source, session)
    with Capture(module.to(session.device), layers) as capture:
        extractor = _Extractor(options, draft, session, layers, _Forward(capture, pictures))
        for shard in _missing(draft, session, (len(layers), len(source)), extractor.shard_images):
            extractor.shard(*shard)
    draft.write("layers.json", json.dumps({"layers": [geometry_row(layer) for layer in layers]}).encode())


def forecast(options: ActivationsOptions, layers: Sequence[LayerGeometry], images: int) -> int:
    """Bytes that the maps will take, uncompressed."""
    values = sum(layer.units * layer.grid[0] * layer.grid[1] for layer in layers)
    return images * values * np.dtype(options.precision).itemsize


def _refuse_more_than_fits(size: int, free: int | None, images: int) -> None:
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
class _Forward:
    """Batches of pictures, and the network that takes them."""

    capture: Capture
    batches: _Batches


@dataclass
class _Extractor:
    """Turns batches into shards."""

    options: ActivationsOptions
    draft: Draft
    session: Session
    layers: Sequence[LayerGeometry]
    forward: _Forward
    _per_image: float = math.inf
    _compression: str | None = None

    def shard_images(self) -> int:
        """Images worth some SHARD_SECONDS: one row group until the speed is known."""
        wanted = self.options.shard_images or SHARD_SECONDS / self._per_image
        return int(min(MOST_SHARD_IMAGES, max(ROW_GROUP, wanted // ROW_GROUP * ROW_GROUP)))

    def shard(self, first: int, last: int) -> None:
        """Write the images from `first` to before `last`, one file per layer.

        A row group is written beside the forward pass of the next one, one at a time.
        """
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            writers: list[TensorWriter] = []
            begun: Future[None] | None = None
            for start, maps in self._row_groups(first, last):
                if not writers:
                    writers = [self._writer(stack, number, (first, last), maps) for number in range(len(self.layers))]
                    beside = stack.enter_context(ThreadPoolExecutor(1, "write"))  # ends before the files are closed
                if begun:
                    begun.result()
                begun = beside.submit(_write, writers, start, maps)
                self.session.progress.advance(self.session.name, len(maps[0]))
            if begun:
                begun.result()
            for writer in writers:
                writer.close()
        self._per_image = (time.perf_counter() - started) / (last - first)
        self.session.check()

    def _row_groups(self, first: int, last: int) -> Iterator[tuple[int, list[Tensors]]]:
        """The layers' maps, a row group of images at a time."""
        held: list[list[Tensors]] = [[] for _ in self.layers]
        start = done = first
        for batch in self.forward.batches(first, last):
            count = min(BATCH, last - done)
            maps = self.forward.capture(batch.to(self.session.device, non_blocking=True))
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

    def _writer(
        self, stack: contextlib.ExitStack, number: int, span: tuple[int, int], maps: list[Tensors]
    ) -> TensorWriter:
        first, last = span
        layer = self.layers[number]
        name = f"{shard_prefix(number)}{first:09d}-{last:09d}.parquet"
        sink = stack.enter_context(self.draft.publish(name, rows=last - first))
        if self._compression is None:
            self._compression = _compression(self.options.compression, maps[0])
        about = {"layer": layer.name, "stage": self.draft.key.digest}
        shape = (layer.units, *layer.grid)
        return TensorWriter(sink, shape, self.options.precision, compression=self._compression, about=about)


def _write(writers: Sequence[TensorWriter], start: int, maps: Sequence[Tensors]) -> None:
    for writer, tensors in zip(writers, maps, strict=True):
        writer.write(start, tensors)


def _compression(wanted: str, maps: Tensors) -> str:
    """`auto`: lz4 where most values are zero, which halves the bytes at little cost; dense values hardly shrink."""
    if wanted != "auto":
        return wanted
    return "lz4" if np.count_nonzero(maps) < 0.35 * maps.size else "none"


def _missing(
    draft: Draft, session: Session, shape: tuple[int, int], size: Callable[[], int]
) -> Iterator[tuple[int, int]]:
    """Ranges of images that no finished shard covers; the finished ones count as done.

    Args:
        draft: of the stage.
        session: told of what is done.
        shape: layers and images.
        size: images of the next shard.
    """
    layers, images = shape
    done = _finished_ranges(draft, layers)
    first = 0
    while first < images:
        if first in done:
            session.advance(done[first] - first)
            first = done[first]
            continue
        following = min((start for start in done if start > first), default=images)
        last = min(first + size(), following, images)
        yield first, last
        first = last


def _finished_ranges(draft: Draft, layers: int) -> dict[int, int]:
    """First image -> last + 1 of the shards that every layer has; what only some layers have is removed."""
    found = [draft.finished(shard_prefix(number)) for number in range(layers)]
    common = set.intersection(*({name.rpartition("/")[2] for name in names} for names in found))
    for names in found:
        for name in names:
            if name.rpartition("/")[2] not in common:
                draft.discard(name)
    spans = (name.removesuffix(".parquet").split("-") for name in common)
    return {int(first): int(last) for first, last in spans}
