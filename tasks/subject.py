"""The network under audit, as stages read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from microtome.networks.load import NetworkSpec, load_network
from microtome.networks.normalisation import Normalisation

if TYPE_CHECKING:
    import torch

    from microtome.visualize.attribution import Scaled


@dataclass(frozen=True)
class Subject:
    """A network and how it takes pixels.

    Args:
        spec: where it comes from.
        scale: how pixels become its input.
        content: digest of its code and weights.
    """

    spec: NetworkSpec
    scale: Normalisation
    content: str

    @cached_property
    def digest(self) -> str:
        """Of code, weights and scale."""
        return hashlib.sha256(json.dumps([self.content, self.scale.mean, self.scale.std]).encode()).hexdigest()

    def load(self) -> torch.nn.Module:
        """In eval mode, no parameter wanting a gradient."""
        return load_network(self.spec)

    def pixels(self, device: str) -> Scaled:
        """Behind its normalisation, so that it takes pixels in [0, 1].

        Args:
            device: where it is put.
        """
        from microtome.visualize.attribution import scaled

        return scaled(self.load(), self.scale.mean, self.scale.std).to(device)

    def named(self, network: Scaled, pictures: torch.Tensor) -> Callable[[int], str | None]:
        """What an output stands for, by its number; None where nobody says.

        Args:
            network: from `pixels`.
            pictures: some, to see how many outputs it has.
        """
        import torch

        from microtome.networks.classes import class_names
        from microtome.visualize.attribution import at_rest

        with torch.no_grad(), at_rest(network):
            outputs = network(pictures[:1]).shape[1]
        names = class_names(network.network, self.spec.load, outputs)
        return lambda number: None if names is None else names[number]


class Loadable(Protocol):
    """Whatever gives a network."""

    def load(self) -> torch.nn.Module:
        """In eval mode, no parameter wanting a gradient."""


class EitherNetwork(Protocol):
    """Inputs of a stage that looks at the network under audit, or at one that was fine-tuned."""

    @property
    def network(self) -> Subject | None:
        """The network under audit."""

    @property
    def finetuned(self) -> Loadable | None:
        """The fine-tuned one, which goes before."""


def network_of(inputs: EitherNetwork) -> torch.nn.Module:
    """The network that a stage looks at. Raises RuntimeError where its plan named none."""
    chosen: Loadable | None = inputs.finetuned or inputs.network
    if chosen is None:
        raise RuntimeError("a stage that looks at a network must be planned with one, got none")
    return chosen.load()
