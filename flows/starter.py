"""The audit file that `microtome init` writes."""

STARTER = """\
# An audit of microtome. Check it with `microtome plan audit.yaml`, run it with `microtome audit audit.yaml`.
# Paths are relative to this file.
name: my-network

network:
  load: torchvision.models:squeezenet1_0      # module:factory; keyword arguments under `arguments:`
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
  dissection:
    tail: 0.005                               # share of a unit's values above its threshold
    min_iou: 0.04                             # a detector lies above it
    bootstrap: 1000                           # resamples of the images, for intervals; 0 for none
    permutations: 200                         # of annotations among images, for the null; 0 for none
  # stability: {}                             # how steadily filters sit on part landmarks
  # finetuning: {category: bird}              # an interpretable CNN, beside a twin without filter loss
  # tree: {category: bird}                    # the few ways in which the network decides for a category
  # graph: {category: bird}                   # part patterns that the filters answer to
  # parts: {category: bird}                   # parts found from a few boxes
  # saliency: {images: 12}                    # maps of the predicted class by seven methods
  # reliability: {images: 16}                 # and which of these methods can be trusted
  # features: {units: 16}                     # synthetic pictures beside natural ones
  # occlusion: {units: 8}                     # measured receptive fields, minimal images
  # adversarial: {images: 64, eps: [1, 4]}    # attacks, and what moves inside; eps of 255
  report: {top_images: 5}

# gates:                                      # what makes the audit fail (exit status 1)
#   - {metric: layers.unique_per_unit, min: 10}
#   - {metric: layers.detectors, max_drop: 0.1, certain: true}   # against the last run of the same name
"""
