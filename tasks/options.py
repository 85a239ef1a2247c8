"""What an audit file may say of a stage: a pydantic model for each, and the kinds of values that they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Outside:
    """Mark of an option that says where something is or how it is carried out, and so does not determine a result."""


class NamesLayer:
    """Mark of an option that names a layer of the network: it is looked at before the first stage."""


OUTSIDE = Outside()
LAYER = NamesLayer()
DatasetName = Annotated[str, OUTSIDE]
Share = Annotated[float, Field(gt=0, lt=1)]
MANY = 1_000_000_000  # more is a slip of the finger, and more than some libraries can count
Count = Annotated[int, Field(ge=1, le=MANY)]
Several = Annotated[int, Field(ge=2, le=MANY)]
Number = Annotated[int, Field(ge=0, le=MANY)]
Positive = Annotated[float, Field(gt=0)]
Word = Annotated[str, Field(min_length=1)]
Words = Annotated[list[Word], Field(min_length=1)]
Resamples = Annotated[int, Field(ge=0, le=1_000_000)]  # more would only take for ever
Side = Annotated[int, Field(ge=1, le=16384)]
Size = tuple[Side, Side]  # height, width in pixels
AnyOptions = TypeVar("AnyOptions", bound="Options")


class Strict(BaseModel):
    """A part of the audit file: frozen, and without keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML's `true` and `yes` would pass for 1."""
        wanted = set(kinds_of(cls.model_fields[str(info.field_name)].annotation))
        if wanted & {int, float} and not wanted & {bool, Any} and _holds_flag(value):
            raise ValueError("must be a number, not true or false")
        return value


def kinds_of(annotation: object) -> Iterator[object]:
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from kinds_of(part)


def _holds_flag(value: object) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_flag, value))
    return isinstance(value, bool)


class Options(Strict):
    """Options of a stage. Every one is part of the result's name, but those marked as `OUTSIDE`."""

    def determining(self) -> dict[str, object]:
        """The options that determine the result, as JSON values."""
        outside = {name for name, field in type(self).model_fields.items() if OUTSIDE in field.metadata}
        return self.model_dump(mode="json", exclude=outside)

    @property
    def layers_named(self) -> dict[str, str]:
        """Layers of the network, by the options that name them."""
        marked = (name for name, field in type(self).model_fields.items() if LAYER in field.metadata)
        return {name: layer for name in marked if (layer := getattr(self, name)) is not None}

    def narrowed(self, kind: type[AnyOptions]) -> AnyOptions:
        """The part of the options that another stage has, too."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


class Lighting(Options):
    """How a unit's map becomes a mask of the pixels that it lights."""

    tail: Share = 0.005
    """Share of a unit's values, over all pictures and places, that lie above its threshold."""
    align: Literal["receptive-field", "half-pixel"] = "receptive-field"
    """Where a map's cells lie in the picture: at the centres of their receptive fields, or evenly spread."""
    inclusive: bool = False
    """Whether a value that equals the threshold counts as above it."""
