"""From an audit file to jobs: what the plans of the stages are made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from microtome.errors import InputError, suggest
from microtome.networks.identity import network_digest
from microtome.networks.load import NetworkSpec
from microtome.networks.normalisation import Normalisation
from microtome.networks.preprocessing import Preprocessing
from microtome.networks.zoo import is_timm, is_timm_name
from storage import Files
from storage.digests import FileDigests, absolute
from storage.files import StoreError
from storage.tensors import ROW_GROUP
from tasks.data import DataPlace, DataSpec, data_spec
from tasks.noted import NotedFiles
from tasks.options import Count, Options, Positive, Size, Strict, Word, Words
from tasks.stage import External, Job, Settings, Stage
from tasks.stated import stated_preprocessing
from tasks.subject import Subject

AnyOptions = TypeVar("AnyOptions", bound=Options)


def _factory(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), name))):
        raise ValueError("must be module:factory, such as torchvision.models:resnet18, in full (no leading dot)")
    return text


def _network(text: str) -> str:
    if not is_timm(text):
        return _factory(text)
    if not is_timm_name(text):
        raise ValueError("must be timm:NAME or timm:NAME.TAG, such as timm:vit_tiny_patch16_224")
    return text


def _format(text: str) -> str:
    return _factory(text) if ":" in text else text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


class InputModel(Strict):
    """The network's input frame. What is left out is timm's of a network of timm's, else what is said here."""

    size: Size | None = None
    """Frame that pictures are brought to: height and width, in pixels. Only timm's networks say it themselves."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from red, green and blue, of values from 0 to 1. Left out: 0.485, 0.456, 0.406."""
    std: tuple[Positive, Positive, Positive] | None = None
    """Divided by, after the mean. Left out: 0.229, 0.224, 0.225."""
    resize: Literal["squash", "shortest-side-crop"] | None = None
    """How a picture fills the frame: stretched, or by its shorter side, the centre cut out. Left out: `squash`."""
    crop_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the resized picture's sides that is cut out. Left out: 224/256, and all of it of a stretched one."""
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] | None = None
    """What pictures are resized by. Left out: `bilinear`."""

    @property
    def given(self) -> dict[str, object]:
        """The keys that are not left out."""
        return {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}


class NetworkModel(Strict):
    """The network under audit."""

    load: Annotated[str, AfterValidator(_network)]
    """`module:factory` (looked for beside the audit file first; it runs code), or `timm:NAME`, a network of timm's."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the factory."""
    weights: Word | None = None
    """File of weights, or the name of torchvision's; random weights where left out."""
    layers: Words
    """Dotted names of the layers looked at; globs (`*`, `?`) mean what gives maps. `NAME.heads`: a unit per head."""
    input: InputModel = InputModel()
    """How a picture becomes the network's input."""

    @model_validator(mode="after")
    def _size_is_known(self) -> NetworkModel:
        if self.input.size is None and not is_timm(self.load):
            raise ValueError("input.size: must be given, height and width, as only timm's networks say it themselves")
        return self


class DatasetModel(Strict):
    """A data set; keys beyond these are options of its format."""

    model_config = ConfigDict(extra="allow")

    format: Annotated[str, AfterValidator(_format)]
    """Name of a format, or `module:factory` of a data set of your own."""
    root: Word | None = None
    """Folder or file that holds it; or an address, `s3://bucket/prefix`: what lies there is brought to this machine."""
    split: Words | None = None
    """Splits that are taken; all where left out."""
    categories: Words | None = None
    """Categories that are taken; all where left out."""
    crop: Literal["none", "object"] | None = None
    """Whether pictures are cropped to their object; left out, `animal-parts`, `voc-parts` and `cub` are."""
    crop_margin: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Margin around the object, as a share of its longer side."""
    mask_size: Size | None = None
    """Height and width that masks are brought to; half the frame where left out."""
    limit: Count | None = None
    """At most so many pictures, the first ones."""

    @property
    def options(self) -> dict[str, object]:
        """The format's own keys."""
        return dict(self.model_extra or {})


def _divides(batch: int) -> int:
    if ROW_GROUP % batch:
        raise ValueError(f"must divide {ROW_GROUP}, the pictures whose maps are stored together")
    return batch


def _scheduler(text: str) -> str:
    scheme, _, place = text.partition("://")
    if scheme not in ("tcp", "tls", "ws", "wss", "ucx") or not place:
        raise ValueError("must be a Dask scheduler's, such as tcp://127.0.0.1:8786")
    return text


class PoolsModel(Strict):
    """Work pools of Prefect, each with a deployment of the flow `stage`."""

    gpu: Word
    """What computes on the audit's device goes there, where that is a GPU."""
    cpu: Word
    """All else goes there."""


class ExecutionModel(Strict):
    """How it is carried out; none of it changes a result but `precision`, `batch`, `arithmetic`, `engine` and
    `layout`."""

    runner: Literal["local", "dask", "workers"] = "local"
    """Who does the work: this machine, the workers of a Dask cluster, or those of Prefect's pools."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes of this machine that do it; with `dask` and no address, workers of the cluster that is made for it."""
    address: Annotated[str, AfterValidator(_scheduler)] | None = None
    """Of the scheduler of a Dask cluster; one is made on this machine where left out."""
    pools: PoolsModel | None = None
    """Pools whose workers do it, where the runner is `workers`."""
    precision: Literal["float32", "float16"] = "float32"
    """Of stored maps."""
    batch: Annotated[int, Field(ge=1, le=ROW_GROUP), AfterValidator(_divides)] = 16
    """Pictures of a forward pass that makes maps, a divisor of 48; half of it where they do not fit into memory."""
    arithmetic: Literal["float32", "tf32", "bf16"] = "float32"
    """Of the forward pass that makes maps: factors are rounded to 11 bits by `tf32`, on CUDA alone, to 8 by `bf16`."""
    engine: Literal["eager", "compiled"] = "eager"
    """What makes the maps: the network as it is, or what `torch.compile` makes of it, which differs in last bits."""
    layout: Literal["contiguous", "channels_last"] = "contiguous"
    """Of pictures and weights in memory while maps are made; `plan` says where the other one would be quicker."""
    storage: Literal["auto", "none", "lz4", "zstd", "recompute"] = "auto"
    """How maps are compressed; or `recompute`: not stored, but made again by each stage that reads them. `auto` stores
    them where the disk can hold them."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of the computation; all cores where left out."""
    shard_images: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Pictures of a shard of maps; 480 where left out."""

    @model_validator(mode="after")
    def _of_the_runner(self) -> ExecutionModel:
        if self.address and self.runner != "dask":
            raise ValueError("address: is of a Dask cluster, so it goes with runner: dask alone")
        if self.address and self.processes > 1:
            raise ValueError("processes: is of a cluster that is made, so it goes with no address")
        if (self.pools is not None) != (self.runner == "workers"):
            raise ValueError("pools: must be given, gpu and cpu, where the runner is workers, and nowhere else")
        return self


class AuditFile(Strict):
    """What every audit file has beside its stages and gates."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
    """Of the audit: its runs are listed and compared under it."""
    network: NetworkModel
    """The network under audit."""
    dataset: DatasetModel | None = None
    """The one data set of the audit, called `main`."""
    datasets: dict[str, DatasetModel] = {}
    """Several data sets with the keys of `dataset`, by names that stages refer to."""
    workspace: Word = ".microtome"
    """Folder for results, from the audit file's folder; or an address, `s3://bucket/prefix`, or `block://TYPE/NAME`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # scikit-learn takes no more
    """Of all that is drawn at random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are run."""
    execution: ExecutionModel = ExecutionModel()
    """How it is carried out."""

    @model_validator(mode="after")
    def _data_sets(self) -> AuditFile:
        if (self.dataset is None) == (not self.datasets):
            raise ValueError("must have either `dataset` or `datasets`")
        return self

    @property
    def named_datasets(self) -> Mapping[str, DatasetModel]:
        """Data sets by name; a single one is called `main`."""
        return self.datasets or ({"main": self.dataset} if self.dataset else {})


class Planner:
    """The audit file in hand, and the jobs so far.

    Args:
        audit: the file, without its stages.
        asked: options of the stages that it asks for.
        base: folder that relative paths start from.
        files: the workspace.
        settings: of the audit.
        reread: whether every input file is read, whatever is remembered of it.
    """

    def __init__(
        self,
        audit: AuditFile,
        asked: Mapping[str, Options],
        *,
        base: Path,
        files: Files,
        settings: Settings,
        reread: bool = False,
    ) -> None:
        self.audit, self.base, self.files, self.settings = audit, base, files, settings
        self.digests = FileDigests(files, reread=reread)
        self._noted: dict[str, NotedFiles] = {}
        self.jobs: dict[str, Job] = {}
        self._asked = asked
        self._data: dict[str, DataSpec] = {}

    def asked(self, options: type[AnyOptions]) -> AnyOptions | None:
        """The options of a stage, by their model; None where the audit does not ask for it."""
        return next((found for found in self._asked.values() if isinstance(found, options)), None)

    def add(self, job: Job) -> Job:
        """Take a job into the audit, with what it reads; the same job asked for twice is one.

        Raises:
            InputError: a data set has the name of a stage's own variant.
            RuntimeError: another job has its name: a plan must give it a variant.
        """
        for needed in job.jobs.values():
            self.add(needed)
        known = self.jobs.setdefault(job.name, job)
        if known.key != job.key:
            if job.variant in self.audit.named_datasets:
                raise InputError(
                    f"datasets.{job.variant}: must not be what a stage calls its own, got {job.name!r} twice; rename "
                    "the data set"
                )
            raise RuntimeError(f"a job's name must mean one job, got two that are called {job.name!r}; name a variant")
        return known

    def job(
        self,
        stage: Stage,
        options: Options,
        reads: Mapping[str, Job | External | None],
        *,
        variant: str = "",
        roots: tuple[str, ...] = (),
    ) -> Job:
        """A job of this audit; what it would read and the audit does not have (None) is left out."""
        there = {name: read for name, read in reads.items() if read is not None}
        return Job(stage, options, self.settings, there, variant, roots)

    @cached_property
    def network(self) -> Subject:
        """The network under audit."""
        model = self.audit.network
        named = [layer for options in self._asked.values() for layer in options.layers_named.values()]
        layers = tuple(dict.fromkeys([*model.layers, *named]))
        spec = NetworkSpec(model.load, model.arguments, model.weights, self.base, self.audit.seed, layers)
        return Subject(spec, self.scale, network_digest(spec, self.noted("network")))

    @property
    def described(self) -> dict[str, object]:
        """The audit file as JSON values, with the preprocessing in full; without where and how it is carried out."""
        found = self.audit.model_dump(mode="json", exclude={"execution", "workspace"}, exclude_none=True)
        taken = InputModel(**asdict(self.input)).model_dump(mode="json", exclude_none=True)
        return {**found, "network": {**found["network"], "input": taken}}

    @cached_property
    def input(self) -> Preprocessing:
        """How a picture becomes the network's input: the file's keys, and for what it leaves out the network's own.

        Raises:
            InputError: the network is timm's, which is not installed, or has no such network.
        """
        model = self.audit.network
        if is_timm(model.load):
            own = stated_preprocessing(model.load, model.arguments, self.files)
            share = {} if model.input.resize in (None, own.resize) else {"crop_share": None}  # it is of that way
            return Preprocessing.of({**asdict(own), **share, **model.input.given})
        return Preprocessing.of(model.input.given)

    @property
    def scale(self) -> Normalisation:
        """How pixels become the network's input."""
        return self.input.scale

    def data(self, name: str, key: str) -> DataSpec:
        """A data set of the audit file; opened and hashed once, however many stages read it.

        Args:
            name: in the file.
            key: that named it, for the error.

        Raises:
            InputError: no such data set, or it cannot be opened.
        """
        named = self.audit.named_datasets
        if name not in named:
            raise InputError(f"{key}: no data set {name!r}{suggest(name, list(named))}")
        if name not in self._data:
            model = named[name]
            key = f"datasets.{name}" if self.audit.datasets else "dataset"
            root = self._root(model.root, key) if model.root else None
            place = DataPlace(model.format, root, model.options, self.base)
            self._data[name] = data_spec(place, self.scale, self.noted(f"data set {name}"))
        return self._data[name]

    def _root(self, root: str, key: str) -> Path:
        """A data set's folder; what lies in an object store is brought to this machine. Raises InputError."""
        if "://" not in root:
            return self.base / root
        from storage.brought import brought  # here: most data sets are folders

        try:
            return brought(root, self.files.say)
        except (ValueError, StoreError) as error:
            raise InputError(f"{key}.root: {error}") from error

    @property
    def inputs(self) -> dict[str, dict[str, str]]:
        """Of every network and data set: content digests of their files, by absolute path; put together when asked."""
        return {of: dict(noted) for of, noted in self._noted.items()}

    def noted(self, of: str) -> Callable[[Path], str]:
        """Digests of files, each noted among the audit's inputs, which `microtome verify` reads again.

        Args:
            of: what the files are of, as `inputs` calls it.
        """
        noted = self._noted.setdefault(of, NotedFiles())

        def digest(file: Path) -> str:
            found = self.digests.of(file)
            noted.note(absolute(file), found)
            return found

        return digest
