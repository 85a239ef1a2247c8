"""The audit file that `microtome init` writes: the stages' own lines between what every file has."""

from tasks.registry import STAGES

_HEAD = """\
# An audit of microtome. Check it with `microtome plan audit.yaml`, run it with `microtome audit audit.yaml`.
# Paths are relative to this file.
name: my-network

network:
  load: torchvision.models:squeezenet1_0      # module:factory, or timm:NAME; its keyword arguments: `arguments:`
  # weights: weights/squeezenet1_0.safetensors  # .safetensors, a state dict (.pth), or a torchvision weights name;
                                              # without it the network keeps its random start, which is a baseline
  layers: [features.12]                       # dotted names or globs, as many as you like
  input:
    size: [224, 224]                          # height, width
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    resize: squash                            # squash | shortest-side-crop

dataset:
  format: creatures                           # generated; or broden | masks | coco with `root: folder`,
  count: 200                                  # or package.module:factory of your own
  size: 224
  # limit: 1000                               # the first so many pictures
  # split: [val]
  # categories: [cat]                         # labels of whole pictures

workspace: .microtome                         # results and their cache
seed: 0
device: auto                                  # auto | cpu | cuda

stages:
"""

_TAIL = """\

# gates:                                      # what makes the audit fail (exit status 1)
#   - {metric: layers.unique_per_unit, min: 10}
#   - {metric: layers.confirmed, max_drop: 0.1, warn: true}      # against the last run of the same name; only warns
"""


def starter() -> str:
    """A commented audit file to start from."""
    return _HEAD + "".join(stage.starter for stage in STAGES) + _TAIL
