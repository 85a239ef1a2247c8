# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Fine-tune into an interpretable CNN, and compare
#
# The filter loss asks each filter of the top layers to answer to one part of one category. Does it, and what does it cost?
# Beside the interpretable network a twin is trained without the loss: the difference between the two is the loss's doing.

# %%
import microtome
from microtome.datasets.creatures import Creatures
from microtome.networks.small import trained_creature_net

model = trained_creature_net()
dataset = Creatures(count=240, size=96, seed=3)
about = {"layers": ["features.12"], "input": {"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3}}

tuned = microtome.finetune(model, dataset, category="bird", epochs=3, **about)

# %% [markdown]
# The training, epoch by epoch: `interpretable` is the network with the loss, `twin` the one without.

# %%
training = tuned.to_pandas("training")
training[training.split == "val"]

# %%
network = tuned.network
network

# %% [markdown]
# Where are the filters highest, and how steady is that? Both networks on the same pictures; R² says how much of a filter's
# movement the landmark explains, and `deviation` how far it strays from it, as a share of the picture's diagonal.

# %%
few = {"top_images": 20, "bootstrap": 100, "permutations": 100}
before = microtome.stability(model, dataset, **about, **few)
after = microtome.stability(network, dataset, **{**about, "layers": ["top_map", "extra_map"]}, **few)
before.to_pandas("stability_layers")[["layer", "category", "deviation", "low", "high"]].tail(3)

# %%
after.to_pandas("stability_layers")[["layer", "category", "deviation", "low", "high"]].tail(6)
