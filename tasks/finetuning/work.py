"""Stage `finetuning`: an interpretable CNN from the audit's network, by a checkpoint an epoch, resumable to the bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from microtome.disentangle.examples import HELD_OUT, TRAIN, Examples, examples
from microtome.disentangle.interpretable import InterpretableCNN, frozen_below, interpretable_cnn
from microtome.disentangle.names import LAYERS
from microtome.disentangle.probe import fit_probe
from microtome.disentangle.rate import found_rate
from microtome.disentangle.training import Result, Trainer, TrainingRecipe, together
from microtome.quantify.intervals import wilson
from storage import Draft
from storage.tables import Columns, Row, from_rows
from tasks.finetuning import TrainingOptions
from tasks.finetuning.features import Features
from tasks.finetuning.result import ABOUT, WEIGHTS
from tasks.finetuning.sets import Sets
from tasks.session import Session
from tasks.subject import Subject

SMALL_BELOW = 10_000  # images
CHECKPOINT = "checkpoint-"
FACTORY = "microtome.disentangle.interpretable:interpretable_cnn"
Rows = list[Row]


@dataclass(frozen=True, kw_only=True)
class Inputs(Sets):
    """The pictures, and the network under audit."""

    network: Subject


def run(options: TrainingOptions, inputs: Inputs, draft: Draft, session: Session) -> None:
    """Train, or go on training."""
    found = examples(inputs.labelled(), options.category, seed=session.seed, folds=options.folds, fold=options.fold)
    arguments = _arguments(options, inputs, found, session.seed)
    spec = inputs.network.spec
    network = interpretable_cnn(**arguments, weights=spec.weights, root=str(spec.root))
    trainer = _trainer(options, network.to(session.device), found, session.seed)
    session.begin(options.epochs * len(found.split(TRAIN)))
    features = Features(inputs.sources, found, trainer.base, session)
    training = _Training(options, draft, session, found, trainer, features)
    ceiling = training.probe()
    rows = training.epochs()
    trainer.finish(features, found.split(TRAIN))
    training.write(rows, ceiling)
    about = {"load": FACTORY, "arguments": arguments, "categories": found.categories}
    draft.write(ABOUT, json.dumps(about, indent=1).encode())
    for name in draft.finished(CHECKPOINT):
        draft.discard(name)


def _arguments(options: TrainingOptions, inputs: Inputs, found: Examples, seed: int) -> dict[str, Any]:
    """What `interpretable_cnn` takes beside weights, as JSON values."""
    return {
        "backbone": inputs.network.spec.load,
        "size": list(inputs.index.frame.size),
        "arguments": dict(inputs.network.spec.arguments),
        "classes": 1 if len(found.categories) == 2 else len(found.categories),
        "head": options.head if options.head != "auto" else "linear" if len(found) < SMALL_BELOW else "paper",
        "mask": options.mask.model_dump() if options.mask else None,
        "seed": seed,
    }


def _trainer(options: TrainingOptions, network: InterpretableCNN, found: Examples, seed: int) -> Trainer:
    rate = (0.0, 0.0) if options.rate == "auto" else options.rate
    recipe = TrainingRecipe(options.epochs, options.batch, rate, options.strength, seed)
    frozen = frozen_below(network.features, options.freeze_below)
    return Trainer(network, frozen, recipe, background=found.background)


@dataclass(frozen=True)
class _Training:
    """A training under way."""

    options: TrainingOptions
    draft: Draft
    session: Session
    found: Examples
    trainer: Trainer
    features: Features

    def epochs(self) -> Rows:
        """All that are not done yet; gives the rows of all of them."""
        done, rows = self.resumed()
        if not done:
            self.begin()
        self.session.progress.advance(self.session.name, done * len(self.found.split(TRAIN)))
        for epoch in range(done, self.options.epochs):
            rows = [*rows, *self.epoch(epoch)]
            self.keep(epoch + 1, rows)
            self.session.check()
        return rows

    def epoch(self, number: int) -> Rows:
        """Train for one epoch, and look at the held-out pictures."""
        seen = partial(self.session.progress.advance, self.session.name)
        steps = self.trainer.epoch(number, self.features, self.found.split(TRAIN), seen)
        held = self.found.split(HELD_OUT)
        after, _ = self.trainer.evaluate(self.features, held)
        sides = ((TRAIN, together(steps), sum(count for count, _ in steps)), (HELD_OUT, after, len(held)))
        about = {"epoch": number + 1, "phase": self.options.phase, "rate": self.trainer.rate_at(number)}
        about["halvings"] = self.trainer.halvings
        return [{**about, "split": split, **_measured(result, images)} for split, result, images in sides]

    def begin(self) -> None:
        """Before the first epoch: where the head starts, and the rate."""
        inside = self.found.split(TRAIN)
        self.trainer.start(self.features, inside)
        if self.options.rate == "auto":
            self.trainer.train_at(found_rate(self.trainer, self.features, inside))

    def probe(self) -> Row:
        """What a linear probe of the backbone as it is makes of the held-out pictures: what training should reach."""
        inside, held = self.found.split(TRAIN), self.found.split(HELD_OUT)
        read, labels = self.trainer.backbone(self.features, inside)
        right = fit_probe(read, labels).right(*self.trainer.backbone(self.features, held, mirror=False))
        low, high = wilson(int(right.sum()), len(held))
        return {"probe": float(right.mean()), "probe_low": low, "probe_high": high}

    def resumed(self) -> tuple[int, Rows]:
        """Epochs that are done, and their rows: from the newest finished checkpoint."""
        from safetensors import safe_open

        found = self.draft.finished(CHECKPOINT)
        if not found:
            return 0, []
        with safe_open(self.draft.path(found[-1]), "pt") as file:
            about = json.loads(file.metadata()["about"])
            self.trainer.restore({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        self.trainer.train_at(*about["rate"])
        return about["epochs"], about["rows"]

    def keep(self, epochs: int, rows: Rows) -> None:
        """One file, written whole before the one before it goes."""
        from safetensors.torch import save

        before = self.draft.finished(CHECKPOINT)
        about = {"about": json.dumps({"epochs": epochs, "rows": rows, "rate": self.trainer.recipe.rate})}
        self.draft.write(f"{CHECKPOINT}{epochs:05d}.safetensors", save(self.trainer.state(), metadata=about))
        for name in before:
            self.draft.discard(name)

    def write(self, rows: Rows, ceiling: Row) -> None:
        """The tables, and the network."""
        from safetensors.torch import save

        self.draft.table("training", from_rows(list(rows[0]), rows))
        answers = self.answers()
        self.draft.table("finetuning_images", answers)
        summary = {**self.summary(answers), **ceiling, "rate": self.trainer.recipe.rate[0]}
        self.draft.table("finetuning_summary", from_rows(list(summary), [summary]))
        self.draft.table("filter_categories", from_rows(("layer", "filter", "category"), self.categories()))
        state = {name: value.detach().cpu().contiguous() for name, value in self.trainer.network.state_dict().items()}
        self.draft.write(WEIGHTS, save(state))

    def summary(self, answers: Columns) -> Row:
        """What the finished network learned, beside what it would get by always saying the same."""
        held = np.array(self.found.split(HELD_OUT))
        labels, said = np.array(self.found.labels), np.array(answers["predicted"])
        majority = np.bincount(labels[self.found.split(TRAIN)]).argmax()
        right, share = int((said == labels)[held].sum()), float((labels[held] == majority).mean())
        low, high = wilson(right, len(held))
        return {
            "phase": self.options.phase,
            "images": len(held),
            "accuracy": right / len(held),
            "low": low,
            "high": high,
            "majority": share,
            "learned": low > share,
        }

    def answers(self) -> Columns:
        """What the finished network says of every picture."""
        _, logits = self.trainer.evaluate(self.features, range(len(self.found)))
        return {
            "dataset": self.found.sides,
            "image": self.found.images,
            "label": self.found.labels,
            "split": self.found.splits,
            "predicted": self.trainer.predicted(logits).tolist(),
            "logit": logits.amax(1).tolist(),
        }

    def categories(self) -> Rows:
        """Which class each filter belongs to."""
        return [
            {"layer": layer, "filter": number, "category": self.found.categories[category]}
            for layer, membership in zip(LAYERS, self.trainer.membership, strict=True)
            for number, category in enumerate(membership.categories().tolist())
        ]


def _measured(result: Result, images: int) -> Row:
    low, high = wilson(round(result.accuracy * images), images)
    return {
        "task_loss": result.task_loss,
        "filter_loss": result.filter_loss,
        "accuracy": result.accuracy,
        "low": low,
        "high": high,
        "images": images,
    }
