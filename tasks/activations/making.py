"""Maps made by forward passes on a fixed grid of batches, so that they come out the same each time."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.arithmetic import computing
from microtome.datasets.source import Source
from microtome.errors import InputError
from microtome.memory import fitting
from microtome.networks import Capture, LayerGeometry, walk_matching
from microtome.networks.engine import FORMATS, CompiledCapture
from storage.tensors import ROW_GROUP, Tensors
from tasks.activations import ActivationsOptions
from tasks.session import Session

KEY = "execution.batch"
DECODED_AHEAD = 3  # batches, of a CUDA device that computes meanwhile

Begun = TypeVar("Begun")
Wanted = TypeVar("Wanted")


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
        """Maps of some layers as they are stored, a batch at a time. Raises OutOfMemory: a batch does not fit.

        A CUDA device computes the next batch while the last one's maps are on their way to this machine's memory.
        """
        size = self._options.batch
        images = [range(start, min(start + size, last)) for start in range(first, last, size)]
        with fitting(KEY, size), self._capturing(numbers) as capture:
            batches = zip(images, self._batches(images), strict=True)
            for begun in ahead(partial(self._begun, capture, numbers), batches, 1 if self._on_cuda else 0):
                yield self._landed(begun)

    @property
    def _on_cuda(self) -> bool:
        return self._session.device == "cuda"

    def _begun(
        self, capture: Capture | CompiledCapture, numbers: Sequence[int], batch: tuple[range, torch.Tensor]
    ) -> _Begun:
        """Have a batch computed, and its maps copied; on a CUDA device both are only asked for."""
        images, pictures = batch
        device, form = self._session.device, FORMATS[self._options.layout]
        with _threads(self._session.threads), computing(self._options.arithmetic, device):
            found = capture(pictures.to(device, non_blocking=True, memory_format=form))
        layers = [self.layers[number] for number in numbers]
        maps = [found[layer.name][: len(images)] for layer in layers]
        kind = getattr(torch, self._options.precision)
        stored = [own.to(kind).to("cpu", non_blocking=True) for own in maps]
        return _Begun(images, layers, maps, stored, _now(self._on_cuda))

    def _landed(self, begun: _Begun) -> list[Tensors]:
        """The maps as they are stored, once they have arrived."""
        if begun.arrived:
            begun.arrived.synchronize()
        for layer, maps, stored in zip(begun.layers, begun.maps, begun.stored, strict=True):
            self._check(layer, begun.images, maps, stored)
        return [stored.numpy() for stored in begun.stored]

    def _check(self, layer: LayerGeometry, images: range, maps: torch.Tensor, stored: torch.Tensor) -> None:
        """Refuse what is not finite: NaN would pass every comparison silently."""
        if torch.isfinite(stored.sum()) or torch.isfinite(stored).all():
            return
        narrow = self._options.precision == "float16" and bool(torch.isfinite(maps).all())
        advice = "use execution.precision: float32" if narrow else "check the weights and network.input"
        raise InputError(
            f"network: layer {layer.name} must give finite values, got NaN or infinity among images "
            f"{images.start} to {images.stop - 1}; {advice}"
        )

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


def ahead(begin: Callable[[Wanted], Begun], wanted: Iterable[Wanted], count: int) -> Iterator[Begun]:
    """What is begun for each thing that is wanted, in order; so many more are begun than were asked for."""
    begun: deque[Begun] = deque()
    for one in wanted:
        begun.append(begin(one))
        if len(begun) > count:
            yield begun.popleft()
    while begun:
        yield begun.popleft()


@dataclass(frozen=True)
class _Begun:
    """A batch that is computed.

    Args:
        images: numbers of the pictures.
        layers: whose maps are wanted.
        maps: of each, on the device.
        stored: of each, as they are stored, in this machine's memory once `arrived`.
        arrived: that the copies are done; None where they were made at once.
    """

    images: range
    layers: Sequence[LayerGeometry]
    maps: Sequence[torch.Tensor]
    stored: Sequence[torch.Tensor]
    arrived: torch.cuda.Event | None


def _now(on_cuda: bool) -> torch.cuda.Event | None:
    """When all that was asked of the device so far is done."""
    if not on_cuda:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


class _Batches:
    """Normalised input batches, each decoded by all threads: Pillow and numpy let go of Python's lock meanwhile.

    On a CPU the batches take turns with the forward pass: decoding beside it would make its threads wait for one
    another, which was measured to double its time. For a CUDA device they are made ahead, in pinned memory, from which
    it copies them by itself.
    """

    def __init__(self, source: Source, session: Session, size: int) -> None:
        self._source, self._threads, self._size = source, session.threads, size
        self._on_cuda = session.device == "cuda"

    def __call__(self, images: Sequence[range]) -> Iterator[torch.Tensor]:
        """(size, 3, height, width) for the images of each batch; zeros after the last."""
        with ThreadPoolExecutor(self._threads, "decode") if self._threads > 1 else contextlib.nullcontext() as pool:
            for batch, parts in ahead(partial(self._begin, pool), images, DECODED_AHEAD if self._on_cuda else 0):
                for part in parts:
                    part.result()
                yield batch

    def _begin(self, pool: ThreadPoolExecutor | None, images: range) -> tuple[torch.Tensor, list[Future[None]]]:
        batch = torch.empty(self._size, 3, *self._source.frame.size, pin_memory=self._on_cuda)
        batch[len(images) :] = 0
        wanted = zip(batch.numpy(), images, strict=False)
        if pool is not None:
            return batch, [pool.submit(self._fill, place, image) for place, image in wanted]
        for place, image in wanted:
            self._fill(place, image)
        return batch, []

    def _fill(self, place: NDArray[np.float32], image: int) -> None:
        self._source.scale(self._source.framed(image), out=place)
