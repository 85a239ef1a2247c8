"""The audit file: read, checked whole before anything runs, every fault named with its line and key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, create_model, model_validator
from pydantic_core import ErrorDetails

from flows.yamlfile import override, read_yaml
from microtome.disentangle.names import LAYERS
from microtome.errors import InputError, suggest
from tasks.gates import GateModel, gate_faults
from tasks.options import Options, Strict
from tasks.planning import AuditFile
from tasks.registry import METRICS, STAGES
from tasks.report import STAGE as REPORT


def _stages_model() -> type[Strict]:
    """`stages:` of the audit file, from the registry: a key per stage that can be asked for."""
    fields: dict[str, Any] = {
        stage.name: (stage.options | None, stage.options() if stage is REPORT else None)
        for stage in STAGES
        if stage.plan
    }
    return create_model("StagesModel", __base__=_Asked, __doc__="The stages that are asked for.", **fields)


class _Asked(Strict):
    @model_validator(mode="before")
    @classmethod
    def _named_without_options(cls, value: object) -> object:
        """`dissection:` with nothing after it asks for the stage with its defaults; `false` does without it."""
        if not isinstance(value, dict):
            return value
        return {key: {} if inner is None else None if inner is False else inner for key, inner in value.items()}

    @model_validator(mode="after")
    def _something(self) -> _Asked:
        if not self.asked:
            raise ValueError("must ask for at least one stage")
        return self

    @property
    def asked(self) -> dict[str, Options]:
        """Options of the stages that are asked for, in the order in which they are planned."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: options for name, options in found.items() if options is not None}


StagesModel = _stages_model()


class AuditModel(AuditFile):
    """The whole file."""

    stages: StagesModel  # type: ignore[valid-type]  # made from the registry
    """What is asked for: a key for each stage, with its options."""
    gates: list[GateModel] = []
    """Demands on the figures; one that is not met makes the audit's exit status 1."""

    @model_validator(mode="after")
    def _gates_ask_for_figures(self) -> AuditModel:
        unknown = [gate.metric for gate in self.gates if gate.metric not in METRICS]
        if unknown:
            raise ValueError(f"gates: no stage measures {unknown[0]!r}{suggest(unknown[0], list(METRICS))}")
        more = LAYERS if "finetuning" in self.asked else ()
        faults = [
            f"gates.{number}{fault}"
            for number, gate in enumerate(self.gates)
            for fault in gate_faults(gate, METRICS[gate.metric], self.network.layers, more)
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def asked(self) -> dict[str, Options]:
        """Options of the stages that are asked for, in the order in which they are planned."""
        found: dict[str, Options] = self.stages.asked  # type: ignore[attr-defined]  # as above
        return found


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
    return understood(content.value, str(file), content.lines)


def understood(content: object, where: str, lines: Mapping[tuple[str | int, ...], int] = {}) -> AuditModel:
    """What an audit file holds, checked.

    Args:
        content: as JSON values.
        where: it comes from, for the error.
        lines: of the keys, as far as they are known.

    Raises:
        InputError: keys and values that are not allowed; all of them.
    """
    try:
        return AuditModel.model_validate(content)
    except ValidationError as error:
        raise InputError([_fault(where, lines, fault) for fault in error.errors()]) from error


def _fault(source: str, lines: Mapping[tuple[str | int, ...], int], fault: ErrorDetails) -> str:
    path = tuple(fault["loc"])
    known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in lines), ())
    where = f"{source}:{lines[known]}" if known else source
    key = ".".join(str(part) for part in path)
    if fault["type"] == "extra_forbidden":
        allowed = _keys_beside(path)
        return f"{where}: {key}: unknown key{suggest(str(path[-1]), allowed)}"
    if fault["type"] == "missing":
        return f"{where}: {key}: is missing"
    message = fault["msg"].removeprefix("Value error, ")
    got = "" if message.startswith("gates.") else f", got {fault['input']!r:.80}"  # these say themselves what they got
    return f"{where}: {key + ': ' if key else ''}{message[:1].lower() + message[1:]}{got}"


def _keys_beside(path: Sequence[str | int]) -> list[str]:
    """Keys that are allowed where the last one of `path` stands."""
    model: type[BaseModel] = AuditModel
    for part in path[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            found = _model_in(model.model_fields[part].annotation)
            model = found or model
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)
