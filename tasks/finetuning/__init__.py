"""Stage `finetuning`: an interpretable CNN from the audit's network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.options import OUTSIDE, Count, DatasetName, Options, Positive, Strict


class MaskModel(Strict):
    """Masks of interpretable layers."""

    centre: Literal["argmax", "centroid"] = "argmax"
    learned: bool = False


class FinetuningOptions(Options):
    """Fine-tuning into an interpretable CNN."""

    dataset: DatasetName = "main"
    negatives: Annotated[DatasetName | None, OUTSIDE] = None
    category: str | None = None
    epochs: Count = 10
    batch: Count = 16
    rate: tuple[Positive, Positive] = (0.01, 0.001)
    strength: Annotated[float, Field(ge=0)] = 1.0
    mask: MaskModel | None = MaskModel()
    head: Literal["auto", "small", "paper"] = "auto"
    freeze_below: str | None = None
    controls: list[Literal["twin", "plain"]] = ["twin"]
