"""The network looked at before the first stage spends time on it: is it there, and does it answer steadily?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tasks.data import DataSpec
from tasks.index import IndexOptions
from tasks.planning import Planner
from tasks.stage import Job
from tasks.subject import Subject

if TYPE_CHECKING:
    import torch

    from microtome.datasets.source import Source
    from microtome.networks import LayerGeometry


def look(audit: Planner, network: Subject) -> tuple[torch.nn.Module, list[LayerGeometry]]:
    """A network loaded, and the geometry of the layers that the audit names.

    Raises:
        InputError: it cannot be loaded, has no such layers, or they give no maps.
    """
    from microtome.networks import match_layers, walk

    model = audit.audit.network
    module = network.load()
    return module, walk(module, model.input.size, match_layers(module, model.layers))


def probe(audit: Planner, network: Subject, jobs: Sequence[Job]) -> None:
    """The same, and what the network does with some of the pictures that it will be shown.

    Args:
        audit: the audit.
        network: to be looked at.
        jobs: that will load the network, at least one.

    Raises:
        InputError: see `look`, and `microtome.networks.probe`.
    """
    from microtome.networks.probe import probe as probe_network

    module, layers = look(audit, network)
    device = audit.settings.device
    batches = [batch.to(device) for batch in _batches(jobs)]
    probe_network(module.to(device), layers, batches, answer=any(job.stage.network == "answer" for job in jobs))


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
