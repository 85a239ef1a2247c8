"""Train the small network of the default audit, and write its weights with what it reached.

    python examples/train_creature_net.py [--images 16000] [--epochs 12] [--out FILE]

Takes some ten minutes on two cores. The held-out pictures come from another seed than the training pictures; the
random-weight twin is scored beside the network.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from microtome.datasets.creatures import ANIMALS, Creatures
from microtome.networks.small import creature_net

OUT = Path(__file__).parent.parent / "microtome/networks/weights/creature_net.safetensors"
MEAN, STD, SIZE, BATCH, SEED = 0.5, 0.25, 96, 64, 0
HELD_OUT_SEED, HELD_OUT = 2, 2000


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, SIZE, SIZE) uint8 pictures and their classes."""
    data = Creatures(count=count, size=SIZE, seed=seed)
    stacked = np.stack([np.asarray(data.picture(index)) for index in range(count)])
    labels = [ANIMALS.index(animal) for animal in data.animals]
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def scaled(batch: torch.Tensor) -> torch.Tensor:
    """Pictures as the network takes them."""
    return (batch.float() / 255 - MEAN) / STD


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of pictures whose class is predicted."""
    network.eval()
    with torch.inference_mode():
        right = sum(
            int((network(scaled(images[i : i + 256])).argmax(1) == labels[i : i + 256]).sum())
            for i in range(0, len(images), 256)
        )
    return right / len(images)


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    """Adam with a cosine schedule, mirrored pictures."""
    steps = epochs * math.ceil(len(images) / BATCH)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(SEED)
    for epoch in range(epochs):
        network.train()
        total = 0.0
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            batch = scaled(images[chosen])
            if torch.rand((), generator=generator) < 0.5:
                batch = batch.flip(3)
            loss = nn.functional.cross_entropy(network(batch), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        print(f"epoch {epoch + 1}: loss {total / len(images):.4f}", flush=True)


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    network = creature_net()
    held_out = pictures(HELD_OUT, HELD_OUT_SEED)
    reached = {"random_twin_accuracy": accuracy(network, *held_out)}
    train(network, *pictures(options.images, 1), options.epochs)
    reached["accuracy"] = accuracy(network, *held_out)
    about = {"images": options.images, "epochs": options.epochs, "held_out": HELD_OUT, **reached}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), options.out, {"about": json.dumps(about)})
    options.out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about))


if __name__ == "__main__":
    main()
