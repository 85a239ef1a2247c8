"""A network that was fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.result import Result
from tasks.subject import Subject

if TYPE_CHECKING:
    import torch

WEIGHTS, ABOUT = "network.safetensors", "network.json"


@dataclass(frozen=True)
class Finetuned(Result):
    """An interpretable CNN, its pictures and its training."""

    @property
    def about(self) -> dict[str, Any]:
        """How to build the network, and the names of its classes."""
        about: dict[str, Any] = self.artifact.json(ABOUT)
        return about

    @property
    def categories(self) -> list[str]:
        """Names of the classes."""
        return list(self.about["categories"])

    def load(self) -> torch.nn.Module:
        """The network, in eval mode, no parameter wanting a gradient."""
        from safetensors.torch import load

        from microtome.disentangle.interpretable import interpretable_cnn

        root = self.external("network", Subject).spec.root  # where a backbone of the user's own is looked for
        network = interpretable_cnn(**self.about["arguments"], root=str(root))
        network.load_state_dict(load(self.artifact.read(WEIGHTS)))
        return network.eval().requires_grad_(False)
