"""Stage `saliency`: what each method makes of the predicted class, for a sample of the pictures."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from safetensors.torch import save

from microtome.visualize.attribution import contrast
from microtome.visualize.reliability import methods
from tasks.pictures import Pictures, pixel_network, sampled
from tasks.stage import Work

BATCH = 4


def run(work: Work) -> None:
    """Compute the maps: raw values, by pixels in [0, 1]; colours are the report's."""
    torch.set_num_threads(work.session.threads)
    pictures, network = Pictures(work), pixel_network(work)
    chosen = sampled(len(pictures), work.parameters["images"], work.parameters["seed"])
    found = {name: method for name, method in methods(seed=work.parameters["seed"]).items() if name in wanted(work)}
    work.begin(len(chosen) * len(found), "maps")
    rows: dict[str, list[Any]] = defaultdict(list)
    for name, method in found.items():
        file = f"maps/{name.replace(' ', '-')}.safetensors"
        maps, targets = [], []
        for start in range(0, len(chosen), BATCH):
            some = chosen[start : start + BATCH]
            batch = pictures.batch(some, work.session.device)
            with torch.no_grad():
                classes = network(batch).argmax(1)
            maps.append(method(network, batch, classes).float().cpu())
            targets += classes.tolist()
            work.advance(len(some))
        together = torch.cat(maps)
        work.draft.write(file, save({"maps": together.contiguous(), "images": torch.tensor(chosen)}))
        for image, target, one in zip(chosen, targets, together, strict=True):
            scale = contrast(one)
            row = {"image": image, "target": target, "method": name, "scale": scale, "file": file}
            for column, value in row.items():
                rows[column].append(value)
    work.draft.table("saliency", rows)


def wanted(work: Work) -> list[str]:
    """The methods that are asked for."""
    return list(work.parameters["methods"])
