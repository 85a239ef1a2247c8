"""Stage `activations`: the maps of the wanted layers for every picture, in one forward pass each; or how to make them
again, where they are not stored.
"""

from __future__ import annotations

from typing import Annotated, Literal

from microtome.disentangle.names import LAYERS
from microtome.errors import InputError
from tasks.options import OUTSIDE, Options
from tasks.planning import Planner
from tasks.stage import Job, Stage


class ActivationsOptions(Options):
    """Which layers, and how their maps are stored."""

    layers: list[str]
    shift: float
    precision: Literal["float32", "float16"]
    batch: int
    arithmetic: Literal["float32", "tf32", "bf16"]
    engine: Literal["eager", "compiled"]
    layout: Literal["contiguous", "channels_last"]
    storage: Annotated[Literal["auto", "none", "lz4", "zstd", "recompute"], OUTSIDE]
    shard_images: Annotated[int | None, OUTSIDE]


STAGE = Stage(
    name="activations",
    about="Extracts the maps of the wanted layers for every picture, in one forward pass each.",
    options=ActivationsOptions,
    work="tasks.activations.work:run",
    determined_by=frozenset({"device"}),
    threads="all",
    sharded="images",
    network="maps",
    cost=lambda _, pace: pace.shown(pace.pictures) + 8e-9 * pace.pictures * pace.values,
    retries=1,
)


def maps(
    audit: Planner, index: Job, *, finetuned: Job | None = None, variant: str | None = None, shift: float = 0.0
) -> Job:
    """The maps of the audit's layers; or of a fine-tuned network, of its two interpretable layers.

    Args:
        audit: the audit.
        index: of the pictures.
        finetuned: the stage that made the network; the audit's own without it.
        variant: of the job; the data set's by default.
        shift: how far crop windows are moved, as of `Source`.

    Raises:
        InputError: an arithmetic that the audit's device does not have.
    """
    model, execution = audit.audit.network, audit.audit.execution
    if execution.arithmetic == "tf32" and audit.settings.device != "cuda":
        raise InputError("execution.arithmetic: tf32 must be computed on a CUDA device, got device cpu; use float32")
    options = ActivationsOptions(
        layers=model.layers if finetuned is None else list(LAYERS),
        shift=shift,
        precision=execution.precision,
        batch=execution.batch,
        arithmetic=execution.arithmetic,
        engine=execution.engine,
        layout=execution.layout,
        storage=execution.storage,
        shard_images=execution.shard_images,
    )
    reads = {"index": index, "network": audit.network if finetuned is None else None, "finetuned": finetuned}
    name = index.variant if variant is None else variant
    return audit.add(audit.job(STAGE, options, reads, variant=f"{name} moved {shift}".strip() if shift else name))
