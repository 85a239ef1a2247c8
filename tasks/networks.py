"""The network that a stage looks at: the audit's own, or one that the finetuning stage made."""

from __future__ import annotations

from typing import Any

import torch

from storage import Artifact
from tasks.stage import Work

WEIGHTS, ABOUT = "network.safetensors", "network.json"


def network_of(work: Work) -> torch.nn.Module:
    """The stage's network, in eval mode, no parameter wanting a gradient."""
    if "finetuned" in work.inputs:
        return finetuned(work.inputs["finetuned"], work.job.reach["root"])
    return work.job.reach["network"]()


def finetuned(artifact: Artifact, root: Any) -> torch.nn.Module:
    """The network that a finetuning stage wrote.

    Args:
        artifact: the stage.
        root: where a backbone of the user's own is looked for.
    """
    from safetensors.torch import load

    from microtome.disentangle.interpretable import interpretable_cnn

    network = interpretable_cnn(**artifact.json(ABOUT)["arguments"], root=str(root))
    network.load_state_dict(load(artifact.read(WEIGHTS)))
    return network.eval().requires_grad_(False)
