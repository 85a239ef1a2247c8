# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Dissect your network
#
# Which unit of a network detects which concept, and how sure is that? All it takes is a module, and pictures with masks.
# Here the module is the small trained network that microtome ships, and the pictures are drawn; put your own in their place.

# %%
import numpy as np

import microtome
from microtome.datasets.creatures import Creatures
from microtome.networks.small import trained_creature_net

model = trained_creature_net()

# %% [markdown]
# A data set is a list of (picture, masks). A picture is a PIL image, an array of bytes or a file; masks name concepts.

# %%
drawn = Creatures(count=120, size=96, seed=1)
names = {concept.number: concept.name for concept in drawn.concepts}


def pair(index):
    part = drawn.annotation(index).planes["part"]
    return drawn.picture(index), {names[n]: (part == n).any(axis=0) for n in np.unique(part) if n}


dataset = [pair(index) for index in range(len(drawn.records))]
dataset[0][0], sorted(dataset[0][1])

# %%
result = microtome.dissect(
    model,
    dataset,
    layers=["features.12"],
    input={"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3},
    bootstrap=200,
)

# %% [markdown]
# A row per unit. `iou_low` and `iou_high` are a 95 % interval over pictures; `null_p95` is what labels that belong to
# other pictures reach in one case of twenty; `heldout_iou` is measured on pictures that did not choose the label.

# %%
units = result.to_pandas().sort_values("iou", ascending=False)
units[["unit", "concept", "iou", "iou_low", "iou_high", "null_p95", "heldout_iou", "confirmed"]].head(10)

# %% [markdown]
# How many units are *confirmed* detectors: on held-out pictures, and beyond chance?

# %%
layer = result.to_pandas("layers").iloc[0]
print(f"{layer.confirmed} [{layer.confirmed_low:.0f}, {layer.confirmed_high:.0f}] of {layer.units} units are confirmed")

# %%
result.plot(most=15)

# %% [markdown]
# The report that an audit writes, too: `result.report("pages")` gives its first page.
