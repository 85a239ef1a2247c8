"""The network looked at before the first stage spends time on it: is it there, and does it answer steadily?"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from microtome.errors import InputError, suggest
from microtome.memory import keep_freed
from tasks.index import indexing
from tasks.pace import Pace
from tasks.planning import Planner
from tasks.stage import Job, Settings
from tasks.subject import Subject

if TYPE_CHECKING:
    import torch

    from microtome.datasets.source import Source
    from microtome.networks import LayerGeometry
    from microtome.networks.engine import Layout


REPEATS, ENOUGH = 5, 1.0  # times that each is measured, of which the quickest counts; fewer beyond so many seconds
TRIES = 20  # pictures that are tried, to find one that can be read
TURNS = 3  # in which two layouts are compared, so that what else runs now and then does not decide
AT_ONCE = 8  # pictures of a measured batch: smaller ones pay for being called


_Times = tuple[float, float, float]


@dataclass(frozen=True)
class Looked:
    """A network that is looked at: loaded once, however often it is asked for.

    Args:
        audit: the audit.
        network: under audit, or an earlier checkpoint of it.
        jobs: that will load it.
    """

    audit: Planner
    network: Subject
    jobs: Sequence[Job]

    @cached_property
    def module(self) -> torch.nn.Module:
        """Loaded. Raises InputError where it cannot be."""
        return self.network.load()

    @cached_property
    def layers(self) -> list[LayerGeometry]:
        """Geometry of the layers that the audit names, those of its `network` first.

        Raises:
            InputError: the network has no such layers, or they give no maps.
        """
        from microtome.networks import walk

        with self._keys():
            return walk(self.module, self.audit.input.size, [*self.own, *self._named])

    @property
    def own(self) -> list[str]:
        """Names of the layers that the audit's `network` names. Raises InputError where the network has no such."""
        return [layer.name for layer in self._matched[0]]

    @property
    def cautions(self) -> list[str]:
        """What is passed over: layers that only a glob means, and that give no map."""
        left_out = ", ".join(self._matched[1])
        return [f"network.layers: a pattern means {left_out}, too, of which there are no maps"] if left_out else []

    @cached_property
    def _matched(self) -> tuple[list[LayerGeometry], list[str]]:
        from microtome.networks import walk_matching

        return walk_matching(self.module, self.audit.input.size, self.audit.audit.network.layers)

    @cached_property
    def _named(self) -> Mapping[str, str]:
        """Of layers that nothing but a stage's option names: that option, by the layer's name."""
        found: dict[str, str] = {}
        for job in self.jobs:
            for option, layer in job.options.layers_named.items():
                if layer not in self.own:
                    found.setdefault(layer, f"stages.{job.stage.name}.{option}")
        return found

    @contextlib.contextmanager
    def _keys(self) -> Iterator[None]:
        """Faults of such a layer are the option's."""
        from microtome.networks.layers import layer_names

        try:
            yield
        except InputError as error:
            names, faults = layer_names(self.module), list(error.faults)
            for layer, key in self._named.items():
                hint = "" if layer in names else suggest(layer, names)
                faults = [_moved(fault, f"network.layers: {layer}: ", f"{key}: {layer}: ", hint) for fault in faults]
            raise InputError(faults) from error

    def check(self) -> None:
        """Look at it, and ask the stages. Raises InputError: see `layers`, and what stages refuse."""
        self.layers  # noqa: B018  # which looks
        for job in self.jobs:
            job.stage.check(job.options, self.module, self.audit.input.size)

    @cached_property
    def pace(self) -> Pace:
        """How fast it is, from two pictures of the first data set and two of the last, each shown several times.

        What cannot be read counts nothing here: the index names it with all others.
        """
        settings, size = self.audit.settings, self.audit.input.size
        layout = self.audit.audit.execution.layout
        fields = tuple(max(layer.field) for layer in self.layers)
        units, values = sum(layer.units for layer in self.layers), sum(map(_values, self.layers))
        there = Pace(0, units=units, values=values, size=size, fields=fields)
        measured = [(0.0, 0.0, 0.0)]
        for source, images in _shown(self.jobs):
            with contextlib.suppress(Exception):
                measured.append(_measured(self.module, (settings, layout), source, images))
        read, annotate, forward = (max(times) for times in zip(*measured, strict=True))
        return replace(there, read=read, annotate=annotate, forward=forward)

    def quicker(self) -> float:
        """How many times as fast the network is where its tensors lie channels last, by a batch of noise."""
        import torch

        batch = torch.rand(AT_ONCE, 3, *self.audit.input.size)
        least: dict[Layout, float] = {"contiguous": math.inf, "channels_last": math.inf}
        for layout in (*least,) * TURNS:
            least[layout] = min(least[layout], _forward(self.module, (self.audit.settings, layout), batch))
        return least["contiguous"] / least["channels_last"]

    def probe(self) -> None:
        """Show it some of the pictures that it will be shown. Raises InputError: see `microtome.networks.probe`."""
        from microtome.networks.probe import probe

        device = self.audit.settings.device
        batches = [batch.to(device) for batch in _batches(self.jobs)]
        answer = any(job.stage.network == "answer" for job in self.jobs)
        with self._keys():
            probe(self.module.to(device), self.layers, batches, answer=answer)


def _moved(fault: str, before: str, after: str, hint: str) -> str:
    return after + fault.removeprefix(before) + hint if fault.startswith(before) else fault


def _batches(jobs: Sequence[Job]) -> Iterator[torch.Tensor]:
    """Those pictures, (2, 3, height, width), as the network takes them.

    A picture that cannot be read is left to the index, which names it with all others.
    """
    import numpy as np
    import torch

    for source, images in _shown(jobs):
        with contextlib.suppress(Exception):
            yield torch.from_numpy(np.stack([source.normalised(image) for image in images]))


def _shown(jobs: Sequence[Job]) -> Iterator[tuple[Source, list[int]]]:
    """Two pictures of the first data set, two later ones of the last, as far as any there can be read."""
    indices = {needed.name: needed for job in jobs for needed in job.jobs.values() if needed.stage.name == "index"}
    if not indices:
        return
    names = list(indices)
    sources = [_source(indices[name]) for name in names[:1] + names[1:][-1:]]
    first, last = sources[0], sources[-1]
    for source, images in ((first, (0, 1)), (last, (len(last) // 2, len(last) - 1))):
        yield source, _readable(source, images)


def _readable(source: Source, images: Sequence[int]) -> list[int]:
    """Those pictures, or in place of one that cannot be read the next that can: it must not hide a network's faults."""
    found: list[int] = []
    for image in images:
        tried = [place % len(source) for place in range(image, image + min(TRIES, len(source)))]
        unused = [place for place in tried if place not in found] or tried
        found.append(next((place for place in unused if _read(source, place)), unused[0]))
    return found


def _read(source: Source, image: int) -> bool:
    with contextlib.suppress(Exception):
        source.normalised(image)
        return True
    return False


def _values(layer: LayerGeometry) -> int:
    return layer.units * layer.grid[0] * layer.grid[1]


def _measured(module: torch.nn.Module, how: tuple[Settings, Layout], source: Source, images: Sequence[int]) -> _Times:
    """Seconds that a picture takes to be read, its annotation, and its forward pass, were nothing else running.

    So they are of the processor.
    """
    import numpy as np
    import torch

    def read() -> torch.Tensor:
        return torch.from_numpy(np.stack([source.normalised(image) for image in images])).to(how[0].device)

    def annotate() -> None:
        for image in images:
            source.dataset.annotation(source.chosen[image])

    forward = _forward(module, how, read().repeat(AT_ONCE // len(images), 1, 1, 1))
    return _quickest(read) / len(images), _quickest(annotate) / len(images), forward


def _forward(module: torch.nn.Module, how: tuple[Settings, Layout], batch: torch.Tensor) -> float:
    """Seconds of a picture's forward pass, of a batch.

    It is measured on the clock with all threads, and on one thread in seconds of the processor, and the better counts:
    where other work is beside it, threads wait for each other at every layer, which a few passes of a small batch
    suffer from more than a stage.
    """
    import torch

    from microtome.networks.engine import FORMATS

    settings, layout = how
    keep_freed()  # as in a stage
    module.to(settings.device).to(memory_format=FORMATS[layout])
    shown = batch.to(settings.device).contiguous(memory_format=FORMATS[layout])

    def forward() -> None:
        with torch.no_grad():
            module(shown)
        if settings.device != "cpu":
            torch.cuda.synchronize()

    torch.set_num_threads(settings.threads)
    passes = [_quickest(forward, time.perf_counter)]
    torch.set_num_threads(1)
    if settings.device == "cpu":
        passes.append(_quickest(forward))
    module.to(memory_format=torch.contiguous_format)
    return min(passes) / len(batch)


def _quickest(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of a call, the shortest of some: the first ones warm up."""
    spent: list[float] = []
    start = time.perf_counter()
    while len(spent) < REPEATS and time.perf_counter() - start < ENOUGH:
        began = clock()
        call()
        spent.append(clock() - began)
    return min(spent)


def _source(index: Job) -> Source:
    from tasks.index.result import indexed

    return indexed(*indexing(index))
