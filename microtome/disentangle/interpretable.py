"""Interpretable CNNs: a backbone whose top filters, and one new layer of filters, are pressed onto single parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from microtome.disentangle.templates import FilterMask, MaskOptions
from microtome.errors import InputError
from microtome.networks.load import NetworkSpec, load_network

HEADS = {"linear": 0, "small": 512, "paper": 4096}
INITIAL = 0.01  # deviation of new weights
OWN = 0.3  # what a new filter begins with of the filter below it, in deviations of what it begins with of all others
RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class InterpretableCNN(nn.Module):
    """Backbone, mask, new convolution, mask, pooling, fully connected head (arXiv 1710.00935, section 3).

    `top_map` and `extra_map` give the maps before masking; their highest cells are those of the masked ones.

    Args:
        features: the backbone up to its top convolution and the ReLU behind it, children under their own names.
        filters: of its output.
        n: side of its output, in cells.
        classes: outputs; 1 for a single category against everything else (a logit), more for softmax.
        head: units of the two hidden layers; 0 for a linear head over each filter's mean.
        mask: None for none, else what FilterMask takes.
    """

    def __init__(
        self, features: nn.Sequential, filters: int, n: int, *, classes: int, head: int, mask: MaskOptions | None
    ) -> None:
        super().__init__()
        self.filters, self.n, self.classes = filters, n, classes
        self.features = features
        self.top_map = nn.Identity()
        self.top_mask = nn.Identity() if mask is None else FilterMask(filters, n, **mask)
        self.extra = nn.Conv2d(filters, filters, 3, padding=1)
        self.extra_map = nn.ReLU()
        self.extra_mask = nn.Identity() if mask is None else FilterMask(filters, n, **mask)
        if head:
            self.pool, cells = _pooling(n)
            self.classifier = _hidden(filters * cells * cells, head, classes)
        else:
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(HeadScale(), nn.Linear(filters, classes))
        layers: list[nn.Conv2d | nn.Linear] = [self.extra]
        layers += [child for child in self.classifier if isinstance(child, nn.Linear)]
        for layer in layers:
            nn.init.normal_(layer.weight, std=INITIAL)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if not head:
            own = torch.arange(filters)
            with torch.no_grad():
                self.extra.weight[own, own, 1, 1] += OWN * INITIAL * (9 * filters) ** 0.5

    @property
    def last(self) -> nn.Linear:
        """The layer that answers."""
        layer = self.classifier[-1]
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"the last layer must be linear, got {type(layer).__name__}")
        return layer

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(images, 3, height, width) -> (images, classes) logits."""
        return self.above(self.features(pictures))[0]

    def above(self, features: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """From the backbone's output: logits, and the two interpretable layers' maps before masking."""
        top = self.top_map(features)
        extra = self.extra_map(self.extra(self.top_mask(top)))
        return self.classifier(self.pool(self.extra_mask(extra)).flatten(1)), (top, extra)

    def read(self, features: torch.Tensor) -> torch.Tensor:
        """From the backbone's output: (images, units) what the last layer answers from."""
        extra = self.extra_map(self.extra(self.top_mask(self.top_map(features))))
        read: torch.Tensor = self.classifier[:-1](self.pool(self.extra_mask(extra)).flatten(1))
        return read


class HeadScale(nn.Module):
    """Divide by one number, the size of an ordinary picture's features: the head is as steep on every network."""

    unit: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("unit", torch.ones(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(images, features), as they were given."""
        return features / self.unit


def interpretable_cnn(
    backbone: str,
    *,
    size: tuple[int, int],
    arguments: Mapping[str, object] | None = None,
    weights: str | None = None,
    root: str = ".",
    classes: int = 1,
    head: str = "small",
    mask: MaskOptions | None = None,
    seed: int = 0,
) -> InterpretableCNN:
    """Build one, as the network loader calls it.

    Args:
        backbone: `package.module:factory` of a network with a chain `features` (VGG, AlexNet, SqueezeNet, ...) or of a
            torchvision ResNet, whose skips mix filters: the paper leaves them out, here they are allowed.
        size: (height, width) of the input.
        arguments: of the factory.
        weights, root: of the backbone, see NetworkSpec; none if the whole network's weights are put in afterwards.
        classes: outputs.
        head: `linear` (each filter's mean), or two hidden layers, `small` (512) or `paper` (4096).
        mask: None for none, `{}` for the defaults of FilterMask.
        seed: of the new layers.

    Raises:
        InputError: a backbone of another form, or whose top maps are not square.
    """
    network = load_network(NetworkSpec(backbone, arguments or {}, weights, Path(root), seed))
    features = backbone_features(network)
    with torch.inference_mode():
        shape = features(torch.zeros(1, 3, *size)).shape
    if len(shape) != 4 or shape[2] != shape[3]:
        raise InputError(f"finetuning: the top convolution's maps must be square, got {tuple(shape[2:])}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InterpretableCNN(features, shape[1], shape[2], classes=classes, head=HEADS[head], mask=mask)


def backbone_features(network: nn.Module) -> nn.Sequential:
    """The network up to its top convolution and the ReLU behind it, as a chain of its own children.

    Raises:
        InputError: neither a chain `features` nor a ResNet.
    """
    chain = getattr(network, "features", None)
    if isinstance(chain, nn.Sequential):
        children = list(chain.named_children())
        top = max((at for at, (_, child) in enumerate(children) if _convolves(child)), default=-1)
        if top < 0:
            raise InputError(f"finetuning: `features` of {type(network).__name__} must hold a convolution, got none")
        end = top + 2 if top + 1 < len(children) and isinstance(children[top + 1][1], nn.ReLU) else top + 1
        return nn.Sequential(OrderedDict(children[:end]))
    if all(hasattr(network, name) for name in RESNET_PARTS):
        return nn.Sequential(OrderedDict((name, getattr(network, name)) for name in RESNET_PARTS))
    raise InputError(
        "finetuning: the backbone must be a chain `features` (VGG, AlexNet, SqueezeNet) or a torchvision ResNet, "
        f"got {type(network).__name__}"
    )


def frozen_below(features: nn.Sequential, layer: str | None) -> int:
    """How many children of the chain stay as they are: all before `layer`, by default before the top convolution.

    Raises:
        InputError: no such child.
    """
    names = [name for name, _ in features.named_children()]
    if layer is not None:
        wanted = layer.removeprefix("features.")
        if wanted not in names:
            raise InputError(f"finetuning.freeze_below: no layer {layer!r} among features.{', features.'.join(names)}")
        return names.index(wanted)
    return max(at for at, child in enumerate(features.children()) if _convolves(child))


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(child, nn.Conv2d) for child in module.modules())


def _hidden(features: int, units: int, classes: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(features, units), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(units, units), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(units, classes),
    )  # fmt: skip


def _pooling(n: int) -> tuple[nn.Module, int]:
    """Max pooling to 6 or 7 cells, and how many those are."""
    if n <= 7:
        return nn.Identity(), n
    kernel = 3 if n % 2 else 2
    return nn.MaxPool2d(kernel, 2), (n - kernel) // 2 + 1
