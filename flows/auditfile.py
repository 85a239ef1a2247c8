"""The audit file: read, checked whole before anything runs, every fault named with its line and key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.yamlfile import override, read_yaml
from microtome.errors import InputError, suggest


def _factory(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module.split("."), name))):
        raise ValueError("must be module:factory, such as torchvision.models:resnet18, in full (no leading dot)")
    return text


def _format(text: str) -> str:
    return _factory(text) if ":" in text else text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


MANY = 1_000_000_000  # more is a slip of the finger, and more than some libraries can count
Side = Annotated[int, Field(ge=1, le=16384)]
Size = Annotated[tuple[Side, Side], Field(description="(height, width) in pixels")]
Share = Annotated[float, Field(gt=0, lt=1)]
Resamples = Annotated[int, Field(ge=0, le=1_000_000)]  # more would only take for ever
Deviation = Annotated[float, Field(gt=0)]
Word = Annotated[str, Field(min_length=1)]
Words = Annotated[list[Word], Field(min_length=1)]
Factory = Annotated[str, AfterValidator(_factory)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputModel(_Strict):
    """The network's input frame."""

    size: Size
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    resize: Literal["squash", "shortest-side-crop"] = "squash"


class NetworkModel(_Strict):
    """The network under audit."""

    load: Factory
    arguments: dict[str, Any] = {}
    weights: Word | None = None
    layers: Words
    input: InputModel


class DatasetModel(BaseModel):
    """A data set; keys beyond these are options of its format."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    format: Annotated[str, AfterValidator(_format)]
    root: Word | None = None
    split: Words | None = None
    categories: Words | None = None
    crop: Literal["none", "object"] = "none"
    crop_margin: Annotated[float, Field(ge=0, le=10)] = 0.0
    mask_size: Size | None = None
    limit: Annotated[int, Field(ge=1, le=MANY)] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The format's own keys."""
        return dict(self.model_extra or {})


class DissectionModel(_Strict):
    """Network Dissection."""

    dataset: str = "main"
    tail: Share = 0.005
    min_iou: Annotated[float, Field(ge=0, lt=1)] = 0.04
    bootstrap: Resamples = 1000
    permutations: Resamples = 200
    align: Literal["receptive-field", "half-pixel"] = "receptive-field"
    inclusive: bool = False
    denominator: Literal["category", "all-images"] = "category"


class StabilityModel(_Strict):
    """Location stability."""

    dataset: str = "main"
    top_images: Annotated[int, Field(ge=2, le=MANY)] = 100
    firing_only: bool = False
    category: Literal["lowest", "highest-activation"] = "lowest"
    filters: Annotated[int, Field(ge=1, le=MANY)] | None = None
    bootstrap: Resamples = 1000
    permutations: Resamples = 1000
    part_radius: Annotated[float, Field(gt=0)] | None = None


class MaskModel(_Strict):
    """Masks of interpretable layers."""

    centre: Literal["argmax", "centroid"] = "argmax"
    learned: bool = False


class FinetuningModel(_Strict):
    """Fine-tuning into an interpretable CNN."""

    dataset: str = "main"
    negatives: str | None = None
    category: str | None = None
    epochs: Annotated[int, Field(ge=1, le=MANY)] = 10
    batch: Annotated[int, Field(ge=1, le=MANY)] = 16
    rate: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.01, 0.001)
    strength: Annotated[float, Field(ge=0)] = 1.0
    mask: MaskModel | None = MaskModel()
    head: Literal["auto", "small", "paper"] = "auto"
    freeze_below: str | None = None
    folds: Annotated[int, Field(ge=2, le=MANY)] = 5
    fold: Annotated[int, Field(ge=0, le=MANY)] = 0
    controls: list[Literal["twin", "plain"]] = ["twin"]

    @model_validator(mode="after")
    def _one_fold(self) -> FinetuningModel:
        if self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds})")
        return self


class TreeModel(_Strict):
    """The decision tree of the network's rationales, or of the fine-tuned network's where there is one."""

    dataset: str = "main"
    negatives: str | None = None
    category: str | None = None
    layer: str | None = None
    output: Annotated[int, Field(ge=0, le=MANY)] | None = None
    images: Annotated[int, Field(ge=4, le=MANY)] = 300
    positions: Literal["weighted", "uniform"] = "weighted"
    selection: Literal["projected", "lasso"] = "projected"


class GraphModel(_Strict):
    """The explanatory graph of the audit's layers."""

    dataset: str = "main"
    category: str | None = None
    images: Annotated[int, Field(ge=10, le=MANY)] = 200
    filters: Annotated[int, Field(ge=1, le=MANY)] | None = 64
    rounds: Annotated[int, Field(ge=1, le=MANY)] = 20
    permutations: Resamples = 200


class PartsModel(_Strict):
    """Parts mined from a few boxes."""

    dataset: str = "main"
    category: str | None = None
    images: Annotated[int, Field(ge=10, le=MANY)] = 200
    filters: Annotated[int, Field(ge=1, le=MANY)] = 128
    boxes: Annotated[list[Annotated[int, Field(ge=2, le=MANY)]], Field(min_length=1)] = [3, 6, 12]
    draws: Annotated[int, Field(ge=1, le=MANY)] = 5


Method = Literal[
    "gradient", "deconvolution", "guided", "input x gradient", "integrated gradients", "smoothgrad", "grad-cam"
]
Count = Annotated[int, Field(ge=1, le=MANY)]


class SaliencyModel(_Strict):
    """Saliency maps of the predicted class."""

    dataset: str = "main"
    images: Count = 12
    methods: Annotated[list[Method], Field(min_length=1)] = list(get_args(Method))


class FeaturesModel(_Strict):
    """Feature visualisation."""

    dataset: str = "main"
    units: Count = 16
    objective: Literal["channel", "neuron", "layer", "direction", "negative"] = "channel"
    steps: Count = 512
    batch: Count = 8


class OcclusionModel(_Strict):
    """Empirical receptive fields, minimal images."""

    dataset: str = "main"
    units: Count = 8
    top_images: Count = 10
    width: Count = 11
    stride: Count = 3
    minimal_images: Annotated[int, Field(ge=0, le=MANY)] = 8
    segments: Annotated[int, Field(ge=2, le=MANY)] = 40


class ReliabilityModel(_Strict):
    """Tests that a saliency method has to pass."""

    dataset: str = "main"
    images: Annotated[int, Field(ge=2, le=MANY)] = 16
    methods: Annotated[list[Method], Field(min_length=1)] = list(get_args(Method))
    layers: Annotated[int, Field(ge=2, le=MANY)] = 5
    invariance_error: Annotated[float, Field(gt=0)] = 1e-3
    randomised_cosine: Annotated[float, Field(gt=0, lt=1)] = 0.2
    class_cosine: Annotated[float, Field(gt=0, lt=1)] = 0.8


class AdversarialModel(_Strict):
    """Attacks, and what moves inside."""

    dataset: str = "main"
    images: Annotated[int, Field(ge=2, le=MANY)] = 64
    eps: Annotated[list[Annotated[float, Field(gt=0, le=255)]], Field(min_length=1)] = [1.0, 4.0]
    norms: Annotated[list[Literal["linf", "l2"]], Field(min_length=1)] = ["linf"]
    steps: Count = 20


class ReportModel(_Strict):
    """The report."""

    top_images: Annotated[int, Field(ge=1, le=20)] = 5


class StagesModel(_Strict):
    """The stages that are asked for."""

    dissection: DissectionModel | None = None
    stability: StabilityModel | None = None
    finetuning: FinetuningModel | None = None
    tree: TreeModel | None = None
    graph: GraphModel | None = None
    parts: PartsModel | None = None
    saliency: SaliencyModel | None = None
    features: FeaturesModel | None = None
    occlusion: OcclusionModel | None = None
    reliability: ReliabilityModel | None = None
    adversarial: AdversarialModel | None = None
    report: ReportModel | None = ReportModel()

    @model_validator(mode="before")
    @classmethod
    def _named_without_options(cls, value: Any) -> Any:
        """`dissection:` with nothing after it asks for the stage with its defaults; `false` does without it."""
        if not isinstance(value, dict):
            return value
        return {key: {} if inner is None else None if inner is False else inner for key, inner in value.items()}


class GateModel(_Strict):
    """What makes an audit fail: one of min, max, max_drop."""

    metric: Annotated[str, Field(pattern=r"^(layers|units)\.\w+$")]
    min: float | None = None
    max: float | None = None
    max_drop: Share | None = None
    layer: str | None = None
    baseline: str | None = None
    certain: bool = False

    @model_validator(mode="after")
    def _one_limit(self) -> GateModel:
        if sum(limit is not None for limit in (self.min, self.max, self.max_drop)) != 1:
            raise ValueError("must have exactly one of min, max, max_drop")
        return self


class ExecutionModel(_Strict):
    """How it is carried out; none of it changes a result but `precision`."""

    runner: Literal["local"] = "local"
    precision: Literal["float32", "float16"] = "float32"
    storage: Literal["auto", "none", "lz4", "zstd"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    shard_images: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class AuditModel(_Strict):
    """The whole file."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
    network: NetworkModel
    dataset: DatasetModel | None = None
    datasets: dict[str, DatasetModel] = {}
    workspace: Word = ".microtome"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # scikit-learn takes no more
    device: Literal["auto", "cpu", "cuda"] = "auto"
    stages: StagesModel
    gates: list[GateModel] = []
    execution: ExecutionModel = ExecutionModel()

    @model_validator(mode="after")
    def _data_sets(self) -> AuditModel:
        if (self.dataset is None) == (not self.datasets):
            raise ValueError("must have either `dataset` or `datasets`")
        return self

    @property
    def named_datasets(self) -> Mapping[str, DatasetModel]:
        """Data sets by name; a single one is called `main`."""
        return self.datasets or {"main": self.dataset}  # type: ignore[dict-item]


def read_audit(file: Path, overrides: Sequence[str] = ()) -> AuditModel:
    """Read and check an audit file.

    Args:
        file: YAML.
        overrides: `dotted.key=value`, values in YAML.

    Raises:
        InputError: no such file, no YAML, or keys and values that are not allowed; all of them, with lines.
    """
    content = read_yaml(file)
    for option in overrides:
        override(content.value, option)
    try:
        return AuditModel.model_validate(content.value)
    except ValidationError as error:
        raise InputError([_fault(file, content.lines, fault) for fault in error.errors()]) from error


def _fault(file: Path, lines: Mapping[tuple[str | int, ...], int], fault: Any) -> str:
    path = tuple(fault["loc"])
    known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in lines), ())
    where = f"{file}:{lines[known]}" if known else str(file)
    key = ".".join(str(part) for part in path)
    if fault["type"] == "extra_forbidden":
        allowed = _keys_beside(path)
        return f"{where}: {key}: unknown key{suggest(str(path[-1]), allowed)}"
    if fault["type"] == "missing":
        return f"{where}: {key}: is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {key + ': ' if key else ''}{message[:1].lower() + message[1:]}, got {fault['input']!r:.80}"


def _keys_beside(path: Sequence[str | int]) -> list[str]:
    """Keys that are allowed where the last one of `path` stands."""
    model: type[BaseModel] = AuditModel
    for part in path[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            found = _model_in(model.model_fields[part].annotation)
            model = found or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)
