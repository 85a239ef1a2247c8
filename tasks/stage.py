"""What a stage is: one declaration, from which the audit file, the DAG, SQL, the report and the docs are made.

A stage lives in `tasks/<stage>/`: `__init__.py` holds its declaration, which must not import torch, so that planning
stays quick; `work.py` holds `Inputs` (typed readers of what it reads) and `run(options, inputs, draft, session)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from microtome.closure import closure
from microtome.errors import InputError
from storage import Draft, StageKey, TableSchema
from tasks.options import Options
from tasks.pace import Pace

if TYPE_CHECKING:
    import torch

    from tasks.planning import Planner

HANDED = ("storage.stages:Draft", "storage.tables:TableSchema", "tasks.session:Session")
"""What work is handed beside its options and inputs: it calls them, and names them in annotations at most."""
ARITHMETIC = "microtome.arithmetic:computing"
"""What torch is set to compute in while work is done."""


@dataclass(frozen=True)
class Metric:
    """A figure that gates may ask for: a column of one of the stage's tables, and of its interval where it has one.

    Args:
        table, column: where it stands.
        low, high: columns of its 95 % interval.
        keys: columns that tell the table's rows apart; a gate names them, for its figure is that of one row.
        nullable: further ones, which may be null: where a gate leaves one out, the row is meant in which it is null.
    """

    table: str
    column: str
    low: str | None = None
    high: str | None = None
    keys: tuple[str, ...] = ()
    nullable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Headline:
    """Figures of a stage that runs are compared by: one for each row of a metric's table that is wanted.

    Args:
        metric: `table.column`.
        words: what it is called, for example `confirmed detectors`.
        rows: values that columns of a wanted row have; several as a tuple.
        latest: column whose greatest value is wanted alone, such as the last epoch.
        median: whether the rows are of a sample, and their median is the figure.
    """

    metric: str
    words: str
    rows: Mapping[str, object] = field(default_factory=dict, hash=False)
    latest: str = ""
    median: bool = False


@dataclass(frozen=True)
class PageOf:
    """What the report shows of a stage.

    Args:
        findings: `module:function` of tasks, from the stage's readers to a frozen dataclass.
        page: `module:function` of microtome.report, from that to a page.
        units: `module:function` of microtome.report, from that to sections of units' own pages; empty for none.
    """

    findings: str
    page: str
    units: str = ""

    @property
    def roots(self) -> tuple[str, ...]:
        """Where the code of what is shown begins."""
        return tuple(root for root in (self.findings, self.page, self.units) if root)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage's declaration.

    Args:
        name: as users write it.
        about: what it does, in one sentence.
        options: the model that the audit file shows, or that other stages' plans fill in.
        work: `module:function` that does the work; imported when it is needed.
        tables: that it writes, and no other stage declares.
        fills: tables of other stages that it writes, too, as far as it can: SQL shows the rows of all of them.
        plan: from the options that the audit file gives to jobs; None for a stage that only others pull in.
        determined_by: what else determines its output: the audit's seed, the device, on a CPU the threads that sums
            are split over.
        threads: that torch may use in it: `all`, `one`, or `none` where it does not use torch.
        network: what it asks of the audit's network, if it loads it: `maps` of layers, or its `answer` too. That is
            looked at before the first stage.
        metrics: that gates may ask for.
        headlines: that runs are compared by, and whose trend is shown; each of one of the metrics.
        page: what the report shows of it.
        starter: its lines of `microtome init`.
        cost: seconds foreseen for a first `plan`, from the options and the pace of a few pictures.
        retries: how often a run that fails for the outside's sake (disk, network) is tried again.
        sharded: what its shards' sizes count, such as `images`; empty where its work does not split. Where it does, the
            module of the work has, beside `run`, which then merges: `shards(options, inputs, done)`, the names of all
            shards with their sizes, light and without torch (`done`: those that an interrupted run has finished), and
            `Shard(options, inputs, session)`, made once in a process, whose call `(draft, name)` writes the files of
            one. They depend on its name alone, so who carries it out, and beside what, changes no byte.
        files: files beside the code that determine the output, below the project's root; folders whole.
        preflight: `module:function` of (options, network, (height, width)), called before the first stage spends time;
            it raises InputError for what could only fail later.
    """

    name: str
    about: str
    options: type[Options]
    work: str
    tables: tuple[TableSchema, ...] = ()
    fills: tuple[TableSchema, ...] = ()
    plan: Callable[[Planner, Any], Iterable[Job]] | None = None
    determined_by: frozenset[Literal["seed", "device", "threads"]] = frozenset()
    threads: Literal["all", "one", "none"] = "none"
    network: Literal["maps", "answer"] | None = None
    metrics: tuple[Metric, ...] = ()
    headlines: tuple[Headline, ...] = ()
    page: PageOf | None = None
    starter: str = ""
    cost: Callable[[Any, Pace], float] = lambda _options, _pace: 0.0
    retries: int = 0
    sharded: str = ""
    files: tuple[str, ...] = ()
    preflight: str = ""

    @property
    def module(self) -> str:
        """Module of its work."""
        return self.work.partition(":")[0]

    @property
    def run(self) -> Callable[..., None]:
        """The function that does its work."""
        work: Callable[..., None] = _named(self.work)
        return work

    @property
    def shards(self) -> Callable[..., dict[str, int]]:
        """From options, inputs and the finished ones to the names and sizes of its shards."""
        shards: Callable[..., dict[str, int]] = _named(f"{self.module}:shards")
        return shards

    @property
    def shard(self) -> Callable[..., Callable[[Draft, str], None]]:
        """From options, inputs and session to what carries shards out."""
        shard: Callable[..., Callable[[Draft, str], None]] = _named(f"{self.module}:Shard")
        return shard

    def check(self, options: Options, network: torch.nn.Module, size: tuple[int, int]) -> None:
        """What its options ask of a network, before any work. Raises InputError naming the stage's keys."""
        if self.preflight:
            try:
                _named(self.preflight)(options, network, size)
            except InputError as error:
                raise InputError([f"stages.{self.name}.{fault}" for fault in error.faults]) from error

    @property
    def inputs(self) -> type[object]:
        """The frozen dataclass of typed readers that `run` takes."""
        inputs: type[object] = _named(f"{self.module}:Inputs")
        return inputs

    @property
    def roots(self) -> tuple[str, ...]:
        """Where its code begins."""
        split = ("shards", "Shard") if self.sharded else ()
        around = () if self.threads == "none" else (ARITHMETIC,)
        return (self.work, *(f"{self.module}:{name}" for name in ("Inputs", *split)), *HANDED, *around)

    @property
    def written(self) -> tuple[TableSchema, ...]:
        """Every table that it writes."""
        return (*self.tables, *self.fills)

    @property
    def shape(self) -> list[list[str]]:
        """Names and types of its tables' columns: words may change without a rerun, these may not."""
        return [
            [table.name, name, str(column.type)] for table in self.written for name, column in table.columns.items()
        ]


@lru_cache
def _named(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


class External(Protocol):
    """Something outside the workspace that a stage reads: a network, a data set, an earlier run's figures."""

    @property
    def digest(self) -> str:
        """Of all that determines its content."""


@dataclass(frozen=True)
class Settings:
    """What all stages of an audit share: the seed of every draw, the device, threads for computation."""

    seed: int
    device: str
    threads: int

    def determining(self, stage: Stage) -> dict[str, int | str]:
        """What of it determines a stage's output."""
        values: dict[str, int | str] = {
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads if self.device == "cpu" else 0,
        }
        return {name: values[name] for name in sorted(stage.determined_by)}


@dataclass(frozen=True, eq=False)
class Job:
    """One wanted run of a stage.

    Args:
        stage: the kind.
        options: that determine the output.
        settings: of the audit.
        reads: the jobs and outside things that it reads, by the names of its `Inputs`.
        variant: tells several runs of one stage in one audit apart: another data set, another network.
        roots: further code that determines the output, as `module:function`.
    """

    stage: Stage
    options: Options
    settings: Settings
    reads: Mapping[str, Job | External] = field(default_factory=dict)
    variant: str = ""
    roots: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the audit calls it: the stage's name, and after a colon the variant."""
        return f"{self.stage.name}:{self.variant}" if self.variant else self.stage.name

    @property
    def jobs(self) -> dict[str, Job]:
        """The jobs among what it reads."""
        return {name: read for name, read in self.reads.items() if isinstance(read, Job)}

    def called(self, names: Collection[str]) -> bool:
        """Whether one of these names means it; a stage's name means all of its variants."""
        return self.name in names or self.stage.name in names

    @cached_property
    def key(self) -> StageKey:
        """What names the output."""
        reads = {name: read.key.digest if isinstance(read, Job) else read.digest for name, read in self.reads.items()}
        parameters = {"options": self.options.determining(), "settings": self.settings.determining(self.stage)}
        return StageKey(self.stage.name, code_digest(self.stage, self.roots), parameters, reads)


@lru_cache
def code_digest(stage: Stage, more: tuple[str, ...] = ()) -> str:
    """Digest of all code that a stage's output depends on: what its work reaches, definition by definition, the
    packages that compute, its files, the types of its tables, and how many threads torch may sum in.

    Args:
        stage: whose.
        more: further `module:function` roots.
    """
    reached = closure([*stage.roots, *more], files=stage.files)
    return hashlib.sha256(f"{reached.digest} {stage.shape!r} {stage.threads}".encode()).hexdigest()[:16]
