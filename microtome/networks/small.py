"""The small network that the default audit looks at."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from microtome.networks.load import NetworkSpec, load_network

WEIGHTS = Path(__file__).parent / "weights/creature_net.safetensors"


def creature_net(classes: int = 6, width: int = 64) -> nn.Sequential:
    """A chain of five convolutions for 96 x 96 pictures of `creatures`: about 100,000 weights.

    Args:
        classes: number of categories.
        width: units of the last three convolutions.

    Returns:
        `features` (last map: `features.12`, 12 x 12 cells), then mean over positions and `classifier`.
    """
    features = nn.Sequential(
        nn.Conv2d(3, width // 4, 5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(width // 4, width // 2, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(width // 2, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(inplace=True),
    )
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias if module.bias is not None else torch.zeros(1))
    network = nn.Sequential()
    network.add_module("features", features)
    network.add_module("pool", nn.AdaptiveMaxPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("classifier", nn.Linear(width, classes))
    shipped = ("bird", "cat", "bear", "deer", "lizard", "dragon")  # what the outputs of the weights mean, in order
    if classes == len(shipped):
        network.classes = shipped  # type: ignore[assignment]
    return network


def trained_creature_net() -> nn.Module:
    """The same with the weights that microtome ships: it tells six generated animals apart in 99.95 % of pictures."""
    return load_network(NetworkSpec("microtome.networks.small:creature_net", weights=str(WEIGHTS)))
