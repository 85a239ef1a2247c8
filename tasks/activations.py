"""Stage `activations`: the maps of the wanted layers for every picture, in one forward pass each."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets import Dataset, Frame
from microtome.errors import InputError
from microtome.networks import Capture, LayerGeometry, match_layers, walk
from microtome.networks.normalisation import Normalisation
from storage.tensors import ROW_GROUP, TensorWriter
from tasks.index import chosen_images
from tasks.networks import network_of
from tasks.reading import geometry_row, shard_prefix
from tasks.stage import Work

BATCH = 16  # fixed, the last one padded: a picture's maps do not depend on how many pictures there are
SHARD_SECONDS = 30.0
MOST_SHARD_IMAGES = 4096 // ROW_GROUP * ROW_GROUP
SPARE = 1.05  # room left beside the forecast, for tables and rounding


def run(work: Work) -> None:
    """Extract the maps."""
    torch.set_num_threads(work.session.threads)
    dataset: Dataset = work.job.reach["dataset"]()
    frame: Frame = work.job.reach["frame"]
    module = network_of(work)
    layers = walk(module, frame.size, match_layers(module, work.parameters["layers"]))
    chosen = chosen_images(dataset, work.parameters)
    forecast(work, layers, len(chosen))
    work.begin(len(chosen))
    pictures = _Pictures(dataset, frame, chosen, work)
    with Capture(module.to(work.session.device), layers) as capture:
        extractor = _Extractor(work, layers, capture, pictures)
        for shard in _missing(work, len(layers), len(chosen), extractor.shard_images):
            extractor.shard(*shard)
    work.draft.write("layers.json", json.dumps({"layers": [geometry_row(layer) for layer in layers]}).encode())


def forecast(work: Work, layers: Sequence[LayerGeometry], images: int) -> int:
    """Bytes that the maps will take, uncompressed.

    Raises:
        InputError: the disk has less room.
    """
    width = np.dtype(work.parameters["precision"]).itemsize
    size = images * width * sum(layer.units * layer.grid[0] * layer.grid[1] for layer in layers)
    free = work.session.files.free()
    if free is not None and size * SPARE > free:
        raise InputError(
            f"workspace: {len(layers)} layers of {images} images need {size / 1e9:.2f} GB, got {free / 1e9:.2f} GB "
            "free; use another workspace, fewer layers, `limit:`, or execution.precision: float16"
        )
    return size


class _Pictures:
    """Normalised input batches, each decoded by all threads.

    On a CPU the batches take turns with the forward pass: decoding beside it would make its threads wait for one
    another, which was measured to double its time. On a CUDA device they are made ahead.
    """

    def __init__(self, dataset: Dataset, frame: Frame, chosen: Sequence[int], work: Work) -> None:
        self._dataset, self._frame, self._chosen = dataset, frame, chosen
        scale = work.job.reach["input"]
        self._normalised = Normalisation(scale["mean"], scale["std"])
        self._threads = work.session.threads
        self._ahead = 3 if work.session.device == "cuda" else 0

    def batches(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """(BATCH, 3, height, width) for every BATCH images from `first` on; zeros after `last`."""
        with ThreadPoolExecutor(self._threads, "decode") as pool:
            begun: deque[tuple[torch.Tensor, list[Future[None]]]] = deque()
            for start in range(first, last, BATCH):
                begun.append(self._begin(pool, self._chosen[start : min(start + BATCH, last)]))
                if len(begun) > self._ahead:
                    yield _ended(*begun.popleft())
            while begun:
                yield _ended(*begun.popleft())

    def _begin(self, pool: ThreadPoolExecutor, images: Sequence[int]) -> tuple[torch.Tensor, list[Future[None]]]:
        batch = torch.empty(BATCH, 3, *self._frame.size)
        batch[len(images) :] = 0
        places = batch.numpy()
        return batch, [pool.submit(self._fill, places[place], index) for place, index in enumerate(images)]

    def _fill(self, place: NDArray[np.float32], index: int) -> None:
        pixels = self._frame.place(self._dataset.records[index]).picture(self._dataset.picture(index))
        self._normalised(pixels, out=place)


def _ended(batch: torch.Tensor, parts: Sequence[Future[None]]) -> torch.Tensor:
    for part in parts:
        part.result()
    return batch


@dataclass
class _Extractor:
    """Turns batches into shards."""

    work: Work
    layers: Sequence[LayerGeometry]
    capture: Capture
    pictures: _Pictures
    _per_image: float = math.inf
    _compression: str | None = None

    def shard_images(self) -> int:
        """Images worth some SHARD_SECONDS: one row group until the speed is known."""
        wanted = self.work.job.reach["shard_images"]
        if wanted is None:
            wanted = SHARD_SECONDS / self._per_image
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
                    writers = [self._writer(stack, number, first, last, maps) for number in range(len(self.layers))]
                    beside = stack.enter_context(ThreadPoolExecutor(1, "write"))  # ends before the files are closed
                if begun:
                    begun.result()
                begun = beside.submit(_write, writers, start, maps)
                self.work.session.progress.advance(self.work.job.name, len(maps[0]))
            if begun:
                begun.result()
            for writer in writers:
                writer.close()
        self._per_image = (time.perf_counter() - started) / (last - first)
        self.work.session.check()

    def _row_groups(self, first: int, last: int) -> Iterator[tuple[int, list[NDArray]]]:
        """The layers' maps, a row group of images at a time."""
        held: list[list[NDArray]] = [[] for _ in self.layers]
        start = done = first
        for batch in self.pictures.batches(first, last):
            count = min(BATCH, last - done)
            maps = self.capture(batch.to(self.work.session.device, non_blocking=True))
            for place, layer in zip(held, self.layers, strict=True):
                place.append(self._stored(layer, maps[layer.name][:count], done))
            done += count
            if done - start == ROW_GROUP or done == last:
                yield start, [np.concatenate(parts) for parts in held]
                held, start = [[] for _ in self.layers], done

    def _stored(self, layer: LayerGeometry, maps: torch.Tensor, first: int) -> NDArray:
        """Maps as they are stored, refused where they are not finite: NaN would pass every comparison silently."""
        stored = maps.to(getattr(torch, self.work.parameters["precision"])).cpu()
        if not torch.isfinite(stored.sum()) and not torch.isfinite(stored).all():
            narrow = self.work.parameters["precision"] == "float16" and bool(torch.isfinite(maps).all())
            advice = "use execution.precision: float32" if narrow else "check the weights and network.input"
            raise InputError(
                f"network: layer {layer.name} must give finite values, got NaN or infinity among images {first} to "
                f"{first + len(maps) - 1}; {advice}"
            )
        return stored.numpy()

    def _writer(self, stack: contextlib.ExitStack, number: int, first: int, last: int, maps: list[NDArray]) -> Any:
        layer = self.layers[number]
        name = f"{shard_prefix(number)}{first:09d}-{last:09d}.parquet"
        sink = stack.enter_context(self.work.draft.publish(name, rows=last - first))
        if self._compression is None:
            self._compression = _compression(self.work.job.reach["compression"], maps[0])
        about = {"layer": layer.name, "stage": self.work.job.key.digest}
        shape = (layer.units, *layer.grid)
        return TensorWriter(sink, shape, self.work.parameters["precision"], compression=self._compression, about=about)


def _write(writers: Sequence[TensorWriter], start: int, maps: Sequence[NDArray]) -> None:
    for writer, tensors in zip(writers, maps, strict=True):
        writer.write(start, tensors)


def _compression(wanted: str, maps: NDArray) -> str:
    """`auto`: lz4 where most values are zero, which halves the bytes at little cost; dense values hardly shrink."""
    if wanted != "auto":
        return wanted
    return "lz4" if np.count_nonzero(maps) < 0.35 * maps.size else "none"


def _missing(work: Work, layers: int, images: int, size: Callable[[], int]) -> Iterator[tuple[int, int]]:
    """Ranges of images that no finished shard covers; the finished ones count as done."""
    done = _finished_ranges(work, layers)
    first = 0
    while first < images:
        if first in done:
            work.advance(done[first] - first)
            first = done[first]
            continue
        following = min((start for start in done if start > first), default=images)
        last = min(first + size(), following, images)
        yield first, last
        first = last


def _finished_ranges(work: Work, layers: int) -> dict[int, int]:
    """First image -> last + 1 of the shards that every layer has; what only some layers have is removed."""
    found = [work.draft.finished(shard_prefix(number)) for number in range(layers)]
    common = set.intersection(*({name.rpartition("/")[2] for name in names} for names in found))
    for names in found:
        for name in names:
            if name.rpartition("/")[2] not in common:
                work.draft.discard(name)
    spans = (name.removesuffix(".parquet").split("-") for name in common)
    return {int(first): int(last) for first, last in spans}
