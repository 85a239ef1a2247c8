"""Stage `finetuning`: an interpretable CNN from the audit's network, by a checkpoint an epoch, resumable to the bit."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from microtome.disentangle.folds import split_by_file
from microtome.disentangle.interpretable import LAYERS, InterpretableCNN, frozen_below, interpretable_cnn
from microtome.disentangle.training import Result, Trainer, TrainingRecipe
from microtome.errors import InputError
from microtome.quantify.intervals import wilson
from tasks.networks import ABOUT, WEIGHTS
from tasks.pictures import Pictures
from tasks.stage import Work

FEATURE_BATCH = 16
CACHE_BYTES = 4e9  # frozen features beyond this are computed anew in every epoch
SMALL_BELOW = 10_000  # images
BACKGROUND = "background"
FOLDS = ("folds", "fold", "seed")


def run(work: Work) -> None:
    """Train, or go on training."""
    torch.set_num_threads(work.session.threads)
    examples = gather(work)
    categories = examples.categories
    network, about = _network(work, len(categories), len(examples.labels))
    frozen = frozen_below(network.features, work.parameters["freeze_below"])
    recipe = TrainingRecipe(
        work.parameters["epochs"],
        work.parameters["batch"],
        tuple(work.parameters["rate"]),
        work.parameters["strength"],
        work.parameters["seed"],
    )
    background = categories.index(BACKGROUND) if BACKGROUND in categories and len(categories) > 2 else None
    trainer = Trainer(network.to(work.session.device), frozen, recipe, background=background)
    train, held = examples.split("train"), examples.split("val")
    work.begin(recipe.epochs * len(train))
    source = Features(work, examples, trainer)
    done, rows = _resume(work, trainer)
    work.session.progress.advance(work.job.name, done * len(train))
    for epoch in range(done, recipe.epochs):
        rows = [*rows, *_epoch(work, trainer, epoch, source, (train, held))]
        _checkpoint(work, trainer, epoch, rows)
        work.session.check()
    _finish(work, trainer, source, examples, rows, about)


@dataclass(frozen=True)
class Examples:
    """The images of a fine-tuning: which data set and number in its index, class, split.

    Args:
        datasets: (`dataset` or `negatives`) of each.
        images: number in that data set's index.
        files: names of the pictures' files.
        labels: class numbers, into `categories`; of a single category 1, and 0 for the rest.
        splits: `train` or `val`.
        categories: names of the classes.
    """

    datasets: list[str]
    images: list[int]
    files: list[str]
    labels: list[int]
    splits: list[str]
    categories: list[str]

    def split(self, name: str) -> list[int]:
        """Places of the examples of a split."""
        return [place for place, split in enumerate(self.splits) if split == name]


def gather(work: Work) -> Examples:
    """The examples of a work's data sets, split by picture.

    Raises:
        InputError: no category, or nothing to tell it from.
    """
    wanted = work.parameters["category"]
    rows: list[tuple[str, dict[str, Any]]] = _rows(work, "dataset", "index")
    rows += _rows(work, "negatives", "negatives") if "negatives" in work.inputs else []
    alone = "negatives" in work.inputs and wanted is not None
    rows = [(name, row) for name, row in rows if not (alone and name == "dataset" and row["label"] != wanted)]
    names = [BACKGROUND if name == "negatives" else row["label"] for name, row in rows]
    if wanted is not None:
        names = [name if name == wanted else BACKGROUND for name in names]
    found = sorted({str(name) for name in names if name not in (None, BACKGROUND)})
    if not found or len(set(names)) < 2:
        raise InputError(
            f"finetuning: needs a category and something to tell it from, got {', '.join(found) or 'no category'}"
            f"{'' if wanted is None else f' for category {wanted!r}'}; name `negatives:`, or a data set of several"
        )
    single = len(found) == 1
    categories = [BACKGROUND, *found] if single else [*found, *([BACKGROUND] if BACKGROUND in names else [])]
    files = [f"{name}/{row['file']}" for name, row in rows]
    return Examples(
        [name for name, _ in rows],
        [row["image"] for _, row in rows],
        files,
        [categories.index(str(name)) for name in names],
        split_by_file(files, [str(name) for name in names], **{key: work.parameters[key] for key in FOLDS}),
        categories,
    )


def _rows(work: Work, dataset: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    table = work.inputs[name].table("images", ["image", "file", "label"])
    rows: list[dict[str, Any]] = table.to_pylist()
    return [(dataset, row) for row in rows]


def _network(work: Work, categories: int, images: int) -> tuple[InterpretableCNN, dict[str, Any]]:
    wanted = work.parameters["head"]
    arguments = {
        "backbone": work.parameters["backbone"],
        "size": work.parameters["size"],
        "arguments": work.parameters["arguments"],
        "classes": 1 if categories == 2 else categories,
        "head": ("small" if images < SMALL_BELOW else "paper") if wanted == "auto" else wanted,
        "mask": work.parameters["mask"],
        "seed": work.parameters["seed"],
    }
    network = interpretable_cnn(**arguments, weights=work.job.reach["weights"], root=str(work.job.reach["root"]))
    return network, {"load": "microtome.disentangle.interpretable:interpretable_cnn", "arguments": arguments}


def opened(work: Work, examples: Examples) -> dict[str, Pictures]:
    """The pictures of each data set that examples come from."""
    index = {"dataset": "index", "negatives": "negatives"}
    return {name: Pictures(work, index[name]) for name in dict.fromkeys(examples.datasets)}


class Features:
    """What the frozen part answers, of every image and its mirror image: computed once where it fits memory."""

    def __init__(self, work: Work, examples: Examples, trainer: Trainer) -> None:
        self._work, self._examples, self._trainer = work, examples, trainer
        self._device = work.session.device
        self.labels = torch.tensor(examples.labels, device=self._device)
        self._pictures = opened(work, examples)
        self._kept: torch.Tensor | None = None
        one = self._compute([0], [False])[0]
        if one.nbytes * 2 * len(examples.labels) <= CACHE_BYTES:
            self._kept = torch.empty(2, len(examples.labels), *one.shape)
            for side in (0, 1):
                for start in range(0, len(examples.labels), FEATURE_BATCH):
                    images = range(start, min(start + FEATURE_BATCH, len(examples.labels)))
                    self._kept[side, start : images.stop] = self._compute(images, [bool(side)] * len(images)).cpu()
                    work.session.check()

    def features(self, images: Sequence[int], mirrored: Sequence[bool]) -> torch.Tensor:
        """(images, channels, rows, columns)."""
        if self._kept is None:
            return self._compute(images, mirrored)
        return self._kept[torch.tensor(mirrored, dtype=torch.long), torch.tensor(list(images))].to(self._device)

    def _compute(self, images: Sequence[int], mirrored: Sequence[bool]) -> torch.Tensor:
        """In batches of one size, the last one padded: an answer does not depend on who shares its batch."""
        parts = []
        for start in range(0, len(images), FEATURE_BATCH):
            batch = torch.zeros(FEATURE_BATCH, 3, *self._work.parameters["size"])
            some = list(zip(images, mirrored, strict=True))[start : start + FEATURE_BATCH]
            for place, (image, flip) in enumerate(some):
                number = self._examples.images[image]
                picture = torch.from_numpy(self._pictures[self._examples.datasets[image]].normalised(number))
                batch[place] = picture.flip(2) if flip else picture
            with torch.no_grad():
                parts.append(self._trainer.base(batch.to(self._device))[: len(some)])
        return torch.cat(parts)


def _epoch(
    work: Work, trainer: Trainer, epoch: int, source: Features, splits: tuple[list[int], list[int]]
) -> list[dict[str, Any]]:
    train, held = splits
    steps = []
    for count, result in trainer.epoch(epoch, source, train):
        steps.append((count, result))
        work.session.progress.advance(work.job.name, count)
    total = sum(count for count, _ in steps)
    means = {
        name: sum(count * getattr(result, name) for count, result in steps) / total
        for name in ("task_loss", "filter_loss", "accuracy")
    }
    rate = trainer.recipe.rate_at(epoch)
    phase = work.job.variant or "interpretable"
    after, _ = trainer.evaluate(source, held)
    return [
        _row(epoch + 1, phase, split, result, images, rate)
        for split, result, images in (("train", Result(**means), total), ("val", after, len(held)))
    ]


def _row(epoch: int, phase: str, split: str, result: Result, images: int, rate: float) -> dict[str, Any]:
    low, high = wilson(round(result.accuracy * images), images)
    return {
        "epoch": epoch,
        "phase": phase,
        "split": split,
        "task_loss": result.task_loss,
        "filter_loss": result.filter_loss,
        "accuracy": result.accuracy,
        "low": low,
        "high": high,
        "images": images,
        "rate": rate,
    }


def _resume(work: Work, trainer: Trainer) -> tuple[int, list[dict[str, Any]]]:
    """Epochs that are done, and their rows: from the newest finished checkpoint."""
    from safetensors import safe_open

    found = work.draft.finished("checkpoint-")
    if not found:
        return 0, []
    with safe_open(work.draft.path(found[-1]), "pt") as file:
        about = json.loads(file.metadata()["about"])
        trainer.restore({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return about["epochs"], about["rows"]


def _checkpoint(work: Work, trainer: Trainer, epoch: int, rows: list[dict[str, Any]]) -> None:
    """One file, written whole before the one before it goes."""
    from safetensors.torch import save

    before = work.draft.finished("checkpoint-")
    about = {"about": json.dumps({"epochs": epoch + 1, "rows": rows})}
    work.draft.write(f"checkpoint-{epoch + 1:05d}.safetensors", save(trainer.state(), metadata=about))
    for name in before:
        work.draft.discard(name)


def _finish(
    work: Work,
    trainer: Trainer,
    source: Features,
    examples: Examples,
    rows: list[dict[str, Any]],
    about: dict[str, Any],
) -> None:
    from safetensors.torch import save

    _, logits = trainer.evaluate(source, range(len(examples.labels)))
    predicted = (logits[:, 0] > 0).long() if trainer.single else logits.argmax(1)
    work.draft.table("training", {name: [row[name] for row in rows] for name in rows[0]})
    work.draft.table(
        "finetuning_images",
        {
            "dataset": examples.datasets,
            "image": examples.images,
            "label": examples.labels,
            "split": examples.splits,
            "predicted": predicted.tolist(),
            "logit": logits.amax(1).tolist(),
        },
    )
    categories: dict[str, list[Any]] = defaultdict(list)
    for layer, membership in zip(LAYERS, trainer.membership, strict=True):
        for number, category in enumerate(membership.categories().tolist()):
            categories["layer"].append(layer)
            categories["filter"].append(number)
            categories["category"].append(examples.categories[category])
    work.draft.table("filter_categories", categories)
    state = {name: value.detach().cpu().contiguous() for name, value in trainer.network.state_dict().items()}
    work.draft.write(WEIGHTS, save(state))
    work.draft.write(ABOUT, json.dumps({**about, "categories": examples.categories}, indent=1).encode())
    for name in work.draft.finished("checkpoint-"):
        work.draft.discard(name)
