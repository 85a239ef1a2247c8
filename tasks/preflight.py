"""The network looked at before the first stage spends time on it: is it there, and does it answer steadily?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from microtome.errors import InputError, suggest
from tasks.data import DataSpec
from tasks.index import IndexOptions
from tasks.planning import Planner
from tasks.stage import Job
from tasks.subject import Subject

if TYPE_CHECKING:
    import torch

    from microtome.datasets.source import Source
    from microtome.networks import LayerGeometry


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
            return walk(self.module, self.audit.audit.network.input.size, [*self.own, *self._named])

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

        return walk_matching(self.module, self.audit.audit.network.input.size, self.audit.audit.network.layers)

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
            job.stage.check(job.options, self.module, self.audit.audit.network.input.size)

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
    """Two pictures of the first data set, two later ones of the last; (2, 3, height, width), as the network takes them.

    A picture that cannot be read is left to the index, which names it with all others.
    """
    import numpy as np
    import torch

    indices = {needed.name: needed for job in jobs for needed in job.jobs.values() if needed.stage.name == "index"}
    if not indices:
        return
    names = list(indices)
    sources = [_source(indices[name]) for name in names[:1] + names[1:][-1:]]
    first, last = sources[0], sources[-1]
    for source, images in ((first, (0, 1)), (last, (len(last) // 2, len(last) - 1))):
        with contextlib.suppress(Exception):
            pictures = [source.normalised(min(image, len(source) - 1)) for image in images]
            yield torch.from_numpy(np.stack(pictures))


def _source(index: Job) -> Source:
    from tasks.index.result import indexed

    data, options = index.reads["data"], index.options
    if not isinstance(data, DataSpec) or not isinstance(options, IndexOptions):
        raise TypeError(f"an index must read a data set, got {data!r}")
    return indexed(data, options)
