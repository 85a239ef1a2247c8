"""Maps made by forward passes on a fixed grid of batches, so that they come out the same each time."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.source import Source
from microtome.errors import InputError
from microtome.memory import fitting
from microtome.networks import Capture, LayerGeometry, walk_matching
from microtome.networks.engine import FORMATS, CompiledCapture
from storage.tensors import ROW_GROUP, Tensors
from tasks.activations import ActivationsOptions
from tasks.session import Session

KEY = "execution.batch"


class Maker:
    """Makes the maps of pictures in batches of one size, the last one padded: so a picture's maps do not depend on how
    many pictures there are.

    Args:
        options, session: of the stage.
        source: the pictures.
        module: the network.
    """

    def __init__(self, options: ActivationsOptions, session: Session, source: Source, module: torch.nn.Module) -> None:
        self.layers: Sequence[LayerGeometry] = walk_matching(module, source.frame.size, options.layers)[0]
        self._module = module.to(session.device).to(memory_format=FORMATS[options.layout])
        self._options, self._session = options, session
        self._batches = _Batches(source, session, options.batch)

    def row_groups(self, first: int, last: int, numbers: Sequence[int]) -> Iterator[tuple[int, list[Tensors]]]:
        """Maps of some layers, a row group of images at a time, with its first image.

        Args:
            first, last: images, from the beginning of a batch.
            numbers: of the layers.
        """
        held: list[list[Tensors]] = [[] for _ in numbers]
        start = done = first
        for maps in self._each_batch(first, last, numbers):
            for place, own in zip(held, maps, strict=True):
                place.append(own)
            done += len(maps[0])
            if done - start == ROW_GROUP or done == last:
                yield start, [np.concatenate(parts) for parts in held]
                held, start = [[] for _ in numbers], done

    def prints(self, first: int, last: int, numbers: Sequence[int]) -> list[str]:
        """Digests of some layers' maps of the batch that begins at an image: by them another process sees that maps
        come out the same there.
        """
        maps = next(self._each_batch(first, min(first + self._options.batch, last), numbers))
        return [hashlib.sha256(np.ascontiguousarray(own).tobytes()).hexdigest() for own in maps]

    def _each_batch(self, first: int, last: int, numbers: Sequence[int]) -> Iterator[list[Tensors]]:
        """Maps of some layers as they are stored, a batch at a time. Raises OutOfMemory: a batch does not fit."""
        done, size = first, self._options.batch
        with fitting(KEY, size), self._capturing(numbers) as capture:
            for batch in self._batches(first, last):
                count = min(size, last - done)
                yield self._maps(capture, batch, numbers, images=range(done, done + count))
                done += count

    def _maps(
        self, capture: Capture | CompiledCapture, batch: torch.Tensor, numbers: Sequence[int], *, images: range
    ) -> list[Tensors]:
        form = FORMATS[self._options.layout]
        with _threads(self._session.threads):
            found = capture(batch.to(self._session.device, non_blocking=True, memory_format=form))
        layers = [self.layers[number] for number in numbers]
        return [self._stored(layer, found[layer.name][: len(images)], images) for layer in layers]

    def _stored(self, layer: LayerGeometry, maps: torch.Tensor, images: range) -> Tensors:
        """Maps as they are stored, refused where they are not finite: NaN would pass every comparison silently."""
        stored = maps.to(getattr(torch, self._options.precision)).cpu()
        if not torch.isfinite(stored.sum()) and not torch.isfinite(stored).all():
            narrow = self._options.precision == "float16" and bool(torch.isfinite(maps).all())
            advice = "use execution.precision: float32" if narrow else "check the weights and network.input"
            raise InputError(
                f"network: layer {layer.name} must give finite values, got NaN or infinity among images "
                f"{images.start} to {images.stop - 1}; {advice}"
            )
        return stored.numpy()

    def _capturing(self, numbers: Sequence[int]) -> Capture | CompiledCapture:
        """A program is compiled for all layers together, and would round otherwise for some of them."""
        if self._options.engine == "compiled":
            return self._compiled
        return Capture(self._module, [self.layers[number] for number in numbers])

    @cached_property
    def _compiled(self) -> CompiledCapture:
        return CompiledCapture(self._module, self.layers)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many threads; whoever makes maps may be a stage that computes on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Batches:
    """Normalised input batches, each decoded by all threads.

    On a CPU the batches take turns with the forward pass: decoding beside it would make its threads wait for one
    another, which was measured to double its time. On a CUDA device they are made ahead.
    """

    def __init__(self, source: Source, session: Session, size: int) -> None:
        self._source, self._threads, self._size = source, session.threads, size
        self._ahead = 3 if session.device == "cuda" else 0

    def __call__(self, first: int, last: int) -> Iterator[torch.Tensor]:
        """(size, 3, height, width) for every so many images from `first` on; zeros after `last`."""
        with ThreadPoolExecutor(self._threads, "decode") as pool:
            begun: deque[tuple[torch.Tensor, list[Future[None]]]] = deque()
            for start in range(first, last, self._size):
                begun.append(self._begin(pool, range(start, min(start + self._size, last))))
                if len(begun) > self._ahead:
                    yield _ended(*begun.popleft())
            while begun:
                yield _ended(*begun.popleft())

    def _begin(self, pool: ThreadPoolExecutor, images: range) -> tuple[torch.Tensor, list[Future[None]]]:
        batch = torch.empty(self._size, 3, *self._source.frame.size)
        batch[len(images) :] = 0
        places = batch.numpy()
        return batch, [pool.submit(self._fill, place, image) for place, image in zip(places, images, strict=False)]

    def _fill(self, place: NDArray[np.float32], image: int) -> None:
        self._source.scale(self._source.framed(image), out=place)


def _ended(batch: torch.Tensor, parts: Sequence[Future[None]]) -> torch.Tensor:
    for part in parts:
        part.result()
    return batch
