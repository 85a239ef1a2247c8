"""Stages on objects in memory: no audit file, no Prefect, no workspace.

    import microtome
    result = microtome.dissect(model, dataset, layers=["layer4"])
    result.to_pandas()

The same stages as an audit's, planned and carried out by the same code in a folder that goes with the result, so that
every figure is the audit's, bit for bit.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from flows.again import halved
from flows.auditfile import AuditModel, understood
from flows.console import progress, warn
from flows.plan import device_of, threads_of
from flows.text import figure_line
from flows.yamlfile import override
from microtome.datasets.base import Dataset
from microtome.datasets.pairs import Pair, Pairs
from microtome.errors import InputError, OutOfMemory, refuse, suggest
from microtome.handed import hand_over
from microtome.missing import needing
from microtome.report.plots import ranked
from storage import Artifact, open_files
from tasks.execution import execute, outside_of
from tasks.finetuning.result import Finetuned
from tasks.headlines import headlines
from tasks.planning import Planner
from tasks.preflight import Looked
from tasks.registry import BY_NAME
from tasks.report import ReportOptions
from tasks.report import plan as plan_report
from tasks.session import Session
from tasks.stage import Settings, Stage

if TYPE_CHECKING:
    import altair
    import pandas
    import torch

Data = Dataset | Iterable[Pair]
"""A data set, or a list of (picture, masks): see `microtome.datasets.pairs.Pairs`."""
INPUT: Mapping[str, object] = {"size": [224, 224]}
"""How a picture becomes the network's input, with the keys of the audit file: size, mean, std, resize."""
OTHERS = "negatives"  # what the second data set is called in tables and options
NO_ARGUMENTS = ("stage", "name", "options")  # of a function, though its parameters are called so


P = ParamSpec("P")


@dataclass(frozen=True, repr=False)
class Found:
    """What a stage found. Its files lie in a folder that goes when this is no longer used.

    Args:
        stage: that was asked for.
        planner: its jobs.
        session: of the work.
        artifacts: what the jobs wrote, by name.
    """

    stage: Stage
    planner: Planner
    session: Session
    artifacts: dict[str, Artifact]
    kept: tuple[object, ...]  # what must not be collected: folder, model, data

    @property
    def tables(self) -> list[str]:
        """Names of all tables, the stage's own first, then those of what it reads."""
        own = [table.name for table in self.stage.tables if self._written(table.name)]
        jobs = self.planner.jobs.values()
        every = [table.name for job in jobs for table in job.stage.tables if self._written(table.name)]
        return list(dict.fromkeys(own + every))

    def to_pandas(self, table: str | None = None) -> pandas.DataFrame:
        """A table; its columns are explained in docs/tables.md.

        Args:
            table: its name, one of `tables`; the stage's first one where left out.

        Raises:
            InputError: there is no such table.
        """
        import pandas

        name = table or self.tables[0]
        written = self._written(name)
        if not written:
            raise InputError(f"table: {self.stage.name} has no {name!r}{suggest(name, self.tables)}")
        frames = {variant: self.artifacts[variant].table(name).to_pandas() for variant in written}
        if len(frames) == 1:
            return next(iter(frames.values()))
        return pandas.concat(frames, names=["variant", None]).reset_index("variant").reset_index(drop=True)

    def plot(self, column: str | None = None, *, table: str | None = None, most: int = 30) -> altair.LayerChart:
        """The highest values of a column, with their 95 % intervals where the table has them.

        Args:
            column: its name; the first with an interval where left out.
            table: as in `to_pandas`.
            most: rows that are drawn.

        Raises:
            InputError: there is no such table or column; or Altair is not installed.
        """
        name = table or self.tables[0]
        with needing("plot()"):
            return ranked(self.to_pandas(name), column, most=most, title=f"{self.stage.name}: {name}")

    def report(self, path: str | Path) -> Path:
        """Write the pages of a report.

        Args:
            path: a folder, which is made; pages of the same names in it are replaced.

        Returns:
            its first page.

        Raises:
            InputError: the folder cannot be written; or a package that draws pages is not installed.
        """
        with needing("report()"):
            for job in plan_report(self.planner, ReportOptions()):
                pages, _ = execute(job, self.session)
        try:
            shutil.copytree(self.session.files.location(pages.folder), path, ignore=_not_pages, dirs_exist_ok=True)
        except OSError as error:  # shutil's own, of several files, too
            raise InputError(f"path: must be a folder that can be written, got {path} ({error})") from error
        return Path(path) / "index.html"

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network that `finetune` trained. Raises InputError for every other stage."""
        job = self.planner.jobs[self.stage.name]
        if self.stage is not BY_NAME["finetuning"]:
            raise InputError(f"network: only finetune() makes one, got the result of {self.stage.name}")
        return Finetuned(self.artifacts[job.name], outside_of(job)).load()

    def __repr__(self) -> str:
        """What it is, its headline figures, and where the rest is."""
        figures = [figure_line(figure) for figure in headlines(self.artifacts) if figure["stage"] == self.stage.name]
        more = f"tables: {', '.join(self.tables)}; see to_pandas(), plot() and report(path)"
        return "\n".join([f"{self.stage.name}: {self.stage.about}", *figures, more])

    def _repr_html_(self) -> str:
        frame = self.to_pandas()
        return f"<p><b>{self.stage.name}</b>, table {self.tables[0]}: {self.stage.about}</p>{frame._repr_html_()}"

    def _written(self, table: str) -> list[str]:
        """Jobs that wrote a table."""
        return [name for name, artifact in self.artifacts.items() if artifact.has(f"{table}.parquet")]


def _not_pages(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("manifest.json", "cover.json", "cover.webp") or name.startswith(".")]


def _carried_out(
    stage: Stage,
    name: str,
    /,
    model: torch.nn.Module,
    dataset: Data,
    *,
    layers: Sequence[str],
    input: Mapping[str, object] = INPUT,
    negatives: Data | None = None,
    seed: int = 0,
    device: str = "auto",
    **options: object,
) -> Found:
    data = {"main": _data(dataset)} | ({OTHERS: _data(negatives)} if negatives is not None else {})
    network = {
        "load": "microtome.handed:network",
        "arguments": {"number": hand_over(model)},
        "layers": [layers] if isinstance(layers, str) else list(layers),
        "input": dict(input),
    }
    others = {"negatives": OTHERS} if negatives is not None else {}
    content: dict[str, object] = {
        "name": type(model).__name__,
        "network": network,
        "datasets": {
            key: {"format": "microtome.handed:dataset", "number": hand_over(found)} for key, found in data.items()
        },
        "stages": {stage.name: {**options, **others}},
        "seed": seed,
        "device": device,
    }
    folder = tempfile.TemporaryDirectory(prefix="microtome-")
    while True:
        try:
            audit = _understood(stage, name, content, options)
            return _found(stage, audit, Path(folder.name), (folder, model, data))
        except OutOfMemory as error:
            override(content, halved(error))


def _direct(work: Callable[Concatenate[Stage, str, P], Found], name: str, stage_name: str) -> Callable[P, Found]:
    """The function that carries one stage out: `work` with the stage and the function's name."""
    stage, whole = BY_NAME[stage_name], signature(work)
    own = whole.replace(parameters=list(whole.parameters.values())[2:])

    def carry_out(*given: P.args, **named: P.kwargs) -> Found:
        try:
            own.bind(*given, **named)
        except TypeError as error:
            refuse(list(_unknown(stage, name, named).values()))  # who misspells one lacks it, too
            raise TypeError(f"microtome.{name}: {error}") from None
        return work(stage, name, *given, **named)

    carry_out.__name__ = carry_out.__qualname__ = name
    carry_out.__doc__ = _described(stage)
    carry_out.__signature__ = own  # type: ignore[attr-defined]
    return carry_out


def _unknown(stage: Stage, name: str, named: Iterable[str]) -> dict[str, str]:
    """A fault for every name that is neither an argument of the function nor an option of its stage."""
    arguments, where = signature(_carried_out).parameters, f"microtome.{name}"
    known = [key for key in dict.fromkeys([*arguments, *stage.options.model_fields]) if key not in NO_ARGUMENTS]
    wrong = [given for given in named if given not in known]
    return {given: f"{where}: {given}: no such argument{suggest(given, known)}" for given in wrong}


def _understood(stage: Stage, name: str, content: dict[str, object], options: Iterable[str]) -> AuditModel:
    """The audit that a call stands for. Raises InputError: all that is wrong; what is no option is no argument."""
    where = f"microtome.{name}"
    try:
        return understood(content, where)
    except InputError as error:
        unknown = _unknown(stage, name, options).items()
        faults = {f"{where}: stages.{stage.name}.{given}: unknown key": fault for given, fault in unknown}
        raise InputError([faults.get(fault.partition(";")[0], fault) for fault in error.faults]) from None


def _data(given: Data) -> Dataset:
    return given if isinstance(given, Dataset) else Pairs(given)


def _found(stage: Stage, audit: AuditModel, folder: Path, kept: tuple[object, ...]) -> Found:
    files = open_files(str(folder), say=warn)
    settings = Settings(audit.seed, device_of(audit.device), threads_of(audit))
    planner = Planner(audit, audit.asked, base=folder, files=files, settings=settings)
    for job in stage.plan(planner, audit.asked[stage.name]) if stage.plan else ():
        planner.add(job)
    looking = [job for job in planner.jobs.values() if job.stage.network]
    if looking:
        looked = Looked(planner, planner.network, looking)
        looked.check()
        looked.probe()
        for caution in looked.cautions:
            warn(caution)
    session = Session(files, settings, progress())
    artifacts = {name: execute(job, session)[0] for name, job in planner.jobs.items()}
    return Found(stage, planner, session, artifacts, kept)


def _described(stage: Stage) -> str:
    """The docstring: what the stage does, and its options, as it declares them."""
    options = [
        f"        {name}: {field.description} Default: {field.get_default(call_default_factory=True)!r}."
        for name, field in stage.options.model_fields.items()
        if name not in ("dataset", "negatives")
    ]
    return f"{stage.about}\n\n{CALLED}\n{chr(10).join(options)}\n\n{GIVES}\n"


CALLED = """\
    Args:
        model: any module that takes (pictures, 3, height, width); it is copied, and never changed.
        dataset: a data set of `microtome.datasets`, or a list of (picture, {concept: mask}).
        layers: dotted names; `*` and `?` stand for any characters.
        input: how a picture becomes the network's input: `size` (height, width), `mean`, `std`, `resize`.
        negatives: pictures that a category is told from, for the stages that take such.
        seed: of all that is drawn at random.
        device: `auto`, `cpu` or `cuda`."""
GIVES = """\
    Returns:
        what was found: `.to_pandas()`, `.plot()`, `.report(folder)`.

    Raises:
        InputError: any of this is wrong; all faults, by their keys in an audit file."""

dissect = _direct(_carried_out, "dissect", "dissection")
formulas = _direct(_carried_out, "formulas", "formulas")
dictionary = _direct(_carried_out, "dictionary", "dictionary")
ablation = _direct(_carried_out, "ablation", "ablation")
scores = _direct(_carried_out, "scores", "scores")
stability = _direct(_carried_out, "stability", "stability")
tree = _direct(_carried_out, "tree", "tree")
graph = _direct(_carried_out, "graph", "graph")
parts = _direct(_carried_out, "parts", "parts")
saliency = _direct(_carried_out, "saliency", "saliency")
features = _direct(_carried_out, "features", "features")
reliability = _direct(_carried_out, "reliability", "reliability")
occlusion = _direct(_carried_out, "occlusion", "occlusion")
attack = _direct(_carried_out, "attack", "adversarial")
finetune = _direct(_carried_out, "finetune", "finetuning")
