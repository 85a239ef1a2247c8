"""A network that was fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from microtome.disentangle.examples import HELD_OUT, Examples
from storage.tables import ReadRow
from tasks.finetuning import TrainingOptions
from tasks.result import StageResult
from tasks.subject import Subject

if TYPE_CHECKING:
    import torch

WEIGHTS, ABOUT = "network.safetensors", "network.json"


@dataclass(frozen=True)
class Finetuned(StageResult):
    """An interpretable CNN, its pictures and its training."""

    @property
    def options(self) -> TrainingOptions:
        """What it was made with; names of data sets, and which controls it has, are not part of it."""
        return TrainingOptions.model_validate(self.parameters)

    @cached_property
    def about(self) -> dict[str, Any]:
        """How to build the network, and the names of its classes."""
        about: dict[str, Any] = self.artifact.json(ABOUT)
        return about

    @property
    def categories(self) -> list[str]:
        """Names of the classes."""
        return list(self.about["categories"])

    @cached_property
    def examples(self) -> Examples:
        """The pictures that it was trained on, and those that were held out."""
        rows = self.table("finetuning_images", ["dataset", "image", "label", "split"]).to_pydict()
        return Examples(rows["dataset"], rows["image"], rows["label"], rows["split"], self.categories)

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Numbers of its data set's pictures that it did not train on."""
        found = self.examples
        held = [place for place in found.split(HELD_OUT) if found.sides[place] == "dataset"]
        return np.array([found.images[place] for place in held], np.int64)

    @property
    def training(self) -> list[ReadRow]:
        """The rows of the table `training`."""
        return self.rows("training")

    @property
    def summary(self) -> ReadRow:
        """The row of the table `finetuning_summary`."""
        (row,) = self.rows("finetuning_summary")
        return row

    def load(self) -> torch.nn.Module:
        """The network, in eval mode, no parameter wanting a gradient."""
        from safetensors.torch import load

        from microtome.disentangle.interpretable import interpretable_cnn

        root = self.external("network", Subject).spec.root  # where a backbone of the user's own is looked for
        network = interpretable_cnn(**self.about["arguments"], root=str(root))
        network.load_state_dict(load(self.artifact.read(WEIGHTS)))
        return network.eval().requires_grad_(False)
