# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
# ---

# %% [markdown]
# # Is my saliency method sound?
#
# A map that shows where a network looks should vanish with the network's weights, survive a shift of the input that the
# first layer takes back, and depend on the class that is asked for. Here some methods are put to these tests.

# %%
import microtome
from microtome.datasets.creatures import Creatures
from microtome.networks.small import trained_creature_net

model = trained_creature_net()
result = microtome.reliability(
    model,
    Creatures(count=40, size=96, seed=2),
    layers=["features.12"],
    input={"size": [96, 96], "mean": [0.5] * 3, "std": [0.25] * 3},
    images=4,
    randomised=2,
    methods=["gradient", "guided", "grad-cam"],
)

# %% [markdown]
# Which methods this network can have, and how they are made here:

# %%
result.to_pandas("reliability_methods")

# %% [markdown]
# What each test measured:

# %%
result.to_pandas("reliability").head(20)
