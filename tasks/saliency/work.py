"""Stage `saliency`: what each method makes of the predicted class, for a sample of the pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.torch import save

from microtome.datasets.sampling import sampled
from microtome.visualize.attribution import contrast
from microtome.visualize.reliability import Method, methods
from storage import Draft
from tasks.index.result import Index
from tasks.saliency import SaliencyOptions
from tasks.session import Session
from tasks.subject import Subject

BATCH = 4


@dataclass(frozen=True)
class Inputs:
    """Pictures, and the network that looks at them."""

    index: Index
    network: Subject


def run(options: SaliencyOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Compute the maps: raw values, by pixels in [0, 1]; colours are the report's."""
    chosen = sampled(len(inputs.index.source), options.images, session.seed)
    wanted = {name: how for name, how in methods(seed=session.seed).items() if name in options.methods}
    session.begin(len(chosen) * len(wanted), "maps")
    network = inputs.network.pixels(session.device)
    rows = []
    for name, method in wanted.items():
        file = f"maps/{name.replace(' ', '-')}.safetensors"
        maps, targets = _maps(inputs.index, network, method, chosen=chosen, session=session)
        draft.write(file, save({"maps": maps.contiguous(), "images": torch.tensor(chosen)}))
        for image, target, one in zip(chosen, targets, maps, strict=True):
            rows.append({"image": image, "target": target, "method": name, "scale": contrast(one), "file": file})
    draft.rows("saliency", rows)


def _maps(
    index: Index, network: torch.nn.Module, method: Method, *, chosen: list[int], session: Session
) -> tuple[torch.Tensor, list[int]]:
    """(pictures, 3, height, width) maps of the predicted class, and the classes."""
    maps: list[torch.Tensor] = []
    targets: list[int] = []
    for start in range(0, len(chosen), BATCH):
        some = chosen[start : start + BATCH]
        batch = index.source.batch(some, session.device)
        with torch.no_grad():
            classes = network(batch).argmax(1)
        maps.append(method(network, batch, classes).float().cpu())
        targets += classes.tolist()
        session.advance(len(some))
    return torch.cat(maps), targets
