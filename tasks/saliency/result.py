"""Saliency maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.tables import ReadRow
from tasks.result import StageResult

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Saliency(StageResult):
    """Maps of the predicted class, by every method."""

    @property
    def maps(self) -> dict[str, torch.Tensor]:
        """method -> (pictures, 3, height, width), in the order of `images`."""
        from safetensors.torch import load

        return {row["method"]: load(self.artifact.read(row["file"]))["maps"] for row in self._by_method()}

    @property
    def images(self) -> list[int]:
        """Numbers of the pictures."""
        return list(dict.fromkeys(row["image"] for row in self.rows("saliency")))

    def _by_method(self) -> list[ReadRow]:
        return list({row["method"]: row for row in self.rows("saliency")}.values())
